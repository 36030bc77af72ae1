//! Device tokens: lost answers, old ones that end, logout (contract §4).

use std::time::Duration;

use reqwest::Method;

use crate::support::{phone::Phone, world::World};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

async fn knows(phone: &Phone<'_>) -> bool {
    match phone.get("/v1/sync?peek=true").await.status {
        200 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_lost_answer_does_not_lock_the_phone_out() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let lost = world.phone("pixel").registers().await;
    world.clock.advance(DAY);
    assert!(knows(&phone).await, "nobody has used the newer one");
    assert!(knows(&lost).await);
    world.clock.advance(MINUTE * 5 - Duration::from_millis(1));
    assert!(knows(&phone).await);
    world.clock.advance(Duration::from_millis(1));
    assert!(!knows(&phone).await, "five minutes after the newer one was first used");
    assert!(knows(&lost).await);
    world.clock.advance(DAY * 90);
    assert!(knows(&lost).await, "the newest one has no end");
}

#[tokio::test]
async fn four_older_tokens_stay_valid() {
    let world = World::start().await;
    let mut phones = Vec::new();
    for _ in 0..6 {
        phones.push(world.phone("pixel").registers().await);
    }
    assert!(!knows(&phones[0]).await, "one too many");
    for phone in &phones[1..] {
        assert!(knows(phone).await);
    }
}

#[tokio::test]
async fn an_older_token_ends_after_thirty_days() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let lost = world.phone("pixel").registers().await;
    world.clock.advance(DAY * 30 - Duration::from_millis(1));
    assert!(knows(&phone).await);
    world.tidy_after(Duration::from_millis(2)).await;
    assert!(!knows(&phone).await);
    assert!(knows(&lost).await);
}

#[tokio::test]
async fn a_second_use_does_not_move_the_end() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let newer = world.phone("pixel").registers().await;
    assert!(knows(&newer).await);
    world.clock.advance(MINUTE * 4);
    assert!(knows(&newer).await && knows(&phone).await);
    world.clock.advance(MINUTE);
    assert!(!knows(&phone).await);
}

#[tokio::test]
async fn logout_and_another_user_end_all_tokens_at_once() {
    let world = World::start().await;
    let first = world.phone("pixel").user("17").registers().await;
    let second = world.phone("pixel").user("17").registers().await;
    let other = world.phone("pixel").user("18").registers().await;
    assert!(!knows(&first).await && !knows(&second).await && knows(&other).await);
    let again = world.phone("pixel").registers().await;
    again.call(Method::DELETE, "/v1/devices/me", None).await.expect(204);
    assert!(!knows(&other).await && !knows(&again).await);
}
