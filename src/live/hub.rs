//! Who sits where, and what each is told. No I/O: the tail brings the news, connections take it.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{End, Full, Heard, Item, Purpose, SEATS_OF_A_DEVICE, STREAMS_OF_A_DEVICE, Who};
use crate::{
    domain::{
        feed::{FeedName, Position},
        id::{AppId, DeviceId},
    },
    metrics::Channel,
    store::{News, StoredEvent, subject},
};

/// Events that wait for a connection to take them, …
const WAITING: usize = 64;
/// … and their size, in bytes of what they carry. More are read from the database when it gets there.
const WAITING_BYTES: usize = 256 * 1024;
/// A connection that has had more than that waiting for so long takes nothing.
const STALLED: Duration = Duration::from_secs(10);

/// All seats of this process.
#[derive(Default)]
pub struct Hub {
    apps: HashMap<AppId, App>,
    /// Devices and keys.
    by_subject: HashMap<i64, Vec<Arc<Place>>>,
    waits: HashMap<String, Arc<Place>>,
    is_stopping: bool,
}

/// An app that somebody listens to.
#[derive(Debug)]
struct App {
    /// All that is not above this has been passed on.
    position: Position,
    by_feed: HashMap<FeedName, HashMap<u64, Arc<Place>>>,
    /// Seats that have said what they listen to.
    listening: usize,
}

/// Where somebody sits.
pub struct Place {
    id: u64,
    pub app: AppId,
    pub who: Who,
    pub subject: i64,
    purpose: Purpose,
    mail: Mutex<Mail>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct Mail {
    events: VecDeque<Arc<Item>>,
    bytes: usize,
    /// What has come is to be read; until it is, nothing is put here.
    anew: bool,
    /// Since when more has been waiting than fits.
    full_since: Option<Instant>,
    ended: Option<End>,
    /// The feeds that it hears of, and since which position of their app.
    listens: Option<(Vec<FeedName>, Position)>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("id", &self.id).field("app", &self.app).finish_non_exhaustive()
    }
}

impl Place {
    pub fn new(id: u64, app: AppId, who: Who, purpose: Purpose) -> Self {
        let subject = match &who {
            Who::Device(device, _) => subject(&device.to_string()),
            Who::Key(key) => subject(&key.to_string()),
        };
        Self { id, app, who, subject, purpose, mail: Mutex::default(), rung: Notify::new() }
    }

    /// Whether it is one that lasts, and is not over.
    fn goes_on(&self) -> bool {
        matches!(self.purpose, Purpose::Stream(_)) && self.mail().ended.is_none()
    }

    pub fn channel(&self) -> Channel {
        match self.purpose {
            Purpose::Wait(_) => Channel::LongPoll,
            Purpose::Stream(channel) => channel,
        }
    }

    pub fn device(&self) -> Option<DeviceId> {
        match self.who {
            Who::Device(device, _) => Some(device),
            Who::Key(_) => None,
        }
    }

    /// The hash of the device token that it came with.
    pub fn token(&self) -> Option<&str> {
        match &self.who {
            Who::Device(_, token) => Some(token),
            Who::Key(_) => None,
        }
    }

    pub async fn heard(&self) -> Heard {
        loop {
            if let Some(heard) = self.mail().take() {
                return heard;
            }
            self.rung.notified().await;
        }
    }

    pub fn end(&self, why: End) {
        self.mail().ended.get_or_insert(why);
        self.rung.notify_one();
    }

    /// See [`Seat::reading`](super::Seat::reading).
    pub fn reading(&self) -> Option<End> {
        let mut mail = self.mail();
        mail.full_since = None;
        mail.ended
    }

    fn anew(&self) {
        self.mail().anew = true;
        self.rung.notify_one();
    }

