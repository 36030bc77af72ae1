//! PostgreSQL: a server that any number of processes share.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use sqlx::{
    Connection, PgConnection, PgPool, Postgres, Result, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::migrations;

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

/// A database of a server, with the connections of this process.
#[derive(Debug, Clone)]
pub struct Server {
    pool: PgPool,
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
        // Migrations may take their time.
        let connection = PgConnection::connect_with(&options).await;
        let mut connection = connection.with_context(|| format!("cannot connect to PostgreSQL at {place}"))?;
        let migrated = migrations::of("postgres").run(&mut connection).await;
        migrated.with_context(|| format!("cannot bring the PostgreSQL database at {place} up to date"))?;
        connection.close().await?;
        let options = options.statement_cache_capacity(STATEMENTS).options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_TIMEOUT),
        ]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        Ok(Self { pool: pool.connect_lazy_with(options) })
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// READ COMMITTED: each statement sees what others have committed before it, and what is locked stays as it is.
    pub async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        self.pool.begin().await
    }

    pub async fn snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }
}
