//! The API: routes of contract §5 over the store. Extractors prove the caller and the input; handlers are one sentence each.

mod activity;
mod apps;
mod attempts;
mod auth;
mod brakes;
mod counted;
mod credential_check;
mod credentials;
mod dashboard;
mod devices;
mod docs;
mod events;
mod extract;
mod health;
mod listen;
mod live;
mod me;
mod openapi;
mod operations;
mod origins;
mod page;
mod problem;
mod snapshots;
mod stats;
mod sync;
mod timeline;
mod traced;

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
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use secrecy::SecretString;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::listen::serve;
use self::{auth::Limiters, counted::CountLayer, origins::AnyOrigin, problem::Problem};
use crate::{
    domain::{credential::AnyTokenUri, time::Clock},
    live::Live,
    secret::Secrets,
    store::Store,
    telemetry::traces,
    transport::Transports,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The API; cloning it is cheap, for every request does so.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// What it needs.
pub struct Inner {
    store: Store,
    live: Live,
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
    /// Who is connected.
    pub live: Live,
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
            live: parts.live,
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
        let (routes, description) = described().split_for_parts();
        wrap(routes.merge(docs::routes(openapi::complete(description))).merge(dashboard::routes()), self)
    }

    /// The routes of the admin listener, where readiness detail needs no key.
    pub fn admin_router(self) -> Router {
        let routes =
            Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz_in_detail));
        wrap(routes.route("/metrics", get(health::metrics_without_key)), self)
    }
}

/// The description of the API (OpenAPI 3.1), as `/openapi.json` serves it.
pub fn description() -> serde_json::Value {
    openapi::complete(described().into_openapi())
}

/// The routes together with what they say of themselves: none can be added without.
fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::frame())
        // For the operator.
        .routes(routes!(apps::create, apps::list))
        .routes(routes!(apps::show, apps::update, apps::remove))
        .routes(routes!(apps::create_key, apps::list_keys))
        .routes(routes!(apps::remove_key))
        // For backends.
        .routes(routes!(credentials::list))
        .routes(routes!(credentials::put_default, credentials::show_default, credentials::remove_default))
        .routes(routes!(credentials::put, credentials::show, credentials::remove))
        .routes(routes!(credential_check::check_default))
        .routes(routes!(credential_check::check))
        .routes(routes!(brakes::list))
        .routes(routes!(brakes::release))
        .routes(routes!(devices::register, devices::list))
        .routes(routes!(devices::show, devices::update, devices::remove))
        .routes(routes!(devices::follow, devices::unfollow))
        .routes(routes!(events::test_device))
        .routes(routes!(operations::erase_user))
        .routes(routes!(operations::erase_feed))
        .routes(routes!(operations::show))
        .routes(routes!(events::accept, events::list))
        .routes(routes!(events::show))
        // What happened.
        .routes(routes!(attempts::of_event))
        .routes(routes!(attempts::list))
        .routes(routes!(timeline::show))
        .routes(routes!(activity::list))
        .routes(routes!(stats::show))
        .merge(for_devices())
        // The service's own.
        .routes(routes!(me::show))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::limits))
        .routes(routes!(health::explain))
}

/// Those that devices come to by themselves, browsers among them.
fn for_devices() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new()
        .routes(routes!(sync::sync))
        .routes(routes!(sync::ack))
        .routes(routes!(live::stream::stream))
        .routes(routes!(live::socket::open))
        .routes(routes!(live::ticket::make))
        .routes(routes!(snapshots::of_device))
        .routes(routes!(sync::feed))
        .routes(routes!(snapshots::of_feed))
        .routes(routes!(devices::show_none, devices::update_me, devices::remove_me));
    let (routes, description) = routes.split_for_parts();
    // What asks whether it may is a method that no route has.
    let routes = routes.method_not_allowed_fallback(method_not_allowed).layer(AnyOrigin::default());
    let mut described = OpenApiRouter::from(routes);
    *described.get_openapi_mut() = description;
    described
}

async fn method_not_allowed() -> Problem {
    Problem::new(problem::METHOD_NOT_ALLOWED, "the route takes the methods that the header Allow lists")
}

fn wrap(routes: Router<Api>, api: Api) -> Router {
    let metrics = api.store.metrics().clone();
    routes
        .fallback(async || Problem::not_found("route"))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
        // At one go, for each that the router is given is a box that a request that waits keeps. The first is the outermost.
        .layer(
            ServiceBuilder::new()
                .map_request(own_request_id)
                .layer(SetRequestIdLayer::new(REQUEST_ID, NewRequestId))
                .layer(PropagateRequestIdLayer::new(REQUEST_ID))
                .layer(TraceLayer::new_for_http().make_span_with(span))
                .layer(CountLayer(metrics))
                .option_layer(traces::are_on().then(|| middleware::from_fn(traced::trace)))
                .map_response(|response: Response<_>| response.map(Body::new))
                .layer(CatchPanicLayer::custom(panicked)),
        )
}

/// Gives every request an id of ours, unless it brings one.
#[derive(Clone)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok().map(RequestId::new)
    }
}

/// An id that is too long or not printable would spoil the log; such a request gets one of ours. One that is sound is copied: the request is
/// answered with it, and until then it would keep all that was read of the connection.
fn own_request_id(mut request: Request<Body>) -> Request<Body> {
    let sound = |id: &[u8]| id.len() <= 128 && !id.is_empty() && id.iter().all(u8::is_ascii_graphic);
    if let Some(id) = request.headers_mut().remove(REQUEST_ID)
        && sound(id.as_bytes())
        && let Ok(id) = HeaderValue::from_bytes(id.as_bytes())
    {
        request.headers_mut().insert(REQUEST_ID, id);
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
