//! Polling: the canonical endpoints. A page is the truth; coming for it is what tells who woke.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tracing::Span;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    events::EventView,
    extract::{self, Json, Path, Query, header},
    problem::{self, Kind, Problem, ProblemDocument, Result},
};
use crate::{
    domain::{
        cursor::{self, CursorError, Scope as CursorScope},
        device::DeviceStatus,
        feed::{FeedName, Position},
        id::{WakeId, kind},
        key::Scope,
        limits,
        settings::Settings,
    },
    secret,
    store::{Feed, Page, PageEntry, PageRequest, Paged, Poller, Visit},
    telemetry::traces,
};

/// So many updates of a page are followed to their end: who polls after long has hundreds.
const TRACED: usize = 20;

/// The end of the way of each update on a page, in the update's own trace.
fn tell_traces(poller: &Poller, page: &Page, wake: Option<WakeId>) {
    let request = Span::current();
    for entry in page.entries.iter().rev().take(TRACED) {
        let PageEntry::Event(stored) = entry else { continue };
        let Some(parent) = &stored.traceparent else { continue };
        let span = tracing::info_span!(
            target: traces::TARGET,
            "fetched",
            reveille.app = %poller.app,
            reveille.device = %poller.device,
            reveille.event = %stored.event.id,
            reveille.position = stored.event.position.0,
            reveille.wake = wake.map(display),
        );
        traces::continue_from(&span, parent);
        traces::link(&span, &request);
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SyncQuery {
    /// Everything after this cursor: `next` of the page before. From the oldest event that is kept if absent. Coming with it acknowledges
    /// everything up to it.
    after: Option<String>,
    /// How many events the page has at most; 100 if absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Which push caused this poll; what is no wake of this device is ignored.
    wake: Option<String>,
    /// Reads without moving a level, for notification service extensions.
    #[serde(default)]
    peek: bool,
}

impl SyncQuery {
    fn wake(&self) -> Option<WakeId> {
        self.wake.as_ref().and_then(|wake| wake.parse().ok())
    }
}

/// Polls all feeds that the device follows
///
/// The canonical poll. Coming for it is what tells the relay who woke.
#[utoipa::path(get, path = "/v1/sync", operation_id = "sync", tag = "polling", security(("deviceToken" = [])),
    params(SyncQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a page: 304 if it is still the same"),
        ("Prefer" = Option<String>, Header, description = "`return=minimal` (RFC 7240): 204 if there is nothing new")),
    responses(
        (status = 200, description = "A page", body = PageView, headers(
            ("ETag" = String, description = "Weak"), ("Cache-Control" = String, description = "`private, no-cache`"),
            ("Vary" = String, description = "`Authorization`"))),
        (status = 204, description = "Nothing new, and `Prefer: return=minimal`; it has all effects of a page", headers(
            ("ETag" = String, description = "Weak"), ("Retry-After" = u32, description = "When to poll again, in seconds"))),
        (status = 304, description = "The page is the same; it has all effects of a page", headers(
            ("ETag" = String, description = "Weak"), ("Retry-After" = u32, description = "When to poll again, in seconds"))),
        (status = 400, description = "`cursor-invalid`", body = CursorProblem, content_type = "application/problem+json"),
        (status = 410, description = "`cursor-expired`, `cursor-ahead` or `epoch-changed`: start from the snapshot",
            body = CursorProblem, content_type = "application/problem+json")))]
pub async fn sync(
    State(api): State<Api>,
    poller: Poller,
    Query(query): Query<SyncQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    api.limiters.poll(poller.device)?;
    let limit = extract::limit(query.limit, limits::PAGE_EVENTS_DEFAULT)?;
    let id = poller.device.to_string();
    let scope = CursorScope::Sync { device: &id };
    let after = api.open_cursor(&scope, query.after.as_deref(), SNAPSHOT)?;
    // A look that moves nothing is still a sign of life.
    let reached = |through| if query.peek { Default::default() } else { (through, after.unwrap_or_default()) };
    if let Some(known) = poller.known {
        let (fetched, acked) = reached(known.newest);
        let tag = api.tag(Some(&poller), known.state, (after, limit));
        if names(&headers, &tag) && !api.is_news(&poller, fetched, acked) {
            let after_s = api.poll_after_s(&poller.settings, poller.status, poller.missed);
            return Ok(in_a_poll(StatusCode::NOT_MODIFIED.into_response(), &tag, after_s));
        }
    }
    let page = match api.store.page(&poller, PageRequest { after, limit }).await? {
        Paged::Page(page) => page,
        Paged::Expired => return Err(gone(problem::CURSOR_EXPIRED, SNAPSHOT)),
        Paged::Ahead => return Err(gone(problem::CURSOR_AHEAD, SNAPSHOT)),
    };
    let (fetched, acked) = reached(page.through);
    let missed = api.visit(&poller, fetched, acked, query.wake()).await?;
    if traces::are_on() && !query.peek {
        tell_traces(&poller, &page, query.wake());
    }
    Ok(api.answer(&headers, page, &scope, &poller.settings, Some((&poller, missed)), (after, limit)))
}

