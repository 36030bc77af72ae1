//! The description of the API as JSON and as pages for people, from this program alone.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde_json::Value;
use utoipa_swagger_ui::Config;

use super::{Api, dashboard, extract::Path, problem::Problem};

/// As for the dashboard, for a key is typed into this page as well; Swagger UI styles its elements one by one.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; \
                      form-action 'none'";

/// `/openapi.json` and `/docs`.
pub fn routes(description: Value) -> Router<Api> {
    let text: Arc<str> = description.to_string().into();
    // Relative to /docs/, so that it is found behind a proxy's prefix as well.
    let viewer = Arc::new(Config::from("../openapi.json"));
    let index = Arc::clone(&viewer);
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], text.to_string())))
        .route("/docs", get(async || Redirect::permanent("docs/")))
        .route("/docs/", get(async move || page("index.html", index)))
        .route("/docs/{file}", get(async move |Path(file): Path<String>| page(&file, viewer)))
}

/// A file of Swagger UI.
fn page(file: &str, viewer: Arc<Config<'static>>) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(file, viewer) else {
        return Problem::not_found("page").into_response();
    };
    let mut response = Response::new(Body::from(file.bytes.into_owned()));
    if let Ok(kind) = HeaderValue::from_str(&file.content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    dashboard::guard(&mut response, POLICY);
    response
}
