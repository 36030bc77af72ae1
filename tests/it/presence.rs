//! Presence: a device with a live connection is given time to come by itself before it is pushed to (contract §8, `online_grace_s`).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{phone::Phone, served::within, world::World};

const SOON: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);

/// The first row of a device's timeline that is about this decision.
async fn decided(phone: &Phone<'_>, decision: &str) -> Option<Value> {
    let rows = phone.world.get(&format!("/v1/devices/{}/timeline", phone.id)).await.expect(200)["items"].clone();
    rows.as_array().unwrap().iter().find(|row| row["decision"] == decision && row["id"].is_string()).cloned()
}

#[tokio::test]
async fn who_is_told_on_a_stream_is_not_pushed_to() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = phone.caught_up().await;
    let event = world.publish("order:42").await;
    assert_eq!(stream.event().await.data["id"], event["id"]);
    let suppressed = within(SOON, "suppressed", async || decided(&phone, "suppressed").await).await;
    assert_eq!(suppressed["reason"], "online");
    assert!(suppressed["says"].as_str().unwrap().starts_with("suppressed: online"), "{suppressed}");
    world.later(GRACE).await;
    assert_eq!(phone.received(), 0);
}

#[tokio::test]
async fn who_does_not_come_in_its_grace_is_pushed_to() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let mut stream = phone.stream_of("?thin=true", &[]).await;
    let event = world.publish("order:42").await;
    assert_eq!(stream.next().await.unwrap().data["head"], event["position"]);
    world.settle().await;
    assert_eq!(phone.received(), 0, "it has time to come");
    let rows = world.get(&format!("/v1/devices/{}/timeline", phone.id)).await.expect(200)["items"].clone();
    assert_eq!((&rows[0]["decision"], &rows[0]["reason"]), (&json!("deferred"), &json!("online")), "{rows:#}");
    world.later(GRACE - Duration::from_millis(1)).await;
    assert_eq!(phone.received(), 0);
    world.later(Duration::from_millis(1)).await;
    assert_eq!(phone.heads(), [event["position"].as_i64().unwrap()]);
    world.later(GRACE).await;
    assert_eq!(phone.received(), 1, "once");
}

#[tokio::test]
async fn who_comes_in_its_grace_is_not_pushed_to() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let mut stream = phone.stream_of("?thin=true", &[]).await;
    world.publish("order:42").await;
    stream.next().await.unwrap();
    world.settle().await;
    world.later(Duration::from_secs(4)).await;
    assert_eq!(phone.sync().await.events().len(), 1);
    assert_eq!(decided(&phone, "suppressed").await.unwrap()["reason"], "online");
    world.later(GRACE).await;
    assert_eq!(phone.received(), 0);
}

#[tokio::test]
async fn more_news_does_not_lengthen_the_grace() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let _stream = phone.stream_of("?thin=true", &[]).await;
    for _ in 0..5 {
        world.publish("order:42").await;
        world.settle().await;
        world.later(Duration::from_secs(1)).await;
    }
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_poll_that_waits_is_a_live_connection_and_a_plain_one_is_not() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let (answer, event) = tokio::join!(phone.poll_with(&[("prefer", "wait=25")]), async {
        let sql = "select count(*) from presence";
        within(SOON, "it is online", async || (world.database().count(sql).await == 1).then_some(())).await;
        let event = world.publish("order:42").await;
        world.settle().await;
        event
    });
    assert_eq!(answer.expect(200)["events"][0]["id"], event["id"]);
    world.later(GRACE).await;
    assert_eq!(phone.received(), 0);
    // It has not come back.
    world.later(GRACE).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
    phone.sync().await;
    world.later(Duration::from_secs(600)).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 2);
}

#[tokio::test]
async fn who_has_hung_up_is_pushed_to_at_once() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let stream = phone.caught_up().await;
    drop(stream);
    let sql = "select count(*) from presence";
    within(SOON, "it is offline", async || (world.database().count(sql).await == 0).then_some(())).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn what_a_lost_process_leaves_ends_by_itself() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let until = world.clock.now().as_ms() + 150_000;
    let sql = format!(
        "insert into presence (app_id, device_id, node, until) values ('{}', '{}', 'lost', {until})",
        world.app, phone.id
    );
    world.database().execute(&sql).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 0, "it might be there");
    world.later(GRACE).await;
    assert_eq!(phone.received(), 1);
    phone.sync().await;
    world.later(Duration::from_secs(150)).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 2, "at once");
    world.tidy_after(Duration::from_secs(1)).await;
    assert_eq!(world.database().count("select count(*) from presence").await, 0);
}

#[tokio::test]
async fn without_grace_and_for_what_insists_a_push_goes_at_once() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let _stream = phone.stream_of("?thin=true", &[]).await;
    let alert = json!({"title": "It is here", "cancel_on": "never"});
    let wake = json!({"class": "alert", "ttl_s": 3600, "alert": alert});
    world.post("/v1/events", json!({"feed": "order:42", "type": "t", "wake": wake})).await.expect(202);
    world.settle().await;
    assert_eq!(phone.received(), 1);
    let path = format!("/v1/apps/{}", world.app);
    let settings = json!({"settings": {"online_grace_s": 0}});
    world.operator(Method::PATCH, &path, settings).await.expect(200);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 2);
}
