//! The one door to the database: statements written once, in the SQL that SQLite and PostgreSQL share (decision 3).
//!
//! Reads go through [`Db`], writes through a [`Tx`]. In SQLite a writing transaction is the only one, and
//! statements run on the thread that asks for them (decision 10); in PostgreSQL a transaction holds what it has locked, in the order of
//! decision 8.

mod checkpoint;
mod each;
mod error;
mod inspect;
mod marks;
mod migrations;
mod partitions;
mod postgres;
mod retry;
mod sqlite;
mod transfer;
mod value;
mod writer;

use rusqlite::Connection as SqliteConnection;
use sqlx::{PgConnection, Transaction};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::domain::time::Timestamp;

pub(super) use self::{each::fields, value::row};
pub use self::{
    each::{Each, Fields},
    error::{Error, Result},
    inspect::{Inspected, Standing, inspect},
    marks::{Mark, Marks},
    migrations::Schema,
    postgres::Watch,
    retry::{MayBeDatabase, broken_off, retry},
    sqlite::copy as copy_sqlite,
    transfer::{Moving, migrate},
    value::{Columns, Json, Row, Values, Word, rows},
};

/// A handle to the database; cloning it is cheap.
#[derive(Debug, Clone)]
pub enum Db {
    /// One file, one process.
    Sqlite(sqlite::File),
    /// A server that any number of processes share.
    Postgres(postgres::Server),
}

