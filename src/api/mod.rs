//! The API: routes of contract §5 over the store. Extractors prove the caller and the input; handlers are one sentence each.

mod apps;
mod attempts;
mod auth;
mod brakes;
mod credential_check;
mod credentials;
mod devices;
mod events;
mod extract;
mod health;
mod operations;
mod problem;
mod snapshots;
mod stats;
mod sync;
mod timeline;

use std::{
    any::Any,
    ops::Deref,
    sync::{Arc, atomic::AtomicI64},
};

use axum::{
    Router,
    body::Body,
    extract::MatchedPath,
    http::{HeaderName, HeaderValue, Request},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use secrecy::SecretString;
use tower::util::MapRequestLayer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
};

use self::{auth::Limiters, problem::Problem};
use crate::{
    domain::{credential::AnyTokenUri, time::Clock},
    secret::Secrets,
    store::Store,
    transport::Transports,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The API; cloning it is cheap, for every request does so.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// What it needs.
pub struct Inner {
    store: Store,
    transports: Transports,
    secrets: Secrets,
    clock: Clock,
    operator_key: Option<SecretString>,
    public_url: Arc<str>,
    any_token_uri: AnyTokenUri,
    dispatcher_beat: Option<Arc<AtomicI64>>,
    limiters: Limiters,
}

impl Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What an [`Api`] is made of.
pub struct ApiParts {
    /// Everything that is kept.
    pub store: Store,
    /// The ways to the providers.
    pub transports: Transports,
    /// The keys that cursors are signed with.
    pub secrets: Secrets,
    /// Where the time comes from.
    pub clock: Clock,
    /// The key to the operator's routes; without one they are closed.
    pub operator_key: Option<SecretString>,
    /// The URL under which phones reach the relay, without a slash at its end.
    pub public_url: String,
    /// Whether service accounts may name another token endpoint than Google's.
    pub any_token_uri: AnyTokenUri,
    /// When this process' dispatcher last looked, in milliseconds since the epoch, if it has one.
    pub dispatcher_beat: Option<Arc<AtomicI64>>,
}

impl Api {
    /// An API over its parts.
    pub fn new(parts: ApiParts) -> Self {
        Self(Arc::new(Inner {
            store: parts.store,
            transports: parts.transports,
            secrets: parts.secrets,
            clock: parts.clock,
            operator_key: parts.operator_key,
            public_url: parts.public_url.into(),
            any_token_uri: parts.any_token_uri,
            dispatcher_beat: parts.dispatcher_beat,
            limiters: Limiters::default(),
        }))
    }

    /// The canonical polling endpoint, as pushes and registrations carry it.
    pub fn poll_url(public_url: &str) -> String {
        format!("{public_url}/v1/sync")
    }

    /// All routes.
    pub fn router(self) -> Router {
        let operator = Router::new()
            .route("/v1/apps", post(apps::create).get(apps::list))
            .route("/v1/apps/{app}", get(apps::show).patch(apps::update).delete(apps::remove))
            .route("/v1/apps/{app}/keys", post(apps::create_key).get(apps::list_keys))
            .route("/v1/apps/{app}/keys/{key}", delete(apps::remove_key));
        let app = Router::new()
            .route("/v1/credentials", get(credentials::list))
            .route(
                "/v1/credentials/{transport}",
                put(credentials::put_default).get(credentials::show_default).delete(credentials::remove_default),
            )
            .route(
                "/v1/credentials/{transport}/{name}",
                put(credentials::put)
                    .get(credentials::show)
                    .delete(credentials::remove)
                    .post(credential_check::check_default),
            )
            .route("/v1/credentials/{transport}/{name}/check", post(credential_check::check))
            .route("/v1/brakes", get(brakes::list))
            .route("/v1/brakes/{transport}/{environment}/release", post(brakes::release))
            .route("/v1/devices", post(devices::register).get(devices::list))
            .route("/v1/devices/me", get(devices::show_none).patch(devices::update_me).delete(devices::remove_me))
            .route("/v1/devices/{device}", get(devices::show).patch(devices::update).delete(devices::remove))
            .route("/v1/devices/{device}/timeline", get(timeline::show))
            .route("/v1/devices/{device}/test", post(events::test_device))
            .route("/v1/devices/{device}/feeds/{feed}", put(devices::follow).delete(devices::unfollow))
            .route("/v1/users/{user}", delete(operations::erase_user))
            .route("/v1/feeds/{feed}", delete(operations::erase_feed))
            .route("/v1/operations/{operation}", get(operations::show))
            .route("/v1/events", post(events::accept))
            .route("/v1/events/{event}", get(events::show))
            .route("/v1/events/{event}/attempts", get(attempts::of_event))
            .route("/v1/attempts", get(attempts::list))
            .route("/v1/stats", get(stats::show));
        let polling = Router::new()
            .route("/v1/sync", get(sync::sync))
            .route("/v1/sync/ack", post(sync::ack))
            .route("/v1/sync/snapshot", get(snapshots::of_device))
            .route("/v1/feeds/{feed}/events", get(sync::feed))
            .route("/v1/feeds/{feed}/snapshot", get(snapshots::of_feed));
        let service = Router::new()
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/v1/limits", get(health::limits))
            .route("/problems/{slug}", get(health::explain));
        let routes = Router::new().merge(operator).merge(app).merge(polling).merge(service);
        wrap(routes, self)
    }

    /// The routes of the admin listener, where readiness detail needs no key.
    pub fn admin_router(self) -> Router {
        let routes =
            Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz_in_detail));
        wrap(routes, self)
    }
}

fn wrap(routes: Router<Api>, api: Api) -> Router {
    routes
        .fallback(async || Problem::not_found("route"))
        .method_not_allowed_fallback(async || {
            Problem::new(problem::METHOD_NOT_ALLOWED, "see the contract for this route")
        })
        .with_state(api)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, NewRequestId))
        .layer(MapRequestLayer::new(drop_odd_request_id))
}

/// Gives every request an id of ours, unless it brings one.
#[derive(Clone)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok().map(RequestId::new)
    }
}

/// An id that is too long or not printable would spoil the log; such a request gets one of ours.
fn drop_odd_request_id(mut request: Request<Body>) -> Request<Body> {
    let sound = |id: &HeaderValue| id.len() <= 128 && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic);
    if request.headers().get(REQUEST_ID).is_some_and(|id| !sound(id)) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

/// The span names the route, not the path: that may hold a user's name, and its query a cursor.
fn span(request: &Request<Body>) -> tracing::Span {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    tracing::info_span!("request", method = %request.method(), route, id)
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Problem::new(problem::INTERNAL, "a handler panicked").into_response()
}
