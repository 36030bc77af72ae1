//! Corners of the level row: what is given up, left, insisted on or revived does not take other wakes with it.

use std::time::Duration;

use reqwest::Method;
use reveille::{
    sim::{Fault, FaultKind},
    store::StoreOptions,
};
use serde_json::json;

use crate::support::{phone::Phone, world::World};

const SECOND: Duration = Duration::from_secs(1);

fn answer(status: u16, reason: &str, retry_after: Option<&str>) -> Fault {
    let retry_after = retry_after.map(str::to_owned);
    Fault::new(FaultKind::Status { status, reason: Some(reason.to_owned()), retry_after })
}

/// The answer to what we should not have sent: no word about the token.
fn refusal() -> Fault {
    Fault::new(FaultKind::Status { status: 400, reason: None, retry_after: None })
}

/// The titles of the alerts that have arrived, oldest first.
fn titles(phone: &Phone<'_>) -> Vec<String> {
    let pushes = phone.pushes();
    pushes.iter().filter_map(|push| Some(push.get("title")?.as_str()?.to_owned())).collect()
}

async fn insisting_alert(world: &World, feed: &str, title: &str) {
    let alert = json!({"title": title, "cancel_on": "never"});
    let wake = json!({"class": "alert", "ttl_s": 3600, "alert": alert});
    world.post("/v1/events", json!({"feed": feed, "type": "t", "wake": wake})).await.expect(202);
}

async fn unfollow(world: &World, phone: &Phone<'_>, feed: &str) {
    world.delete(&format!("/v1/devices/{}/feeds/{feed}", phone.id)).await.expect(204);
}

#[tokio::test]
async fn an_alert_that_is_refused_is_given_up_once_and_the_next_one_goes() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:1", "order:2"]).await;
    world.sim.fcm().answer(refusal().to_token(&phone.token).times(1));
    world.alert("order:1", "refused").await;
    world.alert("order:2", "taken").await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["rejected", "accepted"]);
    assert_eq!(titles(&phone), ["taken"]);
}

#[tokio::test]
async fn a_provider_that_refuses_everything_is_not_asked_without_end() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:1", "order:2"]).await;
    world.sim.fcm().answer(refusal());
    world.alert("order:1", "one").await;
    world.alert("order:2", "two").await;
    world.publish("order:1").await;
    world.settle().await;
    world.later(SECOND * 60).await;
    assert_eq!(world.outcomes().await, ["rejected"; 3]);
    assert_eq!(phone.received(), 0);
}

#[tokio::test]
async fn an_alert_that_insists_survives_a_poll_before_its_chunk() {
    let world = World::with(StoreOptions { fanout_chunk: 2, ..StoreOptions::default() }).await;
    let phone = world.phone("pixel").follows(&["big", "small"]).await;
    for number in 0..4 {
        world.phone(&format!("other-{number}")).follows(&["big"]).await;
    }
    insisting_alert(&world, "big", "insists").await;
    world.alert("small", "newer").await;
    assert_eq!(phone.sync().await.feeds(), ["big", "small"]);
    world.settle().await;
    assert_eq!(titles(&phone), ["insists"]);
}

#[tokio::test]
async fn leaving_one_feed_keeps_the_wake_for_another() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["f", "g"]).await;
    world.publish("f").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
    world.put(&format!("/v1/devices/{}/feeds/h", phone.id), json!(null)).await.expect(200);
    unfollow(&world, &phone, "g").await;
    world.settle().await;
    assert_eq!(phone.received(), 2, "the phone is to look at the feed it has come to follow");
}

#[tokio::test]
async fn leaving_one_feed_keeps_an_alert_that_insists_in_another() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["f", "g"]).await;
    world.sim.fcm().answer(answer(503, "UNAVAILABLE", Some("30")).times(1));
    insisting_alert(&world, "f", "insists").await;
    world.settle().await;
    assert_eq!(phone.sync().await.feeds(), ["f"]);
    unfollow(&world, &phone, "g").await;
    world.later(SECOND * 30).await;
    assert_eq!(titles(&phone), ["insists"]);
}

#[tokio::test]
async fn leaving_a_feed_takes_its_open_wake_along_and_lets_the_next_one_go() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["f", "g"]).await;
    world.sim.fcm().answer(answer(503, "UNAVAILABLE", Some("30")).times(1));
    world.alert("f", "left").await;
    world.settle().await;
    world.alert("g", "stays").await;
    unfollow(&world, &phone, "f").await;
    world.settle().await;
    assert_eq!(titles(&phone), ["stays"]);
    world.later(SECOND * 60).await;
    assert_eq!(titles(&phone), ["stays"]);
}

#[tokio::test]
async fn a_doubtful_device_that_shows_itself_is_woken_for_what_it_has_not_read() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["f", "g"]).await;
    world.sim.apns().answer(answer(410, "NobodyKnows", None).times(1));
    world.publish("f").await;
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "quarantined");
    world.publish("g").await;
    world.later(SECOND * 60).await;
    assert_eq!(phone.received(), 0);
    phone.get("/v1/feeds/f/events").await.expect(200);
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "active");
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_patch_of_something_else_does_not_hurry_a_wake_that_waits() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["f"]).await;
    world.sim.fcm().answer(answer(429, "QUOTA_EXCEEDED", Some("600")).times(1));
    world.publish("f").await;
    world.settle().await;
    let patch = json!({"locale": "de-DE"});
    world.call(Method::PATCH, "/v1/devices/me", &phone.device_token, Some(patch)).await.expect(200);
    world.phone("pixel").follows(&["f"]).await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["throttled"]);
    world.later(SECOND * 600).await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_deleted_app_wakes_nobody_and_its_rows_go() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["f"]).await;
    world.publish("f").await;
    world.call(Method::DELETE, &format!("/v1/apps/{}", world.app), crate::support::world::OPERATOR_KEY, None).await;
    world.settle().await;
    assert_eq!(phone.received(), 0);
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized");
    for _ in 0..50 {
        world.relay().janitor().step().await.unwrap();
    }
    world.settle().await;
    for table in ["apps", "app_keys", "credentials", "devices", "device_tokens", "follows", "events", "levels"] {
        assert_eq!(world.database().count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_new_credential_sends_what_the_bad_one_held_up() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["f"]).await;
    world.sim.apns().answer(answer(403, "InvalidProviderToken", None).times(1));
    world.publish("f").await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["rejected"]);
    assert_eq!(phone.seen().await["status"], "active", "the device is not to blame");
    world.put("/v1/credentials/apns", world.sim.apns_credential()).await.expect(200);
    world.settle().await;
    assert_eq!(world.outcomes().await, ["rejected", "accepted"]);
}

#[tokio::test]
async fn an_alert_that_met_a_dead_token_goes_to_the_new_one() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["f"]).await;
    world.sim.fcm().dead_token(&phone.token, None);
    world.alert("f", "on its way").await;
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "gone");
    let renewed = world.phone("pixel").with("token", "another").follows(&["f"]).await;
    world.settle().await;
    assert_eq!(titles(&renewed), ["on its way"]);
}