/// A transaction; it rolls back unless committed.
pub enum Tx {
    /// Of SQLite's writer.
    Sqlite(writer::Tx),
    /// A snapshot of SQLite.
    SqliteSnapshot(sqlite::Reader),
    /// Of PostgreSQL.
    Postgres(Transaction<'static, sqlx::Postgres>),
}

/// Where a transaction's statements go.
enum Connection<'t> {
    Sqlite(&'t mut SqliteConnection),
    Postgres(&'t mut PgConnection),
}

/// What one process does at a time. The numbers are the keys of PostgreSQL's advisory locks.
#[derive(Debug, Clone, Copy)]
pub enum Task {
    /// To take away what is past its time.
    Tidy = 0x7265_7601,
    /// To go on erasing.
    Erase = 0x7265_7602,
}

/// A process' turn at a [`Task`]. One that is broken off ends when its connection is found to be idle.
pub struct Turn(Option<Transaction<'static, sqlx::Postgres>>);

/// What has been handed over to be committed.
#[derive(Debug, Default)]
#[must_use]
pub struct Submitted(Vec<oneshot::Receiver<Result<()>>>);

impl Submitted {
    /// Waits until all of it is on the disk.
    pub async fn done(self) -> Result<()> {
        for committed in self.0 {
            committed.await.map_err(|_| Error::Closed)??;
        }
        Ok(())
    }

    /// What was handed over before belongs to it as well.
    pub fn and(mut self, before: Self) -> Self {
        self.0.extend(before.0);
        self
    }
}

impl Turn {
    /// The next may have its turn, be it this process again.
    pub async fn end(self) -> Result<()> {
        match self.0 {
            Some(lock) => Ok(lock.rollback().await?),
            None => Ok(()),
        }
    }
}

/// A statement: one text for both databases, unless they have to differ.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    /// What SQLite is given.
    pub sqlite: &'static str,
    /// What PostgreSQL is given.
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self { sqlite: text, postgres: text }
    }
}

/// A statement whose rows PostgreSQL locks until the transaction ends. In SQLite nobody else writes meanwhile.
macro_rules! locking {
    ($select:expr, $lock:literal) => {
        $crate::store::db::Sql { sqlite: $select, postgres: concat!($select, " ", $lock) }
    };
}
pub(super) use locking;

/// Which of the two a URL names.
pub fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

impl Db {
    /// Connects to `sqlite:PATH` or `postgres://…` and applies the migrations that are pending.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        if is_postgres(url) {
            Ok(Self::Postgres(postgres::Server::open(url).await?))
        } else {
            Ok(Self::Sqlite(sqlite::File::open(url).await?))
        }
    }

    /// The same, but a file that is not there is not made.
    pub async fn open_existing(url: &str) -> anyhow::Result<Self> {
        if !is_postgres(url) {
            sqlite::Place::of(url)?.ensure_exists()?;
        }
        Self::open(url).await
    }

    /// Begins to write. In SQLite this waits for the writer before it.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite(file) => Tx::Sqlite(file.begin().await?),
            Self::Postgres(server) => Tx::Postgres(server.begin().await?),
        })
    }

    /// The same for work that nobody waits for, and of which there may be much: in SQLite's line it lets the others go first, once.
    pub async fn begin_unhurried(&self) -> Result<Tx> {
        match self {
            Self::Sqlite(file) => Ok(Tx::Sqlite(file.begin_unhurried().await?)),
            Self::Postgres(_) => self.begin().await,
        }
    }

    /// So many devices' worth of work that nobody waits for is done before [`Tx::is_wanted`] is asked: `most`, but no more than takes one or
    /// two milliseconds. At PostgreSQL nobody is in the way.
    pub fn portion(&self, most: usize) -> usize {
        match self {
            Self::Sqlite(_) => most.clamp(1, 32),
            Self::Postgres(_) => usize::MAX,
        }
    }

    /// What tells whether something that has been read still holds, if this process is the only one that writes.
    pub fn marks(&self) -> Option<&Marks> {
        match self {
            Self::Sqlite(file) => Some(file.marks()),
            Self::Postgres(_) => None,
        }
    }

    /// Reads with statements that all see the same state. What comes of it is on the disk.
    pub async fn read<T, E: From<Error>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut tx = self.snapshot().await?;
        let found = work(&mut tx).await?;
        drop(tx);
        self.until_on_disk().await?;
        Ok(found)
    }

    async fn snapshot(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite(file) => Tx::SqliteSnapshot(file.snapshot().await?),
            Self::Postgres(server) => Tx::Postgres(server.snapshot().await?),
        })
    }

    /// Waits until all that can have been read by now is on the disk. In PostgreSQL nobody sees it before.
    pub async fn until_on_disk(&self) -> Result<()> {
        match self {
            Self::Sqlite(file) => file.until_on_disk().await,
            Self::Postgres(_) => Ok(()),
        }
    }

    /// What watches the server and the other processes at it; `None` if there are none.
    pub fn watch(&self) -> Option<Watch> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(server) => Some(server.watch()),
        }
    }

    /// The turn at a task that one process does at a time; `None` while another has it. It ends with the value.
    pub async fn turn(&self, task: Task) -> Result<Option<Turn>> {
        match self {
            Self::Sqlite(_) => Ok(Some(Turn(None))),
            Self::Postgres(server) => Ok(server.turn(task).await?.map(|tx| Turn(Some(tx)))),
        }
    }

    /// Makes the days ahead of what is kept by the day, and drops those that ended before `kept_from`. Answers whether anything is kept
    /// so; in SQLite nothing is.
    pub async fn keep_days(&self, now: Timestamp, kept_from: Timestamp) -> bool {
        let Self::Postgres(server) = self else { return false };
        if let Err(error) = server.keep_days(now, kept_from).await {
            tracing::warn!(%error, "a day's partition could not be made or dropped; the next round tries again");
        }
        true
    }

    /// Rows of one statement, read.
    pub async fn fetch_all<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Vec<T>> {
        let found = self.peek_all(sql, values).await?;
        self.until_on_disk().await?;
        Ok(found)
    }

    /// The same for a statement that may look at many rows: no request waits for a thread that is at it.
    pub async fn survey<T: Row + 'static>(&self, sql: &'static str, values: impl Values + 'static) -> Result<Vec<T>> {
        let Self::Sqlite(file) = self else { return self.fetch_all(sql, values).await };
        let found = file.survey(sql, values).await?;
        self.until_on_disk().await?;
        Ok(found)
    }

    /// The row of one statement, read, if there is one.
    pub async fn fetch_optional<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Option<T>> {
        let found = self.peek_optional(sql, values).await?;
        self.until_on_disk().await?;
        Ok(found)
    }

    /// Rows of one statement, read. They may not be on the disk yet: whoever has them says nothing of them before something else has been
    /// read or written, or [`Db::until_on_disk`].
    pub async fn peek_all<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(file) => sqlite::fetch_all(file.reader().await?.connection()?, sql, values),
            Self::Postgres(server) => postgres::fetch_all(server.pool()?, sql, values.postgres()?).await,
        }
    }

    /// The same for the row of a statement, if there is one.
    pub async fn peek_optional<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Option<T>> {
        match self {
            Self::Sqlite(file) => sqlite::fetch_optional(file.reader().await?.connection()?, sql, values),
            Self::Postgres(server) => postgres::fetch_optional(server.pool()?, sql, values.postgres()?).await,
        }
    }

    /// Starts work that writes again and again: with SQLite it has a thread of its own, for there its statements run on the thread
    /// that asks for them.
    pub fn start(&self, name: &'static str, tasks: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        let work = tasks.track_future(work);
        match self {
            Self::Sqlite(_) => sqlite::on_a_thread(name, work),
            Self::Postgres(_) => postgres::in_a_task(work),
        }
    }

    /// Writes with one statement in a transaction of its own; answers how many rows it changed.
    pub async fn execute(&self, sql: &'static str, values: impl Values + Clone) -> Result<u64> {
        retry(|| self.execute_once(sql, values.clone())).await
    }

    async fn execute_once(&self, sql: &'static str, values: impl Values) -> Result<u64> {
        let mut tx = self.begin().await?;
        let rows = tx.execute(sql, values).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Brings what has been deleted out of the files as well; answers whether it could.
    ///
    /// In PostgreSQL that is the server's business: autovacuum takes deleted rows out of the tables, and its WAL and backups are kept for
    /// as long as whoever runs it says.
    pub async fn overwrite_deleted(&self) -> Result<bool> {
        match self {
            Self::Sqlite(file) => file.overwrite_deleted().await,
            Self::Postgres(_) => Ok(true),
        }
    }

    /// Ends all connections; SQLite's WAL is written back.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(file) => file.close().await,
            Self::Postgres(server) => server.close().await,
        }
    }
}

