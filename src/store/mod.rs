//! The store: one method, one transaction, one sentence of business.

mod activity;
mod alarms;
mod apps;
mod backup;
mod brake;
mod call;
mod census;
mod claim;
mod credentials;
mod db;
mod devices;
mod erase;
mod events;
mod fanout;
mod finish;
mod follows;
mod group;
mod history;
mod janitor;
mod levels;
mod live;
mod node;
mod operations;
mod pollers;
mod presence;
mod register;
mod release;
mod settings;
mod snapshot;
mod stale;
mod standing;
mod stats;
mod status;
mod sync;
mod tallies;
mod tickets;
mod timeline;
mod tokens;
mod underway;
mod visits;
mod wake_rate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    activity::{Activity, Happening},
    alarms::Alarm,
    apps::{App, AppKey, KeyHolder},
    backup::{back_up, begin_epoch},
    call::{Call, Finished},
    claim::{Claimed, Queue, Share},
    credentials::{CredentialInfo, PutCredential},
    db::{Inspected, Moving, Schema, Standing, inspect, migrate},
    devices::{Device, DeviceFilter},
    events::{Accept, Accepted, Idempotency, StoredEvent},
    fanout::FanOut,
    follows::Follow,
    history::{Attempt, AttemptFilter},
    live::{CHANGES_KEPT, News, subject},
    operations::Operation,
    pollers::{Known, Poller},
    presence::Presence,
    register::{Patched, Registered},
    release::{Release, StandingBrake},
    snapshot::{SnapshotItem, SnapshotPage},
    stats::{DeviceCounts, Stats, Step},
    status::{EventCounts, EventState},
    sync::{Feed, FeedPage, Page, PageEntry, PageRequest, Paged},
    tickets::TICKET,
    timeline::{Entry, Heard, Lagging, Timeline},
    visits::{Visit, Visited},
};
use self::{
    census::Counted,
    db::{Db, MayBeDatabase},
    group::Group,
    node::Node,
    pollers::Memory,
    settings::SettingsCache,
    stats::KeptCounts,
    underway::UnderWay,
    wake_rate::LastLook,
};
use crate::{
    domain::{
        cursor::Epoch,
        record::Load,
        time::{Clock, Timestamp},
    },
    fault,
    metrics::Metrics,
    secret::Secrets,
};

/// Why the store did not do it. Expected results are values, not errors; these are for the log and a `503` or `500`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue for the writer is full: try again soon.
    #[error("the store is busy")]
    Busy,
    /// The database cannot be reached: try again soon.
    #[error("the database cannot be reached: {0}")]
    Away(db::Error),
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(db::Error),
    /// What is stored cannot be read.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The transaction that many requests shared failed.
    #[error("{0}")]
    Shared(Arc<Error>),
}

impl MayBeDatabase for Error {
    fn database(&self) -> Option<&db::Error> {
        match self {
            Self::Database(error) | Self::Away(error) => Some(error),
            Self::Shared(error) => error.database(),
            Self::Busy | Self::Corrupt(_) => None,
        }
    }
}

/// What the store's methods answer.
pub type Result<T> = std::result::Result<T, Error>;

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        if error.is_away() { Self::Away(error) } else { Self::Database(error) }
    }
}

impl Error {
    /// Whether it is likely to pass, and a repetition is worth it.
    pub fn passes(&self) -> bool {
        match self {
            Self::Busy | Self::Away(_) => true,
            Self::Shared(error) => error.passes(),
            Self::Database(_) | Self::Corrupt(_) => false,
        }
    }
}

/// What may be set about a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Followers that one transaction of a fan-out takes; feeds with more are worked off in chunks after the accept.
    pub fanout_chunk: u32,
    /// For how long a claimed wake belongs to its caller.
    pub lease: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { fanout_chunk: 500, lease: Duration::from_secs(45) }
    }
}