/// Polls one feed
///
/// By a device that follows it, or with an app key, whose reads move nothing.
#[utoipa::path(get, path = "/v1/feeds/{feed}/events", operation_id = "pollFeed", tag = "polling",
    security(("deviceToken" = []), ("appKey" = ["events:read"])),
    params(("feed" = FeedName, Path, description = "The feed"), SyncQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a page: 304 if it is still the same"),
        ("Prefer" = Option<String>, Header, description = "`return=minimal` (RFC 7240): 204 if there is nothing new")),
    responses(
        (status = 200, description = "A page", body = PageView, headers(
            ("ETag" = String, description = "Weak"), ("Cache-Control" = String, description = "`private, no-cache`"),
            ("Vary" = String, description = "`Authorization`"))),
        (status = 204, description = "Nothing new, and `Prefer: return=minimal`", headers(
            ("ETag" = String, description = "Weak"), ("Retry-After" = u32, description = "When to poll again, in seconds"))),
        (status = 304, description = "The page is the same", headers(
            ("ETag" = String, description = "Weak"), ("Retry-After" = u32, description = "When to poll again, in seconds"))),
        (status = 400, description = "`cursor-invalid`", body = CursorProblem, content_type = "application/problem+json"),
        (status = 410, description = "`cursor-expired`, `cursor-ahead` or `epoch-changed`: start from the snapshot",
            body = CursorProblem, content_type = "application/problem+json")))]
pub async fn feed(
    State(api): State<Api>,
    caller: Caller,
    Path(feed): Path<FeedName>,
    Query(query): Query<SyncQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let limit = extract::limit(query.limit, limits::PAGE_EVENTS_DEFAULT)?;
    let (app, device, reader) = match caller {
        Caller::Device(device) => (device.app, Some(device.clone()), Feed::ByDevice(device.id, device.fetched)),
        caller => (caller.app(&[Scope::EventsRead])?, None, Feed::ByKey),
    };
    if let Some(device) = &device {
        api.limiters.poll(device.id)?;
    }
    let (id, snapshot) = (app.to_string(), feed_snapshot(&feed));
    let scope = CursorScope::Feed { app: &id, feed: &feed };
    let after = api.open_cursor(&scope, query.after.as_deref(), &snapshot)?;
    let request = PageRequest { after, limit };
    let found = api.store.feed_page(app, &feed, reader, request).await?.ok_or_else(|| Problem::not_found("feed"))?;
    let page = match found.paged {
        Paged::Page(page) => page,
        Paged::Expired => return Err(gone(problem::CURSOR_EXPIRED, &snapshot)),
        Paged::Ahead => return Err(gone(problem::CURSOR_AHEAD, &snapshot)),
    };
    let settings = api.settings(app).await?;
    let poller = device.map(|device| Poller::of(&device, Arc::clone(&settings)));
    let mut reader = None;
    if let Some(poller) = &poller {
        let fetched = found.fetched.filter(|_| !query.peek);
        let missed = api.visit(poller, fetched.unwrap_or_default(), Position(0), query.wake()).await?;
        reader = Some((poller, missed));
    }
    Ok(api.answer(&headers, page, &scope, &settings, reader, (after, limit)))
}

/// How far the device has come: a cursor, or the wake whose news it has.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// `next` of a page.
    cursor: Option<String>,
    /// From a push.
    #[schema(value_type = Option<kind::Wake>)]
    wake: Option<WakeId>,
}

