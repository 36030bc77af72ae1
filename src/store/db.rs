//! The one door to the database: statements written once, in the SQL that SQLite and PostgreSQL share (decision 3).
//!
//! Reads go through [`Db`] or a [`Tx`] that is a snapshot, writes through a [`Tx`] that is the only writer.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, str::FromStr, time::Duration};

use anyhow::Context;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Arguments, Decode, Encode, FromRow, Result, Sqlite, SqlitePool, Transaction, Type,
    encode::IsNull,
    error::BoxDynError,
    sqlite::{
        SqliteArguments, SqliteArgumentsBuffer, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous, SqliteTypeInfo, SqliteValueRef,
    },
};

const READERS: u32 = 4;
/// Result code: another connection has locked the database.
const SQLITE_BUSY: &str = "5";
/// How long a writer waits for another process, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the cleaner waits for readers; meanwhile nobody writes.
const CLEANER_TIMEOUT: Duration = Duration::from_millis(200);
/// Up to this size a database is written anew after an erasure: a tenth of a second or so, in which no other write goes on.
const COMPACTED_BYTES: i64 = 16 * 1024 * 1024;

/// A handle to the database; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Db {
    readers: SqlitePool,
    /// SQLite takes one writer at a time, so writes queue for a single connection.
    writer: SqlitePool,
    /// Takes out of the files what has been deleted, on its own terms: it holds the writer up, so it does not wait long.
    cleaner: SqlitePool,
}

/// A transaction; it rolls back unless committed.
pub struct Tx(Transaction<'static, Sqlite>);

impl Db {
    /// Connects to `sqlite:PATH` and applies the migrations that are pending.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?;
        make_private(options.get_filename()).with_context(|| format!("cannot open the database {url}"))?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What is erased is overwritten, not only forgotten.
            .pragma("secure_delete", "on")
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await;
        let writer = writer.with_context(|| format!("cannot open the database {url}"))?;
        sqlx::migrate!().run(&writer).await.with_context(|| format!("cannot bring the database {url} up to date"))?;
        let cleaner = SqlitePoolOptions::new().max_connections(1);
        let cleaner = cleaner.connect_lazy_with(options.clone().busy_timeout(CLEANER_TIMEOUT));
        let readers = SqlitePoolOptions::new().max_connections(READERS);
        let readers = readers.connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { readers, writer, cleaner })
    }

    /// Begins to write; waits for the writer before it.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(Tx(self.writer.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// Begins to read: all statements see the same state.
    pub async fn snapshot(&self) -> Result<Tx> {
        Ok(Tx(self.readers.begin().await?))
    }

    /// Rows of one statement, read.
    pub async fn fetch_all<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Vec<T>> {
        query_as(sql, values)?.fetch_all(&self.readers).await
    }

    /// The row of one statement, read, if there is one.
    pub async fn fetch_optional<T: Row>(&self, sql: &'static str, values: impl Values) -> Result<Option<T>> {
        query_as(sql, values)?.fetch_optional(&self.readers).await
    }

    /// Writes with one statement in a transaction of its own; answers how many rows it changed.
    pub async fn execute(&self, sql: &'static str, values: impl Values) -> Result<u64> {
        let mut tx = self.begin().await?;
        let rows = tx.execute(sql, values).await?;
        tx.commit().await?;
        Ok(rows)
    }

    /// Brings what has been deleted out of the files as well; answers whether it could, for a reader of an older state keeps it there.
    ///
    /// A deletion overwrites the row (`secure_delete`), but the pages of before stay in the WAL until it is cut off. And where SQLite has
    /// rebuilt a fragmented page, its unused part may still hold copies of rows that have moved away; only writing the database anew
    /// takes them out, so that is done while it is small. In a large one they are rare, and go when their page fills again.
    pub async fn overwrite_deleted(&self) -> Result<bool> {
        let _turn = self.writer.acquire().await?;
        match self.clean().await {
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == SQLITE_BUSY) => Ok(false),
            cleaned => cleaned,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one door")]
    async fn clean(&self) -> Result<bool> {
        let size = "select c.page_count * s.page_size from pragma_page_count c, pragma_page_size s";
        let (bytes,): (i64,) = query_as(size, ())?.fetch_one(&self.cleaner).await?;
        if bytes <= COMPACTED_BYTES {
            sqlx::query("vacuum").execute(&self.cleaner).await?;
        }
        let checkpoint = "pragma wal_checkpoint(truncate)";
        let (busy, _, _): (i64, i64, i64) = query_as(checkpoint, ())?.fetch_one(&self.cleaner).await?;
        Ok(busy == 0)
    }

    /// Ends all connections; WAL is written back.
    pub async fn close(&self) {
        self.readers.close().await;
        self.cleaner.close().await;
        self.writer.close().await;
    }
}

