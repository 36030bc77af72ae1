//! What a device on a live connection is told next. It reads pages until there is nothing more, then hears of what comes, and reads again
//! whenever it may have missed something: a poll that never ends.

use std::{pin::Pin, sync::Arc};

use super::Caller;
use crate::{
    api::{
        Api,
        page::{EntryView, PushView},
        problem::{self, Result},
        sync::Came,
    },
    domain::{
        cursor::{self, CursorError, Scope as CursorScope},
        device::DeviceStatus,
        feed::Position,
        limits,
    },
    live::{End, Heard, Item, Purpose, Seat, Who},
    metrics::Channel,
    store::{PageEntry, PageRequest, Paged, StoredEvent},
};

/// A device's live connection.
pub struct Line {
    api: Api,
    seat: Seat,
    channel: Channel,
    caller: Caller,
    device: String,
    /// It has been told everything up to here; `None` = nothing that is kept.
    told: Option<Position>,
    state: State,
    /// Whether it is told what happens in its feeds, or only that something does.
    thin: bool,
    /// What only that is to be said of.
    head: Option<Position>,
    /// What it has been given, to be noted when it comes for more, and what it has acknowledged.
    came: Came,
    noting: Option<Noting>,
}

/// Why a connection ends whose reader does not keep up. It may go on from its cursor.
pub const TOO_SLOW: &str = "too-slow";

type Noting = Pin<Box<dyn Future<Output = Result<u32>> + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has not said where it is.
    Wait,
    /// It has to read.
    Read,
    /// It has read everything up to here, and is told so.
    CatchUp(Position),
    /// It hears of what comes.
    Listen,
    /// It is over.
    Ended,
}

/// What it is told.
pub enum Told {
    /// Events, and feeds that it has come to follow, each with its cursor.
    Entries(Vec<Entry>),
    /// There is news up to here, which it is to poll for.
    Head(Position),
    /// It has been told everything: its cursor by now, and how it stands.
    CaughtUp {
        /// The cursor to come back with.
        cursor: String,
        /// When to poll by itself, in seconds.
        after_s: u32,
        /// How its pushes stand.
        push: PushView,
    },
    /// It cannot go on from where it is, for this reason (a word of contract §5). It is over.
    Resync(&'static str),
    /// It is over.
    End(End),
    /// The relay cannot go on. It is over.
    Failed,
}

/// One line of what has happened.
pub struct Entry {
    /// The cursor to come back with once it has been seen.
    pub cursor: String,
    /// What it is, in JSON.
    pub text: Text,
}

/// A text that others may be told as well.
pub enum Text {
    /// Only this one.
    Own(String),
    /// All who hear of it.
    Shared(Arc<Item>),
}

impl Text {
    /// The JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Shared(item) => item.text(event_text),
        }
    }
}

fn event_text(stored: &StoredEvent) -> String {
    text(&EntryView::of_event(stored))
}

fn text(entry: &EntryView<'_>) -> String {
    // What has been read from JSON can be written as such.
    serde_json::to_string(entry).unwrap_or_default()
}

impl Line {
    /// Takes a seat.
    pub async fn open(api: Api, channel: Channel, caller: Caller) -> Result<Self> {
        let who = Who::Device(caller.poller.device, caller.token.clone());
        let seat = api.live.join(caller.poller.app, who, Purpose::Stream(channel)).await?;
        let device = caller.poller.device.to_string();
        let (told, state, thin, came, noting) =
            (None, State::Wait, false, Came { live: true, ..Came::default() }, None);
        Ok(Self { api, seat, channel, caller, device, told, state, thin, head: None, came, noting })
    }

    /// It begins after a cursor that it came with.
    pub fn begin(&mut self, after: Option<Position>, thin: bool) {
        // Who only hears that there is something polls for it, and by that has come as far as it has.
        self.told = if thin { Some(after.unwrap_or(self.caller.poller.fetched)) } else { after };
        (self.state, self.thin) = (State::Read, thin);
        self.acknowledge(after.unwrap_or_default());
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.state != State::Wait
    }

    /// It has seen everything up to here.
    pub fn acknowledge(&mut self, acked: Position) {
        self.came.acked = self.came.acked.max(acked);
        self.came.fetched = self.came.fetched.max(acked);
    }

    /// The position of one of its cursors.
    pub fn open_cursor(&self, cursor: &str) -> std::result::Result<Position, CursorError> {
        let scope = CursorScope::Sync { device: &self.device };
        cursor::open(&self.api.secrets, &scope, self.api.store.epoch(), cursor)
    }

    /// What comes next; nothing after what is said to be the last. To ask is to have taken what came before. Nothing is lost if nobody waits for the answer.
    pub async fn next(&mut self) -> Told {
        self.note();
        loop {
            let told = match self.state {
                State::Ended => std::future::pending().await,
                // Aside, so that who only listens need not carry what reading takes.
                State::Read => Box::pin(self.read()).await,
                State::CatchUp(through) => {
                    self.state = State::Listen;
                    Ok((!self.thin).then(|| self.caught_up(through)))
                }
                State::Wait | State::Listen => self.listen().await,
            };
            match told {
                Ok(None) => {}
                Ok(Some(told)) => {
                    if matches!(told, Told::Resync(_) | Told::End(_) | Told::Failed) {
                        self.state = State::Ended;
                    }
                    return told;
                }
                Err(problem) => {
                    self.state = State::Ended;
                    tracing::debug!(?problem, "a live connection cannot go on");
                    return Told::Failed;
                }
            }
        }
    }

