//! The service's own routes: health, readiness, limits, and what problems mean.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    Json as Body,
    extract::State,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    Api,
    auth::Caller,
    extract::Path,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{limits as table, time::Timestamp},
    transport::RestingCredential,
};

/// A dispatcher that has not looked for this long is not ready.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

pub async fn healthz() -> Body<Value> {
    Body(json!({"status": "ok"}))
}

/// Readiness; the operator also sees why.
pub async fn readyz(State(api): State<Api>, caller: Result<Caller>) -> Response {
    let detail = caller.is_ok_and(|caller| caller.operator().is_ok());
    api.readiness(detail).await
}

pub async fn readyz_in_detail(State(api): State<Api>) -> Response {
    api.readiness(true).await
}

pub async fn limits() -> Body<Value> {
    Body(table::TABLE.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>().into())
}

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
    async fn readiness(&self, detail: bool) -> Response {
        let store = self.store.ping().await;
        let beat = self.dispatcher_beat.as_ref().map(|beat| Timestamp::from_ms(beat.load(Ordering::Relaxed)));
        let dispatcher = beat.is_none_or(|beat| self.clock.now().since(beat) < LONGEST_SILENCE);
        let ready = store.is_ok() && dispatcher;
        let mut body = json!({"status": if ready { "ready" } else { "not ready" }});
        if detail {
            body["store"] = if store.is_ok() { "ok" } else { "failing" }.into();
            body["broken_off_transactions"] = self.store.broken_off().into();
            body["dispatcher"] = match beat {
                None => "not in this process".into(),
                Some(beat) => json!({"last_looked_at": beat, "ok": dispatcher}),
            };
            body["credentials"] = self.transports.all_breakers().iter().map(show_breaker).collect();
        }
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Body(body)).into_response()
    }
}

/// A credential whose breaker is not closed. Its trouble is its provider's or its app's, so it says nothing about readiness.
pub fn show_breaker(resting: &RestingCredential) -> Value {
    json!({
        "app": resting.app, "transport": resting.transport, "name": resting.name,
        "breaker": resting.stage.as_str(), "until": resting.stage.until(),
    })
}
