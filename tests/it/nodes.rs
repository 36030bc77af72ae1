//! Several relays at one PostgreSQL database: they share the work, know of each other, and outlive its absence (decision 8).

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use reqwest::Method;
use reveille::{
    relay::Relay,
    store::{PageEntry, PageRequest, Paged, StoreOptions},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{
    database::server,
    proxy::Proxy,
    served::within,
    world::{OPERATOR_KEY, World, without_pace},
};

const SOON: Duration = Duration::from_secs(20);

fn url(relay: &Relay, path: &str) -> String {
    format!("http://{}{path}", relay.address().unwrap())
}

#[tokio::test]
async fn three_nodes_push_everything_once() {
    const PHONES: usize = 60;
    const EVENTS: usize = 5;
    server();
    // Each event takes several chunks of fan-out, which the nodes share as well.
    let world = World::with(StoreOptions { fanout_chunk: 7, ..StoreOptions::default() }).await;
    world.without_pace().await;
    let mut phones = Vec::new();
    for number in 0..PHONES {
        phones.push(world.phone(&format!("phone-{number}")).follows(&["news"]).await);
    }
    let others = [world.another("dispatch").await, world.another("api,dispatch").await];
    let mut newest = 0;
    for _ in 0..EVENTS {
        let event = json!({"feed": "news", "type": "t"});
        let posted = world.http.post(url(&others[1], "/v1/events")).bearer_auth(&world.key).json(&event);
        newest = world.send(posted).await.expect(202)["position"].as_i64().unwrap();
        world.relay().dispatcher().step().await.unwrap();
    }
    within(SOON, "all are told of the newest", async || {
        world.relay().dispatcher().step().await.unwrap();
        phones.iter().all(|phone| phone.heads().last() == Some(&newest)).then_some(())
    })
    .await;
    within(SOON, "all calls are finished", async || {
        world.outcomes().await.iter().all(|outcome| outcome == "accepted").then_some(())
    })
    .await;
    for phone in &phones {
        let heads = phone.heads();
        assert!(heads.is_sorted_by(|a, b| a < b), "each head is announced once: {heads:?}");
    }
    for relay in others {
        relay.stop().await;
    }
}

#[tokio::test]
async fn what_is_accepted_on_one_node_is_pushed_by_another() {
    server();
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    let dispatch = world.another("dispatch").await;
    world.publish("news").await;
    within(SOON, "the other node pushes", async || (phone.received() == 1).then_some(())).await;
    dispatch.stop().await;
}

#[tokio::test]
async fn what_changes_on_one_node_holds_on_all_within_a_second() {
    server();
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    let other = world.another("api").await;
    let call =
        async |bearer: &str, path: &str| world.http.get(url(&other, path)).bearer_auth(bearer).send().await.unwrap();

    let page = call(&phone.device_token, "/v1/sync").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!(page["poll"]["after_s"], 900);
    world.settings(json!({"poll_after_s": {"healthy": 1234}})).await;
    let page = call(&phone.device_token, "/v1/sync").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!(page["poll"]["after_s"], 1234);

    let keys = world.call(Method::GET, &format!("/v1/apps/{}/keys", world.app), OPERATOR_KEY, None).await.expect(200);
    let key = keys["items"][0]["id"].as_str().unwrap();
    assert_eq!(call(&world.key, "/v1/credentials").await.status(), 200);
    world.operator(Method::DELETE, &format!("/v1/apps/{}/keys/{key}", world.app), None).await.expect(204);
    assert_eq!(call(&world.key, "/v1/credentials").await.status(), 401);

    world.database().execute("update node set epoch = epoch + 1").await;
    let (old, began) = (page["next"].as_str().unwrap(), Instant::now());
    within(SOON, "the cursor is of another epoch", async || {
        let answer = call(&phone.device_token, &format!("/v1/sync?after={old}")).await;
        (answer.status() == 410).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    other.stop().await;
}

#[tokio::test]
async fn without_its_database_a_node_turns_requests_away_and_comes_back_by_itself() {
    let target = url::Url::parse(&server()).unwrap();
    let target = format!("{}:{}", target.host_str().unwrap(), target.port().unwrap_or(5432));
    let proxy = Proxy::to(target).await;
    let through = |url: &str| {
        let mut url = url::Url::parse(url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.port)).unwrap();
        url.to_string()
    };
    let world = World::reached_by(through).await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    assert_eq!(world.get("/readyz").await.status, 200);
    let dispatch = world.another("dispatch").await;

    proxy.cut();
    within(SOON, "it is not ready", async || (world.get("/readyz").await.status == 503).then_some(())).await;
    let began = Instant::now();
    let event = json!({"feed": "news", "type": "t"});
    for _ in 0..50 {
        let answer = world.post("/v1/events", event.clone()).await;
        assert_eq!(answer.problem(503), "busy");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(phone.get("/v1/sync").await.problem(503), "busy");
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for connections: {:?}", began.elapsed());

    proxy.mend();
    within(SOON, "it is ready", async || (world.get("/readyz").await.status == 200).then_some(())).await;
    world.post("/v1/events", event).await.expect(202);
    within(SOON, "the phone is told", async || (phone.received() == 1).then_some(())).await;
    dispatch.stop().await;
}

/// As in a restart of the server: all connections end in the middle of whatever they are at.
#[tokio::test]
async fn a_server_that_ends_all_connections_loses_nothing() {
    const EVENTS: usize = 150;
    let mut admin = PgConnection::connect(&server()).await.unwrap();
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    let dispatch = world.another("dispatch").await;
    let name = world.database().url();
    let name = url::Url::parse(&name).unwrap().path().trim_start_matches('/').to_owned();
    let over = Cell::new(false);
    let backend = async {
        let mut accepted = BTreeSet::new();
        for number in 0..EVENTS {
            let key = format!("event-{number}");
            let body = json!({"feed": "news", "type": "t", "data": number}).to_string();
            // As the contract says: the same request until it is answered.
            accepted.insert(
                within(SOON, "the event is accepted", async || {
                    let answer = world.post_text("/v1/events", &[("idempotency-key", &key)], body.clone()).await;
                    (answer.status == 202).then(|| answer.body["position"].as_i64().unwrap())
                })
                .await,
            );
        }
        over.set(true);
        accepted
    };
    let trouble = async {
        let sql = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        while !over.get() {
            sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut admin).await.unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    let (accepted, ()) = tokio::join!(backend, trouble);
    assert_eq!(accepted.len(), EVENTS, "each has a place of its own");
    within(SOON, "it is ready", async || (world.get("/readyz").await.status == 200).then_some(())).await;
    let read: BTreeSet<i64> = within(SOON, "the phone reads", async || {
        let page = phone.get("/v1/sync?limit=500").await;
        (page.status == 200).then(|| {
            let events = page.body["events"].as_array().unwrap().iter().filter(|event| event["type"] == "t");
            events.map(|event| event["position"].as_i64().unwrap()).collect()
        })
    })
    .await;
    assert_eq!(read, accepted, "every event is there, and once");
    let newest = *accepted.last().unwrap();
    within(SOON, "the phone was told, or came by itself", async || {
        world.clock.advance(Duration::from_secs(60));
        let newest_told = phone.heads().last().is_some_and(|head| *head >= newest);
        let [fetched, _] = phone.levels().await;
        (newest_told || fetched >= newest).then_some(())
    })
    .await;
    dispatch.stop().await;
}

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
const SLOW_COMMIT: &str = "
    create function dawdle() returns trigger language plpgsql as
        'begin perform pg_sleep(random() * 0.01); return null; end';
    create constraint trigger dawdle after insert on TABLE deferrable initially deferred for each row execute function dawdle();";

#[tokio::test]
async fn readers_miss_nothing_whoever_writes() {
    const EVENTS: usize = 25;
    server();
    let world = World::start().await;
    world.phone("pixel").follows(&["news"]).await;
    world.database().execute(&SLOW_COMMIT.replace("TABLE", "events")).await;
    let others = [world.another("api").await, world.another("api").await];
    let nodes: Vec<&Relay> = others.iter().chain([world.relay()]).collect();
    let write = async |number: usize| {
        let mut positions = Vec::new();
        for index in 0..EVENTS {
            let event = json!({"feed": format!("feed:{}", (number + index) % 3), "type": "t"});
            let posted = world.http.post(url(nodes[number % 3], "/v1/events")).bearer_auth(&world.key).json(&event);
            positions.push(world.send(posted).await.expect(202)["position"].as_i64().unwrap());
        }
        positions
    };
    let device = world.phone("reader").follows(&["feed:0", "feed:1", "feed:2"]).await.id.parse().unwrap();
    let turn = Cell::new(0);
    let read = async |after: i64| {
        turn.set(turn.get() + 1);
        let request = PageRequest { after: Some(reveille::domain::feed::Position(after)), limit: 20 };
        let page = nodes[turn.get() % 3].store().page(world.app.parse().unwrap(), device, request).await.unwrap();
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
    database.execute(&SLOW_COMMIT.replace("TABLE", "naive")).await;
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

#[tokio::test]
async fn one_node_at_a_time_tidies_up() {
    server();
    let world = World::start().await;
    world.settings(without_pace()).await;
    world.publish("news").await;
    world.clock.advance(Duration::from_secs(30 * 86_400));
    let mut other = PgConnection::connect(&world.database().url()).await.unwrap();
    let mut holding = other.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)").bind(0x7265_7601_i64).execute(&mut *holding).await.unwrap();
    let events = async || world.database().count("select count(*) from events").await;
    assert!(!world.relay().janitor().step().await.unwrap(), "another is at it");
    assert_eq!(events().await, 1);
    holding.rollback().await.unwrap();
    world.relay().janitor().step().await.unwrap();
    assert_eq!(events().await, 0);
}

/// A migration that both databases share cannot say so; one of PostgreSQL's has to follow it.
#[tokio::test]
async fn text_is_ordered_by_its_bytes() {
    server();
    let world = World::start().await;
    let otherwise = "select table_name || '.' || column_name from information_schema.columns
        where table_schema = 'public' and data_type = 'text' and collation_name is distinct from 'C'
          and table_name not in ('moves', '_sqlx_migrations')";
    assert_eq!(world.database().texts(otherwise).await, [""; 0]);
}
