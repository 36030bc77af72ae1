//! What providers say about a token, and how a device comes back (contract §5, Status).

use std::time::Duration;

use reqwest::Method;
use reveille::sim::{Fault, FaultKind};
use serde_json::json;

use crate::support::world::World;

const DAY: Duration = Duration::from_secs(86_400);

fn says(status: u16, reason: &str) -> FaultKind {
    FaultKind::Status { status, reason: Some(reason.to_owned()), retry_after: None }
}

#[tokio::test]
async fn a_410_makes_a_device_gone_and_registering_brings_it_back() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.clock.advance(Duration::from_secs(10));
    world.sim.apns().dead_token(&phone.token, None);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "gone");
    assert_eq!(world.attempts().await[0]["reason"], "Unregistered");
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["rejected"], "no more pushes");

    let page = phone.get("/v1/sync?peek=true").await.expect(200);
    assert_eq!(page["push"], json!({"status": "gone", "register": true}));
    assert_eq!(page["poll"]["after_s"], 60);
    let path = format!("/v1/devices/{}", phone.id);
    world.patch(&path, json!({"locale": "fr", "feeds": ["order:42", "news"]})).await.expect(200);
    assert_eq!(phone.seen().await["status"], "gone", "only a token brings it back");

    world.sim.apns().revive_token(&phone.token);
    let again = world.phone("iphone").ios().follows(&["order:42", "news"]).await;
    assert_eq!(again.registered["status"], "active");
    world.settle().await;
    assert_eq!(again.received(), 1, "it is woken for what waits");
    assert_eq!(again.sync().await.0["push"], json!({"status": "active"}));
}

#[tokio::test]
async fn every_poll_tells_a_gone_device_to_register() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.sim.apns().dead_token(&phone.token, None);
    world.publish("order:42").await;
    world.settle().await;
    for _ in 0..2 {
        assert_eq!(phone.sync().await.0["push"], json!({"status": "gone", "register": true}));
    }
    let minimal = phone.poll_with(&[("prefer", "return=minimal")]).await;
    assert_eq!(minimal.expect(200)["push"]["register"], true, "even if there is nothing new");
    assert_eq!(phone.get("/v1/feeds/order:42/events").await.expect(200)["push"]["register"], true);
}

#[tokio::test]
async fn a_410_older_than_the_registration_changes_nothing() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.sim.apns().dead_token(&phone.token, Some(world.clock.now().as_ms() - 1000));
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "active");
    world.sim.apns().revive_token(&phone.token);
    world.later(Duration::from_secs(60)).await;
    assert_eq!(phone.received(), 1, "the wake goes on");
}

#[tokio::test]
async fn unregistered_at_fcm_makes_a_device_gone_until_its_token_is_new() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().dead_token(&phone.token, None);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "gone");
    let body = json!({"token": "fresh-token"});
    let patched = phone.call(Method::PATCH, "/v1/devices/me", body).await.expect(200);
    assert_eq!(patched["status"], "active");
    world.settle().await;
    assert_eq!(world.sim.pushes().last().unwrap().token, "fresh-token");
}

#[tokio::test]
async fn a_late_verdict_about_an_old_token_does_not_count() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().dead_token(&phone.token, None);
    world.sim.fcm().pause();
    world.publish("order:42").await;
    world.relay().dispatcher().step().await.unwrap();
    let again = world.phone("pixel").with("token", "fresh-token").follows(&["order:42"]).await;
    world.clock.advance(Duration::from_millis(1));
    world.sim.fcm().resume();
    world.settle().await;
    assert_eq!(again.seen().await["status"], "active");
    assert_eq!(again.received(), 1, "the same wake reaches the new token");
    assert_eq!(world.outcomes().await, ["rejected", "accepted"]);
}

#[tokio::test]
async fn a_late_verdict_about_the_same_token_registered_anew_does_not_count() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().answer(Fault::new(says(404, "UNREGISTERED")).times(1));
    world.sim.fcm().pause();
    world.publish("order:42").await;
    world.relay().dispatcher().step().await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().resume();
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "active", "the attempt began before the registration");
    world.later(Duration::from_secs(60)).await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_token_that_apple_does_not_know_makes_a_device_gone() {
    let world = World::start().await;
    for (name, reason) in [("a", "BadDeviceToken"), ("b", "DeviceTokenNotForTopic")] {
        let phone = world.phone(name).ios().follows(&["order:42"]).await;
        world.sim.apns().answer(Fault::new(says(400, reason)).to_token(&phone.token));
        world.publish("order:42").await;
        world.settle().await;
        assert_eq!(phone.seen().await["status"], "gone", "{reason}");
        assert_eq!(phone.seen().await["status_reason"], reason);
        assert_eq!(
            phone.sync().await.0["push"],
            json!({"status": "gone", "register": true}),
            "a poll does not revive it"
        );
    }
}

#[tokio::test]
async fn a_doubtful_token_is_probed_once_a_day() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.sim.apns().answer(says(410, "NeverHeardOf"));
    let wake = json!({"class": "background", "ttl_s": 5 * 86_400});
    let event = json!({"feed": "order:42", "type": "t", "wake": wake});
    world.post("/v1/events", event.clone()).await.expect(202);
    world.settle().await;
    assert_eq!(phone.seen().await["status"], "quarantined");
    assert_eq!(phone.seen().await["status_reason"], "NeverHeardOf");
    world.post("/v1/events", event).await.expect(202);
    for _ in 0..4 {
        world.later(DAY / 4 - Duration::from_secs(1)).await;
    }
    assert_eq!(world.attempts().await.len(), 1, "left alone for a day");
    world.later(Duration::from_secs(4)).await;
    assert_eq!(world.attempts().await.len(), 2, "then one probe");
    world.sim.apns().clear();
    world.later(DAY).await;
    assert_eq!(phone.seen().await["status"], "active", "a probe that is accepted clears it");
    assert!(phone.received() >= 1);
}

#[tokio::test]
async fn any_poll_revives_a_quarantined_device() {
    let world = World::start().await;
    for (name, path) in [("a", "/v1/sync"), ("b", "/v1/feeds/order:42/events")] {
        let phone = world.phone(name).ios().follows(&["order:42"]).await;
        world.sim.apns().answer(Fault::new(says(410, "NeverHeardOf")).to_token(&phone.token).times(1));
        world.publish("order:42").await;
        world.settle().await;
        assert_eq!(phone.seen().await["status"], "quarantined", "{path}");
        phone.get(path).await.expect(200);
        assert_eq!(phone.seen().await["status"], "active", "{path}");
        world.publish("order:42").await;
        world.settle().await;
        assert_eq!(phone.received(), 1, "{path}");
    }
}

#[tokio::test]
async fn trouble_of_ours_is_not_the_devices_fault() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    for (status, reason) in
        [(403, "InvalidProviderToken"), (400, "BadTopic"), (429, "TooManyRequests"), (500, "InternalServerError")]
    {
        world.sim.apns().answer(Fault::new(says(status, reason)).times(1));
        world.publish("order:42").await;
        world.settle().await;
        assert_eq!(phone.seen().await["status"], "active", "{reason}");
        world.later(Duration::from_secs(7200)).await;
    }
}
