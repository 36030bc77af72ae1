//! What this process shares with others at the same database: the epoch, and news of each other's commits. In SQLite there are no others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    backup,
    db::{Db, Watch, locking},
};
use crate::{
    domain::{cursor::Epoch, time::Clock},
    secret::Secrets,
};

/// How often the epoch is read again, and with it whether the database answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is committed within this time is one piece of news.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// After a connection for news was lost.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The part of a store that is about other processes.
#[derive(Debug)]
pub(super) struct Node {
    epoch: AtomicI64,
    /// Turned after a commit that may have made something due, here or elsewhere.
    changed: watch::Sender<()>,
    /// Rung after such a commit of this process.
    committed: Notify,
}

impl Node {
    /// Reads the database's row, or writes it if the database is new; refuses one that was made under another master key.
    pub async fn open(db: &Db, secrets: &Secrets, clock: &Clock) -> anyhow::Result<Self> {
        let mut tx = db.begin().await?;
        let epoch: i64 = rand::rng().random_range(1..i64::MAX);
        let sql =
            "insert into node (id, epoch, key_check, created_at) values (1, $1, $2, $3) on conflict (id) do nothing";
        tx.execute(sql, (epoch, secrets.key_check(), clock.now().as_ms())).await?;
        let (moves,): (i64,) = tx.fetch_one("select count(*) from moves where finished_at is null", ()).await?;
        anyhow::ensure!(moves == 0, "a move to this database was broken off: run `reveille migrate-store` again");
        let sql = locking!("select epoch, key_check, copy from node where id = 1", "for update");
        let (epoch, key_check, copy): (i64, String, i64) = tx.fetch_one(sql, ()).await?;
        anyhow::ensure!(
            key_check == secrets.key_check(),
            "this database was made under another master key: give it the key it was made with (REVEILLE_MASTER_KEY or REVEILLE_MASTER_KEY_FILE)"
        );
        let restored = if copy == 0 { None } else { backup::new_epoch(&mut tx).await? };
        if restored.is_some() {
            tracing::warn!("this database is a backup: it begins a new epoch, and phones start from their snapshots");
        }
        let Epoch(epoch) = restored.unwrap_or(Epoch(epoch));
        tx.commit().await?;
        Ok(Self { epoch: AtomicI64::new(epoch), changed: watch::Sender::new(()), committed: Notify::new() })
    }

    /// The line of history that the database is on; at most a moment old if another process has begun a new one.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    /// Tells when something may have become due.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something may have become due.
    pub fn ring(&self) {
        self.changed.send_replace(());
        self.committed.notify_one();
    }

    /// Keeps up with the others until the store is closed.
    pub fn start(self: &Arc<Self>, db: &Db, tasks: &TaskTracker, stop: &CancellationToken) {
        let Some(watch) = db.watch() else { return };
        let watch = Arc::new(watch);
        let look = Arc::clone(self).look(Arc::clone(&watch));
        let (tell, listen) = (Arc::clone(self).tell(Arc::clone(&watch)), Arc::clone(self).listen(watch));
        let all = async { tokio::join!(look, tell, listen) };
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(all).await });
    }

    async fn look(self: Arc<Self>, watch: Arc<Watch>) {
        loop {
            if let Some(epoch) = watch.look().await {
                self.epoch.store(epoch, Ordering::Relaxed);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells others of commits, aside from the transactions and once for all that have come in a moment: whoever notifies in a transaction
    /// queues for a lock of the whole database until it has committed.
    async fn tell(self: Arc<Self>, watch: Arc<Watch>) {
        loop {
            self.committed.notified().await;
            // What is not told is found by whoever looks.
            watch.tell().await.ok();
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    async fn listen(self: Arc<Self>, watch: Arc<Watch>) {
        loop {
            let ended = watch.listen(|| self.changed.send_replace(())).await;
            tracing::debug!(error = ?ended.err(), "no news from other processes for a moment");
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }
}
