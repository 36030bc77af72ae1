//! Idempotency-Key: one request, one effect (contract §5, Events).

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::world::World;

const BODY: &str = r#"{"feed":"order:42","type":"t","data":{"n":1}}"#;
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let key = [("idempotency-key", "a")];
    let first = world.post_text("/v1/events", &key, BODY).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    world.settle().await;
    phone.sync().await;
    world.clock.advance(Duration::from_secs(60));
    let again = world.post_text("/v1/events", &key, BODY).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.expect(202), first.expect(202));
    assert!(phone.sync().await.events().is_empty());
    world.settle().await;
    assert_eq!(phone.received(), 1);

    let batch = format!("[{BODY},{BODY}]");
    let first = world.post_text("/v1/events", &[("idempotency-key", "b")], batch.as_str()).await.expect(202);
    let again = world.post_text("/v1/events", &[("idempotency-key", "b")], batch.as_str()).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(202), first);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let world = World::start().await;
    let key = [("idempotency-key", "a")];
    world.post_text("/v1/events", &key, BODY).await.expect(202);
    for body in [BODY.replace('1', "2"), format!("{BODY} "), format!("[{BODY}]")] {
        let answer = world.post_text("/v1/events", &key, body).await;
        assert_eq!(answer.problem(422), "idempotency-key-reused");
    }
    world.post_text("/v1/events", &key, BODY).await.expect(202);
    assert_eq!(world.post_text("/v1/events", &[("idempotency-key", "b")], "{}").await.problem(422), "invalid");
    world.post_text("/v1/events", &[("idempotency-key", "b")], BODY).await.expect(202);
}

#[tokio::test]
async fn a_key_has_1_to_255_characters() {
    let world = World::start().await;
    let longest = "k".repeat(255);
    world.post_text("/v1/events", &[("idempotency-key", &longest)], BODY).await.expect(202);
    for key in [String::new(), "k".repeat(256)] {
        let answer = world.post_text("/v1/events", &[("idempotency-key", &key)], BODY).await;
        assert_eq!(answer.problem(422), "invalid", "{} characters", key.len());
    }
}

#[tokio::test]
async fn twins_in_flight_make_one_event() {
    let world = World::start().await;
    let key = [("idempotency-key", "twin")];
    let twins = (0..8).map(|_| world.post_text("/v1/events", &key, BODY));
    let answers = futures_util::future::join_all(twins).await;
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == Some("true")).count();
    assert_eq!(replayed, 7);
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body));
    let events = world.get("/v1/feeds/order:42/events").await.expect(200);
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day_and_belongs_to_one_app() {
    let world = World::start().await;
    let key = [("idempotency-key", "a")];
    let first = world.post_text("/v1/events", &key, BODY).await.expect(202);
    world.tidy_after(DAY - Duration::from_secs(1)).await;
    assert_eq!(world.post_text("/v1/events", &key, BODY).await.expect(202)["id"], first["id"]);
    world.tidy_after(Duration::from_secs(2)).await;
    assert_ne!(world.post_text("/v1/events", &key, BODY).await.expect(202)["id"], first["id"]);

    let (_, rival) = world.new_app("rival").await;
    let request = world.http.request(Method::POST, world.url("/v1/events")).bearer_auth(rival);
    let other = json!({"feed": "order:42", "type": "other"});
    let answer = world.send(request.header("idempotency-key", "a").json(&other)).await;
    assert_eq!(answer.header("idempotency-replayed"), None);
    answer.expect(202);
}
