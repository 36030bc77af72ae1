//! The life of push tokens in numbers: the mass brake and its release, and devices that have been silent for long (contract §5).

use std::time::Duration;

use reveille::sim::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const RELEASE: &str = "/v1/brakes/apns/production/release";

fn bad_token() -> FaultKind {
    FaultKind::Status { status: 400, reason: Some("BadDeviceToken".into()), retry_after: None }
}

/// iPhones that follow a feed.
async fn iphones<'a>(world: &'a World, feed: &str, count: usize) -> Vec<Phone<'a>> {
    let mut phones = Vec::new();
    for index in 0..count {
        phones.push(world.phone(&format!("{feed}-{index}")).ios().follows(&[feed]).await);
    }
    phones
}

/// How many devices of the app are in a status.
async fn count(world: &World, status: &str) -> usize {
    let devices = world.get(&format!("/v1/devices?status={status}&limit=500")).await.expect(200);
    devices["items"].as_array().unwrap().len()
}

async fn brakes(world: &World) -> Vec<Value> {
    world.get("/v1/brakes").await.expect(200)["items"].as_array().unwrap().clone()
}

/// Publishes to a feed and lets happen what follows.
async fn wake(world: &World, feed: &str) {
    world.publish(feed).await;
    world.settle().await;
}

/// What a statement counts in the database.
async fn counted(world: &World, sql: &'static str) -> i64 {
    world.database().count(sql).await
}

/// The lines in timelines that say so of a change of status.
macro_rules! told {
    ($world:expr, $words:literal) => {
        counted($world, concat!("select count(*) from timeline where what like '%\"status\"%", $words, "%'")).await
    };
}

/// What the feed of alarms tells, oldest first: key, `op`, data.
async fn alarms(world: &World) -> Vec<(String, String, Value)> {
    let page = world.get("/v1/feeds/reveille:alarms/events").await.expect(200);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = |event: &Value| (text(&event["key"]), text(&event["op"]), event["data"].clone());
    page["events"].as_array().unwrap().iter().map(told).collect()
}

#[tokio::test]
async fn with_a_wrong_environment_at_most_twenty_are_given_up() {
    let world = World::start().await;
    let phones = iphones(&world, "news", 100).await;
    world.sim.apns().answer(bad_token());
    wake(&world, "news").await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [19, 81]);
    let brakes = brakes(&world).await;
    let now = world.clock.now();
    let expected = json!([{
        "transport": "apns", "environment": "production", "kind": "ambiguous", "engaged_at": now,
        "window_from": brakes[0]["window_from"], "devices": {"gone": 19, "quarantined": 81},
    }]);
    assert_eq!(json!(brakes), expected);
    let [(key, op, data)] = &alarms(&world).await[..] else { panic!("one alarm") };
    assert_eq!([key.as_str(), op.as_str()], ["mass-brake/apns/production", "upsert"]);
    assert!(data["ambiguous"].as_i64().unwrap() >= 20, "{data}");
    assert!(data["says"].as_str().unwrap().contains(&format!("POST {RELEASE}")), "{data}");
    assert_eq!([told!(&world, "gone"), told!(&world, "quarantined")], [19, 81]);

    wake(&world, "news").await;
    assert_eq!(world.attempts().await.len(), 100, "whoever is doubtful is left alone for a day");
    iphones(&world, "late", 3).await;
    world.later(DAY / 2).await;
    wake(&world, "late").await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [19, 84], "it stays on");
    assert_eq!(phones[0].sync().await.feeds(), ["news", "news"], "polling goes on whatever the push does");
}

