//! Pages as they are answered: their JSON, their entity tags, and the cursors that lead from one to the next.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    events::EventView,
    extract::header,
    problem::{self, Kind, Problem, ProblemDocument, Result},
};
use crate::{
    domain::{
        cursor::{self, CursorError, Scope as CursorScope},
        device::DeviceStatus,
        feed::{FeedName, Position},
    },
    secret,
    store::{Page, PageEntry, Poller, StoredEvent},
};

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

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Where a device's own snapshot is.
pub const SNAPSHOT: &str = "/v1/sync/snapshot";

/// Where a feed's snapshot is.
pub fn feed_snapshot(feed: &FeedName) -> String {
    format!("/v1/feeds/{feed}/snapshot")
}

pub fn gone(kind: Kind, snapshot: &str) -> Problem {
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

    /// The entity tag of a page: weak, for its cursor may differ.
    pub fn tag(&self, asked: &Asked<'_>, poller: Option<&Poller>, state: u64) -> String {
        let reader = poller.map(|poller| (poller.device.to_string(), poller.status.as_str()));
        let text = format!("{} {reader:?} {state:x} {:?} {}", self.store.epoch().0, asked.after, asked.limit);
        format!("W/\"{}\"", secret::fingerprint(&text))
    }

    /// The answer to a poll, to come again after so many seconds.
    pub fn answer(&self, asked: &Asked<'_>, page: Page, poller: Option<&Poller>, after_s: u32) -> Result<Looked> {
        let (tag, headers) = (self.tag(asked, poller, page.state), asked.headers);
        let is_minimal = preferences(headers).any(|word| word.eq_ignore_ascii_case("return=minimal"));
        // A device that is to register again is told so by every poll, and a 204 cannot say it.
        let nothing_to_say = page.entries.is_empty() && poller.is_none_or(|poller| poller.status != DeviceStatus::Gone);
        let says = if names(headers, &tag) || header(headers, "if-none-match").is_some_and(|tags| tags.trim() == "*") {
            Says::NotModified
        } else if is_minimal && nothing_to_say {
            Says::NoContent
        } else {
            let view = PageView {
                events: page.entries.iter().map(EntryView::of).collect(),
                next: cursor::seal(&self.secrets, &asked.scope, self.store.epoch(), page.through),
                through: page.through,
                has_more: page.has_more,
                poll: PollView { after_s },
                push: poller.map(|poller| PushView::of(poller.status)),
            };
            let is_news = !page.entries.is_empty();
            let json = serde_json::to_vec(&view).map_err(|error| {
                tracing::error!(%error, "a page cannot be written");
                Problem::new(problem::INTERNAL, problem::INTERNAL.help)
            })?;
            Says::Page { json, is_news }
        };
        Ok(Looked { says, tag, after_s, feeds: page.feeds, through: page.through })
    }
}

/// What a poll has asked for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// With these headers.
    pub headers: &'a HeaderMap,
    /// By whom, and of what.
    pub scope: CursorScope<'a>,
    /// Everything after this.
    pub after: Option<Position>,
    /// At most so many events.
    pub limit: usize,
}

/// What a poll is answered, and what that was made of: not yet a response, for a poll that waits keeps it.
#[derive(Debug)]
pub struct Looked {
    /// What it says.
    pub says: Says,
    /// The page's entity tag.
    pub tag: String,
    /// When to come again, in seconds.
    pub after_s: u32,
    /// The feeds that have been looked at, …
    pub feeds: Vec<FeedName>,
    /// … up to here.
    pub through: Position,
}

/// What a poll is told.
#[derive(Debug)]
pub enum Says {
    /// The page that it names is as it was.
    NotModified,
    /// There is nothing, and it would rather not read so.
    NoContent,
    /// A page, and whether there is anything on it.
    Page { json: Vec<u8>, is_news: bool },
}

impl Looked {
    /// Whether it brings anything.
    pub fn is_news(&self) -> bool {
        matches!(self.says, Says::Page { is_news: true, .. })
    }
}

impl IntoResponse for Looked {
    fn into_response(self) -> Response {
        let is_empty = matches!(self.says, Says::Page { is_news: false, .. });
        let mut response = match self.says {
            Says::NotModified => StatusCode::NOT_MODIFIED.into_response(),
            Says::NoContent => StatusCode::NO_CONTENT.into_response(),
            Says::Page { json, .. } => ([(header::CONTENT_TYPE, JSON)], json).into_response(),
        };
        if is_empty {
            response.extensions_mut().insert(NothingNew);
        }
        let headers = response.headers_mut();
        if headers.get(header::CONTENT_TYPE).is_none() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.after_s));
        }
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
        response
    }
}

/// What a request would like (RFC 7240).
pub fn preferences(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).map(str::trim)
}

/// Whether a request has the page of this entity tag already.
pub fn names(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    header(headers, "if-none-match")
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == opaque))
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
    pub fn of(status: DeviceStatus) -> Self {
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
    /// An event as it is told.
    pub fn of_event(stored: &'a StoredEvent) -> Self {
        Self::Event(EventView::of(&stored.event))
    }

    /// A line of a page as it is told.
    pub fn of(entry: &'a PageEntry) -> Self {
        match entry {
            PageEntry::Event(stored) => Self::of_event(stored),
            PageEntry::Followed { feed, position } => {
                Self::Followed { kind: "reveille.followed", feed, position: *position, snapshot: feed_snapshot(feed) }
            }
        }
    }
}