    fn put(&self, item: &Arc<Item>) {
        let mut mail = self.mail();
        if mail.anew {
            return;
        }
        let bytes = mail.bytes + item.bytes();
        if matches!(self.purpose, Purpose::Wait(_)) {
            mail.anew = true;
        } else if mail.events.len() >= WAITING || bytes > WAITING_BYTES {
            (mail.anew, mail.full_since) = (true, Some(Instant::now()));
        } else {
            mail.events.push_back(Arc::clone(item));
            mail.bytes = bytes;
        }
        drop(mail);
        self.rung.notify_one();
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mail {
    fn take(&mut self) -> Option<Heard> {
        if let Some(why) = self.ended {
            return Some(Heard::End(why));
        }
        let events = std::mem::take(&mut self.events);
        self.bytes = 0;
        if self.full_since.take().is_some_and(|since| since.elapsed() > STALLED) {
            self.ended = Some(End::TooSlow);
            return Some(Heard::End(End::TooSlow));
        }
        if std::mem::take(&mut self.anew) {
            return Some(Heard::Anew);
        }
        (!events.is_empty()).then(|| Heard::Events(events.into()))
    }
}

impl Item {
    fn new(stored: StoredEvent) -> Self {
        Self { stored, text: OnceLock::new() }
    }

    fn bytes(&self) -> usize {
        self.stored.event.content.data.as_ref().map_or(0, |data| data.get().len())
    }
}

impl Hub {
    /// Somebody takes a seat; answers whether it is the first of its device.
    pub fn join(&mut self, place: &Arc<Place>) -> Result<bool, Full> {
        let others = self.by_subject.get(&place.subject).map_or(&[][..], Vec::as_slice);
        let streams = others.iter().filter(|other| matches!(other.purpose, Purpose::Stream(_)));
        if streams.count() >= SEATS_OF_A_DEVICE {
            return Err(Full);
        }
        if self.is_stopping {
            place.end(End::Stopping);
        }
        if let Purpose::Wait(scope) = &place.purpose
            && let Some(older) = self.waits.insert(scope.clone(), Arc::clone(place))
        {
            older.end(End::Replaced);
        }
        let others = self.by_subject.entry(place.subject).or_default();
        let mut streams = others.iter().filter(|other| other.goes_on());
        if let (true, Some(oldest)) = (place.goes_on(), streams.next())
            && streams.count() + 2 > STREAMS_OF_A_DEVICE
        {
            oldest.end(End::Replaced);
        }
        others.push(Arc::clone(place));
        Ok(others.len() == 1)
    }

    /// Somebody leaves; answers whether it was the last of its device.
    pub fn leave(&mut self, place: &Arc<Place>) -> bool {
        if let Purpose::Wait(scope) = &place.purpose
            && self.waits.get(scope).is_some_and(|waits| waits.id == place.id)
        {
            self.waits.remove(scope);
        }
        self.unlist(place);
        let Entry::Occupied(mut others) = self.by_subject.entry(place.subject) else { return false };
        others.get_mut().retain(|other| other.id != place.id);
        let is_last = others.get().is_empty();
        if is_last {
            others.remove();
        }
        is_last
    }

    /// Whether anybody else of the same device or key has a seat.
    pub fn has(&self, subject: i64) -> bool {
        self.by_subject.contains_key(&subject)
    }

    /// See [`Seat::listen`](super::Seat::listen).
    pub fn listen(&mut self, place: &Arc<Place>, feeds: &[FeedName], read: Position) -> bool {
        let since = place.mail().listens.as_ref().filter(|(listens, _)| listens == feeds).map(|(_, since)| *since);
        // In the feeds that it hears of already nothing passes by.
        let since = since.unwrap_or_else(|| self.list(place, feeds, read));
        since <= read
    }

    /// Answers from which position on it hears of everything.
    fn list(&mut self, place: &Arc<Place>, feeds: &[FeedName], read: Position) -> Position {
        self.unlist(place);
        let app =
            self.apps.entry(place.app).or_insert_with(|| App { position: read, by_feed: HashMap::new(), listening: 0 });
        app.listening += 1;
        for feed in feeds {
            // A name that is there already is not made again.
            match app.by_feed.get_mut(feed) {
                Some(places) => drop(places.insert(place.id, Arc::clone(place))),
                None => drop(app.by_feed.insert(feed.clone(), HashMap::from([(place.id, Arc::clone(place))]))),
            }
        }
        let mut mail = place.mail();
        // What has come up to here it reads, or has read; what comes from here on is put behind nothing older.
        (mail.events, mail.bytes) = (VecDeque::new(), 0);
        mail.listens = Some((feeds.to_vec(), app.position));
        app.position
    }

    fn unlist(&mut self, place: &Arc<Place>) {
        let Some((feeds, _)) = place.mail().listens.take() else { return };
        let Entry::Occupied(mut app) = self.apps.entry(place.app) else { return };
        for feed in feeds {
            if let Entry::Occupied(mut places) = app.get_mut().by_feed.entry(feed) {
                places.get_mut().remove(&place.id);
                if places.get().is_empty() {
                    places.remove();
                }
            }
        }
        app.get_mut().listening -= 1;
        if app.get().listening == 0 {
            app.remove();
        }
    }

    /// The apps that somebody listens to, and how far each has been passed on.
    pub fn positions(&self) -> Vec<(AppId, Position)> {
        self.apps.iter().map(|(app, state)| (*app, state.position)).collect()
    }

    /// Passes on what has come into an app after a position.
    pub fn tell(&mut self, app: AppId, after: Position, news: News) {
        for subject in &news.changed {
            self.by_subject.get(subject).into_iter().flatten().for_each(|place| place.anew());
        }
        // All may have left meanwhile, and others come who have not read as far: for them it is read again.
        let Some(app) = self.apps.get_mut(&app).filter(|app| after <= app.position) else { return };
        for stored in news.events {
            if let Some(places) = app.by_feed.get(&stored.event.content.feed) {
                let item = Arc::new(Item::new(stored));
                places.values().for_each(|place| place.put(&item));
            }
        }
        app.position = app.position.max(news.through);
    }

    /// All of an app read anew: what has come up to a position has not been passed on.
    pub fn pass_over(&mut self, app: AppId, position: Position) {
        if let Some(state) = self.apps.get_mut(&app) {
            state.position = position;
        }
        self.places().filter(|place| place.app == app).for_each(|place| place.anew());
    }

    /// Ends all connections, and any that comes yet.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.end(None, End::Stopping);
    }

    /// Ends the connections of an app, or all.
    pub fn end(&self, app: Option<AppId>, why: End) {
        self.places().filter(|place| app.is_none_or(|app| place.app == app)).for_each(|place| place.end(why));
    }

    /// Connections of devices.
    pub fn of_devices(&self) -> Vec<Arc<Place>> {
        let lasts = |place: &&Arc<Place>| place.device().is_some() && place.mail().ended.is_none();
        self.places().filter(lasts).map(Arc::clone).collect()
    }

    fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.by_subject.values().flatten()
    }
}

#[cfg(test)]
mod tests;
