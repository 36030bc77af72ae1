//! The database of a test, seen from outside: a file of its own, or a database of its own on the server that `TEST_DATABASE_URL` names.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{LazyLock, mpsc},
};

use reveille::{
    domain::time::Clock,
    metrics::Metrics,
    secret::Secrets,
    store::{Store, StoreOptions},
};
use secrecy::SecretBox;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

/// The 32 bytes of [`MASTER_KEY`](super::world::MASTER_KEY).
const MASTER_KEY_BYTES: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 32 {
        bytes[index] = index as u8;
        index += 1;
    }
    bytes
};

/// Where a relay under test keeps its things.
#[derive(Debug, Clone)]
pub enum Database {
    Sqlite { folder: PathBuf },
    Postgres { server: String, name: String },
}

/// The state of a database at some moment.
pub struct Copy(Kept);

enum Kept {
    Folder(tempfile::TempDir),
    Database(String),
}

/// Migrated once; each test gets a copy.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

impl Database {
    /// The database that belongs to a folder, made if it is new.
    pub async fn of(folder: &Path) -> Self {
        let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
            return Self::Sqlite { folder: folder.to_owned() };
        };
        let template = TEMPLATE.get_or_init(|| make_template(&server)).await;
        let name = name_of(folder);
        let database = Self::Postgres { server: server.clone(), name: name.clone() };
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let known = sqlx::query("select 1 from pg_database where datname = $1").bind(&name);
        if known.fetch_optional(&mut connection).await.unwrap().is_none() {
            run(&mut connection, format!("create database {name} template {template}")).await;
        }
        database
    }

    /// A PostgreSQL database without a single table.
    pub async fn empty(folder: &Path) -> Self {
        let server = server();
        let name = name_of(folder);
        run(&mut PgConnection::connect(&server).await.unwrap(), format!("create database {name}")).await;
        Self::Postgres { server, name }
    }

    /// As the configuration names it.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { folder } => format!("sqlite:{}", folder.join("reveille.db").display()),
            Self::Postgres { server, name } => on_server(server, name),
        }
    }

    /// What a statement counts.
    pub async fn count(&self, sql: &str) -> i64 {
        match self {
            Self::Sqlite { .. } => self.sqlite().query_row(sql, (), |row| row.get(0)).unwrap(),
            Self::Postgres { .. } => {
                let sql = AssertSqlSafe(sql.to_owned());
                sqlx::query_scalar(sql).fetch_one(&mut self.postgres().await).await.unwrap()
            }
        }
    }

    /// The texts that a statement finds.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite { .. } => {
                let (connection, texts) = (self.sqlite(), |row: &rusqlite::Row<'_>| row.get(0));
                let mut statement = connection.prepare(sql).unwrap();
                statement.query_map((), texts).unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres { .. } => {
                let sql = AssertSqlSafe(sql.to_owned());
                sqlx::query_scalar(sql).fetch_all(&mut self.postgres().await).await.unwrap()
            }
        }
    }

    /// Changes something behind the relay's back.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite { .. } => self.sqlite().execute_batch(sql).unwrap(),
            Self::Postgres { .. } => run(&mut self.postgres().await, sql.to_owned()).await,
        }
    }

    /// The tables that have a column of this name.
    pub async fn tables_with(&self, column: &str) -> Vec<String> {
        let sql = match self {
            Self::Sqlite { .. } => {
                "select m.name from sqlite_schema m join pragma_table_info(m.name) c where m.type = 'table' and c.name = "
            }
            Self::Postgres { .. } => {
                "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
                 where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and a.attname = "
            }
        };
        self.texts(&format!("{sql} '{column}'")).await
    }

    /// Where one of these texts can be read: in a file's bytes, or in a row.
    pub async fn traces(&self, texts: &[String]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        match self {
            Self::Sqlite { folder } => {
                for end in ["", "-wal", "-shm"] {
                    let name = format!("reveille.db{end}");
                    let bytes = std::fs::read(folder.join(&name)).unwrap();
                    let holds = |text: &&String| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                    found.extend(texts.iter().filter(holds).map(|text| format!("{text} in {name}")));
                }
            }
            Self::Postgres { .. } => {
                for table in self.tables_with("app_id").await {
                    for text in texts {
                        // Bound, so that no log of statements knows it.
                        let sql =
                            AssertSqlSafe(format!("select count(*) from {table} t where strpos(t::text, $1) > 0"));
                        let rows = sqlx::query_scalar::<_, i64>(sql).bind(text);
                        if rows.fetch_one(&mut self.postgres().await).await.unwrap() > 0 {
                            found.insert(format!("{text} in {table}"));
                        }
                    }
                }
            }
        }
        found
    }

    /// Keeps the state as it is now; in PostgreSQL no relay may be running.
    pub async fn copy(&self) -> Copy {
        match self {
            Self::Sqlite { folder } => {
                let kept = tempfile::tempdir().unwrap();
                copy_files(folder, kept.path());
                Copy(Kept::Folder(kept))
            }
            Self::Postgres { server, name } => {
                let kept = format!("{name}_copy");
                run(
                    &mut PgConnection::connect(server).await.unwrap(),
                    format!("create database {kept} template {name}"),
                )
                .await;
                Copy(Kept::Database(kept))
            }
        }
    }

    /// Forgets all that has happened since; no relay may be running.
    pub async fn go_back_to(&self, copy: &Copy) {
        match (self, &copy.0) {
            (Self::Sqlite { folder }, Kept::Folder(kept)) => {
                for end in ["", "-wal", "-shm"] {
                    drop(std::fs::remove_file(folder.join(format!("reveille.db{end}"))));
                }
                copy_files(kept.path(), folder);
            }
            (Self::Postgres { server, name }, Kept::Database(kept)) => {
                let mut connection = PgConnection::connect(server).await.unwrap();
                run(&mut connection, format!("drop database {name} with (force)")).await;
                run(&mut connection, format!("alter database {kept} rename to {name}")).await;
            }
            _ => panic!("a copy of another kind of database"),
        }
    }

    /// Puts a file in its place; no relay may be running.
    pub fn replace_by(&self, file: &Path) {
        let Self::Sqlite { folder } = self else { panic!("a file is no PostgreSQL database") };
        for end in ["-wal", "-shm"] {
            drop(std::fs::remove_file(folder.join(format!("reveille.db{end}"))));
        }
        std::fs::copy(file, folder.join("reveille.db")).unwrap();
    }

    /// Takes a database away that nobody needs any more. A file goes with its folder.
    pub fn discard(&self) {
        if let Self::Postgres { server, name } = self {
            drop(DISCARDED.send((server.clone(), name.clone())));
        }
    }

    fn sqlite(&self) -> rusqlite::Connection {
        let Self::Sqlite { folder } = self else { panic!("this database is PostgreSQL's") };
        rusqlite::Connection::open(folder.join("reveille.db")).unwrap()
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }
}

