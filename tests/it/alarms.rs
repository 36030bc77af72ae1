//! Alarms: told once in the app's own feed when they are raised, once when they end, and shown while they stand (contract §7).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Phones enough for a rate.
const ENOUGH: usize = 50;

/// All that the feed tells, oldest first.
async fn told(world: &World) -> Vec<Value> {
    let page = world.get("/v1/feeds/reveille:alarms/events").await.expect(200);
    page["events"].as_array().unwrap().clone()
}

/// What stands, by the feed's snapshot and by the statistics, which must agree.
async fn standing(world: &World) -> Vec<String> {
    let names = |items: &Value, name: &str| -> Vec<String> {
        items.as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
    };
    let snapshot = world.get("/v1/feeds/reveille:alarms/snapshot").await.expect(200);
    let shown = names(&snapshot["items"], "key");
    assert_eq!(shown, names(&world.get("/v1/stats").await.expect(200)["alarms"], "name"));
    shown
}

/// Phones that follow `shop:news`, in an app that wakes each once per event.
async fn phones(world: &World, count: usize) -> Vec<Phone<'_>> {
    world.settings(json!({"wake": {"android": {"background": {"rewake_s": []}}}})).await;
    let mut phones = Vec::new();
    for number in 0..count {
        phones.push(world.phone(&format!("pixel-{number}")).follows(&["shop:news"]).await);
    }
    phones
}

