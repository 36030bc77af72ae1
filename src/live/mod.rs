//! Live connections: what comes into feeds is passed on to those who wait for it at this process, and their devices count as online.
//!
//! A connection registers first and then reads, so that no event falls in between; what is passed on is a shortcut beside the positions in
//! the database, and whoever may have missed something reads from there (decision 14).

mod hub;
mod tail;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::hub::{Hub, Place};
use crate::{
    domain::{
        feed::{FeedName, Position},
        id::{AppId, DeviceId, KeyId},
    },
    metrics::{Channel, Metrics},
    store::{Presence, Store, StoredEvent},
};

/// For how long a device counts as online; while its connection lasts that is put off in time.
const ONLINE: Duration = Duration::from_secs(150);
/// Who has just been answered is about to ask again.
const LINGERS: Duration = Duration::from_secs(5);
/// So many connections read from the database at once.
const READERS: usize = 6;
/// Connections of one device that go on for long; the oldest makes room for a newer one.
const STREAMS_OF_A_DEVICE: usize = 4;
/// One that was ended has its seat until it notices. A device of which so many are left gets no more.
const SEATS_OF_A_DEVICE: usize = 16;

/// The live connections of this process. Cloning it is cheap.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    store: Store,
    hub: Mutex<Hub>,
    /// So many may be open at once, and so many are.
    most: usize,
    open: AtomicUsize,
    next: AtomicU64,
    turns: Semaphore,
    tasks: TaskTracker,
}

/// Who is connected.
#[derive(Clone, PartialEq, Eq)]
pub enum Who {
    /// A device, by the hash of its token.
    Device(DeviceId, String),
    /// The holder of an app key.
    Key(KeyId),
}

/// What a connection is for.
#[derive(Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It waits for one answer. Of each caller and scope one waits; a newer one ends it.
    Wait(String),
    /// It goes on.
    Stream(Channel),
}

/// There is no room for another connection at this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its key or token is no longer good.
    Revoked,
    /// A newer one has taken its place.
    Replaced,
    /// It has not taken what waited for it.
    TooSlow,
    /// The database was restored: positions are no longer what they were.
    EpochChanged,
    /// The process ends.
    Stopping,
}

/// What a connection hears.
#[derive(Debug)]
pub enum Heard {
    /// These have come, in order; some it may have read already.
    Events(Vec<Arc<Item>>),
    /// Something has: what it is has to be read.
    Anew,
    /// It is over.
    End(End),
}

/// An event that is passed on, to all in one text.
#[derive(Debug)]
pub struct Item {
    /// It.
    pub stored: StoredEvent,
    text: OnceLock<Box<str>>,
}

impl Item {
    /// Its text, made once.
    pub fn text(&self, make: impl FnOnce(&StoredEvent) -> String) -> &str {
        self.text.get_or_init(|| make(&self.stored).into())
    }
}

/// A connection's seat; it is left when this is dropped.
pub struct Seat {
    live: Live,
    place: Arc<Place>,
    /// Whether it has been answered as it should be, and may be back in a moment.
    may_return: bool,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Live {
    /// Begins to pass on what comes in, until stopped; at most `most` connections may be open at once.
    pub fn start(store: Store, most: usize, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (hub, open, next) = (Mutex::default(), AtomicUsize::new(0), AtomicU64::new(0));
        let turns = Semaphore::new(READERS);
        let live = Self(Arc::new(Inner { store, hub, most, open, next, turns, tasks: tasks.clone() }));
        live.0.store.start("live", tasks, tail::follow(live.clone(), stop.clone()));
        live
    }

    /// Takes a seat. When this returns, the device counts as online.
    pub async fn join(&self, app: AppId, who: Who, purpose: Purpose) -> Result<Seat, Full> {
        let open = self.0.open.fetch_add(1, Ordering::Relaxed);
        if open >= self.0.most {
            self.0.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place::new(id, app, who, purpose));
        let joined = self.hub().join(&place);
        let Ok(is_first) = joined else {
            self.0.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        };
        self.metrics().connected(place.channel(), 1);
        let seat = Seat { live: self.clone(), place, may_return: false };
        if let (true, Some(device)) = (is_first, seat.place.device()) {
            // Should it not be noted, a push goes out that was not needed.
            let present = Presence { app, device, lasts: Some(ONLINE) };
            if let Err(error) = self.0.store.present(present).await {
                tracing::warn!(%error, "a device's connection was not noted");
            }
        }
        Ok(seat)
    }

    /// Serves a connection; who stops the process waits for it.
    pub async fn serve(&self, connection: impl Future<Output = ()>) {
        self.0.tasks.track_future(connection).await;
    }

    /// Does something aside; who stops the process waits for it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    /// A turn at reading, until it is dropped: all who have to read at the same moment are not to keep others from the database.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.turns.acquire().await.ok()
    }

    fn metrics(&self) -> &Metrics {
        self.0.store.metrics()
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.0.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// From now on it hears of these feeds. `false` if something in them may have passed by that lies above `read`: then it has to read
    /// again, and say so again.
    pub fn listen(&self, feeds: &[FeedName], read: Position) -> bool {
        self.live.hub().listen(&self.place, feeds, read)
    }

    /// Waits for what comes next.
    pub async fn heard(&self) -> Heard {
        self.place.heard().await
    }

    /// It is about to read, and takes what waits for it when it has. Answers why it is over, if it is.
    pub fn reading(&self) -> Option<End> {
        self.place.reading()
    }

    /// It ends with an answer, and is likely to ask again at once.
    pub fn may_return(mut self) {
        self.may_return = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Live(inner) = &self.live;
        inner.open.fetch_sub(1, Ordering::Relaxed);
        self.live.metrics().connected(self.place.channel(), -1);
        let is_last = self.live.hub().leave(&self.place);
        if let (true, Some(device)) = (is_last, self.place.device()) {
            let (live, app, subject) = (self.live.clone(), self.place.app, self.place.subject);
            let lasts = self.may_return.then_some(LINGERS);
            inner.tasks.spawn(async move {
                if !live.hub().has(subject) {
                    // What is not noted ends by itself.
                    live.0.store.present(Presence { app, device, lasts }).await.ok();
                }
            });
        }
    }
}
