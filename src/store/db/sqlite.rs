//! SQLite: one file, one process, one writer. A statement runs on the thread that asks for it.

mod place;
mod readers;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc::RecvTimeoutError},
    time::Duration,
};

use anyhow::Context;
use rusqlite::Connection;
use tokio::{runtime::Handle, task::spawn_blocking};

use self::readers::Readers;
pub use self::{place::Place, readers::Reader};
use super::{
    checkpoint,
    error::{Error, Result},
    marks::Marks,
    migrations,
    value::{Columns, Row, Values},
    writer::{self, Writer},
};

/// How long the cleaner waits for readers; meanwhile nobody writes.
const CLEANER_TIMEOUT: Duration = Duration::from_millis(200);
/// Up to this size a database is written anew after an erasure: a tenth of a second or so, in which no other write goes on.
const COMPACTED_BYTES: i64 = 16 * 1024 * 1024;

/// How often the size of a copy is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A database file with its connections.
#[derive(Debug, Clone)]
pub struct File {
    readers: Readers,
    writer: Writer,
    cleaner: Cleaner,
    marks: Marks,
    claim: Claim,
}

/// Keeps others away from the file until it is closed.
#[derive(Debug, Clone)]
struct Claim(Arc<Mutex<Option<std::fs::File>>>);

/// Writes the WAL back, and takes out of the files what has been deleted: it holds the writer up, so it does not wait long.
#[derive(Debug, Clone)]
pub struct Cleaner(Arc<Mutex<Option<Connection>>>);

/// All rows of a statement.
pub fn fetch_all<T: Row>(connection: &Connection, sql: &str, values: impl Values) -> Result<Vec<T>> {
    fetch_while(connection, sql, values, |_| true)
}

/// Rows of a statement, up to the first of which `more` says no.
pub fn fetch_while<T: Row>(
    connection: &Connection,
    sql: &str,
    values: impl Values,
    mut more: impl FnMut(&T) -> bool,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    values.bind(&mut statement)?;
    let (mut rows, mut found) = (statement.raw_query(), Vec::new());
    while let Some(row) = rows.next()? {
        let row = T::read(&mut Columns::Sqlite(row, 0))?;
        let goes_on = more(&row);
        found.push(row);
        if !goes_on {
            break;
        }
    }
    Ok(found)
}

/// The first row of a statement, if there is one.
pub fn fetch_optional<T: Row>(connection: &Connection, sql: &str, values: impl Values) -> Result<Option<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    values.bind(&mut statement)?;
    let mut rows = statement.raw_query();
    rows.next()?.map(|row| T::read(&mut Columns::Sqlite(row, 0))).transpose()
}

/// Runs a statement and answers how many rows it changed.
pub fn execute(connection: &Connection, sql: &str, values: impl Values) -> Result<u64> {
    let mut statement = connection.prepare_cached(sql)?;
    values.bind(&mut statement)?;
    Ok(statement.raw_execute()? as u64)
}

/// Lets something go on that blocks the thread it is on.
pub fn on_a_thread(name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    let runtime = Handle::current();
    start_thread(name, move || runtime.block_on(work));
}

/// Starts a thread. That there is none to be had is found when the relay starts.
#[expect(clippy::expect_used, reason = "at start-up")]
pub fn start_thread(name: &'static str, work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread can be started");
}

impl File {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let place = Place::of(url)?;
        let cannot = || format!("cannot open the database {url}");
        place.make_private().with_context(cannot)?;
        let claim = Claim(Arc::new(Mutex::new(Some(place.claim().await.with_context(cannot)?))));
        let mut connection = place.connect_to_write().with_context(cannot)?;
        let migrated = migrations::apply(&mut connection);
        migrated.with_context(|| format!("cannot bring the database {url} up to date"))?;
        let cleaner = place.connect()?;
        cleaner.busy_timeout(CLEANER_TIMEOUT)?;
        // What a disk has refused may look as if it were there: it is written back anew, and the WAL begins again.
        cleaner.execute_batch("pragma wal_checkpoint(truncate)").with_context(cannot)?;
        let cleaner = Cleaner(Arc::new(Mutex::new(Some(cleaner))));
        let marks = Marks::default();
        marks.watch(&connection)?;
        let wal = place::wal(&connection).with_context(cannot)?;
        let writer = Writer::new(place.clone(), connection, marks.clone(), move || wal.sync_data());
        on_a_thread("checkpoint", checkpoint::run(cleaner.clone(), writer.commits().await?));
        Ok(Self { readers: Readers::new(place), writer, cleaner, marks, claim })
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    pub async fn begin(&self) -> Result<writer::Tx> {
        self.writer.begin().await
    }

    pub async fn begin_unhurried(&self) -> Result<writer::Tx> {
        self.writer.begin_unhurried().await
    }

    pub async fn until_on_disk(&self) -> Result<()> {
        self.writer.disk().until_on_disk().await
    }

    pub async fn reader(&self) -> Result<Reader> {
        self.readers.reader().await
    }

