//! Breakers of credentials: a provider in trouble is left alone, and found again as soon as it is well (contract §8).

use std::time::Duration;

use reqwest::Method;
use reveille::sim::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

const SECOND: Duration = Duration::from_secs(1);
/// So many troubled answers open a breaker.
const RUN: usize = 10;

fn down(retry_after: Option<&str>) -> FaultKind {
    let retry_after = retry_after.map(str::to_owned);
    FaultKind::Status { status: 503, reason: Some("UNAVAILABLE".into()), retry_after }
}

/// Android phones that follow a feed.
async fn pixels<'a>(world: &'a World, feed: &str, count: usize) -> Vec<Phone<'a>> {
    let mut phones = Vec::new();
    for index in 0..count {
        phones.push(world.phone(&format!("{feed}-{index}")).follows(&[feed]).await);
    }
    phones
}

async fn wake(world: &World, feed: &str) {
    world.publish(feed).await;
    world.settle().await;
}

/// A world whose breaker for FCM has just opened.
async fn opened(fault: FaultKind) -> World {
    let world = World::start().await;
    world.without_pace().await;
    pixels(&world, "first", RUN).await;
    world.sim.fcm().answer(fault);
    wake(&world, "first").await;
    assert_eq!(world.sim.fcm().received(), RUN);
    world
}

/// What readiness tells the operator of credentials.
async fn shown(world: &World) -> Value {
    let ready = world.operator(Method::GET, "/readyz", None).await.expect(200);
    assert_eq!(ready["status"], "ready", "a provider's trouble is not the relay's");
    ready["credentials"].clone()
}

#[tokio::test]
async fn after_a_run_of_troubled_answers_calls_stop() {
    let world = World::start().await;
    world.without_pace().await;
    world.sim.fcm().answer(down(None));
    pixels(&world, "nine", RUN - 1).await;
    wake(&world, "nine").await;
    assert_eq!(shown(&world).await, json!([]), "nine are no run");
    let tenth = pixels(&world, "tenth", 1).await;
    wake(&world, "tenth").await;
    let mut expected = json!([{
        "app": world.app, "transport": "fcm", "name": "default", "breaker": "open", "until": world.clock.now() + SECOND,
    }]);
    assert_eq!(shown(&world).await, expected);
    pixels(&world, "more", 20).await;
    wake(&world, "more").await;
    assert_eq!(world.sim.fcm().received(), RUN, "nobody is called any more");
    world.clock.advance(SECOND);
    expected[0]["breaker"] = "half-open".into();
    assert_eq!(shown(&world).await, expected);
    assert_eq!(world.get("/v1/stats").await.expect(200)["credentials"], expected, "the app sees its own");
    let hidden = world.get("/readyz").await.expect(200);
    assert_eq!(hidden.get("credentials"), None, "the app does not see others' trouble");
    assert_eq!(tenth[0].seen().await["status"], "active", "no device is to blame");
}

#[tokio::test]
async fn one_probe_at_a_time_finds_out() {
    let world = opened(down(None)).await;
    pixels(&world, "more", 20).await;
    wake(&world, "more").await;
    let (mut calls, mut probes_s) = (RUN, Vec::new());
    for second in 1..=200 {
        world.later(SECOND).await;
        let received = world.sim.fcm().received();
        assert!(received <= calls + 1, "{} calls within a second", received - calls);
        if received > calls {
            probes_s.push(second);
        }
        calls = received;
    }
    let rests: Vec<i32> = probes_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = [2, 4, 8, 16, 32, 60, 60, 60];
    assert!(probes_s.len() >= 5, "it goes on asking: {probes_s:?}");
    assert!(rests.iter().zip(least).all(|(rest, least)| *rest >= least), "{probes_s:?}");
}

#[tokio::test]
async fn once_the_provider_is_well_all_that_waits_goes_out() {
    let world = opened(down(None)).await;
    let more = pixels(&world, "more", 20).await;
    wake(&world, "more").await;
    world.sim.fcm().clear();
    let arrived = || more.iter().filter(|phone| phone.received() == 1).count();
    world.later(SECOND * 2).await;
    assert_eq!(arrived(), 1, "one goes first");
    assert_eq!(shown(&world).await, json!([]));
    world.later(SECOND * 2).await;
    assert_eq!(arrived(), 20, "the others did not wait for long");
    world.later(SECOND * 30).await;
    assert_eq!(
        world.sim.pushes().iter().filter(|push| push.delivered).count(),
        RUN + 20,
        "nor do those that had failed"
    );
}

#[tokio::test]
async fn a_provider_may_ask_for_a_longer_rest() {
    let world = opened(down(Some("30"))).await;
    assert_eq!(shown(&world).await[0]["until"], json!(world.clock.now() + SECOND * 30));
    pixels(&world, "more", 5).await;
    wake(&world, "more").await;
    world.later(SECOND * 29).await;
    assert_eq!(world.sim.fcm().received(), RUN);
}

#[tokio::test]
async fn another_apps_credential_goes_on() {
    let world = World::start().await;
    world.without_pace().await;
    let (other, other_key) = world.new_app("other").await;
    let credential = Some(world.sim.fcm_credential());
    world.call(Method::PUT, "/v1/credentials/fcm", &other_key, credential).await.expect(201);
    for phone in pixels(&world, "first", RUN).await {
        world.sim.fcm().answer(Fault::new(down(None)).to_token(&phone.token));
    }
    wake(&world, "first").await;
    assert_eq!(shown(&world).await.as_array().unwrap().len(), 1);
    let iphone = world.phone("iphone").ios().follows(&["first"]).await;
    let body = world.phone("pixel-of-other").with("feeds", json!(["first"])).body();
    world.call(Method::POST, "/v1/devices", &other_key, Some(body)).await.expect(201);
    let event = json!({"feed": "first", "type": "t"});
    world.call(Method::POST, "/v1/events", &other_key, Some(event)).await.expect(202);
    wake(&world, "first").await;
    let theirs = world.sim.pushes().iter().filter(|push| push.token == "fcm-token-of-pixel-of-other").count();
    assert_eq!(theirs, 1, "{other} has its own credential");
    assert_eq!(iphone.received(), 1, "and another provider is another matter");
    assert_eq!(world.sim.fcm().received(), RUN + 1);
    let stats = world.call(Method::GET, "/v1/stats", &other_key, None).await.expect(200);
    assert_eq!(stats["credentials"], json!([]));
}

#[tokio::test]
async fn a_new_credential_begins_afresh() {
    let denied = FaultKind::Status { status: 403, reason: Some("PERMISSION_DENIED".into()), retry_after: None };
    let world = opened(denied).await;
    let more = pixels(&world, "more", 5).await;
    wake(&world, "more").await;
    assert_eq!(shown(&world).await[0]["breaker"], "open");
    world.sim.fcm().clear();
    world.put("/v1/credentials/fcm", world.sim.fcm_credential()).await.expect(200);
    assert_eq!(shown(&world).await, json!([]));
    world.settle().await;
    assert!(more.iter().all(|phone| phone.received() == 1), "nobody waits for what the old one met");
    assert_eq!(world.sim.pushes().iter().filter(|push| push.delivered).count(), RUN + 5);
}

#[tokio::test]
async fn a_deleted_credential_is_forgotten() {
    let world = opened(down(None)).await;
    world.delete("/v1/credentials/fcm").await;
    assert_eq!(shown(&world).await, json!([]));
}