#[tokio::test]
async fn a_brake_is_for_one_app_transport_and_environment() {
    let world = World::start().await;
    iphones(&world, "news", 25).await;
    world.sim.apns().answer(bad_token());
    wake(&world, "news").await;
    assert_eq!(brakes(&world).await.len(), 1);

    let android = world.phone("pixel").follows(&["calm"]).await;
    let sandbox = world.phone("dev-phone").ios().with("environment", "sandbox").follows(&["calm"]).await;
    world.sim.fcm().dead_token(&android.token, None);
    let (other, other_key) = world.new_app("other").await;
    let credential = Some(world.sim.apns_credential());
    world.call(reqwest::Method::PUT, "/v1/credentials/apns", &other_key, credential).await.expect(201);
    let body = world.phone("iphone").ios().with("feeds", json!(["calm"])).body();
    let foreign = world.call(reqwest::Method::POST, "/v1/devices", &other_key, Some(body)).await.expect(201);
    let event = json!({"feed": "calm", "type": "t"});
    world.call(reqwest::Method::POST, "/v1/events", &other_key, Some(event)).await.expect(202);
    wake(&world, "calm").await;
    assert_eq!(android.seen().await["status"], "gone");
    assert_eq!(sandbox.seen().await["status"], "gone");
    let path = format!("/v1/devices/{}", foreign["id"].as_str().unwrap());
    let foreign = world.call(reqwest::Method::GET, &path, &other_key, None).await.expect(200);
    assert_eq!(foreign["status"], "gone", "{other}");
}

#[tokio::test]
async fn a_few_at_a_time_are_given_up_for_good() {
    let world = World::start().await;
    world.sim.apns().answer(bad_token());
    for round in 1..=3 {
        let feed = format!("round:{round}");
        iphones(&world, &feed, 19).await;
        wake(&world, &feed).await;
        assert_eq!(count(&world, "gone").await, 19 * round);
        world.tidy_after(MINUTE * 12).await;
    }
    assert_eq!(brakes(&world).await, [] as [Value; 0]);
    // Those of minutes ago count with those of now, whichever batch they came in.
    iphones(&world, "a", 15).await;
    wake(&world, "a").await;
    world.tidy_after(MINUTE * 8).await;
    iphones(&world, "b", 6).await;
    wake(&world, "b").await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [57 + 19, 2]);
    assert_eq!(brakes(&world).await[0]["devices"], json!({"gone": 19, "quarantined": 2}));
}

#[tokio::test]
async fn a_device_counts_once_however_often_it_is_pushed_to() {
    let world = World::start().await;
    world.without_pace().await;
    iphones(&world, "well", 230).await;
    wake(&world, "well").await;
    world.clock.advance(MINUTE * 4);
    wake(&world, "well").await;
    world.clock.advance(MINUTE * 4);
    let ill = iphones(&world, "ill", 21).await;
    for phone in &ill {
        world.sim.apns().answer(Fault::new(bad_token()).to_token(&phone.token));
    }
    wake(&world, "ill").await;
    // 20 of 250 are 8 percent; 20 of 480 would be 4.
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [19, 2]);
    assert_eq!(world.attempts().await.len(), 230 * 2 + 21);
}

#[tokio::test]
async fn few_among_many_are_no_accident_of_ours() {
    let world = World::start().await;
    world.without_pace().await;
    iphones(&world, "well", 400).await;
    wake(&world, "well").await;
    // Their first pushes are long out of the window.
    for _ in 0..2 {
        world.clock.advance(MINUTE * 7);
        wake(&world, "well").await;
    }
    let ill = iphones(&world, "ill", 21).await;
    for phone in &ill {
        world.sim.apns().answer(Fault::new(bad_token()).to_token(&phone.token));
    }
    wake(&world, "ill").await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [21, 0], "4.99 percent");
    assert_eq!(brakes(&world).await, [] as [Value; 0]);
}

#[tokio::test]
async fn more_than_half_by_a_clear_verdict_put_the_brake_on() {
    let world = World::start().await;
    iphones(&world, "well", 30).await;
    wake(&world, "well").await;
    for phone in iphones(&world, "left", 30).await {
        world.sim.apns().dead_token(&phone.token, None);
    }
    wake(&world, "left").await;
    assert_eq!(count(&world, "gone").await, 30, "half of 60");
    for phone in iphones(&world, "more", 10).await {
        world.sim.apns().dead_token(&phone.token, None);
    }
    wake(&world, "more").await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [30, 10]);
    assert_eq!(brakes(&world).await[0]["kind"], "clear");
}

