//! Polling: the canonical endpoints. A page is the truth; coming for it is what tells who woke.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tracing::Span;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::{self, Caller},
    extract::{self, Json, Path, Query},
    listen::Peer,
    live::wait::{self, Wait},
    page::{self, Asked, CursorProblem, Looked, PageView, SNAPSHOT, Says},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        cursor::Scope as CursorScope,
        device::DeviceStatus,
        feed::{FeedName, Position},
        id::{WakeId, kind},
        key::Scope,
        limits,
    },
    live::Who,
    store::{Feed, Page, PageEntry, PageRequest, Paged, Poller, Visit},
    telemetry::traces,
};

/// Who would wait where too many do is to come so many times later than it would be told else.
const CROWDED: u32 = 4;
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
        ("Prefer" = Option<String>, Header, description = "RFC 7240. `wait=25`: answered when there is something new, or after so many seconds, at most 25. `return=minimal`: 204 if there is nothing new")),
    responses(
        (status = 200, description = "A page", body = PageView, headers(
            ("ETag" = String, description = "Weak"), ("Cache-Control" = String, description = "`private, no-cache`"),
            ("Vary" = String, description = "`Authorization`"), ("Preference-Applied" = Option<String>, description = "`wait=…`, if the poll may have waited"))),
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
    peer: Peer,
) -> Result<Response> {
    api.limiters.poll(poller.device)?;
    if wait::asked(&headers).is_none() {
        return Ok(api.look(&poller, &query, &headers, Look::Once).await?.into_response());
    }
    // Aside, so that a poll that does not wait need not carry what waiting takes.
    let kept = wait::kept(&headers);
    drop(headers);
    Box::pin(sync_in_time(api, poller, query, kept, peer)).await
}

/// The same for a poll that waits.
async fn sync_in_time(
    api: Api,
    mut poller: Poller,
    query: SyncQuery,
    headers: HeaderMap,
    peer: Peer,
) -> Result<Response> {
    let who = auth::token_hash(&headers).map(|token| (Who::Device(poller.device, token), "sync".to_owned()));
    let mut wait = Box::pin(Wait::begin(&api.live, &headers, poller.app, who, peer)).await;
    loop {
        let looked = Box::pin(api.look(&poller, &query, &headers, wait.look())).await?;
        if wait.is_over(&looked) || wait.listen(&looked) && wait.hear().await? {
            return Ok(wait.end(looked));
        }
        poller = Box::pin(api.poller(&headers)).await?.ok_or_else(auth::ended)?;
    }
}

/// Polls one feed
///
/// By a device that follows it, or with an app key, whose reads move nothing.
#[utoipa::path(get, path = "/v1/feeds/{feed}/events", operation_id = "pollFeed", tag = "polling",
    security(("deviceToken" = []), ("appKey" = ["events:read"])),
    params(("feed" = FeedName, Path, description = "The feed"), SyncQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a page: 304 if it is still the same"),
        ("Prefer" = Option<String>, Header, description = "RFC 7240. `wait=25`: answered when there is something new, or after so many seconds, at most 25. `return=minimal`: 204 if there is nothing new")),
    responses(
        (status = 200, description = "A page", body = PageView, headers(
            ("ETag" = String, description = "Weak"), ("Cache-Control" = String, description = "`private, no-cache`"),
            ("Vary" = String, description = "`Authorization`"), ("Preference-Applied" = Option<String>, description = "`wait=…`, if the poll may have waited"))),
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
    peer: Peer,
) -> Result<Response> {
    if let Caller::Device(device) = &caller {
        api.limiters.poll(device.id)?;
    }
    if wait::asked(&headers).is_none() {
        return Ok(api.look_at_feed(caller, &feed, &query, &headers, Look::Once).await?.into_response());
    }
    let kept = wait::kept(&headers);
    drop(headers);
    Box::pin(feed_in_time(api, caller, feed, query, kept, peer)).await
}

/// The same for a poll that waits.
async fn feed_in_time(
    api: Api,
    mut caller: Caller,
    feed: FeedName,
    query: SyncQuery,
    headers: HeaderMap,
    peer: Peer,
) -> Result<Response> {
    let app = match &caller {
        Caller::Device(device) => device.app,
        caller => caller.app(&[Scope::EventsRead])?,
    };
    let who = match &caller {
        Caller::Device(device) => auth::token_hash(&headers).map(|token| Who::Device(device.id, token)),
        Caller::Key(holder) => Some(Who::Key(holder.key)),
        Caller::Operator(_) => None,
    };
    let who = who.map(|who| (who, format!("feed {feed}")));
    let mut wait = Box::pin(Wait::begin(&api.live, &headers, app, who, peer)).await;
    loop {
        let looked = Box::pin(api.look_at_feed(caller, &feed, &query, &headers, wait.look())).await?;
        if wait.is_over(&looked) || wait.listen(&looked) && wait.hear().await? {
            return Ok(wait.end(looked));
        }
        caller = Box::pin(api.caller(&headers)).await?.ok_or_else(auth::ended)?;
    }
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
                return Err(page::gone(problem::CURSOR_AHEAD, SNAPSHOT));
            }
            Some(position)
        }
        (None, Some(wake)) => api.store.wake_head(poller.app, poller.device, wake).await?,
        _ => return Err(Problem::field("", "give either \"cursor\" or \"wake\"")),
    };
    // An unknown or foreign wake is ignored, as in a poll.
    if let Some(position) = position {
        api.visit(&poller, Came { fetched: position, acked: position, wake: ack.wake, live: false }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// How far a poll has brought a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Came {
    /// It has been given everything up to here.
    pub fetched: Position,
    /// It came back with everything up to here.
    pub acked: Position,
    /// The push that has brought it.
    pub wake: Option<WakeId>,
    /// Whether it has a live connection.
    pub live: bool,
}

/// How a poll is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is answered at once.
    Once,
    /// It goes on listening if there is nothing.
    Listening,
    /// It would wait, but too many do already: it is to come later than others.
    Crowded,
}

