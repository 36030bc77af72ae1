//! How often a phone is pushed to: gaps, budgets, and alerts that lie at Apple (contract §8).

use std::time::Duration;

use serde_json::json;

use crate::support::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn sixty_events_are_two_pushes_and_the_poll_has_all_of_them() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let mut positions = Vec::new();
    for _ in 0..60 {
        positions.push(world.publish("order:42").await["position"].as_i64().unwrap());
        world.later(Duration::from_millis(50)).await;
    }
    assert_eq!(phone.heads(), positions[..1], "the first leaves at once, the others only move the head");
    world.later(SECOND * 56).await;
    assert_eq!(phone.received(), 1, "the gap is not over");
    world.later(SECOND * 2).await;
    assert_eq!(phone.heads(), [positions[0], positions[59]]);
    world.later(MINUTE * 10).await;
    assert_eq!(phone.received(), 2);
    assert_eq!(phone.sync().await.positions(), positions);
}

#[tokio::test]
async fn who_polls_within_the_gap_gets_no_second_push() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..3 {
        world.publish("order:42").await;
        world.settle().await;
    }
    assert_eq!(phone.sync().await.events().len(), 3);
    world.later(MINUTE * 30).await;
    assert_eq!(phone.received(), 1);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 2, "the next news leaves at once again");
}

#[tokio::test]
async fn what_is_out_of_budget_goes_with_the_next_token_and_a_restart_forgets_nothing() {
    let world = World::start().await;
    let budget = json!({"gap_s": 0, "budget": {"burst": 2, "refill_s": 600}, "rewake_s": []});
    world.settings(json!({"wake": {"android": {"background": budget}}})).await;
    let token = {
        let phone = world.phone("pixel").follows(&["order:42"]).await;
        for _ in 0..5 {
            world.publish("order:42").await;
            world.later(SECOND).await;
        }
        assert_eq!(phone.received(), 2);
        phone.token.clone()
    };
    let world = world.restart().await;
    let received = || world.sim.pushes().iter().filter(|push| push.token == token).count();
    world.later(SECOND * 590).await;
    assert_eq!(received(), 2);
    world.later(SECOND * 10).await;
    assert_eq!(received(), 3, "the third goes with the next token, for all that came");
    world.later(SECOND * 2000).await;
    assert_eq!(received(), 3, "nothing is left to tell");
}

#[tokio::test]
async fn a_refused_push_costs_no_token() {
    let world = World::start().await;
    let budget = json!({"gap_s": 0, "budget": {"burst": 1, "refill_s": 3600}, "rewake_s": []});
    world.settings(json!({"wake": {"android": {"background": budget}}})).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let kind = reveille::sim::FaultKind::Status { status: 503, reason: None, retry_after: Some("3".to_owned()) };
    world.sim.fcm().answer(reveille::sim::Fault::new(kind).times(2));
    world.publish("order:42").await;
    world.settle().await;
    world.later(SECOND * 3).await;
    world.later(SECOND * 3).await;
    assert_eq!(world.outcomes().await, ["unavailable", "unavailable", "accepted"]);
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn a_budget_is_the_devices_own_and_the_classs_own() {
    let world = World::start().await;
    let budget = json!({"gap_s": 0, "budget": {"burst": 1, "refill_s": 3600}, "rewake_s": []});
    world.settings(json!({"wake": {"android": {"background": budget}}})).await;
    let (one, other) = (world.phone("one").follows(&["a"]).await, world.phone("other").follows(&["b"]).await);
    for _ in 0..2 {
        world.publish("a").await;
        world.settle().await;
    }
    world.publish("b").await;
    world.alert("a", "visible").await;
    world.settle().await;
    assert_eq!([one.received(), other.received()], [2, 1], "its alert, and the other's silent push, are not held up");
}

#[tokio::test]
async fn an_alert_that_lies_at_apple_holds_silent_pushes_back_until_it_is_fetched_or_ends() {
    let world = World::start().await;
    world.without_pace().await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let pixel = world.phone("pixel").follows(&["order:42"]).await;
    let alert = world.alert("order:42", "on its way").await["position"].as_i64().unwrap();
    world.settle().await;
    let silent = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    assert_eq!(iphone.heads(), [alert]);
    assert_eq!(pixel.heads(), [alert, silent], "Google keeps more than one");
    world.later(MINUTE * 59).await;
    assert_eq!(iphone.heads(), [alert]);
    world.later(MINUTE).await;
    assert_eq!(iphone.heads(), [alert, silent], "the alert has expired");
}

#[tokio::test]
async fn of_many_phones_with_both_waiting_each_gets_its_alert_first() {
    let world = World::start().await;
    world.without_pace().await;
    let mut phones = Vec::new();
    for number in 0..20 {
        phones.push(world.phone(&format!("iphone-{number}")).ios().follows(&["order:42"]).await);
    }
    world.publish("order:42").await;
    let alert = world.alert("order:42", "on its way").await["position"].as_i64().unwrap();
    world.settle().await;
    for phone in phones {
        assert_eq!(phone.heads(), [alert], "it tells of the silent news as well");
    }
}

#[tokio::test]
async fn once_the_stored_alert_is_fetched_silent_pushes_go_again() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.alert("order:42", "on its way").await;
    world.settle().await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
    // A page of one: the alert is read, what came after it is not.
    let page = phone.get(&format!("/v1/sync?after={}&limit=1", phone.cursor())).await.expect(200);
    assert_eq!(page["has_more"], true);
    world.settle().await;
    assert_eq!(phone.received(), 2);
}
