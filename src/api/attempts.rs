//! Attempts: every call to a provider, for who asks what happened.

use axum::{Json as Body, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::{self, ListQuery, Path, Query},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        id::{DeviceId, EventId, WakeId},
        key::Scope,
        push::Outcome,
        time::Timestamp,
    },
    store::{Attempt, AttemptFilter},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptsQuery {
    device: Option<DeviceId>,
    wake: Option<WakeId>,
    outcome: Option<Outcome>,
    since: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub async fn list(State(api): State<Api>, caller: Caller, Query(query): Query<AttemptsQuery>) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite, Scope::DevicesRead])?;
    let limit = extract::limit(query.limit, extract::LIST_DEFAULT)?;
    let filter = AttemptFilter { device: query.device, wake: query.wake, outcome: query.outcome, since: query.since };
    let attempts = api.store.attempts(app, filter, &query.cursor.unwrap_or_default(), limit).await?;
    Ok(extract::list(attempts, limit, |attempt| attempt.id, show))
}

pub async fn of_event(
    State(api): State<Api>,
    caller: Caller,
    Path(event): Path<EventId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite])?;
    let stored = api.store.event(app, event).await?.ok_or_else(|| Problem::not_found("event"))?;
    let (cursor, limit) = query.page()?;
    let after = cursor.split_once('.').unwrap_or_default();
    let attempts = api.store.attempts_for_event(app, stored.event.position, after, limit).await?;
    Ok(extract::list(attempts, limit, |attempt| format!("{}.{}", attempt.device, attempt.id), show))
}

/// An attempt as contract §7 has it.
pub(super) fn show(attempt: &Attempt) -> Value {
    json!({
        "id": attempt.id,
        "wake": attempt.wake,
        "device": attempt.device,
        "transport": attempt.transport,
        "class": attempt.class,
        "try": attempt.tries,
        "head": attempt.head,
        "started_at": attempt.started_at,
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "reason": attempt.reason,
        "provider_id": attempt.provider_id,
        "retry_at": attempt.retry_at,
        "bytes": attempt.bytes,
    })
}
