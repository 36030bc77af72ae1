//! A look at a database that leaves it as it is, be a relay at work on it or not: nothing is made, migrated or locked.
#![expect(clippy::disallowed_methods, reason = "a part of the one door, beside the connections of a relay")]

use std::{collections::HashMap, str::FromStr, time::Duration};

use anyhow::Context;
use rusqlite::Connection as SqliteConnection;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    is_postgres,
    migrations::{self, Schema},
    sqlite::{self, Place},
};

/// How long a server may take to take the connection, and for each statement.
const TIMEOUT: Duration = Duration::from_secs(5);
const STATEMENT_TIMEOUT: &str = "5s";

/// What is read of a relay's row, and since which migration it is there.
const KEY_CHECK: &str = "select key_check from node where id = 1";
const COPY: (i64, &str) = (7, "select copy from node where id = 1");
const MOVES: (i64, &str) = (8, "select count(*) from moves where finished_at is null");
const APPLIED: &str = "select version, checksum from _sqlx_migrations";

/// What a look at a database finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspected {
    /// There is no such file. The first relay makes it.
    Absent,
    /// There is nothing in it. The first relay makes its tables.
    Empty,
    /// A relay's.
    Served(Standing),
}

/// How a relay's database stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether its tables are those of this version.
    pub schema: Schema,
    /// Tells under which master key it was made; `None` if it was never served.
    pub key_check: Option<String>,
    /// It is a backup: whoever serves it begins a new epoch.
    pub is_copy: bool,
    /// A move to it has not come to its end.
    pub is_half_moved: bool,
}

/// Looks at the database at `url`.
///
/// # Errors
/// It cannot be opened, or is none.
pub async fn inspect(url: &str) -> anyhow::Result<Inspected> {
    if is_postgres(url) { of_postgres(url).await } else { of_sqlite(&Place::of(url)?) }
}

fn of_sqlite(place: &Place) -> anyhow::Result<Inspected> {
    if !place.path().try_exists()? {
        return Ok(Inspected::Absent);
    }
    let connection = place.connect_to_look()?;
    let tables = "select count(*) from sqlite_schema where name = '_sqlx_migrations'";
    let number =
        |sql: &str| -> anyhow::Result<i64> { Ok(sqlite::fetch_optional(&connection, sql, ())?.unwrap_or_default()) };
    if number(tables)? == 0 {
        return of_another(number("select count(*) from sqlite_schema")?);
    }
    let applied = applied(&connection).context("its migrations cannot be read")?;
    let has = |version: i64| applied.contains_key(&version);
    Ok(Inspected::Served(Standing {
        key_check: sqlite::fetch_optional(&connection, KEY_CHECK, ())?,
        is_copy: has(COPY.0) && number(COPY.1)? != 0,
        is_half_moved: has(MOVES.0) && number(MOVES.1)? != 0,
        schema: migrations::compare("sqlite", &applied),
    }))
}

fn applied(connection: &SqliteConnection) -> rusqlite::Result<HashMap<i64, Vec<u8>>> {
    connection.prepare(APPLIED)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

async fn of_postgres(url: &str) -> anyhow::Result<Inspected> {
    // The URL may hold a password, so it is in no error.
    let options = PgConnectOptions::from_str(url).context("the URL of the PostgreSQL database cannot be read")?;
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let options = options
        .application_name("reveille check")
        .options([("default_transaction_read_only", "on"), ("statement_timeout", STATEMENT_TIMEOUT)]);
    let connected = tokio::time::timeout(TIMEOUT, PgConnection::connect_with(&options)).await;
    let connected = connected.with_context(|| format!("PostgreSQL at {place} does not answer in time"))?;
    let mut connection = connected.with_context(|| format!("cannot connect to PostgreSQL at {place}"))?;
    let tables = "select count(*) from pg_tables where schemaname = current_schema()";
    if number(
        &mut connection,
        "select count(*) from pg_tables where schemaname = current_schema() and tablename = '_sqlx_migrations'",
    )
    .await?
        == 0
    {
        return of_another(number(&mut connection, tables).await?);
    }
    let applied: HashMap<i64, Vec<u8>> =
        sqlx::query_as::<_, (i64, Vec<u8>)>(APPLIED).fetch_all(&mut connection).await?.into_iter().collect();
    let has = |version: i64| applied.contains_key(&version);
    let standing = Standing {
        key_check: sqlx::query_scalar(KEY_CHECK).fetch_optional(&mut connection).await?,
        is_copy: has(COPY.0) && number(&mut connection, COPY.1).await? != 0,
        is_half_moved: has(MOVES.0) && number(&mut connection, MOVES.1).await? != 0,
        schema: migrations::compare("postgres", &applied),
    };
    connection.close().await?;
    Ok(Inspected::Served(standing))
}

async fn number(connection: &mut PgConnection, sql: &'static str) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_optional(connection).await?.unwrap_or_default())
}

fn of_another(tables: i64) -> anyhow::Result<Inspected> {
    anyhow::ensure!(tables == 0, "it has tables, but they are not a relay's");
    Ok(Inspected::Empty)
}
