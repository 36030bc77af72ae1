//! What a device on a live connection is told next. It reads pages until there is nothing more, then hears of what comes, and reads again
//! whenever it may have missed something: a poll that never ends.

use std::{sync::Arc, time::Duration};

use super::{Caller, diary::Diary};
use crate::{
    api::{
        Api,
        page::{EntryView, PushView},
        problem::{self, Result},
    },
    domain::{
        cursor::{self, CursorError, Epoch, Scope as CursorScope},
        feed::Position,
        id::AppId,
        limits,
    },
    live::{End, Heard, Item, Purpose, Seat, Who},
    metrics::Channel,
    store::{self, PageEntry, PageRequest, Paged, StoredEvent},
};

/// A device's live connection.
pub struct Line {
    api: Api,
    seat: Seat,
    channel: Channel,
    /// The hash of the token that it came with.
    token: String,
    hand: Hand,
    diary: Diary,
    /// It has been told everything up to here; `None` = nothing that is kept.
    told: Option<Position>,
    /// What it has been given, to be noted when it comes for more.
    given: Position,
    state: State,
    /// Whether it is told what happens in its feeds, or only that something does.
    thin: bool,
    /// What only that is to be said of.
    head: Option<Position>,
}

/// What a client that speaks does to its line, whatever the line is at.
#[derive(Clone)]
pub struct Hand {
    api: Api,
    app: AppId,
    device: Arc<str>,
    /// That it began in: in another its cursors mean something else.
    epoch: Epoch,
    diary: Diary,
}

/// Why a connection ends whose reader does not keep up. It may go on from its cursor.
pub const TOO_SLOW: &str = "too-slow";
const LINE_BREAKS: [char; 2] = ['\r', '\n'];
/// When it reads again if the database cannot be asked.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has not said where it is.
    Wait,
    /// It has to read; it came back with everything up to here.
    Read(Position),
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
    // What has been read from JSON can be written as such. A backend's line breaks are kept with its data, and in JSON they are blanks;
    // in a stream each would end a line.
    let json = serde_json::to_string(entry).unwrap_or_default();
    if json.contains(LINE_BREAKS) { json.replace(LINE_BREAKS, " ") } else { json }
}

impl Line {
    /// Takes a seat.
    pub async fn open(api: Api, channel: Channel, caller: Caller) -> Result<Self> {
        let Caller { poller, token } = caller;
        let (app, device, epoch) = (poller.app, poller.device, api.store.epoch());
        let seat = api.live.join(app, Who::Device(device, token.clone()), Purpose::Stream(channel)).await?;
        let diary = Diary::new(api.clone(), poller);
        let hand = Hand { api: api.clone(), app, device: device.to_string().into(), epoch, diary: diary.clone() };
        let (told, given, state, thin, head) = (None, Position(0), State::Wait, false, None);
        Ok(Self { api, seat, channel, token, hand, diary, told, given, state, thin, head })
    }

    /// It begins after a cursor that it came with.
    pub fn begin(&mut self, after: Option<Position>, thin: bool) {
        // Who only hears that there is something polls for it, and by that has come as far as it has.
        self.told = if thin { Some(after.unwrap_or_else(|| self.diary.poller().fetched)) } else { after };
        (self.state, self.thin) = (State::Read(after.unwrap_or_default()), thin);
    }

    /// By which its client speaks while it is told.
    pub fn hand(&self) -> Hand {
        self.hand.clone()
    }

    /// What comes next; nothing after what is said to be the last. To ask is to have taken what came before.
    pub async fn next(&mut self) -> Told {
        if self.state != State::Wait {
            self.diary.note(self.given, Position(0));
        }
        loop {
            let told = match self.state {
                State::Ended => std::future::pending().await,
                // Aside, so that who only listens need not carry what reading takes.
                State::Read(acked) => Box::pin(self.read(acked)).await,
                State::CatchUp(through) => {
                    self.state = State::Listen;
                    Ok((!self.thin).then(|| self.caught_up(through)))
                }
                State::Wait | State::Listen => Ok(self.listen().await),
            };
            match told {
                Ok(None) => {}
                Ok(Some(told)) => {
                    if matches!(told, Told::Resync(_) | Told::End(_) | Told::Failed) {
                        self.state = State::Ended;
                    }
                    return told;
                }
                // It will pass; whoever reads is told nothing wrong meanwhile.
                Err(error) if error.passes() => tokio::time::sleep(super::jittered(AGAIN_AFTER)).await,
                Err(error) => {
                    self.state = State::Ended;
                    tracing::error!(%error, "a live connection cannot go on");
                    return Told::Failed;
                }
            }
        }
    }

