//! Requests as spans of a trace, which goes on from the caller's `traceparent`.

use axum::{body::Body, extract::MatchedPath, http::Request, middleware::Next, response::Response};
use tracing::{Instrument as _, field::Empty};

use super::{REQUEST_ID, counted, extract::header};
use crate::telemetry::traces;

/// Asked every few seconds by machines, and of no update.
const NOT_TOLD: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// The layer around all routes, where anybody collects traces.
pub async fn trace(request: Request<Body>, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    if NOT_TOLD.contains(&route) {
        return next.run(request).await;
    }
    let method = counted::word(request.method());
    let span = tracing::info_span!(
        target: traces::TARGET,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        reveille.request_id = header(request.headers(), REQUEST_ID.as_str()),
    );
    if let Some(parent) = header(request.headers(), "traceparent") {
        traces::continue_from(&span, parent);
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}
