//! Who sits where, and what each is told. No I/O: the tail brings the news, connections take it.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{End, Heard, Item, Purpose, STREAMS_OF_A_DEVICE, Who};
use crate::{
    domain::{
        feed::{FeedName, Position},
        id::{AppId, DeviceId, KeyId},
    },
    metrics::Channel,
    store::News,
};

/// Events that wait for a connection to take them, …
const WAITING: usize = 64;
/// … and their size, in bytes of what they carry. More are read from the database when it gets there.
const WAITING_BYTES: usize = 256 * 1024;
/// A connection that has had more than that waiting for so long takes nothing.
const STALLED: Duration = Duration::from_secs(10);

/// All seats of this process.
#[derive(Debug, Default)]
pub struct Hub {
    apps: HashMap<AppId, App>,
    by_device: HashMap<DeviceId, Vec<Arc<Place>>>,
    by_key: HashMap<KeyId, Vec<Arc<Place>>>,
    waits: HashMap<String, Arc<Place>>,
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
        Self { id, app, who, purpose, mail: Mutex::default(), rung: Notify::new() }
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
    fn new(stored: crate::store::StoredEvent) -> Self {
        Self { stored, text: OnceLock::new() }
    }

    fn bytes(&self) -> usize {
        self.stored.event.content.data.as_ref().map_or(0, |data| data.get().len())
    }
}

impl Hub {
    /// Somebody takes a seat; answers whether it is the first of its device.
    pub fn join(&mut self, place: &Arc<Place>) -> bool {
        if let Purpose::Wait(scope) = &place.purpose
            && let Some(older) = self.waits.insert(scope.clone(), Arc::clone(place))
        {
            older.end(End::Replaced);
        }
        match place.who {
            Who::Device(device, _) => {
                let of_device = self.by_device.entry(device).or_default();
                let mut streams = of_device.iter().filter(|other| matches!(other.purpose, Purpose::Stream(_)));
                if let (Purpose::Stream(_), Some(oldest)) = (&place.purpose, streams.next())
                    && streams.count() + 2 > STREAMS_OF_A_DEVICE
                {
                    oldest.end(End::Replaced);
                }
                of_device.push(Arc::clone(place));
                of_device.len() == 1
            }
            Who::Key(key) => {
                self.by_key.entry(key).or_default().push(Arc::clone(place));
                false
            }
        }
    }

    /// Somebody leaves; answers whether it was the last of its device.
    pub fn leave(&mut self, place: &Arc<Place>) -> bool {
        if let Purpose::Wait(scope) = &place.purpose
            && self.waits.get(scope).is_some_and(|waits| waits.id == place.id)
        {
            self.waits.remove(scope);
        }
        self.unlist(place);
        match place.who {
            Who::Device(device, _) => remove(&mut self.by_device, device, place.id),
            Who::Key(key) => remove(&mut self.by_key, key, place.id),
        }
    }

    /// Whether a device has a seat.
    pub fn has(&self, device: DeviceId) -> bool {
        self.by_device.contains_key(&device)
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
        place.mail().listens = Some((feeds.to_vec(), app.position));
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

    /// Passes on what has come into an app.
    pub fn tell(&mut self, app: AppId, news: News) {
        for subject in &news.changed {
            let of_device = subject.parse().ok().and_then(|device| self.by_device.get(&device));
            let of_key = subject.parse().ok().and_then(|key| self.by_key.get(&key));
            of_device.into_iter().chain(of_key).flatten().for_each(|place| place.anew());
        }
        let Some(app) = self.apps.get_mut(&app) else { return };
        for stored in news.events {
            if let Some(places) = app.by_feed.get(&stored.event.content.feed) {
                let item = Arc::new(Item::new(stored));
                places.values().for_each(|place| place.put(&item));
            }
        }
        app.position = news.through;
    }

    /// All of an app read anew: what has come up to a position has not been passed on.
    pub fn pass_over(&mut self, app: AppId, position: Position) {
        if let Some(state) = self.apps.get_mut(&app) {
            state.position = position;
        }
        self.places().filter(|place| place.app == app).for_each(|place| place.anew());
    }

    /// Ends the connections of an app, or all.
    pub fn end(&self, app: Option<AppId>, why: End) {
        self.places().filter(|place| app.is_none_or(|app| place.app == app)).for_each(|place| place.end(why));
    }

    /// Devices with connections that go on, each with one of them.
    pub fn streams(&self) -> Vec<Arc<Place>> {
        let goes_on = |place: &&Arc<Place>| matches!(place.purpose, Purpose::Stream(_));
        self.by_device.values().flatten().filter(goes_on).map(Arc::clone).collect()
    }

    fn places(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.by_device.values().chain(self.by_key.values()).flatten()
    }
}

/// Takes a place out; answers whether it was the last of its kind.
fn remove<K: std::hash::Hash + Eq>(places: &mut HashMap<K, Vec<Arc<Place>>>, key: K, id: u64) -> bool {
    let Entry::Occupied(mut of_key) = places.entry(key) else { return false };
    of_key.get_mut().retain(|place| place.id != id);
    let is_last = of_key.get().is_empty();
    if is_last {
        of_key.remove();
    }
    is_last
}
