//! Attempts: every call to a provider, for who asks what happened.

use axum::{Json as Body, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::{self, List, ListQuery, Path, Query},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        device::Transport,
        event::Class,
        feed::Position,
        id::{AttemptId, DeviceId, EventId, WakeId, kind},
        key::Scope,
        push::Outcome,
        time::Timestamp,
    },
    store::{Attempt, AttemptFilter},
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttemptsQuery {
    /// To this device only.
    #[param(value_type = Option<kind::Device>)]
    device: Option<DeviceId>,
    /// Of this wake only.
    #[param(value_type = Option<kind::Wake>)]
    wake: Option<WakeId>,
    /// That ended so.
    outcome: Option<Outcome>,
    /// Started at or after this.
    since: Option<Timestamp>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many attempts the page has at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Lists attempts
///
/// Every call to a provider is an attempt, written when it starts and completed when it ends.
#[utoipa::path(get, path = "/v1/attempts", operation_id = "listAttempts", tag = "what happened", params(AttemptsQuery),
    security(("appKey" = ["events:read"]), ("appKey" = ["events:write"]), ("appKey" = ["devices:read"])),
    responses((status = 200, description = "Attempts, newest first", body = List<AttemptView>)))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<AttemptsQuery>,
) -> Result<Body<List<AttemptView>>> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite, Scope::DevicesRead])?;
    let limit = extract::limit(query.limit, extract::LIST_DEFAULT)?;
    let filter = AttemptFilter { device: query.device, wake: query.wake, outcome: query.outcome, since: query.since };
    let attempts = api.store.attempts(app, filter, &query.cursor.unwrap_or_default(), limit).await?;
    Ok(extract::list(attempts, limit, |attempt| attempt.id, |attempt| AttemptView::of(&attempt)))
}

/// Lists the attempts that announced an event
#[utoipa::path(get, path = "/v1/events/{event}/attempts", operation_id = "listAttemptsOfEvent", tag = "events",
    params(("event" = kind::Event, Path, description = "The event"), ListQuery),
    security(("appKey" = ["events:read"]), ("appKey" = ["events:write"])),
    responses((status = 200, description = "Attempts by device, each device's oldest first", body = List<AttemptView>)))]
pub async fn of_event(
    State(api): State<Api>,
    caller: Caller,
    Path(event): Path<EventId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<List<AttemptView>>> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite])?;
    let stored = api.store.event(app, event).await?.ok_or_else(|| Problem::not_found("event"))?;
    let (cursor, limit) = query.page()?;
    let after = cursor.split_once('.').unwrap_or_default();
    let attempts = api.store.attempts_for_event(app, stored.event.position, after, limit).await?;
    Ok(extract::list(
        attempts,
        limit,
        |attempt| format!("{}.{}", attempt.device, attempt.id),
        |attempt| AttemptView::of(&attempt),
    ))
}

/// One call to a provider and its outcome.
#[derive(Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    #[schema(value_type = kind::Attempt)]
    id: AttemptId,
    /// The decision that it carries out; a wake has one or more attempts.
    #[schema(value_type = kind::Wake)]
    wake: WakeId,
    #[schema(value_type = kind::Device)]
    device: DeviceId,
    transport: Transport,
    class: Class,
    /// The how manieth of its wake.
    #[serde(rename = "try")]
    #[schema(minimum = 1)]
    tries: i64,
    /// Up to which position it announces news.
    head: Position,
    started_at: Timestamp,
    /// Null while it is under way.
    duration_ms: Option<i64>,
    /// Null while it is under way; `unknown` if the relay died during the call.
    outcome: Option<Outcome>,
    /// The HTTP status, if one came.
    status: Option<i64>,
    /// The provider's own word, or the relay's for trouble on the way.
    reason: Option<String>,
    /// The provider's id of the message: `apns-id`, or FCM's `name`.
    provider_id: Option<String>,
    /// When the wake is tried again.
    retry_at: Option<Timestamp>,
    /// Size of the payload.
    bytes: Option<i64>,
}

impl AttemptView {
    /// What is shown of `attempt`.
    pub fn of(attempt: &Attempt) -> Self {
        Self {
            id: attempt.id,
            wake: attempt.wake,
            device: attempt.device,
            transport: attempt.transport,
            class: attempt.class,
            tries: attempt.tries,
            head: attempt.head,
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome,
            status: attempt.status,
            reason: attempt.reason.clone(),
            provider_id: attempt.provider_id.clone(),
            retry_at: attempt.retry_at,
            bytes: attempt.bytes,
        }
    }
}