/// A new database is for its owner's eyes only: it holds push tokens and event data. SQLite gives its other files the same rights.
fn make_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

impl Tx {
    /// Runs a statement and answers how many rows it changed.
    #[expect(clippy::disallowed_methods, reason = "the one door")]
    pub async fn execute(&mut self, sql: &'static str, values: impl Values) -> Result<u64> {
        Ok(sqlx::query_with(sql, values.bind()?).execute(&mut *self.0).await?.rows_affected())
    }

    /// All rows of a statement.
    pub async fn fetch_all<T: Row>(&mut self, sql: &'static str, values: impl Values) -> Result<Vec<T>> {
        query_as(sql, values)?.fetch_all(&mut *self.0).await
    }

    /// The row of a statement, if there is one.
    pub async fn fetch_optional<T: Row>(&mut self, sql: &'static str, values: impl Values) -> Result<Option<T>> {
        query_as(sql, values)?.fetch_optional(&mut *self.0).await
    }

    /// The only row of a statement.
    pub async fn fetch_one<T: Row>(&mut self, sql: &'static str, values: impl Values) -> Result<T> {
        query_as(sql, values)?.fetch_one(&mut *self.0).await
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<()> {
        self.0.commit().await
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door")]
fn query_as<T: Row>(
    sql: &'static str,
    values: impl Values,
) -> Result<sqlx::query::QueryAs<'static, Sqlite, T, SqliteArguments>> {
    Ok(sqlx::query_as_with(sql, values.bind()?))
}

/// A row: any struct that derives [`FromRow`], or a tuple.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

/// A value that can be bound.
pub trait Value: for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send {}
impl<T> Value for T where T: for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send {}

/// A tuple of values for `$1`, `$2`, ….
pub trait Values: Send {
    /// The values as the driver takes them.
    fn bind(self) -> Result<SqliteArguments>;
}

macro_rules! values {
    ($($value:ident)*) => {
        impl<$($value: Value),*> Values for ($($value,)*) {
            #[allow(non_snake_case, unused_mut, reason = "one name for type and value")]
            fn bind(self) -> Result<SqliteArguments> {
                let ($($value,)*) = self;
                let mut arguments = SqliteArguments::default();
                $(arguments.add($value).map_err(sqlx::Error::Encode)?;)*
                Ok(arguments)
            }
        }
    };
}

values!();
values!(A);
values!(A B);
values!(A B C);
values!(A B C D);
values!(A B C D E);
values!(A B C D E F);
values!(A B C D E F G);
values!(A B C D E F G H);
values!(A B C D E F G H I);
values!(A B C D E F G H I J);

/// A set of rows as one JSON array, for `json_each($1)`.
pub fn rows<T: Serialize>(rows: &[T]) -> Result<String> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A value kept as JSON in a text column.
#[derive(Debug, Clone, PartialEq)]
pub struct Json<T>(pub T);

impl<T> Type<Sqlite> for Json<T> {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<T: Serialize> Encode<'_, Sqlite> for Json<T> {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> std::result::Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(serde_json::to_string(&self.0)?, buffer)
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'r, T: DeserializeOwned> Decode<'r, Sqlite> for Json<T> {
    fn decode(value: SqliteValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        Ok(Self(serde_json::from_str(<&str as Decode<Sqlite>>::decode(value)?)?))
    }
}

/// A value kept as one word in a text column: ids, names and the words of the contract, by their serde form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word<T>(pub T);

impl<T> Type<Sqlite> for Word<T> {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<T: Serialize> Encode<'_, Sqlite> for Word<T> {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> std::result::Result<IsNull, BoxDynError> {
        match serde_json::to_value(&self.0)? {
            serde_json::Value::String(word) => Encode::<Sqlite>::encode(word, buffer),
            other => Err(format!("{other} is not a word").into()),
        }
    }
}

impl<'r, T: DeserializeOwned> Decode<'r, Sqlite> for Word<T> {
    fn decode(value: SqliteValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
        let word = <&str as Decode<Sqlite>>::decode(value)?;
        let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word);
        Ok(Self(T::deserialize(deserializer)?))
    }
}

impl<T: Serialize> Serialize for Word<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Rows that grow, shrink and go, until a page has been rebuilt around one that is gone. Answers the texts of all that are gone.
    async fn churn(db: &Db, seed: u64) -> HashSet<String> {
        let mut chance = StdRng::seed_from_u64(seed);
        let (mut live, mut gone) = (Vec::new(), HashSet::new());
        let mut tx = db.begin().await.unwrap();
        for number in 0..600_i64 {
            let text = |number: i64, most: usize, chance: &mut StdRng| {
                format!("m{number:05}-").repeat(chance.random_range(1..=most))
            };
            let first = text(number, 40, &mut chance);
            tx.execute("insert into churned (id, text) values ($1, $2)", (number, first)).await.unwrap();
            live.push(number);
            for _ in 0..3 {
                let index = chance.random_range(0..live.len());
                if chance.random_bool(0.9) {
                    let changed = text(live[index], 60, &mut chance);
                    tx.execute("update churned set text = $2 where id = $1", (live[index], changed)).await.unwrap();
                } else if live.len() > 5 {
                    let id = live.swap_remove(index);
                    tx.execute("delete from churned where id = $1", (id,)).await.unwrap();
                    gone.insert(format!("m{id:05}-"));
                }
            }
        }
        tx.commit().await.unwrap();
        gone
    }

