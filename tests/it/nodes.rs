//! Several relays at one PostgreSQL database: they share the work, know of each other, and outlive its absence (decision 8).

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use reqwest::Method;
use reveille::store::{PageRequest, StoreOptions};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{
    database::server,
    proxy::Proxy,
    served::within,
    world::{OPERATOR_KEY, World, url, without_pace},
};

const SOON: Duration = Duration::from_secs(20);

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

/// A phone that loses the network in the middle of a poll leaves nothing behind: whoever gets the connection next would else look at the
/// database as it was then.
#[tokio::test]
async fn who_hangs_up_leaves_no_transaction_open() {
    server();
    let world = World::start().await;
    let device = world.phone("pixel").follows(&["news"]).await;
    let poller = world.relay().store().poller(&device.device_token).await.unwrap().unwrap();
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'";
    for _ in 0..10 {
        // Broken off at every moment; the last ones begin nothing any more that would end what those before have left open.
        for patience_us in (0..40).rev().map(|step| step * 50) {
            let page = world.relay().store().page(&poller, PageRequest { after: None, limit: 1 });
            drop(tokio::time::timeout(Duration::from_micros(patience_us), page).await);
        }
        within(Duration::from_secs(2), "no transaction is open", async || {
            (world.database().count(open).await == 0).then_some(())
        })
        .await;
    }
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

/// Another client of the database takes the same rows the other way round. The relay's transaction is the one to be broken off, for the
/// other does not look for a deadlock so soon.
#[tokio::test]
async fn a_deadlock_is_tried_again_and_counted() {
    server();
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    let broken_off = async || {
        let detail = world.operator(Method::GET, "/readyz", None).await.expect(200);
        detail["broken_off_transactions"].as_u64().unwrap()
    };
    let before = broken_off().await;
    let mut other = PgConnection::connect(&world.database().url()).await.unwrap();
    let holds = "begin; set local deadlock_timeout = '30s'; select id from devices for update";
    sqlx::raw_sql(holds).execute(&mut other).await.unwrap();

    let path = format!("/v1/devices/{}/feeds/other", phone.id);
    let follow = world.call(Method::PUT, &path, &world.key, None);
    let meets = async {
        let waits = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and pid <> pg_backend_pid()";
        within(SOON, "the relay waits for the device", async || {
            (world.database().count(waits).await > 0).then_some(())
        })
        .await;
        sqlx::raw_sql("select id from apps for update; commit").execute(&mut other).await.unwrap();
    };
    let (followed, ()) = tokio::join!(follow, meets);
    assert!((200..300).contains(&followed.status), "{followed:?}");
    assert!(broken_off().await > before);
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
