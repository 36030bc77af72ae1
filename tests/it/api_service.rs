//! The service's own routes, and what every answer has in common (contract §§5, 9).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::{OPERATOR_KEY, World};

#[tokio::test]
async fn the_limits_are_the_contracts() {
    let world = World::start().await;
    let limits = world.send(world.http.get(world.url("/v1/limits"))).await.expect(200);
    for (name, value) in [
        ("request_body_bytes", 256 * 1024),
        ("data_bytes", 64 * 1024),
        ("batch_events", 100),
        ("push_bytes", 4096),
        ("page_events", 500),
        ("page_bytes", 1024 * 1024),
        ("wait_s", 25),
        ("explicit_feeds_per_device", 200),
        ("idempotency_key_chars", 255),
        ("user_chars", 120),
    ] {
        assert_eq!(limits[name], value, "{name}");
    }
}

#[tokio::test]
async fn health_and_readiness_need_no_key_and_detail_does() {
    let world = World::start().await;
    let ask = async |path: &str| world.send(world.http.get(world.url(path))).await;
    assert_eq!(ask("/healthz").await.expect(200)["status"], "ok");
    assert_eq!(ask("/readyz").await.expect(200), json!({"status": "ready"}));
    let detail = world.call(Method::GET, "/readyz", OPERATOR_KEY, None).await.expect(200);
    assert_eq!([&detail["status"], &detail["store"]], ["ready", "ok"]);
    assert_eq!(world.get("/readyz").await.expect(200), json!({"status": "ready"}), "an app key sees no detail");
}

#[tokio::test]
async fn every_problem_has_a_page() {
    let world = World::start().await;
    for slug in [
        "unauthorized",
        "forbidden",
        "missing-scope",
        "not-found",
        "method-not-allowed",
        "malformed-json",
        "invalid",
        "too-large",
        "trigger-too-large",
        "idempotency-key-reused",
        "credential-overlap",
        "cursor-invalid",
        "cursor-expired",
        "cursor-ahead",
        "epoch-changed",
        "rate-limited",
        "busy",
        "internal",
    ] {
        let page = world.send(world.http.get(world.url(&format!("/problems/{slug}")))).await;
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{slug}");
        assert!(page.expect(200).as_str().unwrap().contains(slug));
    }
    assert_eq!(world.get("/problems/no-such").await.problem(404), "not-found");
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let big = "x".repeat(300_000);
    let answers = [
        world.get("/healthz").await,
        world.get("/nowhere").await,
        world.call(Method::GET, "/v1/devices", "rk_unknown", None).await,
        world.call(Method::PUT, "/v1/events", &world.key, None).await,
        world.post_text("/v1/events", &[], big).await,
        world.post_text("/v1/events", &[], "{").await,
        phone.poll_with(&[("prefer", "return=minimal")]).await,
    ];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 404, 401, 405, 413, 400, 204]);
    let mut ids: Vec<_> = answers.iter().map(|answer| answer.header("x-request-id").unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), answers.len());
}

#[tokio::test]
async fn a_sound_request_id_is_kept_and_an_odd_one_replaced() {
    let world = World::start().await;
    let echo = async |id: &str| {
        let request = world.http.get(world.url("/nowhere")).header("x-request-id", id);
        world.send(request).await.header("x-request-id").unwrap().to_owned()
    };
    let sound = "7d9f-backend/42";
    assert_eq!(echo(sound).await, sound);
    let longest = "i".repeat(128);
    assert_eq!(echo(&longest).await, longest);
    for odd in ["i".repeat(129), "two words".to_owned(), String::new()] {
        let id = echo(&odd).await;
        assert!(id != odd && !id.is_empty() && id.len() <= 128, "{odd:?} became {id:?}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_which_are_right() {
    let world = World::start().await;
    for (method, path) in [
        (Method::DELETE, "/v1/sync"),
        (Method::PUT, "/v1/events"),
        (Method::POST, "/v1/devices/me"),
        (Method::POST, "/healthz"),
        (Method::PUT, "/v1/apps"),
    ] {
        let answer = world.call(method, path, &world.key, None).await;
        assert_eq!(answer.problem(405), "method-not-allowed", "{path}");
        assert!(answer.header("allow").is_some_and(|allow| !allow.is_empty()), "{path}: RFC 9110, 15.5.6");
        assert!(answer.body["detail"].as_str().unwrap().contains("Allow"), "{}", answer.body);
    }
    assert_eq!(world.get("/v1/no/such").await.problem(404), "not-found");
}

/// Takes out what differs from run to run.
fn steady(mut value: Value) -> Value {
    const CHANGING: [&str; 10] = [
        "cursor",
        "next",
        "url",
        "device_token",
        "token_fingerprint",
        "for",
        "duration_ms",
        "provider_id",
        "bytes",
        "as_of",
    ];
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                *member = if CHANGING.contains(&name.as_str()) { json!("[…]") } else { steady(member.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = steady(item.take())),
        Value::String(text) => {
            for prefix in ["dev_", "evt_", "wake_", "att_", "app_"] {
                if let Some(start) = text.find(prefix).filter(|start| text.len() - start == prefix.len() + 26) {
                    text.truncate(start + prefix.len());
                    text.push('…');
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    value
}

#[tokio::test]
async fn the_answers_look_like_this() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").with("app_version", "4.2.0").follows(&["order:42"]).await;
    let event = json!({"feed": "order:42", "type": "order.updated", "key": "order/42", "data": {"status": "packed"},
        "wake": {"class": "alert", "ttl_s": 3600, "alert": {"title": "Order 42"}}});
    let event = world.post("/v1/events", event).await.expect(202);
    world.settle().await;
    let status = world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200);
    let attempt = world.attempts().await.remove(0);
    let wrong = world.post("/v1/events", json!({"feed": "order 42", "type": ""})).await.expect(422);

    insta::assert_json_snapshot!("device", steady(phone.registered.clone()));
    insta::assert_json_snapshot!("event", steady(status));
    insta::assert_json_snapshot!("page", steady(phone.sync().await.0));
    insta::assert_json_snapshot!("attempt", steady(attempt));
    insta::assert_json_snapshot!("problem", steady(wrong));
}