/// An event for all, and the phones that it brings.
async fn a_push_that_brings(world: &World, phones: &[Phone<'_>]) {
    world.publish("shop:news").await;
    world.settle().await;
    for phone in phones {
        phone.sync().await;
    }
}

/// Lets the pushes have their 15 minutes and their quarter end, and the janitor look.
async fn the_janitor_looks(world: &World) {
    world.tidy_after(MINUTE * 31).await;
}

#[tokio::test]
async fn an_hour_in_which_pushes_bring_nobody_is_told_once_and_its_end_too() {
    let world = World::start().await;
    let phones = phones(&world, ENOUGH).await;
    let operator = world.phone("operator").ios().follows(&["reveille:alarms"]).await;
    for _ in 0..2 {
        a_push_that_brings(&world, &phones).await;
        world.tidy_after(DAY).await;
    }
    assert!(told(&world).await.is_empty());
    assert!(standing(&world).await.is_empty());

    let lost_at = world.clock.now();
    a_push_that_brings(&world, &[]).await;
    world.tidy_after(MINUTE * 14).await;
    assert!(told(&world).await.is_empty(), "the pushes have not had their time");
    for _ in 0..3 {
        the_janitor_looks(&world).await;
    }
    let events = told(&world).await;
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!([&event["type"], &event["key"], &event["op"]], ["reveille.alarm", "wake-rate/fcm", "upsert"]);
    assert_eq!(event["wake"], json!({"class": "background", "ttl_s": 86_400}));
    let data = &event["data"];
    assert_eq!([&data["alarm"], &data["transport"]], ["wake-rate/fcm", "fcm"]);
    assert_eq!([&data["hour"]["wakes"], &data["hour"]["wake_rate"]], [&json!(50), &json!(0.0)]);
    assert_eq!([&data["usual"]["wakes"], &data["usual"]["wake_rate"]], [&json!(100), &json!(1.0)]);
    assert!(data["says"].as_str().unwrap().contains("50 fcm pushes"), "{data}");
    let raised_at: reveille::domain::time::Timestamp = data["raised_at"].as_str().unwrap().parse().unwrap();
    assert!(lost_at + MINUTE * 15 <= raised_at && raised_at <= lost_at + HOUR);
    assert_eq!(standing(&world).await, ["wake-rate/fcm"]);
    world.settle().await;
    assert_eq!(operator.received(), 1);
    assert_eq!(operator.sync().await.feeds(), ["reveille:alarms"]);

    world.clock.advance(HOUR * 2);
    a_push_that_brings(&world, &phones).await;
    for _ in 0..2 {
        the_janitor_looks(&world).await;
    }
    let events = told(&world).await;
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(
        [&events[1]["key"], &events[1]["op"], &events[1]["data"]],
        [&json!("wake-rate/fcm"), &json!("delete"), &Value::Null]
    );
    assert!(standing(&world).await.is_empty());
    world.settle().await;
    assert_eq!(operator.received(), 2);
}

#[tokio::test]
async fn an_alarm_stands_while_there_is_too_little_to_judge_by() {
    let world = World::start().await;
    let phones = phones(&world, ENOUGH).await;
    a_push_that_brings(&world, &phones).await;
    world.clock.advance(DAY);
    a_push_that_brings(&world, &[]).await;
    the_janitor_looks(&world).await;
    assert_eq!(standing(&world).await, ["wake-rate/fcm"]);
    for _ in 0..4 {
        world.tidy_after(HOUR).await;
    }
    assert_eq!(standing(&world).await, ["wake-rate/fcm"], "a quiet night proves nothing");
    world.tidy_after(DAY * 8).await;
    assert!(standing(&world).await.is_empty(), "there is no usual rate any more");
    assert_eq!(told(&world).await.last().unwrap()["op"], "delete");
}

#[tokio::test]
async fn half_as_good_a_rate_and_too_few_pushes_raise_nothing() {
    let world = World::start().await;
    let phones = phones(&world, ENOUGH).await;
    a_push_that_brings(&world, &phones).await;
    world.clock.advance(DAY);
    let (half, _) = phones.split_at(ENOUGH / 2);
    a_push_that_brings(&world, half).await;
    the_janitor_looks(&world).await;
    assert!(told(&world).await.is_empty());

    world.clock.advance(DAY);
    // One phone less than would be enough.
    world.delete(&format!("/v1/devices/{}", phones[0].id)).await.expect(204);
    a_push_that_brings(&world, &[]).await;
    the_janitor_looks(&world).await;
    assert!(told(&world).await.is_empty());
}

#[tokio::test]
async fn an_app_without_a_past_raises_nothing() {
    let world = World::start().await;
    phones(&world, ENOUGH).await;
    a_push_that_brings(&world, &[]).await;
    the_janitor_looks(&world).await;
    assert!(told(&world).await.is_empty());
}

/// Stops the relay, changes alarms as a transaction would have left them, and starts it again.
async fn after_a_crash(world: World, change: &str) -> World {
    let app = world.app.clone();
    let statement = change.replace("APP", &format!("'{app}'"));
    world
        .restart_after(async |database| {
            database.execute(&statement).await;
        })
        .await
}

#[tokio::test]
async fn a_crash_neither_repeats_nor_forgets_an_alarm() {
    let world = World::start().await;
    let world =
        after_a_crash(world, "insert into alarms (app_id, name, data, raised_at) values (APP, 'x', '{\"n\":1}', 7)")
            .await;
    for _ in 0..2 {
        world.tidy_after(MINUTE).await;
    }
    let events = told(&world).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0]["data"],
        json!({"alarm": "x", "n": 1, "raised_at": "1970-01-01T00:00:00.007Z", "says": "The alarm x has been raised."})
    );
    assert_eq!(events[0]["occurred_at"], "1970-01-01T00:00:00.007Z");
    let world = after_a_crash(world, "update alarms set ended_at = 9 where app_id = APP and name = 'x'").await;
    for _ in 0..2 {
        world.tidy_after(MINUTE).await;
    }
    let operations = |events: &[Value]| -> Vec<String> {
        events
            .iter()
            .map(|event| format!("{} {}", event["op"].as_str().unwrap(), event["key"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(operations(&told(&world).await), ["upsert x", "delete x"]);
    assert!(standing(&world).await.is_empty());
    // Raised and over before anybody told of it: both are told, in order.
    let change = "insert into alarms (app_id, name, data, raised_at, ended_at) values (APP, 'y', '{}', 11, 12)";
    let world = after_a_crash(world, change).await;
    world.tidy_after(MINUTE).await;
    let all = told(&world).await;
    assert_eq!(operations(&all), ["upsert x", "delete x", "upsert y", "delete y"]);
    let positions: Vec<_> = all.iter().map(|event| event["position"].as_i64().unwrap()).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert!(standing(&world).await.is_empty());
}

#[tokio::test]
async fn many_alarms_are_told_of_and_each_app_reads_its_own() {
    let world = World::start().await;
    let (_, neighbour) = world.new_app("neighbour").await;
    let change = "insert into alarms (app_id, name, data, raised_at)
                  select APP, 'a' || n, '{}', n from (select 101 as n union select 102 union select 103 union select 104
                      union select 105) as numbers";
    let world = after_a_crash(world, change).await;
    let phone = world.phone("pixel").follows(&["reveille:alarms"]).await;
    world.tidy_after(MINUTE).await;
    world.settle().await;
    assert_eq!(standing(&world).await, ["a101", "a102", "a103", "a104", "a105"]);
    assert_eq!(phone.received(), 1, "five alarms at once are one push");
    let seen = world.call(reqwest::Method::GET, "/v1/feeds/reveille:alarms/events", &neighbour, None).await.expect(200);
    assert_eq!(seen["events"], json!([]));
    let forged = json!({"feed": "reveille:alarms", "type": "t"});
    assert_eq!(world.post("/v1/events", forged).await.pointers(422), ["/feed"]);
}

#[tokio::test]
async fn a_deleted_app_leaves_neither_alarms_nor_counters() {
    let world = World::start().await;
    world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    let world =
        after_a_crash(world, "insert into alarms (app_id, name, data, raised_at) values (APP, 'x', '{}', 7)").await;
    world.operator(reqwest::Method::DELETE, &format!("/v1/apps/{}", world.app), None).await.expect(204);
    // One chunk of one table a round.
    for _ in 0..30 {
        world.tidy_after(MINUTE).await;
    }
    for table in ["apps", "alarms", "tallies"] {
        assert_eq!(world.database().count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}