    /// Reads what it has not been told, once it has come back with everything up to `acked`.
    async fn read(&mut self, acked: Position) -> store::Result<Option<Told>> {
        if let Some(why) = self.seat.reading() {
            return Ok(Some(ended(why)));
        }
        let limit = if self.thin { limits::PAGE_EVENTS } else { limits::PAGE_EVENTS_DEFAULT };
        let request = PageRequest { after: self.told, limit };
        let turn = self.api.live.turn().await;
        let page = match self.api.store.page(&self.diary.poller(), request).await? {
            Paged::Page(page) => page,
            Paged::Expired => return Ok(Some(Told::Resync(problem::CURSOR_EXPIRED.slug))),
            Paged::Ahead => return Ok(Some(Told::Resync(problem::CURSOR_AHEAD.slug))),
        };
        let is_all = !page.has_more && self.seat.listen(&page.feeds, page.through);
        // Last, so that it is nobody else's page: a change of before it does not hear of, and of any later one it will.
        let Some(poller) = self.api.store.poller_of(&self.token).await? else {
            return Ok(Some(Told::End(End::Revoked)));
        };
        drop(turn);
        self.diary.renew(poller);
        self.diary.note(acked, acked);
        let newest = page.entries.last().map(|entry| entry.position());
        self.told = Some(page.through);
        self.state = if is_all { State::CatchUp(page.through) } else { State::Read(acked) };
        if self.thin {
            // One look is enough for all that it has missed.
            self.head = newest.or(self.head);
            return Ok(if is_all { self.head.take().map(Told::Head) } else { None });
        }
        self.given = page.through;
        let entry = |entry: &PageEntry| self.entry(entry.position(), Text::Own(text(&EntryView::of(entry))));
        Ok(self.entries(page.entries.iter().map(entry).collect()))
    }

    fn entries(&self, entries: Vec<Entry>) -> Option<Told> {
        self.api.store.metrics().passed_on(self.channel, entries.len());
        (!entries.is_empty()).then_some(Told::Entries(entries))
    }

    async fn listen(&mut self) -> Option<Told> {
        match self.seat.heard().await {
            Heard::Anew => {
                if self.state != State::Wait {
                    self.state = State::Read(Position(0));
                }
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
                        self.given = newest;
                        let entry = |item: Arc<Item>| self.entry(item.stored.event.position, Text::Shared(item));
                        self.entries(items.into_iter().map(entry).collect())
                    }
                }
            }
        }
    }

    fn entry(&self, position: Position, text: Text) -> Entry {
        Entry { cursor: self.cursor(position), text }
    }

    fn cursor(&self, position: Position) -> String {
        cursor::seal(&self.api.secrets, &self.hand.scope(), self.hand.epoch, position)
    }

    fn caught_up(&self, through: Position) -> Told {
        let poller = self.diary.poller();
        let after_s = self.api.poll_after_s(&poller.settings, poller.status, poller.missed);
        Told::CaughtUp { cursor: self.cursor(through), after_s, push: PushView::of(poller.status) }
    }
}

impl Hand {
    /// The position of one of its cursors.
    pub fn open_cursor(&self, cursor: &str) -> std::result::Result<Position, CursorError> {
        cursor::open(&self.api.secrets, &self.scope(), self.api.store.epoch(), cursor)
    }

    /// It has seen everything up to here; `false` if there is nothing as far as that.
    pub async fn acknowledge(&self, acked: Position) -> bool {
        // What it has been given is there; else it is asked for. If nobody can say, its signature is enough.
        let is_there = acked <= self.diary.poller().fetched
            || self.api.store.counter(self.app).await.map_or(true, |counter| acked <= counter);
        if is_there {
            self.diary.note(acked, acked);
        }
        is_there
    }

    fn scope(&self) -> CursorScope<'_> {
        CursorScope::Sync { device: &self.device }
    }
}

fn ended(why: End) -> Told {
    match why {
        End::EpochChanged => Told::Resync(problem::EPOCH_CHANGED.slug),
        End::TooSlow => Told::Resync(TOO_SLOW),
        why => Told::End(why),
    }
}
