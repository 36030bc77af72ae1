//! No gaps: whoever reads on from the last position it has seen misses nothing that is accepted, on however many nodes and however slowly.

use std::{cell::Cell, collections::BTreeSet};

use futures_util::future::join_all;
use reveille::{
    relay::Relay,
    store::{PageEntry, PageRequest, Paged},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::support::{
    database::{Database, server},
    world::{World, url},
};

/// Writers that answer the positions they were given, and readers that go on from the last one they have seen, at the same time. Says
/// what a reader has missed.
async fn gaps(
    writers: usize,
    write: impl AsyncFn(usize) -> Vec<i64>,
    readers: usize,
    read: impl AsyncFn(i64) -> Vec<i64>,
) -> BTreeSet<i64> {
    let at_work = Cell::new(writers);
    let written = join_all((0..writers).map(|number| {
        let (write, at_work) = (&write, &at_work);
        async move {
            let positions = write(number).await;
            at_work.set(at_work.get() - 1);
            positions
        }
    }));
    let seen = join_all((0..readers).map(|_| async {
        let mut seen: Vec<i64> = Vec::new();
        loop {
            let last_look = at_work.get() == 0;
            let page = read(seen.last().copied().unwrap_or(0)).await;
            if page.is_empty() && last_look {
                return seen;
            }
            seen.extend(page);
            assert!(seen.is_sorted_by(|a, b| a < b), "in order, each once");
            tokio::task::yield_now().await;
        }
    }));
    let (written, seen) = tokio::join!(written, seen);
    let written: BTreeSet<i64> = written.into_iter().flatten().collect();
    seen.into_iter()
        .flat_map(|seen| written.difference(&seen.into_iter().collect()).copied().collect::<Vec<_>>())
        .collect()
}

/// Whoever commits waits a moment before: long enough for others to come in between.
fn slow_commits_to(table: &str, database: &Database) -> String {
    let sql = match database {
        Database::Postgres { .. } => SLOW_COMMIT,
        Database::Sqlite { .. } => SLOW_INSERT,
    };
    sql.replace("TABLE", table)
}

/// SQLite cannot sleep, but count.
const SLOW_INSERT: &str = "
    create trigger dawdle after insert on TABLE begin
        select count(*) from (
            with recursive n(i) as (select 1 union all select i + 1 from n where i < abs(random() % 30000)) select i from n);
    end;";
const SLOW_COMMIT: &str = "
    create function dawdle() returns trigger language plpgsql as
        'begin perform pg_sleep(random() * 0.01); return null; end';
    create constraint trigger dawdle after insert on TABLE deferrable initially deferred for each row execute function dawdle();";

#[tokio::test]
async fn readers_miss_nothing_whoever_writes() {
    const EVENTS: usize = 25;
    let world = World::start().await;
    world.phone("pixel").follows(&["news"]).await;
    world.database().execute(&slow_commits_to("events", world.database())).await;
    // SQLite is for one process.
    let others = match world.database() {
        Database::Postgres { .. } => vec![world.another("api").await, world.another("api").await],
        Database::Sqlite { .. } => Vec::new(),
    };
    let nodes: Vec<&Relay> = others.iter().chain([world.relay()]).collect();
    let write = async |number: usize| {
        let mut positions = Vec::new();
        for index in 0..EVENTS {
            let event = json!({"feed": format!("feed:{}", (number + index) % 3), "type": "t"});
            let posted =
                world.http.post(url(nodes[number % nodes.len()], "/v1/events")).bearer_auth(&world.key).json(&event);
            positions.push(world.send(posted).await.expect(202)["position"].as_i64().unwrap());
        }
        positions
    };
    let device = world.phone("reader").follows(&["feed:0", "feed:1", "feed:2"]).await;
    let poller = world.relay().store().poller(&device.device_token).await.unwrap().unwrap();
    let turn = Cell::new(0);
    let read = async |after: i64| {
        turn.set(turn.get() + 1);
        let request = PageRequest { after: Some(reveille::domain::feed::Position(after)), limit: 20 };
        let page = nodes[turn.get() % nodes.len()].store().page(&poller, request).await.unwrap();
        let Paged::Page(page) = page else { panic!("a page") };
        page.entries
            .iter()
            .filter(|entry| matches!(entry, PageEntry::Event(_)))
            .map(|entry| entry.position().0)
            .collect()
    };
    assert_eq!(gaps(8, write, 4, read).await, BTreeSet::new());
    for relay in others {
        relay.stop().await;
    }
}

/// The same look at a writer that takes its positions from a sequence finds what readers miss: so it would find it in the relay.
#[tokio::test]
async fn positions_from_a_sequence_would_be_missed() {
    server();
    let world = World::start().await;
    let database = world.database();
    database.execute("create table naive (position bigserial primary key)").await;
    database.execute(&slow_commits_to("naive", database)).await;
    let write = async |_| {
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let mut positions = Vec::new();
        for _ in 0..50 {
            let sql = "insert into naive default values returning position";
            positions.push(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut connection).await.unwrap());
        }
        positions
    };
    let read = async |after: i64| {
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        let sql = "select position from naive where position > $1 order by position";
        sqlx::query_scalar::<_, i64>(sql).bind(after).fetch_all(&mut connection).await.unwrap()
    };
    assert!(!gaps(8, write, 4, read).await.is_empty());
}
