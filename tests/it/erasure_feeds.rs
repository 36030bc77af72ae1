//! Erasing feeds in chunks, what the janitor takes away by itself, and how an erasure goes on (contract §5, Devices).

use std::time::Duration;

use reqwest::Method;
use reveille::store::{FanOut, StoreOptions};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{
    served::within,
    world::{OPERATOR_KEY, World},
};

const DAY: Duration = Duration::from_secs(86_400);
const SMALL: StoreOptions = StoreOptions { fanout_chunk: 6, lease: Duration::from_secs(45) };

/// What a look at the database from outside counts.
async fn count(world: &World, sql: &str) -> i64 {
    world.database().count(sql).await
}

async fn shown(world: &World, operation: &Value) -> Value {
    world.get(&format!("/v1/operations/{}", operation["id"].as_str().unwrap())).await.expect(200)
}

/// A page as the phone with this token reads it from the beginning.
async fn read(world: &World, token: &str) -> Vec<(String, i64)> {
    let page = world.call(Method::GET, "/v1/sync?limit=500", token, None).await.expect(200);
    let events = page["events"].as_array().unwrap().iter().filter(|event| event["type"] != "reveille.followed");
    events.map(|event| (event["feed"].as_str().unwrap().to_owned(), event["position"].as_i64().unwrap())).collect()
}

#[tokio::test]
async fn a_feed_with_many_followers_goes_in_chunks_over_a_restart() {
    const PHONES: usize = 20;
    let world = World::with(SMALL).await;
    let mut tokens = Vec::new();
    let mut phones = Vec::new();
    for number in 0..PHONES {
        let own = format!("order:{number}");
        let phone = world.phone(&format!("phone-{number}")).follows(&["news", &own]).await;
        tokens.push(phone.device_token.clone());
        phones.push((phone.id.clone(), phone.token.clone()));
    }
    // Each phone waits for an event of its own, and for the news, whose fan-outs are not over yet.
    let mut own = Vec::new();
    for number in 0..PHONES {
        world.publish("news").await;
        own.push(world.alert(&format!("order:{number}"), "yours").await["position"].as_i64().unwrap());
        let event = json!({"feed": "news", "type": "t", "key": "k", "data": number}).to_string();
        world.post_text("/v1/events", &[("idempotency-key", &format!("news-{number}"))], event).await.expect(202);
    }
    world.relay().store().fan_out(None, 500).await.unwrap();

    let answer = world.delete("/v1/feeds/news").await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    let begun = answer.expect(202);
    assert_eq!([&begun["state"], &begun["finished_at"]], [&json!("running"), &Value::Null]);
    assert_eq!(begun["removed"]["follows"], 6, "what the request itself has time for");
    assert_eq!(count(&world, "select count(*) from operations where subject = 'news'").await, 1);
    let late = world.publish("news").await["position"].as_i64().unwrap();
    let follower = world.phone("follower").follows(&["news"]).await;
    let follower = (follower.id.clone(), follower.device_token.clone());
    for _ in 0..4 {
        world.relay().janitor().step().await.unwrap();
    }
    let half = shown(&world, &begun).await;
    assert_eq!([&half["state"], &half["removed"]["follows"]], [&json!("running"), &json!(14)]);

    let world = world.restart().await;
    assert_eq!(shown(&world, &begun).await, half);
    while world.relay().janitor().step().await.unwrap() {}
    let done = shown(&world, &begun).await;
    assert_eq!(done["state"], "done");
    let removed = &done["removed"];
    assert_eq!([&removed["follows"], &removed["events"], &removed["idempotency_keys"]], [PHONES, 2 * PHONES, PHONES]);
    assert_eq!([&removed["devices"], &removed["attempts"]], [0, 0]);
    assert_eq!(count(&world, "select count(*) from operations where subject is not null").await, 0);
    assert_eq!(count(&world, "select count(*) from levels where feed = 'news' or wake_feed = 'news'").await, 0);

    let lost = "select count(*) from fanouts o where not exists (
                  select 1 from events e where e.app_id = o.app_id and e.position = o.position)";
    assert_eq!(count(&world, lost).await, 0);

    // What came after the request stays, and so does who came to follow.
    let left = world.get("/v1/feeds/news/events").await.expect(200);
    let left = left["events"].as_array().unwrap();
    assert_eq!(left.iter().map(|event| event["position"].as_i64().unwrap()).collect::<Vec<_>>(), [late]);
    let feeds = world.get(&format!("/v1/devices/{}", follower.0)).await.expect(200)["feeds"].clone();
    assert_eq!(feeds[0], "news");
    // Every phone is woken for its own event, for nothing else, and reads it without a gap.
    while world.relay().store().fan_out(None, 500).await.unwrap() != FanOut::Idle {}
    world.settle().await;
    for (number, ((id, token), device_token)) in phones.iter().zip(&tokens).enumerate() {
        let feeds = world.get(&format!("/v1/devices/{id}")).await.expect(200)["feeds"].clone();
        assert_eq!(feeds, json!([format!("order:{number}"), format!("device:{id}")]));
        let pushes = world.sim.pushes();
        let mine: Vec<_> =
            pushes.iter().filter(|push| push.token == *token).map(|push| push.trigger().unwrap()).collect();
        assert_eq!(mine.len(), 1, "phone {number}");
        assert_eq!(json!(mine[0])["feed"], format!("order:{number}"));
        assert_eq!(read(&world, device_token).await, [(format!("order:{number}"), own[number])]);
    }
    assert_eq!(read(&world, &follower.1).await, []);
}

