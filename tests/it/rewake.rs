//! The loop: a phone that was told and does not come is woken again, until it comes, the list ends or it is too late (contract §8).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn rewakes(after_s: &[u32]) -> Value {
    let class = json!({"gap_s": 0, "budget": {"burst": 100, "refill_s": 1}, "rewake_s": after_s});
    let silent = json!({"gap_s": 0, "budget": {"burst": 100, "refill_s": 1}, "rewake_s": []});
    let platform = json!({"background": class, "alert": silent});
    json!({"wake": {"ios": platform, "android": platform}})
}

async fn devices_of(world: &World, event: &Value) -> Value {
    world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200)["devices"].clone()
}

#[tokio::test]
async fn a_silent_phone_gets_three_wakes_and_one_that_came_gets_one() {
    let world = World::start().await;
    world.settings(rewakes(&[2, 3])).await;
    let silent = world.phone("silent").follows(&["order:42"]).await;
    let awake = world.phone("awake").ios().follows(&["order:42"]).await;
    let event = world.publish("order:42").await;
    let head = event["position"].as_i64().unwrap();
    world.settle().await;
    awake.sync().await;
    for (wait_s, received) in [(1, 1), (1, 2), (2, 2), (1, 3), (100, 3), (10_000, 3)] {
        world.later(SECOND * wait_s).await;
        assert_eq!(silent.received(), received);
    }
    assert_eq!(silent.heads(), [head; 3]);
    assert_eq!(awake.heads(), [head]);
    let wakes: std::collections::HashSet<String> =
        silent.pushes().iter().map(|push| push["wake"].as_str().unwrap().to_owned()).collect();
    assert_eq!(wakes.len(), 3, "each is a wake of its own");
    let devices = devices_of(&world, &event).await;
    assert_eq!([&devices["told"], &devices["fetched"], &devices["pending"], &devices["unreachable"]], [2, 1, 0, 1]);
    assert_eq!(silent.sync().await.events().len(), 1, "and the poll still has it");
    assert_eq!(devices_of(&world, &event).await["unreachable"], 0);
}

#[tokio::test]
async fn a_phone_that_missed_its_push_is_woken_again() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().lose(1);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 0);
    world.later(MINUTE * 10).await;
    assert_eq!(phone.received(), 1);
    assert_eq!(phone.sync().await.feeds(), ["order:42"]);
    world.later(MINUTE * 600).await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn news_in_between_goes_at_once_and_uses_up_nothing_of_the_list() {
    let world = World::start().await;
    world.settings(rewakes(&[100, 200])).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let first = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    world.clock.advance(SECOND * 50);
    let second = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    assert_eq!(phone.heads(), [first, second]);
    world.later(SECOND * 99).await;
    assert_eq!(phone.received(), 2);
    world.later(SECOND).await;
    assert_eq!(phone.heads(), [first, second, second]);
    world.later(SECOND * 199).await;
    assert_eq!(phone.received(), 3);
    world.later(SECOND).await;
    assert_eq!(phone.heads(), [first, second, second, second]);
    world.later(SECOND * 5000).await;
    assert_eq!(phone.received(), 4, "the list has ended");
    let third = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    world.later(SECOND * 5000).await;
    assert_eq!(phone.heads()[4..], [third], "the next event wakes it, and the list stays at its end until it comes");
}

#[tokio::test]
async fn nobody_is_woken_again_when_it_is_too_late() {
    let world = World::start().await;
    world.settings(rewakes(&[40, 40])).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let wake = json!({"class": "background", "ttl_s": 60});
    let event = world.post("/v1/events", json!({"feed": "order:42", "type": "t", "wake": wake})).await.expect(202);
    world.settle().await;
    world.later(SECOND * 40).await;
    assert_eq!(phone.received(), 2);
    world.later(SECOND * 400).await;
    assert_eq!(phone.received(), 2);
    assert_eq!(devices_of(&world, &event).await["unreachable"], 1);
}

#[tokio::test]
async fn an_alert_is_followed_by_a_silent_wake_that_counts_as_one() {
    let world = World::start().await;
    let alert = json!({"gap_s": 0, "rewake_s": [600, 600], "rewake_as": "background"});
    let background = json!({"gap_s": 60, "budget": {"burst": 1, "refill_s": 3600}, "rewake_s": []});
    world.settings(json!({"wake": {"android": {"alert": alert, "background": background}}})).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let head = world.alert("order:42", "on its way").await["position"].as_i64().unwrap();
    world.settle().await;
    world.later(SECOND * 600).await;
    assert_eq!(phone.heads(), [head, head]);
    assert_eq!(phone.pushes()[0]["title"], "on its way");
    assert_eq!(phone.pushes()[1].get("title"), None);
    let classes: Vec<_> = world.attempts().await.iter().rev().map(|attempt| attempt["class"].clone()).collect();
    assert_eq!(classes, ["alert", "background"]);
    // The silent one has taken the only token of its class.
    world.later(SECOND * 600).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 2);
    phone.sync().await;
    world.later(MINUTE * 300).await;
    assert_eq!(phone.received(), 2);
}