    /// With this seed SQLite 3.51 keeps a copy of a deleted row in the unused part of a page, `secure_delete` or not.
    const LEAVES_A_COPY: u64 = 9;

    #[tokio::test]
    async fn what_is_deleted_is_nowhere_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reveille.db");
        let db = Db::open(&format!("sqlite:{}", path.display())).await.unwrap();
        db.execute("create table churned (id integer primary key, text text)", ()).await.unwrap();
        let gone = churn(&db, LEAVES_A_COPY).await;
        let traces = || {
            let files = [path.clone(), path.with_extension("db-wal")];
            let bytes: Vec<u8> = files.into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
            let texts = bytes.windows(7).filter(|window| window[0] == b'm' && window[6] == b'-');
            texts.filter(|text| std::str::from_utf8(text).is_ok_and(|text| gone.contains(text))).count()
        };
        assert!(traces() > 0);
        assert!(db.overwrite_deleted().await.unwrap());
        assert_eq!(traces(), 0);
        let left: Vec<(i64,)> = db.fetch_all("select count(*) from churned", ()).await.unwrap();
        assert_eq!(left[0].0 as usize, 600 - gone.len());
    }

    #[tokio::test]
    async fn a_reader_of_an_older_state_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reveille.db");
        let db = Db::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let mut reader = db.snapshot().await.unwrap();
        let _seen: Vec<(i64,)> = reader.fetch_all("select count(*) from apps", ()).await.unwrap();
        db.execute("create table churned (id integer primary key, text text)", ()).await.unwrap();
        assert!(!db.overwrite_deleted().await.unwrap(), "it may still look at what is gone");
        drop(reader);
        assert!(db.overwrite_deleted().await.unwrap());
    }
}
