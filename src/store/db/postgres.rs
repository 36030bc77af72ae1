//! PostgreSQL: a server that any number of processes share.

use std::{
    io::ErrorKind,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use rand::RngExt;
use sqlx::{
    Connection, PgConnection, PgExecutor, PgPool, Postgres, Transaction,
    postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::Mutex;

use super::{
    Task,
    error::{Error, Result},
    migrations, partitions,
    value::{Columns, Row, Values},
};
use crate::domain::time::Timestamp;

/// Connections of one process. Three write queues, the dispatcher and the janitor take up to seven; polls share the others.
const CONNECTIONS: u32 = 16;
/// How long a caller waits for a connection before it is told that the store is busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Every statement is known to each connection: preparing one costs as much as running it.
const STATEMENTS: usize = 500;
/// A statement that takes longer is broken off: all of them are bounded, so it waits for something that is stuck.
const STATEMENT_TIMEOUT: &str = "15s";
/// The same for a lock, and for a transaction whose process has forgotten it.
const LOCK_TIMEOUT: &str = "10s";
const IDLE_TIMEOUT: &str = "30s";

/// How long a look at the server may take before it counts as away.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Where processes tell each other of commits.
const CHANNEL: &str = "reveille";

/// A database of a server, with the connections of this process.
#[derive(Debug, Clone)]
pub struct Server {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    /// Whether the server did not answer when it was last looked at; callers are told at once, and do not queue for connections.
    away: Arc<AtomicBool>,
}

/// All rows of a statement.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub async fn fetch_all<T: Row>(to: impl PgExecutor<'_>, sql: &'static str, values: PgArguments) -> Result<Vec<T>> {
    let rows = sqlx::query_with(sql, values).fetch_all(to).await?;
    rows.iter().map(|row| T::read(&mut Columns::Postgres(row, 0))).collect()
}

/// The row of a statement, if there is one.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub async fn fetch_optional<T: Row>(
    to: impl PgExecutor<'_>,
    sql: &'static str,
    values: PgArguments,
) -> Result<Option<T>> {
    let row = sqlx::query_with(sql, values).fetch_optional(to).await?;
    row.map(|row| T::read(&mut Columns::Postgres(&row, 0))).transpose()
}

/// Runs a statement and answers how many rows it changed.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub async fn execute(to: impl PgExecutor<'_>, sql: &'static str, values: PgArguments) -> Result<u64> {
    Ok(sqlx::query_with(sql, values).execute(to).await?.rows_affected())
}

