//! The database of a bench, from outside: a file, or one of its own on the server that `BENCH_POSTGRES` names.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Where the relay keeps its things.
pub enum Database {
    Sqlite(std::path::PathBuf),
    Postgres { server: String, name: String },
}

impl Database {
    /// A new one.
    pub async fn new(folder: &Path) -> Self {
        match std::env::var("BENCH_POSTGRES") {
            Err(_) => Self::Sqlite(folder.join("reveille.db")),
            Ok(server) => {
                static MADE: AtomicUsize = AtomicUsize::new(0);
                let number = MADE.fetch_add(1, Ordering::Relaxed);
                let name = format!("reveille_bench_{}_{number}", std::process::id());
                let mut connection = PgConnection::connect(&server).await.unwrap();
                for sql in [format!("drop database if exists {name} with (force)"), format!("create database {name}")] {
                    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
                }
                Self::Postgres { server, name }
            }
        }
    }

    /// What it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres { .. } => "PostgreSQL",
        }
    }

    /// As the configuration names it.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres { server, name } => {
                let mut url = url::Url::parse(server).unwrap();
                url.set_path(name);
                url.into()
            }
        }
    }

    /// Runs a statement.
    pub async fn execute(&self, sql: String) {
        match self {
            Self::Sqlite(file) => connect(file).execute_batch(&sql).unwrap(),
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// What a statement counts.
    pub async fn count(&self, sql: &str) -> usize {
        let count: i64 = match self {
            Self::Sqlite(file) => connect(file).query_row(sql, (), |row| row.get(0)).unwrap(),
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
            }
        };
        usize::try_from(count).unwrap()
    }

    /// The names of a table's columns.
    pub async fn columns(&self, table: &str) -> Vec<String> {
        match self {
            Self::Sqlite(file) => {
                let connection = connect(file);
                let mut columns = connection.prepare("select name from pragma_table_info(?1)").unwrap();
                columns.query_map((table,), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres { .. } => {
                let mut connection = PgConnection::connect(&self.url()).await.unwrap();
                let sql = "select column_name::text from information_schema.columns where table_name = $1";
                sqlx::query_scalar(sql).bind(table).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    /// A table of the numbers `i` from 1 on, as a `from` clause.
    pub fn numbers(&self, count: usize) -> String {
        match self {
            Self::Sqlite(_) => format!(
                "(with recursive n (i) as (select 1 union all select i + 1 from n where i < {count}) select i from n) n"
            ),
            Self::Postgres { .. } => format!("(select cast(i as bigint) as i from generate_series(1, {count}) i) n"),
        }
    }

    /// The number `i` as 64 hexadecimal digits.
    pub fn hex(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "printf('%064x', i)",
            Self::Postgres { .. } => "lpad(to_hex(i), 64, '0')",
        }
    }

    /// Tells the planner of what has been put in.
    pub async fn settle(&self) {
        if let Self::Postgres { .. } = self {
            self.execute("vacuum analyze".to_owned()).await;
        }
    }

    /// Takes it away.
    pub async fn discard(&self) {
        if let Self::Postgres { server, name } = self {
            let mut connection = PgConnection::connect(server).await.unwrap();
            let sql = format!("drop database if exists {name} with (force)");
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
    }
}

fn connect(file: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
}
