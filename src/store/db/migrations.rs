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
