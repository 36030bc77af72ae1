//! Requests, counted by their route, which tells no names; polls also by what they were answered.

use axum::{
    body::Body,
    extract::{MatchedPath, State},
    http::{Method, Request},
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use super::sync::NothingNew;
use crate::metrics::Metrics;

/// The layer around all routes.
pub async fn count(State(metrics): State<Metrics>, request: Request<Body>, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = word(request.method());
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics.answered(method, route, response.status().as_u16(), began.elapsed());
    match route {
        _ if method != "GET" => {}
        "/v1/sync" => metrics.polled("sync", result(&response)),
        "/v1/feeds/{feed}/events" => metrics.polled("feed", result(&response)),
        _ => {}
    }
    response
}

/// A method of HTTP; what somebody has made up has no name of its own.
pub(super) fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What a poll was answered.
fn result(response: &Response) -> &'static str {
    match response.status().as_u16() {
        200 if response.extensions().get::<NothingNew>().is_some() => "empty",
        200 => "page",
        204 => "no_content",
        304 => "not_modified",
        410 => "gone",
        400..=499 => "refused",
        _ => "failed",
    }
}
