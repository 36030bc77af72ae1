//! The description of the API as JSON and as pages for people, from this program alone.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde_json::Value;
use utoipa_swagger_ui::Config;

use super::{Api, problem::Problem};

/// `/openapi.json` and `/docs`.
pub fn routes(description: Value) -> Router<Api> {
    let text: Arc<str> = description.to_string().into();
    // Relative to /docs/, so that it is found behind a proxy's prefix as well.
    let viewer = Arc::new(Config::from("../openapi.json"));
    Router::new()
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], text.to_string())))
        .route("/docs", get(async || Redirect::permanent("docs/")))
        .route(
            "/docs/",
            get({
                let viewer = Arc::clone(&viewer);
                async move || page("index.html", viewer)
            }),
        )
        .route("/docs/{file}", get(async move |Path(file): Path<String>| page(&file, viewer)))
}

/// A file of Swagger UI.
fn page(file: &str, viewer: Arc<Config<'static>>) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(file, viewer) else {
        return Problem::not_found("page").into_response();
    };
    let Ok(content_type) = HeaderValue::from_str(&file.content_type) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(file.bytes.into_owned()));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
