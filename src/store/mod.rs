//! The store: one method, one transaction, one sentence of business.

mod apps;
mod call;
mod claim;
mod credentials;
mod db;
mod devices;
mod events;
mod fanout;
mod finish;
mod follows;
mod group;
mod history;
mod janitor;
mod levels;
mod register;
mod snapshot;
mod status;
mod sync;
mod tokens;
mod visits;

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub use self::{
    apps::{App, AppKey, KeyHolder},
    call::{Call, Finished},
    claim::Claimed,
    credentials::{CredentialInfo, PutCredential},
    devices::{Device, DeviceFilter},
    events::{Accept, Accepted, Idempotency, StoredEvent},
    fanout::FanOut,
    follows::Follow,
    history::{Attempt, AttemptFilter},
    register::{Patched, Registered},
    snapshot::{SnapshotItem, SnapshotPage},
    status::{EventCounts, EventState},
    sync::{Feed, FeedPage, Page, PageEntry, PageRequest, Paged},
    visits::Visit,
};
use self::{db::Db, group::Group};
use crate::{
    domain::{cursor::Epoch, time::Clock},
    secret::Secrets,
};

/// Why the store did not do it. Expected results are values, not errors; these are for the log and a `503` or `500`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue for the writer is full: try again soon.
    #[error("the store is busy")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// What is stored cannot be read.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The transaction that many requests shared failed.
    #[error("{0}")]
    Shared(Arc<Error>),
}

/// What the store's methods answer.
pub type Result<T> = std::result::Result<T, Error>;

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
    epoch: Epoch,
    /// Rung after a commit that may have made something due.
    changed: Arc<Notify>,
    accepts: Group<Accept, Accepted>,
    visits: Group<Visit, ()>,
    finishes: Group<Finished, finish::Due>,
}

impl Store {
    /// Opens the database at `url`, and refuses one that was made under another master key.
    pub async fn open(
        url: &str,
        secrets: Secrets,
        clock: Clock,
        options: StoreOptions,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let db = Db::open(url).await?;
        let epoch = claim_node(&db, &secrets, &clock).await?;
        let changed = Arc::new(Notify::new());
        let accepts = {
            let (db, clock) = (db.clone(), clock.clone());
            Group::start(tasks, move |batch| events::accept(db.clone(), clock.now(), options.fanout_chunk, batch))
        };
        let visits = {
            let (db, clock) = (db.clone(), clock.clone());
            Group::start(tasks, move |batch| visits::write(db.clone(), clock.now(), batch))
        };
        let finishes = {
            let (db, clock) = (db.clone(), clock.clone());
            Group::start(tasks, move |batch| finish::write(db.clone(), clock.now(), batch))
        };
        Ok(Self { inner: Arc::new(Inner { db, secrets, clock, options, epoch, changed, accepts, visits, finishes }) })
    }

    /// The line of history that this database is on.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.db().fetch_all::<(i64,)>("select epoch from node", ()).await?;
        Ok(())
    }

    /// Waits until a commit may have made something due. A ring during the caller's last look is not missed.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.inner.db.close().await;
    }

    fn db(&self) -> &Db {
        &self.inner.db
    }

    fn ring(&self) {
        self.inner.changed.notify_one();
    }
}

/// Reads or writes the node's row; answers the epoch.
async fn claim_node(db: &Db, secrets: &Secrets, clock: &Clock) -> anyhow::Result<Epoch> {
    let mut tx = db.begin().await?;
    let found: Option<(i64, String)> = tx.fetch_optional("select epoch, key_check from node where id = 1", ()).await?;
    if let Some((epoch, key_check)) = found {
        anyhow::ensure!(
            key_check == secrets.key_check(),
            "this database was made under another master key: give it the key it was made with (REVEILLE_MASTER_KEY or REVEILLE_MASTER_KEY_FILE)"
        );
        return Ok(Epoch(epoch));
    }
    let epoch = rand::rng().random_range(1..i64::MAX);
    let sql = "insert into node (id, epoch, key_check, created_at) values (1, $1, $2, $3)";
    tx.execute(sql, (epoch, secrets.key_check(), clock.now().as_ms())).await?;
    tx.commit().await?;
    Ok(Epoch(epoch))
}
