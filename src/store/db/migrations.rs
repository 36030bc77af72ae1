//! The migrations, in one folder for both databases.

use std::collections::HashMap;

use anyhow::ensure;
use rusqlite::{Connection, TransactionBehavior};
use sqlx::migrate::{Migration, Migrator};

static ALL: Migrator = sqlx::migrate!();

/// What sqlx keeps in PostgreSQL about the migrations that are applied; the same is kept in SQLite.
const APPLIED: &str = "create table if not exists _sqlx_migrations (
    version bigint primary key, description text not null, installed_on timestamp not null default current_timestamp,
    success boolean not null, checksum blob not null, execution_time bigint not null)";

/// Those of one database: `0001_x.sql` is for both, `0002_y.postgres.sql` for one.
fn of(database: &str) -> impl Iterator<Item = &'static Migration> {
    ALL.iter().filter(move |migration| migration.description.rsplit_once('.').is_none_or(|(_, only)| only == database))
}

/// Those that sqlx is to apply to PostgreSQL.
pub(super) fn postgres() -> Migrator {
    Migrator::with_migrations(of("postgres").cloned().collect())
}

/// How a database's tables compare with those of this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// They are the same, after this migration.
    Current(i64),
    /// So many migrations are still to be applied, which the next relay does.
    Older(usize),
    /// A newer version has made them, with these migrations.
    Newer(Vec<i64>),
    /// This migration was another one.
    Other(i64),
}

/// Compares what has been applied to a database, by version with its checksum.
pub(super) fn compare(database: &str, applied: &HashMap<i64, Vec<u8>>) -> Schema {
    let known: HashMap<i64, &[u8]> =
        of(database).map(|migration| (migration.version, migration.checksum.as_ref())).collect();
    let mut unknown: Vec<i64> = applied.keys().copied().filter(|version| !known.contains_key(version)).collect();
    unknown.sort_unstable();
    let mut differs =
        applied.iter().filter(|(version, sum)| known.get(version).is_some_and(|known| *known != sum.as_slice()));
    match (differs.next(), known.len().saturating_sub(applied.len())) {
        _ if !unknown.is_empty() => Schema::Newer(unknown),
        (Some((version, _)), _) => Schema::Other(*version),
        (None, 0) => Schema::Current(known.keys().copied().max().unwrap_or_default()),
        (None, pending) => Schema::Older(pending),
    }
}

/// Brings a SQLite database up to date, all at once or not at all.
///
/// # Errors
/// It was made by a newer version, or with other migrations.
pub(super) fn apply(connection: &mut Connection) -> anyhow::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(APPLIED)?;
    let mut applied: HashMap<i64, Vec<u8>> = {
        let mut statement = tx.prepare("select version, checksum from _sqlx_migrations")?;
        statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?
    };
    for migration in of("sqlite") {
        let version = migration.version;
        match applied.remove(&version) {
            Some(checksum) => ensure!(checksum == migration.checksum.as_ref(), "migration {version} was another one"),
            None => {
                tx.execute_batch(migration.sql.as_str())?;
                let sql = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                           values (?1, ?2, true, ?3, 0)";
                tx.execute(sql, (version, &migration.description, migration.checksum.as_ref()))?;
            }
        }
    }
    ensure!(applied.is_empty(), "it was made by a newer version: migrations {:?} are unknown", applied.keys());
    tx.commit()?;
    Ok(())
}
