//! The one door to the database: statements written once, in the SQL that SQLite and PostgreSQL share (decision 3).
//!
//! Reads go through [`Db`] or a [`Tx`] that is a snapshot, writes through a [`Tx`]. In SQLite a writing transaction is the only one; in
//! PostgreSQL it holds what it has locked, in the order of decision 8.

mod checkpoint;
mod migrations;
mod partitions;
mod postgres;
mod retry;
mod sqlite;
mod transfer;
mod value;
mod writer;

use sqlx::{PgConnection, Result, Sqlite, SqliteConnection, Transaction};

use crate::domain::time::Timestamp;

pub use self::{
    postgres::Watch,
    retry::{AsSqlx, broken_off, is_away, retry},
    sqlite::copy as copy_sqlite,
    transfer::{Moving, migrate},
    value::{Json, Row, Values, Word, rows},
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
    SqliteSnapshot(Transaction<'static, Sqlite>),
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

impl Turn {
    /// The next may have its turn, be it this process again.
    pub async fn end(self) -> Result<()> {
        match self.0 {
            Some(lock) => lock.rollback().await,
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
            sqlite::ensure_exists(url)?;
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

    /// Begins to read: all statements see the same state.
    pub async fn snapshot(&self) -> Result<Tx> {
        Ok(match self {
            Self::Sqlite(file) => Tx::SqliteSnapshot(file.snapshot().await?),
            Self::Postgres(server) => Tx::Postgres(server.snapshot().await?),
        })
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
        match self {
            Self::Sqlite(file) => value::sqlite(sql, values)?.fetch_all(file.readers()).await,
            Self::Postgres(server) => value::postgres(sql, values)?.fetch_all(server.pool()?).await,
        }
    }

    /// The row of one statement, read, if there is one.
    pub async fn fetch_optional<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Option<T>> {
        match self {
            Self::Sqlite(file) => value::sqlite(sql, values)?.fetch_optional(file.readers()).await,
            Self::Postgres(server) => value::postgres(sql, values)?.fetch_optional(server.pool()?).await,
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
    #[expect(clippy::disallowed_methods, reason = "the one door")]
    pub async fn execute(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<u64> {
        let sql = sql.into();
        Ok(match self.connection()? {
            Connection::Sqlite(connection) => {
                sqlx::query_with(sql.sqlite, values.sqlite()?).execute(connection).await?.rows_affected()
            }
            Connection::Postgres(connection) => {
                sqlx::query_with(sql.postgres, values.postgres()?).execute(connection).await?.rows_affected()
            }
        })
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
            Connection::Sqlite(connection) => value::sqlite(sql.sqlite, values)?.fetch_all(connection).await,
            Connection::Postgres(connection) => value::postgres(sql.postgres, values)?.fetch_all(connection).await,
        }
    }

    /// The row of a statement, if there is one.
    pub async fn fetch_optional<T: Row>(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<Option<T>> {
        let sql = sql.into();
        match self.connection()? {
            Connection::Sqlite(connection) => value::sqlite(sql.sqlite, values)?.fetch_optional(connection).await,
            Connection::Postgres(connection) => value::postgres(sql.postgres, values)?.fetch_optional(connection).await,
        }
    }

    /// The only row of a statement.
    pub async fn fetch_one<T: Row>(&mut self, sql: impl Into<Sql>, values: impl Values) -> Result<T> {
        self.fetch_optional(sql, values).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::SqliteSnapshot(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }

    fn connection(&mut self) -> Result<Connection<'_>> {
        Ok(match self {
            Self::Sqlite(tx) => Connection::Sqlite(tx.connection()?),
            Self::SqliteSnapshot(tx) => Connection::Sqlite(tx),
            Self::Postgres(tx) => Connection::Postgres(tx),
        })
    }
}