impl Tx {
    /// Runs a statement and answers how many rows it changed.
    pub async fn execute(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<u64> {
        let sql = sql.into();
        match self.connection()? {
            Connection::Sqlite(connection) => sqlite::execute(connection, sql.sqlite, values),
            Connection::Postgres(connection) => postgres::execute(connection, sql.postgres, values.postgres()?).await,
        }
    }

    /// Writes many rows.
    pub async fn execute_each<T: Fields>(&mut self, sql: &'static Each, rows: &[T]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        match self.connection()? {
            Connection::Sqlite(connection) => sql.changed(connection, rows).map(drop),
            Connection::Postgres(connection) => {
                postgres::execute(connection, sql.postgres(), sql.arrays(rows)?).await.map(drop)
            }
        }
    }

    /// Writes many rows with a statement that is [answering](Each::answering); answers the indices of those that have changed something.
    pub async fn change_each<T: Fields>(&mut self, sql: &'static Each, rows: &[T]) -> Result<Vec<usize>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self.connection()? {
            Connection::Sqlite(connection) => sql.changed(connection, rows),
            Connection::Postgres(connection) => {
                let numbers: Vec<i64> = postgres::fetch_all(connection, sql.postgres(), sql.arrays(rows)?).await?;
                Ok(numbers.into_iter().filter_map(|nth| usize::try_from(nth - 1).ok()).collect())
            }
        }
    }

    /// What a statement that is [reading](Each::reading) finds for each of some rows, in their order.
    pub async fn fetch_each<T: Row, F: Fields>(&mut self, sql: &'static Each, rows: &[F]) -> Result<Vec<Vec<T>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self.connection()? {
            Connection::Sqlite(connection) => sql.found(connection, rows),
            Connection::Postgres(connection) => {
                let found: Vec<(i64, T)> = postgres::fetch_all(connection, sql.postgres(), sql.arrays(rows)?).await?;
                let mut of_rows: Vec<Vec<T>> = rows.iter().map(|_| Vec::new()).collect();
                for (nth, found) in found {
                    let row = usize::try_from(nth - 1).ok().and_then(|index| of_rows.get_mut(index));
                    row.ok_or(Error::NoRow)?.push(found);
                }
                Ok(of_rows)
            }
        }
    }

    /// Says what is written here, where no trigger does; what polls remember of it ends with the commit.
    pub fn touch(&mut self, mark: Mark) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.touch(mark),
            Self::SqliteSnapshot(_) | Self::Postgres(_) => Ok(()),
        }
    }

    /// Whether nobody else writes until this has been committed.
    pub fn is_alone(&self) -> bool {
        !matches!(self, Self::Postgres(_))
    }

    /// Locks the rows that a statement finds, in its order. In SQLite nobody else writes meanwhile, so there is nothing to do.
    pub async fn lock(&mut self, sql: &'static str, values: impl Values) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.execute(sql, values).await?;
        }
        Ok(())
    }

    /// All rows of a statement.
    pub async fn fetch_all<T: Row>(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<Vec<T>> {
        let sql = sql.into();
        match self.connection()? {
            Connection::Sqlite(connection) => sqlite::fetch_all(connection, sql.sqlite, values),
            Connection::Postgres(connection) => postgres::fetch_all(connection, sql.postgres, values.postgres()?).await,
        }
    }

    /// Rows of a statement as long as more are wanted: up to the first of which `more` says no, that one included. PostgreSQL sends all of
    /// them in any case, so its text has to say where to end.
    pub async fn fetch_while<T: Row>(
        &mut self,
        sql: Sql,
        values: impl Values,
        more: impl FnMut(&T) -> bool,
    ) -> Result<Vec<T>> {
        match self.connection()? {
            Connection::Sqlite(connection) => sqlite::fetch_while(connection, sql.sqlite, values, more),
            Connection::Postgres(connection) => postgres::fetch_all(connection, sql.postgres, values.postgres()?).await,
        }
    }

    /// The row of a statement, if there is one.
    pub async fn fetch_optional<T: Row>(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<Option<T>> {
        let sql = sql.into();
        match self.connection()? {
            Connection::Sqlite(connection) => sqlite::fetch_optional(connection, sql.sqlite, values),
            Connection::Postgres(connection) => {
                postgres::fetch_optional(connection, sql.postgres, values.postgres()?).await
            }
        }
    }

    /// The only row of a statement.
    pub async fn fetch_one<T: Row>(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<T> {
        self.fetch_optional(sql, values).await?.ok_or(Error::NoRow)
    }

    /// Whether work that nobody waits for should end here and go on in another transaction: someone who is waited for stands in SQLite's
    /// line.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Sqlite(tx) if tx.is_wanted())
    }

    /// Makes it so: when this returns, it is on the disk.
    pub async fn commit(self) -> Result<()> {
        self.submit().await?.done().await
    }

    /// Takes back what was written here, if anything, for what was read is the answer; when this returns, that is on the disk.
    pub async fn leave(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.leave().await,
            Self::SqliteSnapshot(_) => Ok(()),
            Self::Postgres(tx) => Ok(tx.rollback().await?),
        }
    }

    /// Hands it over to be committed. Whoever writes next goes on from there, and is committed with it or after it.
    pub async fn submit(self) -> Result<Submitted> {
        match self {
            Self::Sqlite(tx) => Ok(Submitted(vec![tx.submit()?])),
            Self::SqliteSnapshot(_) => Ok(Submitted::default()),
            Self::Postgres(tx) => {
                tx.commit().await?;
                Ok(Submitted::default())
            }
        }
    }

    fn connection(&mut self) -> Result<Connection<'_>> {
        Ok(match self {
            Self::Sqlite(tx) => Connection::Sqlite(tx.connection()?),
            Self::SqliteSnapshot(reader) => Connection::Sqlite(reader.connection()?),
            Self::Postgres(tx) => Connection::Postgres(tx),
        })
    }
}