/// Everything that is kept; cloning it is cheap.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    secrets: Secrets,
    clock: Clock,
    options: StoreOptions,
    node: Arc<Node>,
    /// Ends what keeps up with other processes.
    stop: CancellationToken,
    /// Rung when an erasure goes on after its request.
    erasing: Notify,
    accepts: Group<Accept, Accepted>,
    visits: Group<Visit, Visited>,
    presences: Group<Presence, ()>,
    finishes: Group<Finished, finish::Due>,
    settings: Arc<SettingsCache>,
    /// Devices that bulk work takes at a time: as many as its last claim was asked for, and that is few while several apps are at work.
    bulk: Arc<AtomicUsize>,
    /// What polls need to know; none where others write as well.
    memory: Option<Memory>,
    under_way: UnderWay,
    device_counts: KeptCounts,
    wake_rates: LastLook,
    counted: Counted,
    metrics: Metrics,
    sweep: stale::Sweep,
    /// What goes on when its caller has hung up.
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Store {
    /// Opens the database at `url`, and refuses one that was made under another master key.
    pub async fn open(
        url: &str,
        secrets: Secrets,
        clock: Clock,
        options: StoreOptions,
        metrics: Metrics,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let db = Db::open(url).await?;
        let (node, stop) = (Arc::new(Node::open(&db, &secrets, &clock).await?), CancellationToken::new());
        node.start(&db, tasks, &stop);
        db.keep_days(clock.now(), Timestamp::default()).await;
        let accepts = {
            let (clock, node, counts) = (clock.clone(), Arc::clone(&node), metrics.clone());
            let write = move |db, batch: Arc<Vec<Accept>>| {
                let (now, counts) = (clock.now(), counts.clone());
                async move { events::accept(&db, now, options.fanout_chunk, &batch, &counts).await }
            };
            Group::start("accept", &db, tasks, metrics.clone(), write, move || {
                fault::point("accept: after the commit");
                node.ring();
            })
        };
        let visits = {
            let (clock, counts) = (clock.clone(), metrics.clone());
            let write = move |db, batch: Arc<Vec<Visit>>| {
                let (now, counts) = (clock.now(), counts.clone());
                async move { visits::write(&db, now, &batch, &counts).await }
            };
            Group::start("visit", &db, tasks, metrics.clone(), write, || fault::point("fetch: after the commit"))
        };
        let presences = {
            let (clock, this) = (clock.clone(), rand::rng().random::<u64>().to_string());
            let write = move |db, batch: Arc<Vec<Presence>>| {
                let (now, this) = (clock.now(), this.clone());
                async move { presence::write(&db, now, &this, &batch).await }
            };
            Group::start("presence", &db, tasks, metrics.clone(), write, || {})
        };
        let settings = Arc::new(SettingsCache::default());
        let bulk = Arc::new(AtomicUsize::new(usize::MAX));
        let finishes = {
            let (clock, settings, bulk) = (clock.clone(), Arc::clone(&settings), Arc::clone(&bulk));
            let counts = metrics.clone();
            let write = move |db, batch: Arc<Vec<Finished>>| {
                let (settings, now, bulk) = (Arc::clone(&settings), clock.now(), bulk.load(Ordering::Relaxed));
                let counts = counts.clone();
                async move { finish::write(&db, &settings, now, &batch, bulk, &counts).await }
            };
            Group::start("finish", &db, tasks, metrics.clone(), write, || fault::point("finish: after the commit"))
        };
        let (under_way, device_counts, wake_rates) = (UnderWay::default(), KeptCounts::default(), LastLook::default());
        let erasing = Notify::new();
        let memory = db.marks().cloned().map(Memory::new);
        let inner = Inner {
            db,
            secrets,
            clock,
            options,
            node,
            stop,
            erasing,
            accepts,
            visits,
            presences,
            finishes,
            settings,
            bulk,
            memory,
            under_way,
            device_counts,
            wake_rates,
            counted: Counted::default(),
            metrics,
            sweep: stale::Sweep::default(),
            tasks: tasks.clone(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The line of history that this database is on.
    pub fn epoch(&self) -> Epoch {
        self.inner.node.epoch()
    }

    /// How busy the writer is.
    pub fn load(&self) -> Load {
        let Inner { accepts, visits, finishes, .. } = &*self.inner;
        if accepts.is_pressed() || visits.is_pressed() || finishes.is_pressed() {
            Load::Overloaded
        } else {
            Load::Normal
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.db().fetch_all::<(i64,)>("select epoch from node", ()).await?;
        Ok(())
    }

    /// Transactions that the database has broken off for another's sake since this process began, and that were tried again.
    pub fn broken_off(&self) -> u64 {
        db::broken_off()
    }

    /// Tells when a commit may have made something due.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.node.changes()
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.db.close().await;
    }

    fn db(&self) -> &Db {
        &self.inner.db
    }

    /// Does something, and counts how long it took and whether it failed.
    async fn timed<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let done = work.await;
        self.inner.metrics.operated(operation, began.elapsed());
        if done.is_err() {
            self.inner.metrics.failed(operation);
        }
        done
    }

    /// What this process counts.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How many requests wait in each queue for a transaction.
    pub fn queues(&self) -> Vec<(&'static str, usize)> {
        let Inner { accepts, visits, presences, finishes, .. } = &*self.inner;
        vec![
            ("accept", accepts.waiting()),
            ("visit", visits.waiting()),
            ("presence", presences.waiting()),
            ("finish", finishes.waiting()),
        ]
    }

    /// Starts work that writes again and again.
    pub fn start(&self, name: &'static str, tasks: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        self.db().start(name, tasks, work);
    }

    fn ring(&self) {
        self.inner.node.ring();
    }
}
