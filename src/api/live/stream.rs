//! Server-sent events (WHATWG HTML §9.2): a device's feeds, pushed down one response that does not end.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::{
    Caller, jittered,
    line::{Line, TOO_SLOW, Told},
};
use crate::{
    api::{
        Api,
        extract::{Query, header},
        listen::Peer,
        page::{CursorProblem, SNAPSHOT},
        problem::{self, Problem, Result},
    },
    domain::{
        cursor::{self, CursorError, Scope as CursorScope},
        limits,
    },
    live::End,
    metrics::Channel,
};

/// When a client whose connection has broken off comes back.
const RETRY: Duration = Duration::from_secs(3);
/// Where the relay ends a stream, it says that the client is to poll after about so long.
const AFTER_THE_END: Duration = Duration::from_secs(3);
/// The same where newer streams of the device have taken its place.
const AFTER_REPLACED: Duration = Duration::from_secs(60);
/// By which nginx is told to pass on what comes at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Everything after this cursor, as in a poll. `Last-Event-ID` goes before it.
    after: Option<String>,
    /// After how many seconds without anything else a comment is sent; 30 if absent.
    #[param(minimum = 30, maximum = 300)]
    ping: Option<u64>,
    /// Only that there is something, as `{"head"}`; the device polls for it.
    #[serde(default)]
    thin: bool,
    /// A one-time ticket instead of the token, for clients that cannot send headers.
    #[serde(rename = "ticket")]
    #[param(ignore)]
    _ticket: Option<String>,
}

/// Streams all feeds that the device follows
///
/// Server-sent events. `id:` is a cursor, and `Last-Event-ID` goes on after it. `event: event` is what a page would hold; `event: poll` says
/// that all has been told, and when to poll by oneself; `event: resync` says why it cannot go on, and ends the stream.
#[utoipa::path(get, path = "/v1/sync/stream", operation_id = "stream", tag = "polling",
    security(("deviceToken" = []), ("ticket" = [])),
    params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "The cursor of the last event that has come")),
    responses(
        (status = 200, description = "A stream that does not end", body = String, content_type = "text/event-stream",
            example = "id: AQAA…\nevent: event\ndata: {\"id\":\"evt_…\",\"feed\":\"order:42\",\"type\":\"order.shipped\"}\n\n"),
        (status = 400, description = "`cursor-invalid`", body = CursorProblem, content_type = "application/problem+json")))]
pub async fn stream(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    peer: Peer,
) -> Result<Response> {
    api.limiters.poll(caller.poller.device)?;
    let ping = query.ping.unwrap_or(*limits::PING_S.start());
    if !limits::PING_S.contains(&ping) {
        let (least, most) = limits::PING_S.into_inner();
        return Err(Problem::new(problem::INVALID, format!("query: ping must be {least} to {most}, is {ping}")));
    }
    let cursor = header(&headers, "last-event-id").or(query.after.as_deref());
    let device = caller.poller.device.to_string();
    let scope = CursorScope::Sync { device: &device };
    let opened = cursor.map(|cursor| cursor::open(&api.secrets, &scope, api.store.epoch(), cursor)).transpose();
    let first = Event::default().retry(jittered(RETRY));
    let after = match opened {
        Ok(after) => after,
        Err(CursorError::Invalid) => {
            return Err(Problem::new(problem::CURSOR_INVALID, problem::CURSOR_INVALID.help).with("snapshot", SNAPSHOT));
        }
        // A browser tells nobody why a request was refused, so it is told in the stream.
        Err(CursorError::EpochChanged) => {
            let last = resync(problem::EPOCH_CHANGED.slug);
            return Ok(sse(stream::iter([Ok(first), Ok(last)]), ping));
        }
    };
    let mut line = Line::open(api, Channel::Sse, caller).await?;
    line.begin(after, query.thin);
    let told = Telling { line, next: VecDeque::from([first]), is_over: false };
    peer.waits();
    Ok(sse(stream::unfold(told, Telling::tell), ping))
}

/// A stream that is being told.
struct Telling {
    line: Line,
    next: VecDeque<Event>,
    is_over: bool,
}

impl Telling {
    async fn tell(mut self) -> Option<(std::result::Result<Event, Infallible>, Self)> {
        while self.next.is_empty() {
            if self.is_over {
                return None;
            }
            match self.line.next().await {
                Told::Entries(entries) => self.next.extend(
                    entries
                        .into_iter()
                        .map(|entry| Event::default().id(entry.cursor).event("event").data(entry.text.as_str())),
                ),
                // Without an id: who only knows that there is something has not come further.
                Told::Head(head) => self.next.push_back(event("event", &json!({"head": head}))),
                Told::CaughtUp { cursor, after_s, push } => {
                    self.next.push_back(event("poll", &json!({"after_s": after_s, "push": push})).id(cursor));
                }
                Told::Resync(reason) => self.last(resync(reason)),
                Told::End(End::Stopping) | Told::Failed => {
                    self.last(event("poll", &json!({"after_s": jittered(AFTER_THE_END).as_secs().max(1)})));
                }
                Told::End(End::Replaced) => {
                    // Else those that come back at once would take each other's places for ever.
                    let after_s = json!({"after_s": jittered(AFTER_REPLACED).as_secs()});
                    self.last(event("poll", &after_s).retry(AFTER_REPLACED));
                }
                Told::End(_) => self.is_over = true,
            }
        }
        self.next.pop_front().map(|event| (Ok(event), self))
    }

    fn last(&mut self, event: Event) {
        self.next.push_back(event);
        self.is_over = true;
    }
}

fn event(kind: &str, data: &Value) -> Event {
    Event::default().event(kind).data(data.to_string())
}

/// Who does not keep up has missed nothing, and may go on from its cursor; all others begin at the snapshot.
fn resync(reason: &str) -> Event {
    match reason {
        TOO_SLOW => event("resync", &json!({"reason": reason})),
        _ => event("resync", &json!({"reason": reason, "snapshot": SNAPSHOT})),
    }
}

fn sse(
    events: impl stream::Stream<Item = std::result::Result<Event, Infallible>> + Send + 'static,
    ping_s: u64,
) -> Response {
    let ping = KeepAlive::new().interval(Duration::from_secs(ping_s)).text("ping");
    let mut response = (StatusCode::OK, Sse::new(events).keep_alive(ping)).into_response();
    response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    response
}