fn copy_files(from: &Path, to: &Path) {
    for end in ["", "-wal"] {
        let name = format!("reveille.db{end}");
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// The database of a folder.
fn name_of(folder: &Path) -> String {
    let folder = folder.file_name().unwrap().to_string_lossy();
    let unique: String = folder.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{unique}", prefix(std::process::id()))
}

/// The names of the databases that a process makes.
fn prefix(process: u32) -> String {
    format!("reveille_test_{process}_")
}

/// A database on a server. What a crash of the server would lose is of no interest here, and not to wait for the disk is quicker.
fn on_server(server: &str, name: &str) -> String {
    let mut url = url::Url::parse(server).unwrap();
    url.set_path(name);
    url.query_pairs_mut().append_pair("options[synchronous_commit]", "off").append_pair("sslmode", "disable");
    url.into()
}

async fn run(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

async fn make_template(server: &str) -> String {
    let mut connection = PgConnection::connect(server).await.unwrap();
    // Processes that were killed have left theirs behind.
    let sql = "select datname::text from pg_database where datname like 'reveille\\_test\\_%'";
    let left: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    for name in left {
        let process = name.split('_').nth(2).and_then(|process| process.parse::<u32>().ok());
        if process.is_none_or(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            run(&mut connection, format!("drop database if exists {name} with (force)")).await;
        }
    }
    let name = format!("{}template", prefix(std::process::id()));
    run(&mut connection, format!("drop database if exists {name} with (force)")).await;
    run(&mut connection, format!("create database {name}")).await;
    let secrets = Secrets::derive(&SecretBox::new(Box::new(MASTER_KEY_BYTES)));
    let (clock, tasks) = (Clock::default(), TaskTracker::new());
    let store =
        Store::open(&on_server(server, &name), secrets, clock, StoreOptions::default(), Metrics::default(), &tasks)
            .await
            .unwrap();
    store.close().await;
    name
}

/// Databases are dropped aside, for whoever drops a world cannot wait.
static DISCARDED: LazyLock<mpsc::Sender<(String, String)>> = LazyLock::new(|| {
    let (discard, discarded) = mpsc::channel::<(String, String)>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (server, name) in discarded {
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await.unwrap();
                run(&mut connection, format!("drop database if exists {name} with (force)")).await;
            });
        }
    });
    discard
});

/// The server for tests of what only PostgreSQL has.
#[track_caller]
pub fn server() -> String {
    std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL names a PostgreSQL server: `./test` starts one, and runs this test again")
}
