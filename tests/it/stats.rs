//! Statistics: what an app's pushes were worth (contract §7).

use std::time::Duration;

use reqwest::Method;
use reveille::{
    domain::time::Timestamp,
    sim::{Fault, FaultKind},
    store::StoreOptions,
};
use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

async fn stats(world: &World) -> Value {
    world.get("/v1/stats").await.expect(200)
}

async fn stats_since(world: &World, since: Timestamp) -> Value {
    world.get(&format!("/v1/stats?since={since}")).await.expect(200)
}

/// What is told of one transport and class.
#[track_caller]
fn of<'a>(stats: &'a Value, transport: &str, class: &str) -> &'a Value {
    let rows = stats["transports"].as_array().unwrap();
    let found = rows.iter().find(|row| row["transport"] == transport && row["class"] == class);
    found.unwrap_or_else(|| panic!("nothing is told of {transport}/{class}: {stats:#}"))
}

/// Polls and names the newest push as its cause.
async fn comes_for_its_push(phone: &Phone<'_>) {
    let wake = phone.pushes().last().unwrap()["wake"].as_str().unwrap().to_owned();
    phone.get(&format!("/v1/sync?after={}&wake={wake}", phone.cursor())).await.expect(200);
}

/// Goes to the beginning of a quarter of an hour.
fn begin_a_quarter(world: &World) {
    let ms = u64::try_from(world.clock.now().as_ms()).unwrap();
    world.clock.advance(Duration::from_millis(900_000 - ms % 900_000));
}

#[tokio::test]
async fn coalesced_events_and_the_poll_that_a_push_brought() {
    let world = World::start().await;
    begin_a_quarter(&world);
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    assert_eq!(stats(&world).await["transports"], json!([]));
    world.publish("order:42").await;
    world.settle().await;
    for _ in 0..59 {
        world.publish("order:42").await;
    }
    world.later(MINUTE).await;
    assert_eq!(phone.received(), 2);
    let silent = stats(&world).await;
    let row = of(&silent, "fcm", "background");
    assert_eq!([&row["events"], &row["wakes"], &row["coalescing_ratio"]], [&json!(60), &json!(2), &json!(30.0)]);
    let attempts = json!({"accepted": 2, "rejected": 0, "throttled": 0, "unavailable": 0, "timeout": 0, "unknown": 0});
    assert_eq!(row["attempts"], attempts);
    assert_eq!(row["fetched"], json!({"within_10s": 0, "within_60s": 0, "within_15min": 0}));
    assert_eq!(row["push_to_fetch_ms"], json!({"median": null, "p95": null}));
    assert_eq!([&row["woke_by_push"], &row["came_by_itself"], &row["wake_rate"]], [&json!(0), &json!(0), &Value::Null]);
    assert_eq!(silent["transports"].as_array().unwrap().len(), 1, "nothing else was counted");

    world.clock.advance(SECOND * 5);
    comes_for_its_push(&phone).await;
    let row = stats(&world).await["transports"][0].clone();
    assert_eq!(row["fetched"], json!({"within_10s": 1, "within_60s": 1, "within_15min": 1}));
    assert_eq!(row["push_to_fetch_ms"], json!({"median": 5623, "p95": 5623}), "5 s, up to the end of its bucket");
    assert_eq!([&row["woke_by_push"], &row["came_by_itself"]], [1, 0]);
    assert_eq!(row["wake_rate"], Value::Null, "its pushes have not had their time");
    world.clock.advance(MINUTE * 30);
    assert_eq!(stats(&world).await["transports"][0]["wake_rate"], 0.5, "a poll counts for the newest push before it");
}

#[tokio::test]
async fn a_lost_push_is_fetched_by_a_poll_of_its_own_and_booked_to_the_push() {
    let world = World::start().await;
    begin_a_quarter(&world);
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().lose(1);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 0);
    world.clock.advance(MINUTE * 20);
    let present = world.clock.now();
    phone.sync().await;
    let all = stats(&world).await;
    let row = of(&all, "fcm", "background");
    assert_eq!([&row["events"], &row["wakes"], &row["attempts"]["accepted"]], [1, 1, 1]);
    assert_eq!(row["fetched"], json!({"within_10s": 0, "within_60s": 0, "within_15min": 0}));
    assert_eq!(row["push_to_fetch_ms"]["median"], 1_333_521, "20 minutes, up to the end of its bucket");
    assert_eq!([&row["woke_by_push"], &row["came_by_itself"]], [0, 1]);

    let late = stats_since(&world, present).await;
    let row = of(&late, "fcm", "background");
    assert_eq!([&row["wakes"], &row["came_by_itself"]], [0, 1], "the poll belongs to now, …");
    assert_eq!(row["push_to_fetch_ms"]["median"], Value::Null, "… the latency to the push");
    assert_eq!([&row["coalescing_ratio"], &row["wake_rate"]], [&Value::Null, &Value::Null]);

    phone.sync().await;
    let again = stats(&world).await;
    assert_eq!(again["transports"], all["transports"], "a poll without news counts neither way");
}

