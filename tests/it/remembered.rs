//! A phone that polls again and again, with nothing new: it is answered from memory where one process has the database to itself, and
//! must never be told of less than there is.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    phone::Phone,
    world::{Answer, World},
};

/// A phone that has polled until nothing is new, and the tag that it holds.
async fn up_to_date<'a>(world: &'a World, feeds: &[&str]) -> (Phone<'a>, String) {
    let phone = world.phone("pixel").follows(feeds).await;
    world.publish("order:42").await;
    phone.sync().await;
    let tag = phone.poll_with(&[]).await.header("etag").unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(again(&phone, &tag).await.status, 304);
    }
    (phone, tag)
}

async fn again(phone: &Phone<'_>, tag: &str) -> Answer {
    phone.poll_with(&[("if-none-match", tag)]).await
}

#[tokio::test]
async fn an_event_is_in_the_first_poll_after_its_answer() {
    let world = World::start().await;
    let (phone, mut tag) = up_to_date(&world, &["order:42", "news"]).await;
    for number in 0..2 {
        let feed = if number % 2 == 0 { "news" } else { "order:42" };
        world.publish("order:1").await;
        assert_eq!(again(&phone, &tag).await.status, 304, "nobody else's event is news");
        let position = world.publish(feed).await["position"].as_i64().unwrap();
        let changed = again(&phone, &tag).await.expect(200);
        assert_eq!(changed["events"][0]["position"], position);
        phone.sync().await;
        tag = phone.poll_with(&[]).await.header("etag").unwrap().to_owned();
        for _ in 0..2 {
            assert_eq!(again(&phone, &tag).await.status, 304);
        }
    }
}

#[tokio::test]
async fn a_feed_that_is_followed_or_left_is_seen_at_once() {
    let world = World::start().await;
    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    let path = format!("/v1/devices/{}/feeds/news", phone.id);
    world.put(&path, Value::Null).await.expect(200);
    let followed = again(&phone, &tag).await.expect(200);
    assert_eq!(followed["events"][0]["feed"], "news");
    phone.sync().await;
    let tag = phone.poll_with(&[]).await.header("etag").unwrap().to_owned();
    assert_eq!(again(&phone, &tag).await.status, 304);
    world.delete(&path).await;
    assert_eq!(again(&phone, &tag).await.status, 200);
}

#[tokio::test]
async fn settings_hold_from_the_next_poll_on() {
    let world = World::start().await;
    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    world.settings(json!({"poll_after_s": {"healthy": 77}})).await;
    let same = again(&phone, &tag).await;
    assert_eq!((same.status, same.header("retry-after")), (304, Some("77")));
}

#[tokio::test]
async fn a_token_that_has_been_replaced_ends_in_its_time() {
    let world = World::start().await;
    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    let renewed = world.phone("pixel").follows(&["order:42"]).await;
    assert_eq!(again(&phone, &tag).await.status, 304, "the new one may not have arrived");
    assert_eq!(renewed.get("/v1/sync").await.status, 200);
    for _ in 0..2 {
        assert_eq!(again(&phone, &tag).await.status, 304);
    }
    world.clock.advance(Duration::from_secs(301));
    assert_eq!(again(&phone, &tag).await.status, 401);
}

#[tokio::test]
async fn who_is_gone_is_turned_away() {
    let world = World::start().await;
    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    world.delete(&format!("/v1/devices/{}", phone.id)).await;
    assert_eq!(again(&phone, &tag).await.status, 401);

    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    world.operator(Method::DELETE, &format!("/v1/apps/{}", world.app), None).await;
    assert_eq!(again(&phone, &tag).await.status, 401);
}

#[tokio::test]
async fn a_poll_that_brings_nothing_is_a_sign_of_life_all_the_same() {
    let world = World::start().await;
    let (phone, tag) = up_to_date(&world, &["order:42"]).await;
    let seen_at = phone.seen().await["seen_at"].clone();
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(again(&phone, &tag).await.status, 304);
    assert_ne!(phone.seen().await["seen_at"], seen_at);
}

#[tokio::test]
async fn what_it_has_only_peeked_at_is_not_taken_for_fetched() {
    let world = World::start().await;
    let (phone, _) = up_to_date(&world, &["order:42"]).await;
    let position = world.publish("order:42").await["position"].as_i64().unwrap();
    let after = phone.cursor();
    let peeked = phone.get(&format!("/v1/sync?peek=true&after={after}")).await;
    let tag = peeked.header("etag").unwrap().to_owned();
    for _ in 0..2 {
        let request = world.http.get(world.url(&format!("/v1/sync?peek=true&after={after}")));
        let request = request.bearer_auth(&phone.device_token).header("if-none-match", &tag);
        assert_eq!(world.send(request).await.status, 304);
        assert!(phone.levels().await[0] < position);
    }
    // It says that it has that page: now it counts.
    assert_eq!(again(&phone, &tag).await.status, 304);
    assert_eq!(phone.levels().await[0], position);
}
