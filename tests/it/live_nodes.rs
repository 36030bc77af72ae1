//! Live connections at one process, and what happens at another: they share a PostgreSQL database and nothing else.

use std::time::Duration;

use reqwest::Method;
use reveille::relay::Relay;
use serde_json::json;

use crate::support::{
    database::server,
    live::Stream,
    phone::Phone,
    served::within,
    world::{World, url},
};

const SOON: Duration = Duration::from_secs(10);

/// A stream at another process, once it has been told everything.
async fn stream_at(relay: &Relay, phone: &Phone<'_>) -> Stream {
    let url = url(relay, &format!("/v1/sync/stream?after={}", phone.cursor()));
    let mut stream = Stream::of(phone.world.http.get(url).bearer_auth(&phone.device_token).send().await.unwrap());
    while stream.next().await.unwrap().event != "poll" {}
    stream
}

#[tokio::test]
async fn what_one_process_accepts_another_tells() {
    server();
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let other = world.another("api").await;
    let mut stream = stream_at(&other, &phone).await;
    for _ in 0..20 {
        let event = world.publish("order:42").await;
        assert_eq!(stream.event().await.data["id"], event["id"]);
    }
    let path = format!("/v1/devices/{}/feeds/order:43", phone.id);
    world.put(&path, json!({})).await.expect(200);
    let event = world.publish("order:43").await;
    assert_eq!(stream.event().await.data["type"], "reveille.followed");
    assert_eq!(stream.event().await.data["id"], event["id"]);
    other.stop().await;
}

#[tokio::test]
async fn without_news_of_each_other_they_find_it_by_looking() {
    server();
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let other = world.another("api").await;
    let mut stream = stream_at(&other, &phone).await;
    // Written by nobody who would tell.
    let sql = format!(
        "with a as (update apps set head = head + 1 where id = '{}' returning id, head)
         insert into events (app_id, position, id, feed, kind, occurred_at, accepted_at, expires_at, wake, wake_class, cancel_on, bytes)
         select id, head, 'evt_01m3saka00e6fvbf3mfc7pq2zv', 'order:42', 'quiet', 0, 0, 0, '{{\"class\":\"none\"}}', 'none', 'fetch', 100 from a",
        world.app
    );
    world.database().execute(&sql).await;
    assert_eq!(stream.event().await.data["type"], "quiet");
    other.stop().await;
}

#[tokio::test]
async fn who_is_revoked_at_one_process_is_told_no_more_at_another() {
    server();
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let other = world.another("api").await;
    let mut stream = stream_at(&other, &phone).await;
    world.delete(&format!("/v1/devices/{}", phone.id)).await.expect(204);
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(ended.expect("within a second"), None);

    let phone = world.phone("phone-2").registers().await;
    let mut stream = stream_at(&other, &phone).await;
    world.operator(Method::DELETE, &format!("/v1/apps/{}", world.app), None).await.expect(204);
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(ended.expect("within a second"), None);
    other.stop().await;
}

#[tokio::test]
async fn who_is_connected_at_one_process_is_online_at_all() {
    server();
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let other = world.another("api").await;
    let mut stream = stream_at(&other, &phone).await;
    let event = world.publish("order:42").await;
    world.settle().await;
    assert_eq!(stream.event().await.data["id"], event["id"]);
    let position = event["position"].as_i64().unwrap();
    within(SOON, "it counts as fetched", async || (phone.levels().await[0] == position).then_some(())).await;
    world.later(Duration::from_secs(5)).await;
    assert_eq!(phone.received(), 0);
    // What a process that is lost leaves is told of in presence.rs; this one ends as it should.
    drop(stream);
    other.stop().await;
    let sql = "select count(*) from presence";
    within(SOON, "it is offline", async || (world.database().count(sql).await == 0).then_some(())).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn an_epoch_that_begins_is_told_to_those_who_are_connected() {
    server();
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = stream_at(world.relay(), &phone).await;
    world.database().execute("update node set epoch = epoch + 1").await;
    let resync = stream.next().await.unwrap();
    assert_eq!((resync.event.as_str(), &resync.data["reason"]), ("resync", &json!("epoch-changed")));
    assert_eq!(stream.next().await, None);
}
