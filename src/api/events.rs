//! Events: accepted one or many at a time, and what has become of them.

use axum::{
    Json as Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, Path, Raw, header},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        Invalid,
        event::{Class, Event, EventDraft, NewEvent, Op, WakeClass, WakeSpec},
        feed::{FeedName, Position},
        id::{self, DeviceId, EventId},
        key::Scope,
        limits,
        push::Trigger,
        time::Timestamp,
    },
    secret,
    store::{Accept, Accepted, EventCounts, EventState, Idempotency},
    transport,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// W3C Trace Context: version, trace id, parent id, flags.
const TRACEPARENT_CHARS: usize = 55;

pub async fn accept(
    State(api): State<Api>,
    caller: Caller,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response> {
    let app = caller.app(&[Scope::EventsWrite])?;
    let idempotency = idempotency(&headers, &method, uri.path(), &body)?;
    let many = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let events = if many { read_many(&body)? } else { vec![read_one(&body)?] };
    for (index, event) in events.iter().enumerate() {
        api.measure(event).map_err(|problem| if many { problem.with("index", index) } else { problem })?;
    }
    let traceparent =
        header(&headers, "traceparent").filter(|value| value.len() == TRACEPARENT_CHARS).map(str::to_owned);
    let (events, replayed) = match api.store.accept(Accept { app, idempotency, events, traceparent }).await? {
        Accepted::New(events) => (events, false),
        Accepted::Replayed(events) => (events, true),
        Accepted::KeyReused => {
            return Err(Problem::new(problem::KEY_REUSED, "the key was used for another body in the last 24 hours"));
        }
        Accepted::NoApp => return Err(Problem::not_found("app")),
    };
    Ok(answer(&events, many, replayed))
}

/// `{class}` of a test event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestDraft {
    class: Class,
}

/// Wakes one device with an event in its own feed, so that a person can see it arrive.
pub async fn test_device(
    State(api): State<Api>,
    caller: Caller,
    Path(device): Path<DeviceId>,
    Json(draft): Json<TestDraft>,
) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let device = api.store.device(app, device).await?.ok_or_else(|| Problem::not_found("device"))?;
    let event = NewEvent::test(device.id, draft.class);
    let accept = Accept { app, idempotency: None, events: vec![event], traceparent: None };
    match api.store.accept(accept).await? {
        Accepted::New(events) => Ok(answer(&events, false, false)),
        _ => Err(Problem::not_found("app")),
    }
}

pub async fn show(State(api): State<Api>, caller: Caller, Path(event): Path<EventId>) -> Result<Response> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite])?;
    let stored = api.store.event(app, event).await?.ok_or_else(|| Problem::not_found("event"))?;
    let (state, counts) = api.store.event_status(app, &stored).await?;
    let view = StatusView {
        event: EventView::of(&stored.event),
        accepted_at: stored.event.accepted_at,
        state,
        devices: counts,
        traceparent: stored.traceparent.as_deref(),
    };
    Ok(Body(view).into_response())
}

fn read_one(body: &[u8]) -> Result<NewEvent> {
    Ok(extract::parse::<EventDraft>(body)?.check()?)
}

fn read_many(body: &[u8]) -> Result<Vec<NewEvent>> {
    let drafts: Vec<EventDraft> = extract::parse(body)?;
    if drafts.is_empty() || drafts.len() > limits::BATCH_EVENTS {
        return Err(Problem::field(
            "",
            format!("a batch has 1 to {} events, this one has {}", limits::BATCH_EVENTS, drafts.len()),
        ));
    }
    let mut events = Vec::with_capacity(drafts.len());
    let mut errors: Vec<Invalid> = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        match draft.check() {
            Ok(event) => events.push(event),
            Err(wrong) => errors.extend(wrong.into_iter().map(|error| error.within(&format!("/{index}")))),
        }
    }
    if errors.is_empty() { Ok(events) } else { Err(errors.into()) }
}

fn idempotency(headers: &HeaderMap, method: &Method, path: &str, body: &[u8]) -> Result<Option<Idempotency>> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(None);
    }
    let key = header(headers, IDEMPOTENCY_KEY).unwrap_or_default();
    let chars = key.chars().count();
    if chars == 0 || chars > limits::IDEMPOTENCY_KEY_CHARS {
        let detail = format!(
            "Idempotency-Key must have 1 to {} printable characters, has {chars}",
            limits::IDEMPOTENCY_KEY_CHARS
        );
        return Err(Problem::new(problem::INVALID, detail));
    }
    let fingerprint = secret::hash_all(&[method.as_str().as_bytes(), path.as_bytes(), body]);
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint }))
}

fn answer(events: &[Event], many: bool, replayed: bool) -> Response {
    #[derive(Serialize)]
    struct Items<'a> {
        items: Vec<AcceptedView<'a>>,
    }
    let view = |event| -> AcceptedView<'_> {
        let event: &Event = event;
        AcceptedView { event: EventView::of(event), accepted_at: event.accepted_at, state: EventState::Accepted }
    };
    let mut response = match events {
        [event] if !many => (StatusCode::ACCEPTED, Body(view(event))).into_response(),
        _ => (StatusCode::ACCEPTED, Body(Items { items: events.iter().map(view).collect() })).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    if let ([event], false) = (events, many)
        && let Ok(location) = HeaderValue::from_str(&format!("/v1/events/{}", event.id))
    {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// An event as pages show it; `data` goes out as it came in.
#[derive(Serialize)]
pub struct EventView<'a> {
    id: EventId,
    position: Position,
    feed: &'a FeedName,
    #[serde(rename = "type")]
    kind: &'a str,
    key: Option<&'a str>,
    op: Option<Op>,
    occurred_at: Timestamp,
    data: Option<&'a RawValue>,
    href: Option<&'a str>,
    wake: &'a WakeSpec,
}

impl<'a> EventView<'a> {
    /// What is shown of `event`.
    pub fn of(event: &'a Event) -> Self {
        let content = &event.content;
        Self {
            id: event.id,
            position: event.position,
            feed: &content.feed,
            kind: &content.kind,
            key: content.key.as_deref(),
            op: content.op,
            occurred_at: event.occurred_at,
            data: content.data.as_deref(),
            href: content.href.as_deref(),
            wake: &content.wake,
        }
    }
}

/// An event as the answer to its acceptance.
#[derive(Serialize)]
struct AcceptedView<'a> {
    #[serde(flatten)]
    event: EventView<'a>,
    accepted_at: Timestamp,
    state: EventState,
}

/// An event with what has become of it.
#[derive(Serialize)]
struct StatusView<'a> {
    #[serde(flatten)]
    event: EventView<'a>,
    accepted_at: Timestamp,
    state: EventState,
    devices: EventCounts,
    traceparent: Option<&'a str>,
}

impl Api {
    /// Refuses an event whose push no provider would take, measured at its longest.
    fn measure(&self, event: &NewEvent) -> Result<()> {
        if event.wake.class == WakeClass::None {
            return Ok(());
        }
        let now = self.clock.now();
        let trigger = Trigger {
            wake: id::new(now),
            head: Position(i64::MAX),
            feed: Some(event.feed.clone()),
            href: event.href.clone(),
            for_user: Some("00000000".to_owned()),
            alert: event.wake.alert.clone(),
            expires_at: now,
        };
        transport::measure(&trigger, &Self::poll_url(&self.public_url)).map_err(|too_large| {
            Problem::new(problem::TRIGGER_TOO_LARGE, too_large.to_string())
                .with("limit", too_large.limit)
                .with("actual", too_large.actual)
                .with("field", too_large.largest)
        })
    }
}
