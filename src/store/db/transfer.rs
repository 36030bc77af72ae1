//! Moving house: all that a SQLite database holds is copied to PostgreSQL, with positions, epoch and levels, so that cursors in phones
//! stay valid.
#![expect(
    clippy::disallowed_methods,
    reason = "a part of the one door, for statements about tables that are looked up"
)]

use anyhow::{Context, ensure};
use futures_util::TryStreamExt;
use rusqlite::{Connection as SqliteConnection, TransactionBehavior};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{
    Db, is_postgres,
    sqlite::{self, Place},
};
use crate::domain::time::{Clock, Timestamp};

/// Rows that one transaction takes over.
const CHUNK: i64 = 500;

/// What a move tells on its way.
#[derive(Debug, Clone, Copy)]
pub enum Moving<'a> {
    /// So many rows are still to go over.
    Begun(i64),
    /// So many rows of a table went over just now.
    Copied(&'a str, usize),
    /// All rows of a table are the same on both sides, and there are so many.
    Verified(&'a str, i64),
}

/// A table of both databases.
struct Table {
    name: String,
    columns: Vec<String>,
}

/// How many rows there are, and a sum over what is in them that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Sum {
    rows: i64,
    digest: u128,
}

/// Copies the SQLite database `from` to the PostgreSQL database `to` and compares them; only then may `to` be served. One that was broken
/// off goes on where it was. Meanwhile nobody else writes to `from`.
///
/// # Errors
/// A database cannot be reached, `from` is being written to, `to` holds anything else, or what has arrived is not what was there.
pub async fn migrate(from: &str, to: &str, clock: &Clock, tell: impl Fn(Moving<'_>)) -> anyhow::Result<()> {
    ensure!(!is_postgres(from), "a move begins at sqlite:PATH");
    ensure!(is_postgres(to), "a move ends at postgres://USER@HOST/DATABASE");
    // Both are brought to this version, so that their tables are the same.
    Db::open_existing(from).await?.close().await;
    let prepared = Db::open(to).await?;
    prepared.keep_days(clock.now(), Timestamp::default()).await;
    prepared.close().await;

    let mut source = Place::of(from)?.connect_plainly()?;
    let source = source.transaction_with_behavior(TransactionBehavior::Immediate);
    let source = source.context("the relay is at work: stop it first")?;
    let mut target = PgConnection::connect(to).await?;
    let tables = tables(&source)?;
    begin(&mut target, &tables).await?;
    let mut left = 0;
    for table in &tables {
        left += table.left(&source, &mut target).await?;
    }
    tell(Moving::Begun(left));
    for table in &tables {
        table.copy(&source, &mut target, &tell).await?;
    }
    for Table { name, columns } in &tables {
        let rows = format!("select {} from \"{name}\"", text_of(columns));
        let here = Sum::default().of_all(source.prepare(&rows)?.query_map((), |row| row.get::<_, String>(0))?)?;
        let texts = sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch(&mut target);
        let there = texts.try_fold(Sum::default(), async |sum, text| Ok(sum.and(&text))).await?;
        ensure!(
            here == there,
            "{name} is not the same on both sides ({} and {} rows): empty the target, and begin anew",
            here.rows,
            there.rows
        );
        tell(Moving::Verified(name, here.rows));
    }
    let sql = "update moves set finished_at = $1";
    sqlx::query(sql).bind(clock.now().as_ms()).execute(&mut target).await?;
    Ok(())
}

/// What is to be copied: what others refer to first.
fn tables(source: &SqliteConnection) -> anyhow::Result<Vec<Table>> {
    let sql = "select name from sqlite_schema where type = 'table' and name not like 'sqlite%' and name not like '!_%' escape '!'
                 and name <> 'moves' order by name <> 'apps', name";
    let mut tables = Vec::new();
    for name in sqlite::fetch_all::<String>(source, sql, ())? {
        let sql = "select name from pragma_table_info($1) order by cid";
        let columns = sqlite::fetch_all(source, sql, (name.clone(),))?;
        tables.push(Table { name, columns });
    }
    Ok(tables)
}

/// Begins a move, or finds the one that was broken off.
async fn begin(target: &mut PgConnection, tables: &[Table]) -> anyhow::Result<()> {
    let moves: Vec<Option<i64>> = sqlx::query_scalar("select finished_at from moves").fetch_all(&mut *target).await?;
    ensure!(moves.iter().all(Option::is_none), "a move to this database is finished already");
    if !moves.is_empty() {
        return Ok(());
    }
    for Table { name, .. } in tables {
        let any = format!("select 1::bigint from \"{name}\" limit 1");
        let any: Option<i64> = sqlx::query_scalar(AssertSqlSafe(any)).fetch_optional(&mut *target).await?;
        ensure!(any.is_none(), "the target is not empty: {name} has rows");
    }
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let sql = "insert into moves (name, last_row) select unnest($1::text[]), 0";
    sqlx::query(sql).bind(names).execute(target).await?;
    Ok(())
}

impl Table {
    /// How many rows have not been copied yet.
    async fn left(&self, source: &SqliteConnection, target: &mut PgConnection) -> anyhow::Result<i64> {
        let sql = format!("select count(*) from \"{}\" where rowid > $1", self.name);
        let left: Option<i64> = sqlite::fetch_optional(source, &sql, (self.last_row(target).await?,))?;
        Ok(left.unwrap_or_default())
    }

    /// The last row that has been copied.
    async fn last_row(&self, target: &mut PgConnection) -> anyhow::Result<i64> {
        let sql = "select last_row from moves where name = $1";
        Ok(sqlx::query_scalar(sql).bind(&self.name).fetch_one(target).await?)
    }

    /// Copies what has not been copied yet, a chunk and the note of it at a time.
    async fn copy(
        &self,
        source: &SqliteConnection,
        target: &mut PgConnection,
        tell: &impl Fn(Moving<'_>),
    ) -> anyhow::Result<()> {
        let Self { name, columns } = self;
        let mut last = self.last_row(target).await?;
        let pairs: Vec<String> = columns.iter().map(|column| format!("'{column}', \"{column}\"")).collect();
        let read = format!(
            "select rowid, json_object({}) from \"{name}\" where rowid > $1 order by rowid limit {CHUNK}",
            pairs.join(", ")
        );
        let list: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let list = list.join(", ");
        let write = format!(
            "insert into \"{name}\" ({list}) select {list} from jsonb_populate_recordset(null::\"{name}\", $1::jsonb)"
        );
        loop {
            let rows: Vec<(i64, String)> = sqlite::fetch_all(source, &read, (last,))?;
            let Some((newest, _)) = rows.last() else {
                return Ok(());
            };
            last = *newest;
            let json: Vec<&str> = rows.iter().map(|(_, json)| json.as_str()).collect();
            let mut tx = target.begin().await?;
            let written = sqlx::query(AssertSqlSafe(write.clone())).bind(format!("[{}]", json.join(",")));
            written
                .execute(&mut *tx)
                .await
                .with_context(|| format!("rows of {name} up to {last} cannot be written"))?;
            let noted = sqlx::query("update moves set last_row = $2 where name = $1").bind(name).bind(last);
            noted.execute(&mut *tx).await?;
            tx.commit().await?;
            tell(Moving::Copied(name, rows.len()));
        }
    }
}

/// All columns of a row as one text, each with its length, the same in both databases.
fn text_of(columns: &[String]) -> String {
    let text = |column: &String| {
        format!("coalesce(cast(length(cast(\"{column}\" as text)) as text) || ':' || cast(\"{column}\" as text), '-')")
    };
    columns.iter().map(text).collect::<Vec<_>>().join(" || ")
}

impl Sum {
    fn of_all(self, mut texts: impl Iterator<Item = rusqlite::Result<String>>) -> rusqlite::Result<Self> {
        texts.try_fold(self, |sum, text| Ok(sum.and(&text?)))
    }

    fn and(self, text: &str) -> Self {
        let hash = Sha256::digest(text.as_bytes());
        let digest = hash.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte));
        Self { rows: self.rows + 1, digest: self.digest.wrapping_add(digest) }
    }
}
