//! One feed, snapshots, and what retention leaves (contract §5, Polling).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::World;

const DAY: Duration = Duration::from_secs(86_400);

async fn keyed(world: &World, feed: &str, key: &str, op: &str, n: i64) -> i64 {
    let event = json!({"feed": feed, "type": "t", "key": key, "op": op, "data": {"n": n}});
    world.post("/v1/events", event).await.expect(202)["position"].as_i64().unwrap()
}

fn items(snapshot: &Value) -> Vec<(&str, &str, i64)> {
    let items = snapshot["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            (item["feed"].as_str().unwrap(), item["key"].as_str().unwrap(), item["data"]["n"].as_i64().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_device_reads_one_feed_it_follows() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42", "order:43"]).await;
    let [start, _] = phone.levels().await;
    assert_eq!(phone.get("/v1/feeds/order:44/events").await.problem(404), "not-found");
    assert_eq!(phone.get("/v1/feeds/order:44/snapshot").await.problem(404), "not-found");
    let e1 = world.publish("order:42").await["position"].as_i64().unwrap();
    let read = async |after: Option<&str>| {
        let after = after.map(|cursor| format!("?after={cursor}")).unwrap_or_default();
        phone.get(&format!("/v1/feeds/order:42/events{after}")).await.expect(200)
    };
    let page = read(None).await;
    assert_eq!(
        [&page["through"], &page["has_more"], &page["push"]["status"]],
        [&json!(e1), &json!(false), &json!("active")]
    );
    assert_eq!(phone.levels().await, [e1, start], "nothing else was in between");
    let next = page["next"].as_str().unwrap();
    let e2 = world.publish("order:43").await["position"].as_i64().unwrap();
    let e3 = world.publish("order:42").await["position"].as_i64().unwrap();
    let page = read(Some(next)).await;
    assert_eq!([&page["events"][0]["position"], &page["through"]], [&json!(e3), &json!(e3)]);
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(phone.levels().await, [e1, start], "the other feed has something");
    assert_eq!(phone.sync().await.positions(), [e1, e2, e3]);
    read(Some(next)).await;
    assert_eq!(phone.levels().await, [e3, start], "never acknowledged");
}

#[tokio::test]
async fn a_backend_reads_any_feed_and_moves_nothing() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let before = phone.levels().await;
    for _ in 0..3 {
        world.publish("order:42").await;
    }
    let path = "/v1/feeds/order:42/events";
    let page = world.get(&format!("{path}?limit=2")).await;
    assert_eq!([page.header("cache-control"), page.header("vary")], [Some("private, no-cache"), Some("Authorization")]);
    let tag = page.header("etag").unwrap().to_owned();
    let page = page.expect(200);
    assert_eq!([&page["has_more"], &page["through"]], [&json!(true), &page["events"][1]["position"]]);
    assert_eq!(page.get("push"), None);
    let rest = world.get(&format!("{path}?after={}", page["next"].as_str().unwrap())).await.expect(200);
    assert_eq!(rest["events"].as_array().unwrap().len(), 1);
    let again = world.http.get(world.url(&format!("{path}?limit=2"))).bearer_auth(&world.key);
    assert_eq!(world.send(again.header("if-none-match", tag)).await.status, 304);
    assert_eq!(world.get("/v1/feeds/nobody-wrote/events").await.expect(200)["events"], json!([]));
    assert_eq!(phone.levels().await, before);
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_snapshot_has_the_newest_of_each_key_and_a_cursor_from_before() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:1", "order:2"]).await;
    for (feed, key, op, n) in [
        ("order:2", "b", "upsert", 1),
        ("order:1", "b", "upsert", 2),
        ("order:1", "a", "upsert", 3),
        ("order:1", "b", "upsert", 4),
        ("order:1", "c", "upsert", 5),
        ("order:1", "c", "delete", 6),
        ("order:3", "z", "upsert", 7),
    ] {
        keyed(&world, feed, key, op, n).await;
    }
    let unkeyed = world.publish("order:1").await["position"].as_i64().unwrap();
    let snapshot = phone.get("/v1/sync/snapshot").await.expect(200);
    assert_eq!(items(&snapshot), [("order:1", "a", 3), ("order:1", "b", 4), ("order:2", "b", 1)]);
    assert_eq!(snapshot["through"], unkeyed);
    assert_eq!(snapshot.get("next_page"), None);
    let first = &snapshot["items"][0];
    assert_eq!([&first["type"], &first["href"]], [&json!("t"), &Value::Null]);
    let one = world.get("/v1/feeds/order:1/snapshot").await.expect(200);
    assert_eq!(items(&one), [("order:1", "a", 3), ("order:1", "b", 4)]);
    assert_eq!(phone.get("/v1/feeds/order:1/snapshot").await.expect(200)["items"], one["items"]);

    let later = keyed(&world, "order:2", "b", "delete", 8).await;
    let page = phone.get(&format!("/v1/sync?after={}", snapshot["as_of"].as_str().unwrap())).await.expect(200);
    assert_eq!(page["events"][0]["position"], later);
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    let of_feed = format!("/v1/feeds/order:1/events?after={}", one["as_of"].as_str().unwrap());
    assert_eq!(world.get(&of_feed).await.expect(200)["events"], json!([]));
    assert_eq!(items(&phone.get("/v1/sync/snapshot").await.expect(200)).len(), 2, "the deleted key is absent");
}

