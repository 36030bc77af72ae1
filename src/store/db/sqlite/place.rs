//! Where a SQLite database lies, and how it is opened.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use percent_encoding::percent_decode_str;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::store::db::error::Result;

/// How long a writer waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one that comes after another waits for it to be gone.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(3);
/// What a network file system says that has nobody to keep its locks.
const NOLCK: i32 = rustix::io::Errno::NOLCK.raw_os_error();
/// Every statement is known to each connection: preparing one costs as much as running it.
const STATEMENTS: usize = 500;
/// The WAL is written back aside; should that fail, the writer does it itself at this many pages (256 MiB).
const WAL_PAGES: i64 = 65_536;
/// Pages that a writer keeps.
const CACHE_KIB: i64 = 16 * 1024;

/// A database file.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    flags: OpenFlags,
}

impl Place {
    /// What `sqlite:PATH`, `sqlite:PATH?mode=rw` (it has to be there) or `sqlite:PATH?mode=ro` names; `%3F` in it is a question mark.
    pub fn of(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("sqlite:").context("a SQLite database is named by sqlite:PATH")?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, options) = rest.split_once('?').unwrap_or((rest, "mode=rwc"));
        ensure!(path != ":memory:", "a database in memory is not supported: every connection would have its own");
        let path = percent_decode_str(path).decode_utf8().context("the path is not Unicode")?;
        let access = match options {
            "mode=rwc" => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            "mode=rw" => OpenFlags::SQLITE_OPEN_READ_WRITE,
            "mode=ro" => OpenFlags::SQLITE_OPEN_READ_ONLY,
            _ => bail!("`{options}` is none of mode=rwc, mode=rw and mode=ro"),
        };
        Ok(Self { path: PathBuf::from(path.as_ref()), flags: access | OpenFlags::SQLITE_OPEN_NO_MUTEX })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is there.
    pub fn ensure_exists(&self) -> anyhow::Result<()> {
        ensure!(self.path.is_file(), "there is no database {}", self.path.display());
        Ok(())
    }

    /// A new database is for its owner's eyes only: it holds push tokens and event data. SQLite gives its other files the same rights.
    pub fn make_private(&self) -> std::io::Result<()> {
        if !self.flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            return Ok(());
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            made => made.map(drop),
        }
    }

    /// Claims the database for as long as the file that is answered stays open: what a process remembers of its own writes holds only if
    /// nobody else writes (decision 11).
    pub async fn claim(&self) -> anyhow::Result<File> {
        let path = self.path.canonicalize()?;
        let path = beside(&path, "-lock");
        // To lock a file is not to write to it: one that somebody else has made will do.
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.or_else(|_| File::open(&path)).with_context(|| format!("cannot open {}", path.display()))?;
        let since = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if since.elapsed() < CLAIM_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another process is at work on it: stop it first. SQLite is for one process; several share PostgreSQL (docs/scaling.md)"
                ),
                // There are file systems without locks; there it is up to the operator.
                Err(TryLockError::Error(error))
                    if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(NOLCK) =>
                {
                    return Ok(lock);
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// A connection that writes as safely as SQLite can: a COMMIT is on the disk when it returns, and what is erased is overwritten, not only forgotten.
    pub fn connect(&self) -> Result<Connection> {
        let connection = self.connect_plainly()?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        Ok(connection)
    }

    /// The writer's, whose COMMITs are brought to the disk aside: the WAL is in order after a power cut, and SQLite waits for the disk only
    /// where it has to, before a WAL begins anew.
    pub fn connect_to_write(&self) -> Result<Connection> {
        let connection = self.connect()?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // What a savepoint goes back to is kept in memory as well; in a file it was half the time of a claim.
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    }

    /// One that reads.
    pub fn connect_to_read(&self) -> Result<Connection> {
        let connection = self.connect_plainly()?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    /// One that cannot but read, even if a relay is at work. Where none is, all of it is in the one file, and SQLite need make no other.
    pub fn connect_to_look(&self) -> anyhow::Result<Connection> {
        let path = self.path.canonicalize()?;
        let read = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if beside(&path, "-wal").try_exists()? {
            Connection::open_with_flags(&path, read)?
        } else {
            let path = path.to_str().context("the path is not Unicode")?;
            let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
            let uri = format!("file:{path}?immutable=1");
            Connection::open_with_flags(uri, read | OpenFlags::SQLITE_OPEN_URI)?
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    /// One that leaves the database as it is.
    pub fn connect_plainly(&self) -> Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, self.flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // A plan holds whatever is bound; else statements about tables with partial indexes are prepared anew each time.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    }
}

/// The WAL of a connection that has read or written.
pub fn wal(connection: &Connection) -> std::io::Result<File> {
    // Where SQLite has found the database: a link has been followed.
    let path = Path::new(connection.path().unwrap_or_default());
    let wal = File::open(beside(path, "-wal"))?;
    // SQLite would make sure of its name with the first COMMIT that waits for the disk, where it may; here none does.
    if let Some(Ok(folder)) = path.parent().map(File::open) {
        folder.sync_all()?;
    }
    Ok(wal)
}

/// One of the files that SQLite has beside a database.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
