//! SQLite: one file, one process, one writer.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, str::FromStr, time::Duration};

use anyhow::Context;
use sqlx::{
    Connection, Result, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    checkpoint, migrations, value,
    writer::{self, Commits, Writer},
};

const READERS: u32 = 4;
/// Rows that a statement may be ahead of who reads them. At sqlx's 50 it stops in the middle of each larger batch.
const ROWS_AHEAD: usize = 1_024;
/// The WAL is written back aside; should that fail, the writer does it itself at this many pages (256 MiB).
const WAL_PAGES: &str = "65536";
/// Result code: another connection has locked the database.
const SQLITE_BUSY: &str = "5";
/// How long a writer waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the cleaner waits for readers; meanwhile nobody writes.
const CLEANER_TIMEOUT: Duration = Duration::from_millis(200);
/// Up to this size a database is written anew after an erasure: a tenth of a second or so, in which no other write goes on.
const COMPACTED_BYTES: i64 = 16 * 1024 * 1024;

/// A database file with its connections.
#[derive(Debug, Clone)]
pub struct File {
    readers: SqlitePool,
    writer: Writer,
    /// Writes the WAL back, and takes out of the files what has been deleted: it holds the writer up, so it does not wait long.
    cleaner: SqlitePool,
}

impl File {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?;
        make_private(options.get_filename()).with_context(|| format!("cannot open the database {url}"))?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is erased is overwritten, not only forgotten.
            .pragma("secure_delete", "on")
            .pragma("wal_autocheckpoint", WAL_PAGES)
            .row_buffer_size(ROWS_AHEAD)
            .busy_timeout(BUSY_TIMEOUT);
        let connection = SqliteConnection::connect_with(&options).await;
        let mut connection = connection.with_context(|| format!("cannot open the database {url}"))?;
        let migrated = migrations::of("sqlite").run(&mut connection).await;
        migrated.with_context(|| format!("cannot bring the database {url} up to date"))?;
        let writer = Writer::new(options.clone(), connection);
        let cleaner = SqlitePoolOptions::new().max_connections(1);
        let cleaner = cleaner.connect_lazy_with(options.clone().busy_timeout(CLEANER_TIMEOUT));
        write_back_aside(cleaner.clone(), writer.commits().await?);
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        let readers = readers.connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { readers, writer, cleaner })
    }

    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub async fn begin(&self) -> Result<writer::Tx> {
        self.writer.begin().await
    }

    pub async fn begin_unhurried(&self) -> Result<writer::Tx> {
        self.writer.begin_unhurried().await
    }

    pub async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await
    }

    /// Brings what has been deleted out of the files as well; answers whether it could, for a reader of an older state keeps it there.
    ///
    /// A deletion overwrites the row (`secure_delete`), but the pages of before stay in the WAL until it is cut off. And where SQLite has
    /// rebuilt a fragmented page, its unused part may still hold copies of rows that have moved away; only writing the database anew
    /// takes them out, so that is done while it is small. In a large one they are rare, and go when their page fills again.
    pub async fn overwrite_deleted(&self) -> Result<bool> {
        let _quiet = self.writer.quiet().await?;
        match self.clean().await {
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == SQLITE_BUSY) => Ok(false),
            cleaned => cleaned,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one door")]
    async fn clean(&self) -> Result<bool> {
        let size = "select c.page_count * s.page_size from pragma_page_count c, pragma_page_size s";
        let (bytes,): (i64,) = value::sqlite(size, ())?.fetch_one(&self.cleaner).await?;
        if bytes <= COMPACTED_BYTES {
            sqlx::query("vacuum").execute(&self.cleaner).await?;
        }
        let checkpoint = "pragma wal_checkpoint(truncate)";
        let (busy, _, _): (i64, i64, i64) = value::sqlite(checkpoint, ())?.fetch_one(&self.cleaner).await?;
        Ok(busy == 0)
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.cleaner.close().await;
        if let Err(error) = self.writer.close().await {
            tracing::warn!(%error, "the database was not closed as it should be");
        }
    }
}

