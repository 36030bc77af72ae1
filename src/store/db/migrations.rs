//! The migrations, in one folder for both databases.

use sqlx::migrate::Migrator;

static ALL: Migrator = sqlx::migrate!();

/// Those of one database: `0001_x.sql` is for both, `0002_y.postgres.sql` for one.
pub(super) fn of(database: &str) -> Migrator {
    let applies = |name: &str| name.rsplit_once('.').is_none_or(|(_, only)| only == database);
    Migrator::with_migrations(ALL.iter().filter(|migration| applies(&migration.description)).cloned().collect())
}