/// Lets something go on by itself.
#[expect(clippy::disallowed_methods, reason = "whoever has it started counts it")]
pub fn in_a_task(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

impl Server {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        // The URL may hold a password, so it is in no error.
        let options = PgConnectOptions::from_str(url).context("the URL of the PostgreSQL database cannot be read")?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("reveille"),
        };
        let place = format!("{}:{}", options.get_host(), options.get_port());
        // Migrations may take their time; that there is nothing to be done is no news.
        let migrating = options.clone().options([("client_min_messages", "warning")]);
        let connection = PgConnection::connect_with(&migrating).await;
        let mut connection = connection.with_context(|| format!("cannot connect to PostgreSQL at {place}"))?;
        let migrated = migrations::postgres().run(&mut connection).await;
        migrated.with_context(|| format!("cannot bring the PostgreSQL database at {place} up to date"))?;
        connection.close().await?;
        let options = options.statement_cache_capacity(STATEMENTS).options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_TIMEOUT),
            // To a planner that knows of few due, reading all of them and sorting looks cheaper than the index, which has them in order.
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
        ]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = pool.connect_lazy_with(options.clone());
        Ok(Self { pool, options: Arc::new(options), away: Arc::default() })
    }

    /// The connections, unless the server is away.
    pub fn pool(&self) -> Result<&PgPool> {
        if self.away.load(Ordering::Relaxed) {
            let error = std::io::Error::new(ErrorKind::NotConnected, "it did not answer a moment ago");
            return Err(Error::Postgres(error.into()));
        }
        Ok(&self.pool)
    }

    /// READ COMMITTED: each statement sees what others have committed before it, and what is locked stays as it is.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_with("BEGIN").await
    }

    pub async fn snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Begins in a task of its own, which ends even if the caller goes away: sqlx 0.9.0 does not roll back what a broken-off BEGIN has begun
    /// (its issue 4393), and the next who gets the connection would look at an old state.
    #[expect(clippy::disallowed_methods, reason = "it ends with the statement")]
    async fn begin_with(&self, sql: &'static str) -> Result<Transaction<'static, Postgres>> {
        let pool = self.pool()?.clone();
        let begun = tokio::spawn(async move { pool.begin_with(sql).await }).await;
        Ok(begun.map_err(|_| sqlx::Error::WorkerCrashed).flatten()?)
    }

    pub async fn turn(&self, task: Task) -> Result<Option<Transaction<'static, Postgres>>> {
        let mut tx = self.begin().await?;
        let sql = "select pg_try_advisory_xact_lock($1)";
        let mine: Option<bool> = fetch_optional(&mut *tx, sql, (task as i64,).postgres()?).await?;
        Ok(mine.unwrap_or_default().then_some(tx))
    }

    /// Makes the days ahead of what is kept by the day, and drops those that ended before `kept_from`.
    pub async fn keep_days(&self, now: Timestamp, kept_from: Timestamp) -> Result<()> {
        partitions::keep(&mut *self.pool()?.acquire().await.map_err(Error::Postgres)?, now, kept_from).await
    }

    pub fn watch(&self) -> Watch {
        Watch { server: self.clone(), me: rand::rng().random::<u64>().to_string(), connection: Mutex::default() }
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Watches the server and the other processes at it, on connections of its own: those of the pool may all be taken.
pub struct Watch {
    server: Server,
    /// Tells this process' news from others'.
    me: String,
    connection: Mutex<Option<PgConnection>>,
}

impl Watch {
    /// Reads the epoch, and notes whether the server answers.
    pub async fn look(&self) -> Option<i64> {
        let mut looked = self.epoch().await;
        if looked.is_err() {
            // The connection may be all that has gone; a server that is there takes a new one.
            looked = self.epoch().await;
        }
        let was_away = self.server.away.swap(looked.is_err(), Ordering::Relaxed);
        match &looked {
            Err(error) if !was_away => {
                tracing::error!(%error, "the database does not answer: requests are turned away")
            }
            Ok(_) if was_away => tracing::info!("the database answers again"),
            _ => {}
        }
        looked.ok()
    }

    async fn epoch(&self) -> Result<i64> {
        let read = tokio::time::timeout(LOOK_TIMEOUT, self.read_epoch()).await;
        read.map_err(|_| Error::Postgres(sqlx::Error::PoolTimedOut)).flatten()
    }

    async fn read_epoch(&self) -> Result<i64> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.server.options).await?,
        };
        let epoch =
            fetch_optional(&mut connection, "select epoch from node where id = 1", PgArguments::default()).await?;
        // A connection that failed is not kept.
        *kept = Some(connection);
        epoch.ok_or(Error::NoRow)
    }

    /// Tells the others that something was committed. Nobody needs this to be durable.
    pub async fn tell(&self) -> Result<()> {
        let mut tx = self.server.begin().await?;
        let sql = "select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)::text";
        fetch_optional::<(String, String)>(&mut *tx, sql, (CHANNEL.to_owned(), self.me.clone()).postgres()?).await?;
        Ok(tx.commit().await?)
    }

    /// Calls `heard` whenever another process has committed something, until the connection is lost.
    pub async fn listen(&self, heard: impl Fn()) -> Result<()> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with((*self.server.options).clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        heard();
        while let Some(news) = listener.try_recv().await? {
            if news.payload() != self.me {
                heard();
            }
        }
        Ok(())
    }
}
