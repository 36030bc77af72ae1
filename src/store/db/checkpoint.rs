//! SQLite's WAL is written back aside from the writer, who would otherwise stop for it in the middle of a COMMIT.

use std::time::Duration;

use sqlx::{Error, Result, SqlitePool};
use tokio::time::Instant;

use super::{value, writer::Commits};

/// How often the WAL is looked at while there are commits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A WAL of so many pages is written back and begun anew: 32 MiB. More often is not better, for pages that change often would be written
/// again and again.
const PAGES: i64 = 8_192;

/// A smaller one is written back this often, so that the file alone holds nearly everything.
const WRITTEN_BACK_EVERY: Duration = Duration::from_secs(10);

/// Writes back what has been committed, until there is nobody left to write or the connections are closed.
pub async fn run(connections: SqlitePool, mut commits: Commits) {
    let mut last = Instant::now();
    while commits.wait().await {
        match write_back(&connections, &commits, &mut last).await {
            Ok(()) => {}
            Err(Error::PoolClosed) => return,
            Err(error) => tracing::warn!(%error, "the WAL could not be written back; it is tried again"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn write_back(connections: &SqlitePool, commits: &Commits, last: &mut Instant) -> Result<()> {
    let is_large = checkpoint(connections, "pragma wal_checkpoint(noop)").await? >= PAGES;
    if !is_large && last.elapsed() < WRITTEN_BACK_EVERY {
        return Ok(());
    }
    checkpoint(connections, "pragma wal_checkpoint(passive)").await?;
    *last = Instant::now();
    if !is_large {
        return Ok(());
    }
    // While writing goes on there are always some pages more. For these few the writer is held up; then the WAL begins anew.
    let _quiet = commits.quiet().await?;
    checkpoint(connections, "pragma wal_checkpoint(passive)").await?;
    Ok(())
}

/// The pages in the WAL, written back or not.
async fn checkpoint(connections: &SqlitePool, sql: &'static str) -> Result<i64> {
    let (_busy, pages, _written_back): (i64, i64, i64) = value::sqlite(sql, ())?.fetch_one(connections).await?;
    Ok(pages)
}
