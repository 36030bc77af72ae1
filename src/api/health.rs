//! The service's own routes: health, readiness, limits, and what problems mean.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use axum::{
    Json as Body,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    extract::Path,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        device::Transport,
        id::{AppId, kind},
        limits as table,
        time::Timestamp,
    },
    metrics::{self, Present},
    transport::RestingCredential,
};

/// A dispatcher that has not looked for this long is not ready.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// That the process answers.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    status: &'static str,
}

/// Whether the relay can do its work. What is beside `status` is for the operator key, and on the admin listener.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `not ready`
    status: &'static str,
    /// `ok` or `failing`
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    /// Transactions that the database ended for another's sake and that were tried again, since this process began.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_off_transactions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatcher: Option<DispatcherView>,
    /// Credentials whose breakers are not closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<Vec<BreakerView>>,
}

/// What the dispatcher of this process does.
#[derive(Serialize, ToSchema)]
#[schema(as = Dispatcher)]
#[serde(untagged)]
pub enum DispatcherView {
    /// It has none.
    Absent(&'static str),
    /// It has one.
    Here { last_looked_at: Timestamp, ok: bool },
}

/// A credential whose breaker is not closed. Its trouble is its provider's or its app's, so it says nothing about readiness.
#[derive(Serialize, ToSchema)]
#[schema(as = Breaker)]
pub struct BreakerView {
    #[schema(value_type = kind::App)]
    app: AppId,
    transport: Transport,
    name: String,
    /// `open` or `half-open`
    breaker: &'static str,
    /// Until when it is open.
    until: Option<Timestamp>,
}

impl BreakerView {
    /// What is shown of it.
    pub fn of(resting: &RestingCredential) -> Self {
        Self {
            app: resting.app,
            transport: resting.transport,
            name: resting.name.clone(),
            breaker: resting.stage.as_str(),
            until: resting.stage.until(),
        }
    }
}

/// Tells all metrics
///
/// In the OpenMetrics text format, for Prometheus; docs/operations/metrics.md is their table. With the operator key, or without on the
/// admin listener.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "service", security(("operatorKey" = [])),
    responses((status = 200, description = "The metrics of this process", body = String,
        content_type = "application/openmetrics-text")))]
pub async fn metrics(State(api): State<Api>, caller: Caller) -> Result<Response> {
    caller.operator()?;
    Ok(metrics_without_key(State(api)).await)
}

pub async fn metrics_without_key(State(api): State<Api>) -> Response {
    let text = api.store.metrics().text(&api.present().await);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// Tells that the process is alive
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "service", responses((status = 200, description = "It is", body = Health)))]
pub async fn healthz() -> Body<Health> {
    Body(Health { status: "ok" })
}

/// Tells whether the relay is ready
///
/// The database can be reached and the dispatcher looks. With the operator key, and on the admin listener, also why.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "service", security((), ("operatorKey" = [])),
    responses((status = 200, description = "It is", body = Readiness),
        (status = 503, description = "It is not", body = Readiness)))]
pub async fn readyz(State(api): State<Api>, caller: Result<Caller>) -> Response {
    let detail = caller.is_ok_and(|caller| caller.operator().is_ok());
    api.readiness(detail).await
}

pub async fn readyz_in_detail(State(api): State<Api>) -> Response {
    api.readiness(true).await
}

/// Lists all limits
///
/// Each name carries its unit.
#[utoipa::path(get, path = "/v1/limits", operation_id = "getLimits", tag = "service",
    responses((status = 200, description = "The limits by name", body = BTreeMap<String, u64>)))]
pub async fn limits() -> Body<BTreeMap<&'static str, u64>> {
    Body(table::TABLE.iter().copied().collect())
}

/// Explains a problem
#[utoipa::path(get, path = "/problems/{slug}", operation_id = "explainProblem", tag = "service",
    params(("slug" = String, Path, description = "The last part of a problem's `type`", example = "invalid")),
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html")))]
pub async fn explain(Path(slug): Path<String>) -> Result<Html<String>> {
    let kind = problem::KINDS.iter().find(|kind| kind.slug == slug).ok_or_else(|| Problem::not_found("problem"))?;
    let (status, title, help) = (kind.status.as_u16(), kind.title, kind.help.replace('<', "&lt;"));
    Ok(Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <body style=\"font:1rem/1.5 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem\">\
         <h1>{title}</h1><p><code>{slug}</code>, HTTP {status}</p><p>{help}</p></body></html>\n"
    )))
}

impl Api {
    /// What only shows at the moment of a scrape.
    async fn present(&self) -> Present {
        let census = self.store.census().await;
        if let Err(error) = &census {
            tracing::warn!(%error, "the database could not be asked for metrics");
        }
        let beat = self.dispatcher_beat.as_ref().map(|beat| Timestamp::from_ms(beat.load(Ordering::Relaxed)));
        let dispatcher_age = beat.map(|beat| self.clock.now().since(beat));
        let breakers = self.transports.all_breakers();
        Present {
            ready: self.store.ping().await.is_ok() && dispatcher_age.is_none_or(|age| age < LONGEST_SILENCE),
            traffic: self.transports.traffic(),
            breakers: breakers.iter().map(|resting| (resting.transport, resting.stage.as_str())).collect(),
            census: census.ok(),
            dispatcher_age,
            queues: self.store.queues(),
            broken_off: self.store.broken_off(),
        }
    }

    async fn readiness(&self, detail: bool) -> Response {
        let store = self.store.ping().await;
        let beat = self.dispatcher_beat.as_ref().map(|beat| Timestamp::from_ms(beat.load(Ordering::Relaxed)));
        let dispatcher = beat.is_none_or(|beat| self.clock.now().since(beat) < LONGEST_SILENCE);
        let ready = store.is_ok() && dispatcher;
        let status = if ready { "ready" } else { "not ready" };
        let mut body =
            Readiness { status, store: None, broken_off_transactions: None, dispatcher: None, credentials: None };
        if detail {
            body.store = Some(if store.is_ok() { "ok" } else { "failing" });
            body.broken_off_transactions = Some(self.store.broken_off());
            body.dispatcher = Some(match beat {
                None => DispatcherView::Absent("not in this process"),
                Some(last_looked_at) => DispatcherView::Here { last_looked_at, ok: dispatcher },
            });
            body.credentials = Some(self.transports.all_breakers().iter().map(BreakerView::of).collect());
        }
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Body(body)).into_response()
    }
}