#[tokio::test]
async fn a_cursor_from_before_the_erasure_goes_on() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["news", "order:42"]).await;
    let backend = world.get("/v1/feeds/news/events").await.expect(200)["next"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        world.publish("news").await;
    }
    world.tidy_after(DAY * 8).await;
    world.publish("news").await;
    let first = world.publish("order:42").await["position"].as_i64().unwrap();
    let answer = phone.get(&format!("/v1/sync?after={}", phone.cursor())).await;
    assert_eq!(answer.problem(410), "cursor-expired", "retention has dropped news");

    world.delete("/v1/feeds/news").await.expect(202);
    world.settle().await;
    assert_eq!(phone.received(), 1);
    let second = world.publish("order:42").await["position"].as_i64().unwrap();
    assert_eq!(phone.sync().await.positions(), [first, second], "what is erased is not missed");
    let page = world.get(&format!("/v1/feeds/news/events?after={backend}")).await.expect(200);
    assert_eq!(page["events"], json!([]));
    // A feed of the same name begins anew.
    world.put(&format!("/v1/devices/{}/feeds/news", phone.id), json!(null)).await.expect(200);
    world.publish("news").await;
    assert_eq!(phone.sync().await.feeds(), ["news"]);
}

/// The call may have to be repeated; by then there is nothing to repeat.
#[tokio::test]
async fn a_call_under_way_about_an_erased_feed_is_not_repeated() {
    use reveille::{
        domain::push::{Meaning, Reply},
        store::Finished,
    };
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["news", "order:42"]).await;
    world.alert("news", "old").await;
    let call = world.claim().await.remove(0);
    world.delete("/v1/feeds/news").await.expect(202);
    let reply = Reply {
        meaning: Meaning::Unavailable,
        status: Some(503),
        reason: None,
        provider_id: None,
        retry_after: Some(Duration::from_secs(1)),
        bytes: 1,
    };
    world.relay().store().finish(Finished { call, duration: Duration::ZERO, reply }).await.unwrap();
    assert_eq!(count(&world, "select count(*) from levels where feed = 'news' or wake_feed = 'news'").await, 0);
    world.later(Duration::from_secs(3600)).await;
    assert_eq!(world.outcomes().await, ["unavailable"]);
    world.alert("order:42", "new").await;
    world.settle().await;
    assert_eq!(phone.pushes()[0]["feed"], "order:42");
}

#[tokio::test]
async fn the_janitor_goes_on_without_being_asked_twice() {
    let world = World::with(SMALL).await;
    for _ in 0..40 {
        world.publish("news").await;
        world.publish("sports").await;
    }
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    world.relay().janitor().run(&tasks, &stop);
    // When the first is done it has had a round; the second is done far sooner than its next one.
    for feed in ["/v1/feeds/news", "/v1/feeds/sports"] {
        let begun = world.delete(feed).await.expect(202);
        assert_eq!(begun["state"], "running");
        let done = within(Duration::from_secs(20), "the erasure is done", async || {
            Some(shown(&world, &begun).await).filter(|operation| operation["state"] == "done")
        });
        assert_eq!(done.await["removed"]["events"], 40);
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn what_is_past_its_time_goes() {
    let world = World::start().await;
    world.without_pace().await;
    world.settings(json!({"retention": {"events_days": 1, "attempts_days": 3}})).await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    let operation = world.delete("/v1/feeds/no:feed").await.expect(202);
    world.publish("news").await;
    world.settle().await;
    phone.sync().await;
    let rows = async |table: &str| count(&world, &format!("select count(*) from {table}")).await;
    let tables = ["attempts", "timeline", "tallies", "operations"];
    let standing = async || {
        let mut standing = Vec::new();
        for table in tables {
            standing.push(rows(table).await > 0);
        }
        standing
    };
    world.tidy_after(DAY * 3 - Duration::from_secs(1)).await;
    assert_eq!(standing().await, [true, true, true, true]);
    // In PostgreSQL a day goes as a whole.
    world.tidy_after(DAY + Duration::from_secs(2)).await;
    assert_eq!(standing().await, [false, false, true, true]);
    world.tidy_after(DAY * 26 - Duration::from_secs(2)).await;
    assert_eq!(shown(&world, &operation).await["state"], "done");
    world.tidy_after(Duration::from_secs(2)).await;
    assert_eq!([rows("operations").await, rows("attempts").await], [0, 0]);
    assert!(rows("tallies").await > 0, "statistics look back further");
    world.tidy_after(DAY * 2).await;
    assert_eq!(rows("tallies").await, 0);
}

#[tokio::test]
async fn a_deleted_app_leaves_nothing() {
    let world = World::with(SMALL).await;
    world.without_pace().await;
    let phone = world.phone("pixel").user("17").follows(&["news"]).await;
    for _ in 0..8 {
        world.alert("user:17", "news").await;
        world.publish("news").await;
        world.settle().await;
        phone.sync().await;
    }
    let operation = world.delete("/v1/users/17").await.expect(202);
    assert_eq!(operation["state"], "running");
    let (kept, _) = world.new_app("kept").await;
    world.call(Method::DELETE, &format!("/v1/apps/{}", world.app), OPERATOR_KEY, None).await.expect(204);
    for _ in 0..40 {
        world.relay().janitor().step().await.unwrap();
    }
    let tables = world.database().tables_with("app_id").await;
    assert!(tables.len() >= 16, "{tables:?}");
    for table in tables {
        let sql = format!("select count(*) from {table} where app_id <> '{kept}'");
        assert_eq!(count(&world, &sql).await, 0, "{table}");
    }
    assert_eq!(count(&world, "select count(*) from apps").await, 1);
}