/// Copies a database that may be in use to a new file, and marks the copy as one.
///
/// `VACUUM INTO` reads one state of the database, as the online backup API does, and leaves out what has been deleted. It is written beside
/// the file and takes its name when it is whole.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub async fn copy(url: &str, file: &Path) -> anyhow::Result<()> {
    ensure_exists(url)?;
    let taken = || format!("{} exists already; a backup overwrites nothing", file.display());
    anyhow::ensure!(file.symlink_metadata().is_err(), taken());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new().prefix(".reveille-backup-").tempfile_in(folder);
    let unfinished = unfinished.with_context(|| format!("cannot write into {}", folder.display()))?;
    let options = SqliteConnectOptions::from_str(url)?.busy_timeout(BUSY_TIMEOUT);
    let mut source = SqliteConnection::connect_with(&options).await?;
    let path = unfinished.path().to_str().context("the path is not Unicode")?;
    let copied = sqlx::query("vacuum into $1").bind(path).execute(&mut source).await;
    copied.with_context(|| format!("cannot copy the database {url}"))?;
    source.close().await?;
    let options = SqliteConnectOptions::new().filename(unfinished.path()).synchronous(SqliteSynchronous::Full);
    let mut copy = SqliteConnection::connect_with(&options).await?;
    let marked = sqlx::query("update node set copy = 1").execute(&mut copy).await;
    marked.context("the database is of an older version: start the relay of this version on it once")?;
    copy.close().await?;
    unfinished.as_file().sync_all()?;
    unfinished.persist_noclobber(file).with_context(taken)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it ends with the writer")]
fn write_back_aside(connections: SqlitePool, commits: Commits) {
    tokio::spawn(checkpoint::run(connections, commits));
}

/// Whether the file is there.
pub fn ensure_exists(url: &str) -> anyhow::Result<()> {
    let options = SqliteConnectOptions::from_str(url)?;
    let file = options.get_filename();
    anyhow::ensure!(file.is_file(), "there is no database {}", file.display());
    Ok(())
}

/// A new database is for its owner's eyes only: it holds push tokens and event data. SQLite gives its other files the same rights.
fn make_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use crate::store::db::Db;

    /// Rows that grow, shrink and go, until a page has been rebuilt around one that is gone. Answers the texts of all that are gone.
    async fn churn(db: &Db, seed: u64) -> HashSet<String> {
        let mut chance = StdRng::seed_from_u64(seed);
        let (mut live, mut gone) = (Vec::new(), HashSet::new());
        let mut tx = db.begin().await.unwrap();
        for number in 0..600_i64 {
            let text = |number: i64, most: usize, chance: &mut StdRng| {
                format!("m{number:05}-").repeat(chance.random_range(1..=most))
            };
            let first = text(number, 40, &mut chance);
            tx.execute("insert into churned (id, text) values ($1, $2)", (number, first)).await.unwrap();
            live.push(number);
            for _ in 0..3 {
                let index = chance.random_range(0..live.len());
                if chance.random_bool(0.9) {
                    let changed = text(live[index], 60, &mut chance);
                    tx.execute("update churned set text = $2 where id = $1", (live[index], changed)).await.unwrap();
                } else if live.len() > 5 {
                    let id = live.swap_remove(index);
                    tx.execute("delete from churned where id = $1", (id,)).await.unwrap();
                    gone.insert(format!("m{id:05}-"));
                }
            }
        }
        tx.commit().await.unwrap();
        gone
    }

    /// With this seed SQLite 3.51 keeps a copy of a deleted row in the unused part of a page, `secure_delete` or not.
    const LEAVES_A_COPY: u64 = 9;

    #[tokio::test]
    async fn what_is_deleted_is_nowhere_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reveille.db");
        let db = Db::open(&format!("sqlite:{}", path.display())).await.unwrap();
        db.execute("create table churned (id integer primary key, text text)", ()).await.unwrap();
        let gone = churn(&db, LEAVES_A_COPY).await;
        let traces = || {
            let files = [path.clone(), path.with_extension("db-wal")];
            let bytes: Vec<u8> = files.into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
            let texts = bytes.windows(7).filter(|window| window[0] == b'm' && window[6] == b'-');
            texts.filter(|text| std::str::from_utf8(text).is_ok_and(|text| gone.contains(text))).count()
        };
        assert!(traces() > 0);
        assert!(db.overwrite_deleted().await.unwrap());
        assert_eq!(traces(), 0);
        let left: Vec<(i64,)> = db.fetch_all("select count(*) from churned", ()).await.unwrap();
        assert_eq!(left[0].0 as usize, 600 - gone.len());
    }

    #[tokio::test]
    async fn a_reader_of_an_older_state_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reveille.db");
        let db = Db::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let mut reader = db.snapshot().await.unwrap();
        let _seen: Vec<(i64,)> = reader.fetch_all("select count(*) from apps", ()).await.unwrap();
        db.execute("create table churned (id integer primary key, text text)", ()).await.unwrap();
        assert!(!db.overwrite_deleted().await.unwrap(), "it may still look at what is gone");
        drop(reader);
        assert!(db.overwrite_deleted().await.unwrap());
    }
}
