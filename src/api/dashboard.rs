//! The dashboard: files that are part of this program. They use the public API only, with a key that whoever opens them gives.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

use super::{
    Api,
    extract::{self, Path},
    problem::Problem,
};

#[derive(Embed)]
#[folder = "dashboard/"]
struct Files;

/// Nothing from elsewhere, nothing inline: a key is typed into this page.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// `/`, and what it is made of.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| page("index.html", &headers)))
        .route("/dashboard/{*file}", get(async |Path(file): Path<String>, headers: HeaderMap| page(&file, &headers)))
}

fn page(name: &str, request: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(name) else {
        return Problem::not_found("page").into_response();
    };
    let hash = metadata.sha256_hash().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let tag = format!("\"{hash}\"");
    let mut response = match extract::header(request, "if-none-match") {
        Some(known) if known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        _ => Response::new(Body::from(data.into_owned())),
    };
    guard(&mut response, POLICY);
    let headers = response.headers_mut();
    if let (Ok(kind), Ok(tag)) = (HeaderValue::from_str(metadata.mimetype()), HeaderValue::from_str(&tag)) {
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::ETAG, tag);
    }
    response
}

/// What a page that takes a key tells its browser.
pub(super) fn guard(response: &mut Response, policy: &'static str) {
    let fixed = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    response.headers_mut().extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
}