    pub async fn snapshot(&self) -> Result<Reader> {
        self.readers.snapshot().await
    }

    /// All rows of a statement that may take long, on a thread that nobody else waits for.
    pub async fn survey<T: Row + 'static>(&self, sql: &'static str, values: impl Values + 'static) -> Result<Vec<T>> {
        let mut reader = self.reader().await?;
        spawn_blocking(move || fetch_all(reader.connection()?, sql, values)).await.map_err(|_| Error::Closed)?
    }

    /// Brings what has been deleted out of the files as well; answers whether it could, for a reader of an older state keeps it there.
    ///
    /// A deletion overwrites the row (`secure_delete`), but the pages of before stay in the WAL until it is cut off. And where SQLite has
    /// rebuilt a fragmented page, its unused part may still hold copies of rows that have moved away; only writing the database anew
    /// takes them out, so that is done while it is small. In a large one they are rare, and go when their page fills again.
    pub async fn overwrite_deleted(&self) -> Result<bool> {
        let _quiet = self.writer.quiet().await?;
        let cleaner = self.cleaner.clone();
        let cleaned = spawn_blocking(move || cleaner.use_connection(clean)).await.map_err(|_| Error::Closed)?;
        match cleaned {
            Err(error) if error.is_busy() => Ok(false),
            cleaned => cleaned,
        }
    }

    pub async fn close(&self) {
        self.readers.close();
        if let Err(error) = self.writer.close().await {
            tracing::warn!(%error, "the database was not closed as it should be");
        }
        // The last one: with it the WAL goes, which the writer brings to the disk.
        self.cleaner.close();
        self.claim.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Cleaner {
    /// Does something with the connection, while nobody else does.
    pub fn use_connection<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(connection.as_ref().ok_or(Error::Closed)?)
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn clean(connection: &Connection) -> Result<bool> {
    let size = "select c.page_count * s.page_size from pragma_page_count c, pragma_page_size s";
    if fetch_optional::<i64>(connection, size, ())?.is_some_and(|bytes| bytes <= COMPACTED_BYTES) {
        connection.execute_batch("vacuum")?;
    }
    let busy = fetch_optional::<i64>(connection, "pragma wal_checkpoint(truncate)", ())?;
    Ok(busy == Some(0))
}

/// Copies a database that may be in use to a new file, and marks the copy as one.
///
/// `VACUUM INTO` reads one state of the database, as the online backup API does, and leaves out what has been deleted. It is written beside
/// the file and takes its name when it is whole. `tell` hears from time to time how many bytes are there, of about how many.
pub fn copy(url: &str, file: &Path, tell: impl Fn(u64, u64) + Sync) -> anyhow::Result<()> {
    let place = Place::of(url)?;
    place.ensure_exists()?;
    let taken = || format!("{} exists already; a backup overwrites nothing", file.display());
    anyhow::ensure!(file.symlink_metadata().is_err(), taken());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = tempfile::Builder::new().prefix(".reveille-backup-").tempfile_in(folder);
    let unfinished = unfinished.with_context(|| format!("cannot write into {}", folder.display()))?;
    let path = unfinished.path().to_str().context("the path is not Unicode")?.to_owned();
    let source = place.connect_plainly()?;
    let size = "select (c.page_count - f.freelist_count) * s.page_size
                from pragma_page_count c, pragma_freelist_count f, pragma_page_size s";
    let bytes =
        fetch_optional::<i64>(&source, size, ())?.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
    let copied =
        while_watched(unfinished.as_file(), |there| tell(there, bytes), || execute(&source, "vacuum into $1", (path,)));
    copied.with_context(|| format!("cannot copy the database {}", place.path().display()))?;
    let copy = Connection::open(unfinished.path())?;
    copy.pragma_update(None, "synchronous", "full")?;
    let marked = copy.execute("update node set copy = 1", ());
    marked.context("the database is of an older version: start the relay of this version on it once")?;
    copy.close().map_err(|(_, error)| error)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist_noclobber(file).with_context(taken)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Does something while another thread looks how large a file has become.
fn while_watched<T>(file: &std::fs::File, tell: impl Fn(u64) + Sync, work: impl FnOnce() -> T) -> T {
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let tell = &tell;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                tell(file.metadata().map_or(0, |file| file.len()));
            }
        });
        let result = work();
        drop(done);
        result
    })
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

    #[tokio::test]
    async fn a_database_may_lie_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real/reveille.db"), folder.path().join("reveille.db"));
        std::fs::create_dir(folder.path().join("real")).unwrap();
        Db::open(&format!("sqlite:{}", path.display())).await.unwrap().close().await;
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let db = Db::open(&format!("sqlite:{}", link.display())).await.unwrap();
        db.execute("create table found (id integer primary key)", ()).await.unwrap();
        assert_eq!(db.fetch_all::<(i64,)>("select count(*) from found", ()).await.unwrap(), [(0,)]);
    }
}