/// Acknowledges
///
/// Give either. Nothing goes backwards; an unknown or foreign wake is ignored.
#[utoipa::path(post, path = "/v1/sync/ack", operation_id = "acknowledge", tag = "polling", security(("deviceToken" = [])),
    request_body(content = Ack, example = json!({"wake": "wake_01m4y3vkk5f5r9vts0xg5mfh1q"})),
    responses((status = 204, description = "Noted"),
        (status = 400, description = "`cursor-invalid`, or the body is not JSON", body = CursorProblem,
            content_type = "application/problem+json"),
        (status = 410, description = "`cursor-expired`, `cursor-ahead` or `epoch-changed`: start from the snapshot",
            body = CursorProblem, content_type = "application/problem+json")))]

pub async fn ack(State(api): State<Api>, poller: Poller, Json(ack): Json<Ack>) -> Result<StatusCode> {
    let id = poller.device.to_string();
    let position = match (ack.cursor, ack.wake) {
        (Some(cursor), None) => {
            let position = api.open_cursor(&CursorScope::Sync { device: &id }, Some(&cursor), SNAPSHOT)?;
            let position = position.unwrap_or_default();
            if position > api.store.counter(poller.app).await? {
                return Err(gone(problem::CURSOR_AHEAD, SNAPSHOT));
            }
            Some(position)
        }
        (None, Some(wake)) => api.store.wake_head(poller.app, poller.device, wake).await?,
        _ => return Err(Problem::field("", "give either \"cursor\" or \"wake\"")),
    };
    // An unknown or foreign wake is ignored, as in a poll.
    if let Some(position) = position {
        api.visit(&poller, position, position, ack.wake).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A cursor that leads nowhere, and where to start anew.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct CursorProblem {
    #[serde(flatten)]
    problem: ProblemDocument,
    /// The snapshot to read; then poll after its `as_of`.
    snapshot: Option<String>,
}

/// Marks a page without events, for those who count.
#[derive(Debug, Clone, Copy)]
pub struct NothingNew;

/// Where a device's own snapshot is.
pub const SNAPSHOT: &str = "/v1/sync/snapshot";

/// Where a feed's snapshot is.
pub fn feed_snapshot(feed: &FeedName) -> String {
    format!("/v1/feeds/{feed}/snapshot")
}

fn gone(kind: Kind, snapshot: &str) -> Problem {
    Problem::new(kind, kind.help).with("snapshot", snapshot)
}

impl Api {
    /// The position a cursor stands for.
    pub fn open_cursor(
        &self,
        scope: &CursorScope<'_>,
        cursor: Option<&str>,
        snapshot: &str,
    ) -> Result<Option<Position>> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        cursor::open(&self.secrets, scope, self.store.epoch(), cursor).map(Some).map_err(|error| match error {
            CursorError::Invalid => {
                Problem::new(problem::CURSOR_INVALID, problem::CURSOR_INVALID.help).with("snapshot", snapshot)
            }
            CursorError::EpochChanged => gone(problem::EPOCH_CHANGED, snapshot),
        })
    }

    /// Records what a poll has done, if it has done anything. Answers how many heads in a row the device has missed.
    async fn visit(&self, poller: &Poller, fetched: Position, acked: Position, wake: Option<WakeId>) -> Result<u32> {
        if self.is_news(poller, fetched, acked) {
            let visit =
                Visit { app: poller.app, device: poller.device, fetched: fetched.max(acked), acked, wake, live: false };
            return Ok(self.store.visit(visit).await?.missed);
        }
        Ok(poller.missed)
    }

    /// Whether a poll that comes so far is worth a write.
    fn is_news(&self, poller: &Poller, fetched: Position, acked: Position) -> bool {
        /// A sign of life is worth a write this often.
        const SIGN_EVERY: Duration = Duration::from_secs(3600);
        let moves = fetched > poller.fetched || acked > poller.acked;
        let revives = matches!(poller.status, DeviceStatus::Quarantined | DeviceStatus::Stale);
        moves || revives || self.clock.now().since(poller.seen_at) >= SIGN_EVERY
    }

    /// The entity tag of a page: weak, for its cursor may differ.
    fn tag(&self, poller: Option<&Poller>, state: u64, (after, limit): (Option<Position>, usize)) -> String {
        let reader = poller.map(|poller| (poller.device.to_string(), poller.status.as_str()));
        let text = format!("{} {reader:?} {state:x} {after:?} {limit}", self.store.epoch().0);
        format!("W/\"{}\"", secret::fingerprint(&text))
    }

    fn answer(
        &self,
        headers: &HeaderMap,
        page: Page,
        scope: &CursorScope<'_>,
        settings: &Settings,
        reader: Option<(&Poller, u32)>,
        (after, limit): (Option<Position>, usize),
    ) -> Response {
        let after_s = reader.map_or(settings.poll_after_s.healthy, |(poller, missed)| {
            self.poll_after_s(settings, poller.status, missed)
        });
        let poller = reader.map(|(poller, _)| poller);
        let tag = self.tag(poller, page.state, (after, limit));
        let minimal = header(headers, "prefer").is_some_and(|prefer| {
            prefer.split([',', ';']).any(|word| word.trim().eq_ignore_ascii_case("return=minimal"))
        });
        // A device that is to register again is told so by every poll, and a 204 cannot say it.
        let nothing_to_say = page.entries.is_empty() && poller.is_none_or(|poller| poller.status != DeviceStatus::Gone);
        let response =
            if names(headers, &tag) || header(headers, "if-none-match").is_some_and(|tags| tags.trim() == "*") {
                StatusCode::NOT_MODIFIED.into_response()
            } else if minimal && nothing_to_say {
                StatusCode::NO_CONTENT.into_response()
            } else {
                let body = PageView {
                    events: page.entries.iter().map(EntryView::of).collect(),
                    next: cursor::seal(&self.secrets, scope, self.store.epoch(), page.through),
                    through: page.through,
                    has_more: page.has_more,
                    poll: PollView { after_s },
                    push: poller.map(|poller| PushView::of(poller.status)),
                };
                let mut response = Body(body).into_response();
                if page.entries.is_empty() {
                    response.extensions_mut().insert(NothingNew);
                }
                response
            };
        in_a_poll(response, &tag, after_s)
    }
}

/// Whether a request has the page of this entity tag already.
fn names(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    header(headers, "if-none-match")
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == opaque))
}