#[tokio::test]
async fn a_brake_is_released_and_all_are_as_before() {
    let world = World::start().await;
    let phones = iphones(&world, "news", 30).await;
    let doubtful = world.phone("doubtful").ios().follows(&["calm"]).await;
    let odd = FaultKind::Status { status: 410, reason: Some("NeverHeardOf".into()), retry_after: None };
    world.sim.apns().answer(Fault::new(odd).to_token(&doubtful.token));
    wake(&world, "calm").await;
    world.sim.apns().answer(bad_token());
    world.alert("news", "Hello").await;
    world.settle().await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [19, 12]);

    world.sim.apns().clear();
    world.clock.advance(MINUTE);
    let released = world.post(RELEASE, json!({"window": "restore"})).await.expect(200);
    let expected = json!({
        "transport": "apns", "environment": "production", "window": "restore", "devices": {"restored": 30},
    });
    assert_eq!(released, expected);
    assert_eq!(
        [count(&world, "gone").await, count(&world, "quarantined").await],
        [0, 1],
        "who was doubtful before stays so"
    );
    assert_eq!(phones[0].seen().await["status_reason"], Value::Null);
    assert_eq!(told!(&world, "does not stand"), 30);
    world.settle().await;
    assert!(phones.iter().all(|phone| phone.received() == 1), "what waited goes out, the alerts too");
    assert_eq!(brakes(&world).await, [] as [Value; 0]);
    let told = alarms(&world).await;
    assert_eq!(
        told.iter().map(|(_, op, _)| op.as_str()).collect::<Vec<_>>(),
        ["upsert", "delete"],
        "the alarm is over"
    );
    assert_eq!(world.post(RELEASE, json!({"window": "restore"})).await.problem(404), "not-found");

    // The window begins anew.
    world.sim.apns().answer(bad_token());
    iphones(&world, "late", 19).await;
    wake(&world, "late").await;
    assert_eq!(count(&world, "gone").await, 19);
    assert_eq!(brakes(&world).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_brake_that_is_released_too_early_comes_on_again() {
    let world = World::start().await;
    iphones(&world, "news", 30).await;
    world.sim.apns().answer(bad_token());
    wake(&world, "news").await;
    world.clock.advance(MINUTE);
    world.post(RELEASE, json!({"window": "restore"})).await.expect(200);
    world.settle().await;
    assert_eq!([count(&world, "gone").await, count(&world, "quarantined").await], [19, 11]);
    assert_eq!(brakes(&world).await[0]["engaged_at"], json!(world.clock.now()));
}

#[tokio::test]
async fn a_brake_is_released_and_the_verdicts_stand() {
    let world = World::start().await;
    iphones(&world, "news", 30).await;
    world.sim.apns().answer(bad_token());
    wake(&world, "news").await;
    world.clock.advance(MINUTE);
    let released = world.post(RELEASE, json!({"window": "confirm"})).await.expect(200);
    assert_eq!(released["devices"], json!({"confirmed": 11}));
    assert_eq!(count(&world, "gone").await, 30);
    assert_eq!(told!(&world, "the verdict stands"), 11);
    assert_eq!(brakes(&world).await, [] as [Value; 0]);
    world.later(DAY).await;
    assert_eq!(alarms(&world).await.len(), 2, "its beginning and its end");
    assert_eq!(world.attempts().await.len(), 30, "nobody is probed any more");
}

#[tokio::test]
async fn a_phone_that_polls_meanwhile_is_left_out_of_the_release() {
    let world = World::start().await;
    let phones = iphones(&world, "news", 30).await;
    world.sim.apns().answer(bad_token());
    wake(&world, "news").await;
    let mut quarantined = Vec::new();
    for phone in &phones {
        if phone.seen().await["status"] == "quarantined" {
            quarantined.push(phone);
        }
    }
    quarantined[0].sync().await;
    assert_eq!(quarantined[0].seen().await["status"], "active");
    assert_eq!(brakes(&world).await[0]["devices"], json!({"gone": 19, "quarantined": 10}));
    let released = world.post(RELEASE, json!({"window": "confirm"})).await.expect(200);
    assert_eq!(released["devices"], json!({"confirmed": 10}));
    assert_eq!(quarantined[0].seen().await["status"], "active");
}

#[tokio::test]
async fn what_a_release_takes() {
    let world = World::start().await;
    assert_eq!(world.get("/v1/brakes").await.expect(200), json!({"items": [], "next": null}));
    let restore = json!({"window": "restore"});
    assert_eq!(world.post(RELEASE, restore.clone()).await.problem(404), "not-found");
    assert_eq!(world.post("/v1/brakes/smoke/production/release", restore.clone()).await.problem(404), "not-found");
    assert_eq!(world.post(RELEASE, json!({"window": "half"})).await.pointers(422), ["/window"]);
    assert_eq!(world.post(RELEASE, json!({})).await.pointers(422), ["/window"]);
    let key = world.new_key(&world.app, &["devices:write", "devices:read", "credentials:write"]).await;
    let refused = world.call(reqwest::Method::POST, RELEASE, &key, Some(restore)).await;
    assert_eq!(refused.problem(403), "missing-scope");
    assert_eq!(refused.body["scope"], "admin");
    assert_eq!(world.call(reqwest::Method::GET, "/v1/brakes", &key, None).await.problem(403), "missing-scope");
}

#[tokio::test]
async fn a_phone_that_is_silent_for_a_month_gets_alerts_only() {
    let world = World::start().await;
    world.without_pace().await;
    let silent = world.phone("iphone").ios().follows(&["order:42"]).await;
    let lively = world.phone("pixel").follows(&["order:42"]).await;
    world.tidy_after(DAY * 29).await;
    lively.sync().await;
    assert_eq!(count(&world, "stale").await, 0);
    world.tidy_after(DAY).await;
    assert_eq!(silent.seen().await["status"], "stale");
    assert_eq!(silent.seen().await["status_reason"], "no sign of life for 30 days");
    assert_eq!(lively.seen().await["status"], "active");
    assert_eq!(told!(&world, "stale"), 1);

    wake(&world, "order:42").await;
    assert_eq!([silent.received(), lively.received()], [0, 1], "no background wake");
    world.alert("order:42", "Still there?").await;
    world.settle().await;
    assert_eq!(silent.received(), 1, "alerts go on");
    assert_eq!(silent.seen().await["status"], "stale", "that Apple took it is no sign of life");

    assert_eq!(silent.sync().await.0["push"], json!({"status": "active"}), "any poll revives it");
    wake(&world, "order:42").await;
    assert_eq!(silent.received(), 2);
}

#[tokio::test]
async fn android_tokens_expire_after_270_days_of_silence() {
    let world = World::start().await;
    let android = world.phone("pixel").follows(&["order:42"]).await;
    let via_fcm = world.phone("iphone-fcm").with("platform", "ios").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.tidy_after(DAY * 269).await;
    assert_eq!(count(&world, "stale").await, 3);
    world.tidy_after(DAY).await;
    assert_eq!(android.seen().await["status"], "gone");
    assert!(android.seen().await["status_reason"].as_str().unwrap().contains("Google"));
    assert_eq!(via_fcm.seen().await["status"], "stale", "Apple has no such rule");
    assert_eq!(iphone.seen().await["status"], "stale");
    world.alert("order:42", "Still there?").await;
    world.settle().await;
    assert_eq!([android.received(), via_fcm.received(), iphone.received()], [0, 1, 1]);
    assert_eq!(android.sync().await.0["push"], json!({"status": "gone", "register": true}));
    let again = world.phone("pixel").follows(&["order:42"]).await;
    assert_eq!(again.registered["status"], "active", "registering revives it");
}

#[tokio::test]
async fn the_sweep_goes_round_once_an_hour() {
    let world = World::start().await;
    world.phone("pixel").registers().await;
    world.tidy_after(DAY * 30 - MINUTE * 30).await;
    assert_eq!(count(&world, "active").await, 1);
    world.tidy_after(MINUTE * 31).await;
    assert_eq!(count(&world, "active").await, 1, "it has been looked at half an hour ago");
    world.tidy_after(MINUTE * 30).await;
    assert_eq!(count(&world, "stale").await, 1);
}

#[tokio::test]
async fn the_sweep_passes_nobody_over() {
    let world = World::start().await;
    for index in 0..=500 {
        world.phone(&format!("pixel-{index}")).registers().await;
    }
    let (_, other_key) = world.new_app("other").await;
    let body = world.phone("iphone").ios().body();
    let foreign = world.call(reqwest::Method::POST, "/v1/devices", &other_key, Some(body)).await.expect(201);
    world.tidy_after(DAY * 30).await;
    assert_eq!([count(&world, "active").await, count(&world, "stale").await], [0, 500], "a page of 500");
    let path = format!("/v1/devices/{}", foreign["id"].as_str().unwrap());
    assert_eq!(world.call(reqwest::Method::GET, &path, &other_key, None).await.expect(200)["status"], "stale");
}