#[tokio::test]
async fn a_long_snapshot_has_pages_of_one_moment() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:1", "order:2"]).await;
    for batch in 0..6 {
        let feed = if batch < 3 { "order:1" } else { "order:2" };
        let event = |n: i32| json!({"feed": feed, "type": "t", "key": format!("k{batch}-{n:02}"), "data": {"n": n}});
        world.post("/v1/events", json!((0..100).map(event).collect::<Vec<_>>())).await.expect(202);
    }
    let first = phone.get("/v1/sync/snapshot").await.expect(200);
    assert_eq!(items(&first).len(), 500);
    let after_first = keyed(&world, "order:2", "k5-99", "upsert", 1000).await;
    let page = first["next_page"].as_str().unwrap();
    let second = phone.get(&format!("/v1/sync/snapshot?page={page}")).await.expect(200);
    assert_eq!([&second["as_of"], &second["through"]], [&first["as_of"], &first["through"]]);
    assert_eq!(items(&second).len(), 100);
    assert_eq!(second.get("next_page"), None);
    let poll = phone.get(&format!("/v1/sync?after={}", second["as_of"].as_str().unwrap())).await.expect(200);
    assert_eq!(poll["events"][0]["position"], after_first, "what came between the pages is not lost");
    let other = world.phone("other").follows(&["order:1"]).await;
    for (path, reader) in
        [(format!("/v1/sync/snapshot?page={page}"), &other), ("/v1/sync/snapshot?page=x".into(), &phone)]
    {
        let answer = reader.get(&path).await;
        assert_eq!(answer.problem(400), "cursor-invalid");
        assert_eq!(answer.body["snapshot"], "/v1/sync/snapshot");
    }
}

#[tokio::test]
async fn a_cursor_before_what_was_dropped_is_expired() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let reader = world.get("/v1/feeds/order:42/events").await.expect(200)["next"].as_str().unwrap().to_owned();
    let old = phone.cursor();
    world.publish("order:42").await;
    let done = world.phone("done").follows(&["order:43"]).await;
    world.publish("order:43").await;
    done.sync().await;
    world.tidy_after(DAY * 7 - Duration::from_secs(1)).await;
    assert_eq!(
        phone.get(&format!("/v1/sync?peek=true&after={old}")).await.expect(200)["events"].as_array().unwrap().len(),
        1
    );
    world.tidy_after(DAY).await;
    let answer = phone.get(&format!("/v1/sync?after={old}")).await;
    assert_eq!(answer.problem(410), "cursor-expired");
    assert_eq!(answer.body["snapshot"], "/v1/sync/snapshot");
    let answer = world.get(&format!("/v1/feeds/order:42/events?after={reader}")).await;
    assert_eq!(answer.problem(410), "cursor-expired");
    assert_eq!(answer.body["snapshot"], "/v1/feeds/order:42/snapshot");
    assert!(done.sync().await.events().is_empty(), "its cursor is above all that was dropped");

    let snapshot = phone.get("/v1/sync/snapshot").await.expect(200);
    let fresh = world.publish("order:42").await["position"].clone();
    let page = phone.get(&format!("/v1/sync?after={}", snapshot["as_of"].as_str().unwrap())).await.expect(200);
    assert_eq!(page["events"][0]["position"], fresh);
    let all = phone.get("/v1/sync").await.expect(200);
    assert_eq!(all["events"].as_array().unwrap().last().unwrap()["position"], fresh, "no cursor = the oldest retained");
}

#[tokio::test]
async fn a_quiet_feed_never_expires_a_cursor() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..4 {
        world.publish("order:1").await;
        world.tidy_after(DAY * 30).await;
    }
    assert!(phone.sync().await.events().is_empty());
    let late = world.phone("late").follows(&["order:1"]).await;
    assert!(late.sync().await.events().is_empty(), "what was dropped before it followed is not missed");
}

#[tokio::test]
async fn the_newest_of_a_key_outlives_retention_and_a_delete_thirty_days() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    keyed(&world, "order:42", "kept", "upsert", 1).await;
    let kept = keyed(&world, "order:42", "kept", "upsert", 2).await;
    keyed(&world, "order:42", "gone", "upsert", 3).await;
    let deleted = keyed(&world, "order:42", "gone", "delete", 4).await;
    let left = async || {
        let page = world.get("/v1/feeds/order:42/events").await.expect(200);
        page["events"].as_array().unwrap().iter().map(|event| event["position"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    world.tidy_after(DAY * 8).await;
    assert_eq!(left().await, [kept, deleted]);
    world.tidy_after(DAY * 21).await;
    assert_eq!(left().await, [kept, deleted], "29 days");
    world.tidy_after(DAY * 2).await;
    assert_eq!(left().await, [kept]);
    world.tidy_after(DAY * 365).await;
    assert_eq!(left().await, [kept]);
    let snapshot = phone.get("/v1/sync/snapshot").await.expect(200);
    assert_eq!(items(&snapshot), [("order:42", "kept", 2)]);
    assert_eq!(phone.call(Method::GET, "/v1/sync/snapshot?colour=red", None).await.problem(422), "invalid");
}