impl Look {
    fn after_s(self, after_s: u32) -> u32 {
        if self == Self::Crowded { after_s.saturating_mul(CROWDED) } else { after_s }
    }
}

impl Api {
    /// All that a device has not seen.
    async fn look(&self, poller: &Poller, query: &SyncQuery, headers: &HeaderMap, look: Look) -> Result<Looked> {
        let limit = extract::limit(query.limit, limits::PAGE_EVENTS_DEFAULT)?;
        let id = poller.device.to_string();
        let scope = CursorScope::Sync { device: &id };
        let after = self.open_cursor(&scope, query.after.as_deref(), SNAPSHOT)?;
        let asked = Asked { headers, scope, after, limit };
        // A look that moves nothing is still a sign of life.
        let reached = |through| if query.peek { Default::default() } else { (through, after.unwrap_or_default()) };
        if let Some(known) = poller.known.filter(|_| look == Look::Once) {
            let (fetched, acked) = reached(known.newest);
            let tag = self.tag(&asked, Some(poller), known.state);
            if page::names(headers, &tag) && !self.is_news(poller, fetched, acked) {
                let after_s = self.poll_after_s(&poller.settings, poller.status, poller.missed);
                return Ok(Looked { says: Says::NotModified, tag, after_s, feeds: Vec::new(), through: known.newest });
            }
        }
        // Aside, so that a poll that brings nothing need not carry what reading takes.
        let page = match Box::pin(self.store.page(poller, PageRequest { after, limit })).await? {
            Paged::Page(page) => page,
            Paged::Expired => return Err(page::gone(problem::CURSOR_EXPIRED, SNAPSHOT)),
            Paged::Ahead => return Err(page::gone(problem::CURSOR_AHEAD, SNAPSHOT)),
        };
        let (fetched, acked) = reached(page.through);
        let live = look == Look::Listening;
        let missed = self.visit(poller, Came { fetched, acked, wake: query.wake(), live }).await?;
        if traces::are_on() && !query.peek {
            tell_traces(poller, &page, query.wake());
        }
        let after_s = look.after_s(self.poll_after_s(&poller.settings, poller.status, missed));
        self.answer(&asked, page, Some(poller), after_s)
    }

    /// What a caller has not seen of one feed.
    async fn look_at_feed(
        &self,
        caller: Caller,
        feed: &FeedName,
        query: &SyncQuery,
        headers: &HeaderMap,
        look: Look,
    ) -> Result<Looked> {
        let limit = extract::limit(query.limit, limits::PAGE_EVENTS_DEFAULT)?;
        let (app, device, reader) = match caller {
            Caller::Device(device) => (device.app, Some(device.clone()), Feed::ByDevice(device.id, device.fetched)),
            caller => (caller.app(&[Scope::EventsRead])?, None, Feed::ByKey),
        };
        let (id, snapshot) = (app.to_string(), page::feed_snapshot(feed));
        let scope = CursorScope::Feed { app: &id, feed };
        let after = self.open_cursor(&scope, query.after.as_deref(), &snapshot)?;
        let found = Box::pin(self.store.feed_page(app, feed, reader, PageRequest { after, limit })).await?;
        let found = found.ok_or_else(|| Problem::not_found("feed"))?;
        let page = match found.paged {
            Paged::Page(page) => page,
            Paged::Expired => return Err(page::gone(problem::CURSOR_EXPIRED, &snapshot)),
            Paged::Ahead => return Err(page::gone(problem::CURSOR_AHEAD, &snapshot)),
        };
        let settings = self.settings(app).await?;
        let mut after_s = settings.poll_after_s.healthy;
        let poller = device.map(|device| Poller::of(&device, Arc::clone(&settings)));
        if let Some(poller) = &poller {
            let fetched = found.fetched.filter(|_| !query.peek).unwrap_or_default();
            let live = look == Look::Listening;
            let came = Came { fetched, acked: Position(0), wake: query.wake(), live };
            let missed = self.visit(poller, came).await?;
            after_s = self.poll_after_s(&settings, poller.status, missed);
        }
        let asked = Asked { headers, scope, after, limit };
        self.answer(&asked, page, poller.as_ref(), look.after_s(after_s))
    }

    /// Records what a poll has done, if it has done anything. Answers how many heads in a row the device has missed.
    pub async fn visit(&self, poller: &Poller, came: Came) -> Result<u32> {
        let Came { fetched, acked, wake, live } = came;
        if self.is_news(poller, fetched, acked) {
            let fetched = fetched.max(acked);
            let visit = Visit { app: poller.app, device: poller.device, fetched, acked, wake, live };
            return Ok(Box::pin(self.store.visit(visit)).await?.missed);
        }
        Ok(poller.missed)
    }

    /// Whether a poll that comes so far is worth a write.
    pub fn is_news(&self, poller: &Poller, fetched: Position, acked: Position) -> bool {
        /// A sign of life is worth a write this often.
        const SIGN_EVERY: Duration = Duration::from_secs(3600);
        let moves = fetched > poller.fetched || acked > poller.acked;
        let revives = matches!(poller.status, DeviceStatus::Quarantined | DeviceStatus::Stale);
        moves || revives || self.clock.now().since(poller.seen_at) >= SIGN_EVERY
    }
}
