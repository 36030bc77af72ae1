//! SQLite's WAL is written back aside from the writer, who would otherwise stop for it in the middle of a COMMIT.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    error::{Error, Result},
    sqlite::{self, Cleaner},
    writer::Commits,
};

/// How often the WAL is looked at while there are commits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A WAL of so many pages is written back and begun anew: 8 MiB. With 32 MiB the disk was busy with it for so long that commits waited.
const PAGES: i64 = 2_048;
/// A smaller one is written back this often, so that the file alone holds nearly everything.
const WRITTEN_BACK_EVERY: Duration = Duration::from_secs(10);
/// For so few pages the writer is held up …
const FEW: i64 = 10;
/// … or after so many passes, if they do not become fewer.
const PASSES: usize = 5;

/// Writes back what has been committed, until there is nobody left to write or the connection is closed. It blocks the thread it is on, and
/// needs no runtime for its pauses, for that may end first.
pub async fn run(cleaner: Cleaner, mut commits: Commits) {
    let mut last = Instant::now();
    while commits.wait().await {
        match write_back(&cleaner, &commits, &mut last).await {
            Ok(()) => {}
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(%error, "the WAL could not be written back; it is tried again"),
        }
        thread::sleep(LOOK_EVERY);
    }
}

async fn write_back(cleaner: &Cleaner, commits: &Commits, last: &mut Instant) -> Result<()> {
    let is_large = Wal::look(cleaner)?.pages >= PAGES;
    if !is_large && last.elapsed() < WRITTEN_BACK_EVERY {
        return Ok(());
    }
    Wal::write_back(cleaner)?;
    *last = Instant::now();
    if !is_large {
        return Ok(());
    }
    // While writing goes on there are always some pages more, though fewer each time.
    let mut passes = 0;
    while Wal::look(cleaner)?.left > FEW && passes < PASSES {
        Wal::write_back(cleaner)?;
        passes += 1;
    }
    // For the last of them the writer is held up; then the WAL begins anew.
    let _quiet = commits.quiet().await?;
    Wal::write_back(cleaner)
}

/// The state of the WAL.
struct Wal {
    pages: i64,
    /// Not written back yet.
    left: i64,
}

impl Wal {
    fn look(cleaner: &Cleaner) -> Result<Self> {
        Self::checkpoint(cleaner, "pragma wal_checkpoint(noop)")
    }

    fn write_back(cleaner: &Cleaner) -> Result<()> {
        Self::checkpoint(cleaner, "pragma wal_checkpoint(passive)").map(drop)
    }

    fn checkpoint(cleaner: &Cleaner, sql: &'static str) -> Result<Self> {
        let found =
            cleaner.use_connection(|connection| sqlite::fetch_optional::<(i64, i64, i64)>(connection, sql, ()))?;
        let (_busy, pages, written_back) = found.ok_or(Error::NoRow)?;
        Ok(Self { pages, left: pages - written_back })
    }
}
