//! Backups, and what makes it known that one was restored: cursors of what has happened since are of an epoch that is over.

use std::path::Path;

use rand::RngExt;

use super::db::{self, Db, Tx};
use crate::domain::cursor::Epoch;

/// Copies the SQLite database at `url` to a new file, while a relay may be using it. Whoever first serves the copy begins a new epoch.
/// `tell` hears from time to time how many bytes are there, of about how many.
///
/// # Errors
/// There is no such database, it is PostgreSQL's, or the file exists or cannot be written; then no half of it is left.
pub async fn back_up(url: &str, file: &Path, tell: impl Fn(u64, u64) + Sync) -> anyhow::Result<()> {
    anyhow::ensure!(
        !db::is_postgres(url),
        "this database is PostgreSQL's: back it up with pg_dump or its own tools, and run `reveille epoch bump` after it was restored"
    );
    db::copy_sqlite(url, file, tell)
}

/// Begins a new epoch in the database at `url`: no cursor that was given before is taken any more.
///
/// # Errors
/// There is no such database, or it was never served.
pub async fn begin_epoch(url: &str) -> anyhow::Result<Epoch> {
    let db = Db::open_existing(url).await?;
    let mut tx = db.begin().await?;
    let epoch = new_epoch(&mut tx).await?;
    tx.commit().await?;
    db.close().await;
    epoch.ok_or_else(|| anyhow::anyhow!("this database has not been served yet, so nobody has a cursor to it"))
}

/// A new epoch; `None` if the database has not been served yet. It is drawn at random: a backup may be restored twice, and the second time
/// must not begin the same one.
pub(super) async fn new_epoch(tx: &mut Tx) -> db::Result<Option<Epoch>> {
    let epoch: i64 = rand::rng().random_range(1..i64::MAX);
    let written = tx.execute("update node set epoch = $1, copy = 0 where id = 1", (epoch,)).await?;
    Ok((written > 0).then_some(Epoch(epoch)))
}
