//! Requests, counted by their route, which tells no names; polls also by what they were answered.
//!
//! A layer of our own and not a function: beside a poll, a boxed future and names that are looked up each time are felt.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::MatchedPath,
    http::{Method, Request},
    response::Response,
};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::page::NothingNew;
use crate::metrics::{Metrics, Requests};

/// Counts what the routes under it answer.
#[derive(Clone)]
pub struct CountLayer(pub Metrics);

/// A route that is counted.
#[derive(Clone)]
pub struct Counted<S> {
    service: S,
    route: Arc<Counts>,
}

/// What is counted of a route; which one it is, and by which method it is asked for, is known from its first request on.
struct Counts {
    metrics: Metrics,
    requests: OnceLock<Requests>,
}

impl Counts {
    fn count(&self, method: &'static str, response: &Response, took: Duration) {
        let Some(requests) = self.requests.get() else { return };
        let status = response.status().as_u16();
        if requests.method() == method {
            requests.answered(status, took);
        } else {
            // `HEAD`, or what the route does not know.
            self.metrics.requests(method, requests.route()).answered(status, took);
        }
        match (method, requests.route()) {
            ("GET", "/v1/sync") => self.metrics.polled("sync", result(response)),
            ("GET", "/v1/feeds/{feed}/events") => self.metrics.polled("feed", result(response)),
            _ => {}
        }
    }
}

impl<S> Layer<S> for CountLayer {
    type Service = Counted<S>;

    fn layer(&self, service: S) -> Counted<S> {
        Counted { service, route: Arc::new(Counts { metrics: self.0.clone(), requests: OnceLock::new() }) }
    }
}

impl<S: Service<Request<Body>, Response = Response, Error = Infallible>> Service<Request<Body>> for Counted<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Counting<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, began) = (word(request.method()), Instant::now());
        self.route.requests.get_or_init(|| {
            let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
            self.route.metrics.requests(method, route)
        });
        Counting { answer: self.service.call(request), route: Arc::clone(&self.route), method, began }
    }
}

pin_project! {
    /// A request that is being answered.
    pub struct Counting<F> {
        #[pin]
        answer: F,
        route: Arc<Counts>,
        method: &'static str,
        began: Instant,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Counting<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answer.poll(context));
        this.route.count(this.method, &response, this.began.elapsed());
        Poll::Ready(Ok(response))
    }
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