#[tokio::test]
async fn latencies_fall_into_buckets() {
    let world = World::start().await;
    begin_a_quarter(&world);
    let mut phones = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        phones.push(world.phone(name).follows(&["order:42"]).await);
    }
    world.publish("order:42").await;
    world.settle().await;
    let mut passed = Duration::ZERO;
    for (phone, after) in phones.iter().zip([SECOND, SECOND * 8, SECOND * 50, MINUTE * 10, MINUTE * 20]) {
        world.clock.advance(after - passed);
        passed = after;
        comes_for_its_push(phone).await;
    }
    world.clock.advance(MINUTE * 10);
    let row = stats(&world).await["transports"][0].clone();
    assert_eq!(row["fetched"], json!({"within_10s": 2, "within_60s": 3, "within_15min": 4}));
    assert_eq!(row["push_to_fetch_ms"], json!({"median": 56_234, "p95": 1_333_521}));
    assert_eq!([&row["wakes"], &row["woke_by_push"], &row["wake_rate"]], [&json!(5), &json!(5), &json!(0.8)]);
}

#[tokio::test]
async fn transports_classes_and_outcomes_are_told_apart() {
    let world = World::start().await;
    world.phone("pixel").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.alert("order:42", "packed").await;
    let silent = json!({"feed": "order:42", "type": "t", "wake": {"class": "none"}});
    world.post("/v1/events", silent).await.expect(202);
    let unavailable = FaultKind::Status { status: 503, reason: None, retry_after: Some("3".to_owned()) };
    let throttled = FaultKind::Status { status: 429, reason: None, retry_after: Some("3".to_owned()) };
    world.sim.fcm().answer(Fault::new(unavailable).times(1));
    world.sim.fcm().answer(Fault::new(throttled).times(1));
    world.sim.apns().dead_token(&iphone.token, None);
    world.settle().await;
    world.later(SECOND * 3).await;
    world.later(SECOND * 3).await;
    let all = stats(&world).await;
    let kinds: Vec<_> =
        all["transports"].as_array().unwrap().iter().map(|row| [&row["transport"], &row["class"]]).collect();
    assert_eq!(kinds, [["apns", "alert"], ["fcm", "alert"]]);
    let [apns, fcm] = [of(&all, "apns", "alert"), of(&all, "fcm", "alert")];
    assert_eq!([&apns["events"], &apns["wakes"], &apns["attempts"]["rejected"]], [1, 0, 1]);
    assert_eq!([&fcm["events"], &fcm["wakes"]], [1, 1], "class none wakes nobody");
    assert_eq!(
        fcm["attempts"],
        json!({"accepted": 1, "rejected": 0, "throttled": 1, "unavailable": 1, "timeout": 0, "unknown": 0})
    );
}

#[tokio::test]
async fn a_long_fan_out_counts_every_follower_once() {
    let world = World::with(StoreOptions { fanout_chunk: 3, ..StoreOptions::default() }).await;
    for number in 0..4 {
        world.phone(&format!("pixel-{number}")).follows(&["shop:news"]).await;
        world.phone(&format!("iphone-{number}")).ios().follows(&["shop:news"]).await;
    }
    world.phone("quiet").follows(&["order:42"]).await;
    let events = json!([
        {"feed": "shop:news", "type": "t"},
        {"feed": "order:42", "type": "t"},
        {"feed": "shop:news", "type": "t"},
    ]);
    world.post("/v1/events", events).await.expect(202);
    let row = stats(&world).await["transports"].clone();
    assert_eq!(row.as_array().unwrap().len(), 1, "{row:#}");
    assert_eq!([&row[0]["transport"], &row[0]["events"]], [&json!("fcm"), &json!(1)], "the small feed's, at once");
    world.phone("late").follows(&["shop:news"]).await;
    world.settle().await;
    let all = stats(&world).await;
    assert_eq!(of(&all, "fcm", "background")["events"], 9);
    assert_eq!(of(&all, "apns", "background")["events"], 8);
}

