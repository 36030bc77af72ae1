//! Following and leaving feeds (contract §3, Follow; §5, Devices).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

fn at(phone: &Phone<'_>, feed: &str) -> String {
    format!("/v1/devices/{}/feeds/{feed}", phone.id)
}

#[tokio::test]
async fn a_follow_after_registration_wakes_the_phone_and_shows_where_to_begin() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let old = json!({"feed": "order:42", "type": "t", "key": "order/42", "data": {"n": 1}});
    world.post("/v1/events", old).await.expect(202);
    world.call(Method::PUT, &at(&phone, "order:42"), &world.key, None).await.expect(200);
    world.settle().await;
    assert_eq!(phone.received(), 1, "the phone comes and looks");
    assert_eq!(phone.pushes()[0]["feed"], "order:42");
    let newer = world.publish("order:42").await;

    let page = phone.sync().await;
    let followed = &page.events()[0];
    let snapshot = "/v1/feeds/order:42/snapshot";
    assert_eq!(
        *followed,
        json!({"type": "reveille.followed", "feed": "order:42", "position": followed["position"], "snapshot": snapshot})
    );
    assert_eq!(page.events().len(), 2, "the old event is not shown");
    assert_eq!(page.events()[1]["id"], newer["id"]);
    assert_eq!(phone.heads(), [followed["position"].as_i64().unwrap()]);
    let snapshot = phone.get(snapshot).await.expect(200);
    assert_eq!(snapshot["items"][0]["data"], json!({"n": 1}), "it is in the snapshot");
}

#[tokio::test]
async fn follows_can_be_left_and_taken_again() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let follow = async |method: Method, feed: &str| world.call(method, &at(&phone, feed), &world.key, None).await;
    let followed = follow(Method::PUT, "order:43").await.expect(200);
    let own = format!("device:{}", phone.id);
    assert_eq!(followed["feeds"], json!(["order:42", "order:43", own]));
    assert_eq!(follow(Method::PUT, "order:43").await.expect(200), followed, "once more changes nothing");
    follow(Method::DELETE, "order:42").await.expect(204);
    follow(Method::DELETE, "order:42").await.expect(204);
    assert_eq!(phone.seen().await["feeds"], json!(["order:43", own]));
    world.settle().await;
    phone.sync().await;
    world.publish("order:42").await;
    world.publish("order:43").await;
    assert_eq!(phone.sync().await.feeds(), ["order:43"]);
    assert_eq!(phone.get("/v1/feeds/order:42/events").await.problem(404), "not-found");
}

#[tokio::test]
async fn what_waits_for_a_feed_goes_with_it() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.alert("order:42", "packed").await;
    world.publish("order:42").await;
    world.call(Method::DELETE, &at(&phone, "order:42"), &world.key, None).await.expect(204);
    world.settle().await;
    assert_eq!(phone.received(), 0);
    assert!(world.attempts().await.is_empty());
}

#[tokio::test]
async fn own_feeds_follow_from_registration_only() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").follows(&[]).await;
    let own = format!("device:{}", phone.id);
    for feed in ["user:17", "user:18", "device:other", &own, "-odd", "a%20b"] {
        for method in [Method::PUT, Method::DELETE] {
            let answer = world.call(method, &at(&phone, feed), &world.key, None).await;
            assert_eq!(answer.problem(422), "invalid", "{feed}");
        }
    }
    let stranger = "/v1/devices/dev_00000000000000000000000000/feeds/order:42";
    for method in [Method::PUT, Method::DELETE] {
        assert_eq!(world.call(method, stranger, &world.key, None).await.problem(404), "not-found");
    }
    assert_eq!(phone.call(Method::PUT, &at(&phone, "order:42"), Value::Null).await.problem(403), "forbidden");
    for feed in ["user:17", &own] {
        world.publish(feed).await;
        assert_eq!(phone.sync().await.feeds(), [feed]);
    }
}

#[tokio::test]
async fn two_hundred_feeds_are_the_most() {
    let world = World::start().await;
    let feeds: Vec<String> = (0..200).map(|n| format!("order:{n}")).collect();
    let phone = world.phone("pixel").user("17").with("feeds", feeds).registers().await;
    assert_eq!(phone.registered["feeds"].as_array().unwrap().len(), 202);
    let answer = world.call(Method::PUT, &at(&phone, "order:200"), &world.key, None).await;
    assert_eq!(answer.problem(422), "invalid");
    assert_eq!(answer.body["limit"], 200);
    world.call(Method::PUT, &at(&phone, "order:199"), &world.key, None).await.expect(200);
    world.call(Method::DELETE, &at(&phone, "order:0"), &world.key, None).await.expect(204);
    world.call(Method::PUT, &at(&phone, "order:200"), &world.key, None).await.expect(200);
}