/// An answer to a poll, with the headers that all of them have; one without a body says by header when to come again.
fn in_a_poll(mut response: Response, tag: &str, after_s: u32) -> Response {
    let headers = response.headers_mut();
    if headers.get(header::CONTENT_TYPE).is_none() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after_s));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
    response
}

/// A page of a poll.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageView<'a> {
    /// In the order of their positions.
    events: Vec<EntryView<'a>>,
    /// The cursor to come with next; always there, also on an empty page.
    next: String,
    /// The position inside `next`.
    through: Position,
    /// Whether there is more at once.
    has_more: bool,
    poll: PollView,
    /// For devices: how their pushes stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<PushView>,
}

/// When to poll by oneself.
#[derive(Serialize, ToSchema)]
#[schema(as = Poll)]
pub struct PollView {
    /// In so many seconds, even if no push comes.
    after_s: u32,
}

/// How a device's pushes stand.
#[derive(Serialize, ToSchema)]
#[schema(as = Push)]
pub struct PushView {
    status: DeviceStatus,
    /// True if its token is dead: the app is to fetch a new one and register.
    #[serde(skip_serializing_if = "Option::is_none")]
    register: Option<bool>,
}

impl PushView {
    /// What this poll has revived is active by now.
    fn of(status: DeviceStatus) -> Self {
        match status {
            DeviceStatus::Gone => Self { status: DeviceStatus::Gone, register: Some(true) },
            _ => Self { status: DeviceStatus::Active, register: None },
        }
    }
}

/// What a page tells.
#[derive(Serialize, ToSchema)]
#[schema(as = Entry)]
#[serde(untagged)]
pub enum EntryView<'a> {
    /// An event.
    Event(EventView<'a>),
    /// The device follows the feed from here on; what is older is in its snapshot.
    Followed {
        /// `reveille.followed`
        #[serde(rename = "type")]
        #[schema(pattern = "^reveille.followed$")]
        kind: &'static str,
        feed: &'a FeedName,
        position: Position,
        snapshot: String,
    },
}

impl<'a> EntryView<'a> {
    fn of(entry: &'a PageEntry) -> Self {
        match entry {
            PageEntry::Event(stored) => Self::Event(EventView::of(&stored.event)),
            PageEntry::Followed { feed, position } => {
                Self::Followed { kind: "reveille.followed", feed, position: *position, snapshot: feed_snapshot(feed) }
            }
        }
    }
}