#[tokio::test]
async fn silent_news_and_the_repetition_of_an_alert_keep_their_distance() {
    let world = World::start().await;
    world.settings(json!({"wake": {"android": {"background": {"rewake_s": [600]}}}})).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.alert("order:42", "on its way").await;
    world.settle().await;
    assert_eq!(phone.received(), 2);
    world.later(SECOND * 600).await;
    assert_eq!(phone.received(), 3, "both lists are due, and one push is enough");
    world.later(SECOND * 30).await;
    assert_eq!(phone.received(), 3);
}

#[tokio::test]
async fn a_poll_that_reads_a_part_starts_the_list_again() {
    let world = World::start().await;
    world.settings(rewakes(&[600])).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..3 {
        world.publish("order:42").await;
    }
    world.settle().await;
    assert_eq!(phone.received(), 1);
    world.later(SECOND * 500).await;
    phone.get(&format!("/v1/sync?after={}&limit=1", phone.cursor())).await.expect(200);
    world.later(SECOND * 300).await;
    assert_eq!(phone.received(), 1, "it was here 300 s ago");
    world.later(SECOND * 300).await;
    assert_eq!(phone.received(), 2);
}

#[tokio::test]
async fn a_poll_between_claim_and_call_takes_the_push_back() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let (_, calls) = world.relay().dispatcher().look().await.unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(phone.sync().await.events().len(), 1);
    world.relay().dispatcher().start(calls);
    world.settle().await;
    assert_eq!(phone.received(), 0);
    assert!(world.attempts().await.is_empty(), "what was never begun is no attempt");
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn by_ack_a_poll_between_claim_and_call_changes_nothing() {
    let world = World::start().await;
    world.settings(json!({"confirm": "ack"})).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let (_, calls) = world.relay().dispatcher().look().await.unwrap();
    phone.sync().await;
    world.relay().dispatcher().start(calls);
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_phone_whose_pushes_do_not_bring_it_is_asked_to_poll_sooner() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let after_s = async || phone.sync().await.0["poll"]["after_s"].as_u64().unwrap();
    let publish_and_wait = async |minutes: u32| {
        world.publish("order:42").await;
        world.settle().await;
        world.later(MINUTE * minutes).await;
    };
    assert_eq!(after_s().await, 900);
    for _ in 0..2 {
        publish_and_wait(16).await;
        assert_eq!(after_s().await, 900, "once or twice may happen");
    }
    publish_and_wait(16).await;
    assert_eq!(after_s().await, 60);
    assert_eq!(after_s().await, 60, "a poll that no push was for says nothing");
    publish_and_wait(15).await;
    assert_eq!(after_s().await, 900, "this one came in time");
}

#[tokio::test]
async fn an_alert_that_ends_early_does_not_swallow_silent_news() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    phone.sync().await;
    // Within the gap: the news waits, and an alert that is worth a minute overtakes it.
    let news = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    let wake = json!({"class": "alert", "ttl_s": 60, "alert": {"title": "now"}});
    let alert = world.post("/v1/events", json!({"feed": "order:42", "type": "t", "wake": wake})).await.expect(202);
    let alert = alert["position"].as_i64().unwrap();
    world.settle().await;
    assert_eq!(phone.heads(), [news - 1, alert]);
    world.later(MINUTE * 29).await;
    assert_eq!(phone.received(), 2, "the alert was the first wake for it");
    world.later(MINUTE * 2).await;
    assert_eq!(phone.heads()[2..], [alert], "the silent list goes on by its own time to live");
}

#[tokio::test]
async fn a_poll_that_outran_the_providers_answer_is_no_miss() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..4 {
        world.sim.fcm().pause();
        world.publish("order:42").await;
        world.relay().dispatcher().step().await.unwrap();
        while world.sim.fcm().received() < world.attempts().await.len() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(phone.sync().await.0["poll"]["after_s"], 900);
        world.sim.fcm().resume();
        world.settle().await;
        world.later(MINUTE * 20).await;
    }
    let stats = world.get("/v1/stats").await.expect(200)["transports"][0].clone();
    assert_eq!([&stats["wakes"], &stats["fetched"]["within_10s"]], [4, 4]);
}

#[tokio::test]
async fn an_alert_is_not_repeated_to_who_has_left_its_feed() {
    let world = World::start().await;
    world.settings(json!({"wake": {"android": {"alert": {"rewake_s": [600], "rewake_as": "alert"}}}})).await;
    let phone = world.phone("pixel").follows(&["order:1", "order:2"]).await;
    world.alert("order:1", "stays").await;
    world.settle().await;
    world.alert("order:2", "is left").await;
    world.settle().await;
    world.delete(&format!("/v1/devices/{}/feeds/order:2", phone.id)).await.expect(204);
    world.later(MINUTE * 10).await;
    let titles: Vec<_> = phone.pushes().iter().map(|push| push["title"].as_str().unwrap().to_owned()).collect();
    assert_eq!(titles, ["stays", "is left", "stays"]);
}
