//! What grows for ever lies in a table per day, and is forgotten a day at a time.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{error::Result, postgres, value::Values};
use crate::domain::{
    id::{self, kind},
    time::Timestamp,
};

const DAY: Duration = Duration::from_hours(24);
/// Days that are made ahead, so that a week without a janitor does no harm.
const AHEAD: u32 = 7;
/// A day is made or dropped between two transactions, or another time: all that need the table would queue behind it.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '1s'";
/// What PostgreSQL answers when another process was quicker.
const DUPLICATE_TABLE: &str = "42P07";
/// … and when something of that day lies in the rest already; so may the others.
const CHECK_VIOLATION: &str = "23514";

/// Where in the order of a table's ids a moment lies.
type FirstId = fn(Timestamp) -> String;

/// The tables.
const TABLES: [(&str, FirstId); 2] = [("attempts", first_attempt), ("timeline", first_moment)];

fn first_attempt(at: Timestamp) -> String {
    id::least::<kind::Attempt>(at).to_string()
}

fn first_moment(at: Timestamp) -> String {
    id::least::<kind::Moment>(at).to_string()
}

/// Makes the days from today on that are missing, and drops those that ended before `kept_from`.
pub async fn keep(connection: &mut PgConnection, now: Timestamp, kept_from: Timestamp) -> Result<()> {
    for (table, first_id) in TABLES {
        let days = days(connection, table).await?;
        for ahead in 0..=AHEAD {
            let from = now.floor(DAY) + DAY * ahead;
            if !days.contains(&from) {
                make(connection, table, from, first_id).await?;
            }
        }
        for day in days.into_iter().filter(|day| *day + DAY <= kept_from) {
            run(connection, format!("drop table {}", name(table, day))).await?;
        }
    }
    Ok(())
}

async fn days(connection: &mut PgConnection, table: &str) -> Result<Vec<Timestamp>> {
    let sql =
        "select cast(split_part(c.relname, '_', 2) as bigint) from pg_inherits i join pg_class c on c.oid = i.inhrelid
               where i.inhparent = cast($1 as regclass) and c.relname ~ '_[0-9]+$'";
    let days: Vec<i64> = postgres::fetch_all(connection, sql, (table.to_owned(),).postgres()?).await?;
    Ok(days.into_iter().map(|day| Timestamp::from_ms(day * DAY.as_millis() as i64)).collect())
}

/// Days are counted from the epoch.
fn name(table: &str, day: Timestamp) -> String {
    format!("{table}_{}", day.as_ms() / DAY.as_millis() as i64)
}

async fn make(connection: &mut PgConnection, table: &str, from: Timestamp, first_id: FirstId) -> Result<()> {
    // An attempt's end is longer than its beginning, and is to lie on the same page, so that no index has to be told of it.
    let room = if table == "attempts" { " with (fillfactor = 40)" } else { "" };
    let (name, since, until) = (name(table, from), first_id(from), first_id(from + DAY));
    let sql = format!("create table {name} partition of {table} for values from ('{since}') to ('{until}'){room}");
    match run(connection, sql).await {
        Err(error) if error.code().is_some_and(|code| code == DUPLICATE_TABLE || code == CHECK_VIOLATION) => Ok(()),
        made => made,
    }
}

#[expect(clippy::disallowed_methods, reason = "a part of the one door, for statements that take no parameters")]
async fn run(connection: &mut PgConnection, sql: String) -> Result<()> {
    let statements = format!("begin; {LOCK_TIMEOUT}; {sql}; commit");
    let done = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *connection).await;
    if done.is_err() {
        sqlx::raw_sql("rollback").execute(connection).await?;
    }
    Ok(done.map(drop)?)
}
