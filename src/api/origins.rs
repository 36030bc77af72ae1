//! Cross-origin requests (Fetch standard §3.2) of pages that listen or poll as devices. Who names no origin is no such page, and pays for nothing.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{
        HeaderName, Method, Request,
        header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, ORIGIN, RETRY_AFTER},
    },
    response::Response,
};
use futures_util::future::Either;
use tower::{Layer, Service};
use tower_http::cors::{self, Cors, CorsLayer};

use super::REQUEST_ID;

/// Lets pages of any origin in: it is the token that tells who asks, and no browser adds that of its own accord.
#[derive(Clone)]
pub struct AnyOrigin(Arc<CorsLayer>);

impl Default for AnyOrigin {
    fn default() -> Self {
        let name = HeaderName::from_static;
        let asked = [name("prefer"), name("last-event-id"), name("traceparent")];
        let cors = CorsLayer::new()
            .allow_origin(cors::Any)
            .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
            .allow_headers(
                [AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, REQUEST_ID].into_iter().chain(asked).collect::<Vec<_>>(),
            )
            .expose_headers([ETAG, RETRY_AFTER, REQUEST_ID, name("preference-applied")])
            // The answers are the same for all origins.
            .vary([])
            .max_age(Duration::from_secs(86_400));
        Self(Arc::new(cors))
    }
}

impl<S> Layer<S> for AnyOrigin {
    type Service = Open<S>;

    fn layer(&self, service: S) -> Open<S> {
        Open { service, cors: Arc::clone(&self.0) }
    }
}

/// A route that pages of any origin may ask.
#[derive(Clone)]
pub struct Open<S> {
    service: S,
    cors: Arc<CorsLayer>,
}

impl<S> Service<Request<Body>> for Open<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, <Cors<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.headers().contains_key(ORIGIN) {
            Either::Right(self.cors.layer(self.service.clone()).call(request))
        } else {
            Either::Left(self.service.call(request))
        }
    }
}
