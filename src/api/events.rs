//! Events: accepted one or many at a time, and what has become of them.

use axum::{
    Json as Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, List, Path, Query, Raw, header},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        Invalid,
        event::{Class, Event, EventDraft, NewEvent, Op, WakeClass, WakeSpec},
        feed::{FeedName, Position},
        id::{self, DeviceId, EventId, kind},
        key::Scope,
        limits,
        push::Trigger,
        time::Timestamp,
    },
    secret,
    store::{Accept, Accepted, EventCounts, EventState, Idempotency, StoredEvent},
    telemetry::traces,
    transport,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Appends events to feeds
///
/// One event, or an array of 1 to 100, all or nothing. When this is answered, the events, their positions, the idempotency record and
/// the intent to wake are on the disk; phones are woken after that.
#[utoipa::path(post, path = "/v1/events", operation_id = "appendEvents", tag = "events", security(("appKey" = ["events:write"])),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Stands for this request for 24 hours: the same key with the same body, byte for byte, gets the stored answer \
                with `Idempotency-Replayed: true` and appends nothing; with another body it is 422. Without it, a repetition appends again."),
        ("traceparent" = Option<String>, Header,
            description = "W3C Trace Context: kept with the events, and part of one trace with what follows. One that is malformed is ignored.")),
    request_body(content = EventsBody, examples(
        ("one" = (summary = "A silent wake", value = json!({"feed": "order:42", "type": "order.updated", "key": "order/42",
            "data": {"status": "packed"}}))),
        ("alert" = (summary = "Visible text", value = json!({"feed": "order:42", "type": "order.updated", "key": "order/42",
            "href": "https://api.example.com/orders/42", "data": {"status": "out_for_delivery"},
            "wake": {"class": "alert", "ttl_s": 3600, "alert": {"title": "Order 42", "body": "Your order is on its way"}}}))),
        ("several" = (summary = "Several, all or nothing", value = json!([{"feed": "order:42", "type": "order.updated"},
            {"feed": "order:43", "type": "order.updated", "wake": {"class": "none"}}]))))),
    responses((status = 202, description = "All are durable; an array is answered with `items`", body = AcceptedBody,
        headers(("Location" = Option<String>, description = "The event, if there was one and no array"),
            ("Retry-After" = u32, description = "In how many seconds to look what has become of it"),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if this was answered before")))))]
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
    let traceparent = header(&headers, "traceparent").filter(|value| traces::is_traceparent(value)).map(str::to_owned);
    // Where traces are collected, what follows goes on from this request, and not beside it.
    let traceparent = traces::here().or(traceparent);
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

/// What `POST /v1/events` takes.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub enum EventsBody {
    /// One event.
    One(Box<EventDraft>),
    /// Several, all or nothing.
    Several(EventBatch),
}

/// Several events.
#[derive(ToSchema)]
#[schema(value_type = Vec<EventDraft>, min_items = 1, max_items = 100)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct EventBatch(Vec<EventDraft>);

/// What `POST /v1/events` answers.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub enum AcceptedBody<'a> {
    /// To one event.
    One(AcceptedView<'a>),
    /// To an array, in its order.
    Several {
        /// The events.
        items: Vec<AcceptedView<'a>>,
    },
}

/// Which class of wake to test.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"class": "background"})))]
pub struct TestDraft {
    class: Class,
}

/// Tests a device
///
/// Wakes it with an event `reveille.test` in its own feed, so that a person can see it arrive.
#[utoipa::path(post, path = "/v1/devices/{device}/test", operation_id = "testDevice", tag = "devices", security(("appKey" = ["devices:write"])),
    params(("device" = kind::Device, Path, description = "The device")), request_body = TestDraft,
    responses((status = 202, description = "The event", body = AcceptedView,
        headers(("Location" = String, description = "The event"),
            ("Retry-After" = u32, description = "In how many seconds to look what has become of it")))))]
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

/// Shows an event and what has become of it
///
/// Its counts are derived from how its followers stand: on read up to 1,000 of them, else as of at most 10 s ago.
#[utoipa::path(get, path = "/v1/events/{event}", operation_id = "getEvent", tag = "events",
    security(("appKey" = ["events:read"]), ("appKey" = ["events:write"])),
    params(("event" = kind::Event, Path, description = "The event")),
    responses((status = 200, description = "The event", body = StatusView)))]
pub async fn show(State(api): State<Api>, caller: Caller, Path(event): Path<EventId>) -> Result<Response> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite])?;
    let stored = api.store.event(app, event).await?.ok_or_else(|| Problem::not_found("event"))?;
    let (state, counts) = api.store.event_status(app, &stored).await?;
    Ok(Body(StatusView { stored: StoredView::of(&stored), state, devices: counts }).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Of this feed only.
    feed: Option<FeedName>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many events the page has at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Lists events
///
/// For people and tools that look back; phones poll their feeds. What has become of an event is shown with the event itself.
#[utoipa::path(get, path = "/v1/events", operation_id = "listEvents", tag = "events", params(EventsQuery),
    security(("appKey" = ["events:read"]), ("appKey" = ["events:write"])),
    responses((status = 200, description = "Events, newest first", body = List<StoredView>)))]
pub async fn list(State(api): State<Api>, caller: Caller, Query(query): Query<EventsQuery>) -> Result<Response> {
    let app = caller.app(&[Scope::EventsRead, Scope::EventsWrite])?;
    let limit = extract::limit(query.limit, extract::LIST_DEFAULT)?;
    let before = match query.cursor.as_deref() {
        None | Some("") => Position(i64::MAX),
        Some(cursor) => cursor.parse().map(Position).map_err(|_| extract::wrong_cursor())?,
    };
    let (events, has_more) = api.store.newest_events(app, query.feed.as_ref(), before, limit).await?;
    let next = events.last().filter(|_| has_more).map(|stored| stored.event.position.to_string());
    Ok(Body(List { items: events.iter().map(StoredView::of).collect(), next }).into_response())
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
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView<'a> {
    #[schema(value_type = kind::Event)]
    id: EventId,
    position: Position,
    feed: &'a FeedName,
    /// The app's own word for what happened.
    #[serde(rename = "type")]
    kind: &'a str,
    /// Whose state it changes.
    key: Option<&'a str>,
    /// What it does to its key.
    op: Option<Op>,
    /// When it happened: as the backend said, else when it was accepted.
    occurred_at: Timestamp,
    /// The app's own JSON.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Where the app may read more.
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
#[derive(Serialize, ToSchema)]
#[schema(as = AcceptedEvent)]
pub struct AcceptedView<'a> {
    #[serde(flatten)]
    event: EventView<'a>,
    accepted_at: Timestamp,
    state: EventState,
}

/// An event with what else is kept of it.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredEvent)]
pub struct StoredView<'a> {
    #[serde(flatten)]
    event: EventView<'a>,
    accepted_at: Timestamp,
    /// W3C Trace Context of the request that brought it.
    traceparent: Option<&'a str>,
}

impl<'a> StoredView<'a> {
    fn of(stored: &'a StoredEvent) -> Self {
        Self {
            event: EventView::of(&stored.event),
            accepted_at: stored.event.accepted_at,
            traceparent: stored.traceparent.as_deref(),
        }
    }
}

/// An event with what has become of it.
#[derive(Serialize, ToSchema)]
#[schema(as = EventStatus)]
pub struct StatusView<'a> {
    #[serde(flatten)]
    stored: StoredView<'a>,
    state: EventState,
    devices: EventCounts,
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