    /// How far it has come is noted, one write after the other.
    fn note(&mut self) {
        let poller = &mut self.caller.poller;
        if self.state == State::Wait
            || self.noting.is_some()
            || !self.api.is_news(poller, self.came.fetched, self.came.acked)
        {
            return;
        }
        let (api, before, came) = (self.api.clone(), poller.clone(), self.came);
        // As it will be.
        (poller.fetched, poller.acked) = (poller.fetched.max(came.fetched), poller.acked.max(came.acked));
        poller.seen_at = api.clock.now();
        if poller.status != DeviceStatus::Gone {
            poller.status = DeviceStatus::Active;
        }
        self.noting = Some(Box::pin(async move { api.visit(&before, came).await }));
    }

    fn given(&mut self, through: Position) {
        self.came.fetched = self.came.fetched.max(through);
    }

    /// Looks again whose token it came with; `false` if nobody's any more.
    async fn recognise(&mut self) -> Result<bool> {
        let Some(poller) = self.api.store.poller_of(&self.caller.token).await? else {
            return Ok(false);
        };
        // What is on its way there is told already.
        let (fetched, acked) =
            (self.caller.poller.fetched.max(poller.fetched), self.caller.poller.acked.max(poller.acked));
        self.caller.poller = poller;
        (self.caller.poller.fetched, self.caller.poller.acked) = (fetched, acked);
        Ok(true)
    }

    async fn read(&mut self) -> Result<Option<Told>> {
        if let Some(why) = self.seat.ended() {
            return Ok(Some(ended(why)));
        }
        let limit = if self.thin { limits::PAGE_EVENTS } else { limits::PAGE_EVENTS_DEFAULT };
        let request = PageRequest { after: self.told, limit };
        let page = match self.api.store.page(&self.caller.poller, request).await? {
            Paged::Page(page) => page,
            Paged::Expired => return Ok(Some(Told::Resync(problem::CURSOR_EXPIRED.slug))),
            Paged::Ahead => return Ok(Some(Told::Resync(problem::CURSOR_AHEAD.slug))),
        };
        let is_all = !page.has_more && self.seat.listen(&page.feeds, page.through);
        // Last, so that it is nobody else's page: a change of before it does not hear of, and of any later one it will.
        if !self.recognise().await? {
            return Ok(Some(Told::End(End::Revoked)));
        }
        let newest = page.entries.last().map(|entry| entry.position());
        self.told = Some(page.through);
        if is_all {
            self.state = State::CatchUp(page.through);
        }
        if self.thin {
            // One look is enough for all that it has missed.
            self.head = newest.or(self.head);
            return Ok(if is_all { self.head.take().map(Told::Head) } else { None });
        }
        self.given(page.through);
        let entry = |entry: &PageEntry| self.entry(entry.position(), Text::Own(text(&EntryView::of(entry))));
        Ok(self.entries(page.entries.iter().map(entry).collect()))
    }

    fn entries(&self, entries: Vec<Entry>) -> Option<Told> {
        self.api.store.metrics().passed_on(self.channel, entries.len());
        (!entries.is_empty()).then_some(Told::Entries(entries))
    }

    async fn listen(&mut self) -> Result<Option<Told>> {
        let heard = loop {
            tokio::select! {
                biased;
                heard = self.seat.heard() => break heard,
                noted = noted(&mut self.noting) => {
                    self.noting = None;
                    match noted {
                        Ok(missed) => self.caller.poller.missed = missed,
                        // Should it not be noted, a push goes out that was not needed.
                        Err(problem) => tracing::debug!(?problem, "what a live connection was given was not noted"),
                    }
                    self.note();
                }
            }
        };
        Ok(match heard {
            Heard::Anew => {
                self.state = if self.state == State::Wait { State::Wait } else { State::Read };
                None
            }
            Heard::End(why) => Some(ended(why)),
            Heard::Events(items) => {
                let told = self.told.unwrap_or_default();
                let items: Vec<_> = items.into_iter().filter(|item| item.stored.event.position > told).collect();
                let newest = items.last().map(|item| item.stored.event.position);
                self.told = newest.or(self.told);
                match newest {
                    None => None,
                    Some(newest) if self.thin => Some(Told::Head(newest)),
                    Some(newest) => {
                        self.given(newest);
                        let entry = |item: Arc<Item>| self.entry(item.stored.event.position, Text::Shared(item));
                        self.entries(items.into_iter().map(entry).collect())
                    }
                }
            }
        })
    }

    fn entry(&self, position: Position, text: Text) -> Entry {
        Entry { cursor: self.cursor(position), text }
    }

    fn cursor(&self, position: Position) -> String {
        let scope = CursorScope::Sync { device: &self.device };
        cursor::seal(&self.api.secrets, &scope, self.api.store.epoch(), position)
    }

    fn caught_up(&self, through: Position) -> Told {
        let poller = &self.caller.poller;
        let after_s = self.api.poll_after_s(&poller.settings, poller.status, poller.missed);
        Told::CaughtUp { cursor: self.cursor(through), after_s, push: PushView::of(poller.status) }
    }
}

fn ended(why: End) -> Told {
    match why {
        End::EpochChanged => Told::Resync(problem::EPOCH_CHANGED.slug),
        End::TooSlow => Told::Resync(TOO_SLOW),
        why => Told::End(why),
    }
}

/// Waits for what is being noted, if anything is.
async fn noted(noting: &mut Option<Noting>) -> Result<u32> {
    match noting {
        Some(noting) => noting.await,
        None => std::future::pending().await,
    }
}