#[tokio::test]
async fn since_is_cut_to_its_quarter_and_bounded() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    phone.sync().await;
    let pushed_at = world.clock.now();
    world.clock.advance(DAY * 2);
    let now = world.clock.now();
    let by_default = stats(&world).await;
    assert_eq!(by_default["transports"], json!([]), "two days are more than the default");
    let at = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(at(&by_default["until"]), now);
    let begins = at(&by_default["since"]);
    assert_eq!(begins.as_ms() % 900_000, 0);
    assert!(begins <= now - DAY && now - DAY < begins + MINUTE * 15, "{begins}");

    let earlier = stats_since(&world, pushed_at).await;
    assert_eq!(of(&earlier, "fcm", "background")["wakes"], 1);
    let quarter_before = at(&earlier["since"]);
    assert!(quarter_before <= pushed_at && pushed_at < quarter_before + MINUTE * 15);
    assert_eq!(stats_since(&world, quarter_before + MINUTE * 15).await["transports"], json!([]));

    stats_since(&world, now - DAY * 30).await;
    stats_since(&world, now).await;
    let long_ago = format!("since={}", now - DAY * 30 - SECOND);
    let soon = format!("since={}", now + SECOND);
    for query in [&*long_ago, &*soon, "since=yesterday", "since=", "until=now"] {
        assert_eq!(world.get(&format!("/v1/stats?{query}")).await.problem(422), "invalid", "{query}");
    }
}

#[tokio::test]
async fn counters_go_when_nobody_can_ask_for_them() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    phone.sync().await;
    let pushed_at = world.clock.now();
    world.tidy_after(DAY * 29).await;
    assert_eq!(of(&stats_since(&world, pushed_at).await, "fcm", "background")["wakes"], 1);
    world.publish("order:42").await;
    world.tidy_after(DAY * 3).await;
    let mut kept = Vec::new();
    let world = world
        .restart_after(async |database| {
            kept = database.texts("select what from tallies").await;
        })
        .await;
    assert_eq!(kept, ["events"], "what was counted three days ago");
    assert_eq!(of(&stats_since(&world, world.clock.now() - DAY * 30).await, "fcm", "background")["events"], 1);
}

#[tokio::test]
async fn devices_are_counted_by_status() {
    let world = World::start().await;
    assert_eq!(stats(&world).await["devices"], json!({"active": 0, "quarantined": 0, "stale": 0, "gone": 0}));
    world.clock.advance(SECOND * 10);
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.phone("iphone").ios().registers().await;
    assert_eq!(stats(&world).await["devices"], json!({"active": 2, "quarantined": 0, "stale": 0, "gone": 0}));
    world.sim.fcm().dead_token(&phone.token, None);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(stats(&world).await["devices"]["active"], 2, "the count is kept for a while");
    world.clock.advance(SECOND * 10);
    assert_eq!(stats(&world).await["devices"], json!({"active": 1, "quarantined": 0, "stale": 0, "gone": 1}));
}

#[tokio::test]
async fn statistics_are_the_apps_own() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    let (_, neighbour) = world.new_app("neighbour").await;
    let seen = world.call(Method::GET, "/v1/stats", &neighbour, None).await.expect(200);
    assert_eq!([&seen["transports"], &seen["alarms"]], [&json!([]), &json!([])]);
    assert_eq!(seen["devices"]["active"], 0);
    for scope in ["events:read", "devices:read"] {
        let key = world.new_key(&world.app, &[scope]).await;
        let seen = world.call(Method::GET, "/v1/stats", &key, None).await.expect(200);
        assert_eq!(of(&seen, "fcm", "background")["wakes"], 1);
    }
    let key = world.new_key(&world.app, &["events:write", "devices:write", "credentials:write"]).await;
    let answer = world.call(Method::GET, "/v1/stats", &key, None).await;
    assert_eq!((answer.problem(403), &answer.body["scope"]), ("missing-scope", &json!("events:read")));
    assert_eq!(phone.get("/v1/stats").await.problem(403), "forbidden");
    let yesterday = world.clock.now() - HOUR * 24;
    assert_eq!(world.operator(Method::GET, &format!("/v1/stats?since={yesterday}"), None).await.status, 403);
}
