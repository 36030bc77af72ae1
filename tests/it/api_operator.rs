//! The operator: apps, keys, and who may call what (contract §§4–5).

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::world::{OPERATOR_KEY, World};

#[tokio::test]
async fn an_app_is_made_listed_changed_and_deleted() {
    let world = World::start().await;
    world.clock.advance(Duration::from_millis(1));
    let made = world.operator(Method::POST, "/v1/apps", json!({"name": "café"})).await.expect(201);
    assert!(made["id"].as_str().unwrap().starts_with("app_"));
    assert_eq!(made["settings"]["wake"]["ios"]["background"]["budget"], json!({"burst": 2, "refill_s": 1800}));
    let path = format!("/v1/apps/{}", made["id"].as_str().unwrap());
    assert_eq!(world.operator(Method::GET, &path, None).await.expect(200), made);

    let first = world.operator(Method::GET, "/v1/apps?limit=1", None).await.expect(200);
    assert_eq!(first["items"][0]["id"], world.app);
    let next = format!("/v1/apps?limit=1&cursor={}", first["next"].as_str().unwrap());
    assert_eq!(world.operator(Method::GET, &next, None).await.expect(200)["items"], json!([made]));
    assert_eq!(world.operator(Method::GET, "/v1/apps", None).await.expect(200)["next"], json!(null));

    world.operator(Method::DELETE, &path, None).await.expect(204);
    world.operator(Method::GET, &path, None).await.expect(404);
    world.operator(Method::PATCH, &path, json!({"name": "x"})).await.expect(404);
    world.operator(Method::DELETE, &path, None).await.expect(404);
}

#[tokio::test]
async fn settings_are_merged_and_null_takes_them_back() {
    let world = World::start().await;
    let path = format!("/v1/apps/{}", world.app);
    let before = world.operator(Method::GET, &path, None).await.expect(200)["settings"].clone();
    let patch = async |settings: serde_json::Value| {
        let body = json!({"settings": settings});
        world.operator(Method::PATCH, &path, body).await.expect(200)["settings"].clone()
    };
    patch(json!({"confirm": "ack", "wake": {"ios": {"background": {"gap_s": 5}}}})).await;
    let after = patch(json!({"retention": {"events_days": 3}})).await;
    assert_eq!(after["confirm"], "ack");
    assert_eq!(after["wake"]["ios"]["background"]["gap_s"], 5);
    assert_eq!(after["wake"]["ios"]["background"]["rewake_s"], json!([1800, 7200, 21600]));
    assert_eq!(after["retention"], json!({"events_days": 3, "attempts_days": 30}));
    assert_eq!(patch(json!({"confirm": null})).await["confirm"], "fetch");
    assert_eq!(patch(json!(null)).await, before);
}

#[tokio::test]
async fn a_wrong_setting_is_named() {
    let world = World::start().await;
    let path = format!("/v1/apps/{}", world.app);
    for (settings, pointer) in [
        (json!({"wake": {"ios": {"background": {"gap": 5}}}}), "/settings/wake/ios/background/gap"),
        (json!({"colour": "red"}), "/settings/colour"),
        (json!({"confirm": "perhaps"}), "/settings/confirm"),
        (
            json!({"wake": {"android": {"alert": {"budget": {"burst": 0}}}}}),
            "/settings/wake/android/alert/budget/burst",
        ),
        (json!({"poll_after_s": {"healthy": "soon"}}), "/settings/poll_after_s/healthy"),
        (json!([]), "/settings"),
    ] {
        let answer = world.operator(Method::PATCH, &path, json!({"settings": settings})).await;
        assert_eq!(answer.pointers(422), [pointer], "{settings}");
    }
    let answer = world.operator(Method::PATCH, &path, json!({"nmae": "x"})).await;
    assert_eq!(answer.pointers(422), ["/nmae"]);
    assert!(answer.body["detail"].as_str().unwrap().contains("nmae"));
    let answer = world.operator(Method::POST, "/v1/apps", json!({})).await;
    assert_eq!(answer.pointers(422), ["/name"]);
    let answer = world.operator(Method::PATCH, &path, json!({"name": null})).await;
    assert_eq!(answer.pointers(422), ["/name"]);
}

#[tokio::test]
async fn a_deleted_app_stops_at_once() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.operator(Method::DELETE, &format!("/v1/apps/{}", world.app), None).await.expect(204);
    assert_eq!(world.get("/v1/devices").await.problem(401), "unauthorized");
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized");
    world.settle().await;
    assert_eq!(phone.received(), 0);
    world.tidy_after(Duration::from_secs(1)).await;
    world.settle().await;
    world.operator(Method::GET, &format!("/v1/apps/{}/keys", world.app), None).await.expect(404);
}

#[tokio::test]
async fn a_key_is_shown_once_expires_and_ends() {
    let world = World::start().await;
    world.clock.advance(Duration::from_millis(1));
    let keys = format!("/v1/apps/{}/keys", world.app);
    let expires_at = (world.clock.now() + Duration::from_secs(3600)).to_string();
    let new = json!({"name": "till", "scopes": ["devices:read"], "expires_at": expires_at});
    let made = world.operator(Method::POST, &keys, new).await.expect(201);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("rk_"));
    let listed = world.operator(Method::GET, &keys, None).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("rk_") && !listed.to_string().contains("secret"));
    assert_eq!(listed["items"][1]["expires_at"], expires_at);

    let devices = async || world.call(Method::GET, "/v1/devices", secret, None).await;
    devices().await.expect(200);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(devices().await.problem(401), "unauthorized");

    let id = listed["items"][0]["id"].as_str().unwrap();
    world.operator(Method::DELETE, &format!("{keys}/{id}"), None).await.expect(204);
    assert_eq!(world.get("/v1/devices").await.problem(401), "unauthorized");
    world.operator(Method::DELETE, &format!("{keys}/{id}"), None).await.expect(404);
    for (new, pointer) in [
        (json!({"name": "k", "scopes": []}), "/scopes"),
        (json!({"name": "k", "scopes": ["all"]}), "/scopes/0"),
        (json!({"name": "", "scopes": ["admin"]}), "/name"),
        (json!({"name": "k", "scopes": ["admin"], "expires_at": expires_at}), "/expires_at"),
        (json!({"name": "k", "scopes": ["admin"], "expires_at": "tomorrow"}), "/expires_at"),
    ] {
        assert_eq!(world.operator(Method::POST, &keys, new).await.pointers(422), [pointer]);
    }
}

#[tokio::test]
async fn each_caller_has_its_own_routes() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&[]).await;
    assert_eq!(world.get("/v1/apps").await.problem(403), "forbidden");
    assert_eq!(world.post("/v1/apps", json!({"name": "mine"})).await.problem(403), "forbidden");
    for path in ["/v1/apps", "/v1/devices", "/v1/attempts", "/v1/credentials", &format!("/v1/devices/{}", phone.id)] {
        assert_eq!(phone.get(path).await.problem(403), "forbidden", "{path}");
    }
    let event = json!({"feed": "order:42", "type": "t"});
    assert_eq!(phone.call(Method::POST, "/v1/events", event).await.problem(403), "forbidden");
    for path in ["/v1/sync", "/v1/sync/snapshot"] {
        assert_eq!(world.get(path).await.problem(403), "forbidden", "{path}");
    }
    assert_eq!(world.patch("/v1/devices/me", json!({})).await.problem(403), "forbidden");
    assert_eq!(world.delete("/v1/devices/me").await.problem(403), "forbidden");
    assert_eq!(phone.get("/v1/devices/me").await.problem(403), "forbidden");
    assert_eq!(world.operator(Method::GET, "/v1/devices", None).await.problem(403), "forbidden");
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let world = World::start().await;
    let admin = world.new_key(&world.app, &["admin"]).await;
    for (method, path, scope) in [
        (Method::POST, "/v1/events", "events:write"),
        (Method::GET, "/v1/feeds/order:42/events", "events:read"),
        (Method::POST, "/v1/devices", "devices:write"),
        (Method::GET, "/v1/devices", "devices:read"),
        (Method::GET, "/v1/credentials", "credentials:write"),
    ] {
        let others = ["events:write", "events:read", "devices:write", "devices:read", "credentials:write"];
        let others: Vec<_> = others.into_iter().filter(|other| *other != scope).collect();
        let key = world.new_key(&world.app, &others).await;
        let event = json!({"feed": "order:42", "type": "t"});
        let phone = world.phone("pixel").body();
        let body = (method == Method::POST).then(|| if path == "/v1/events" { event } else { phone });
        let answer = world.call(method.clone(), path, &key, body.clone()).await;
        assert_eq!(answer.problem(403), "missing-scope", "{path}");
        assert!(answer.body["detail"].as_str().unwrap().contains(scope), "{}", answer.body);
        assert!(world.call(method, path, &admin, body).await.status < 300, "admin has all scopes");
    }
    let writer = world.new_key(&world.app, &["events:write"]).await;
    let event = world.publish("order:42").await;
    let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
    world.call(Method::GET, &path, &writer, None).await.expect(200);
}

#[tokio::test]
async fn what_belongs_to_another_app_does_not_exist() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let event = world.publish("order:42").await;
    let (other, key) = world.new_app("rival").await;
    let device = format!("/v1/devices/{}", phone.id);
    let follow = format!("{device}/feeds/order:43");
    let event = format!("/v1/events/{}", event["id"].as_str().unwrap());
    let event_attempts = format!("{event}/attempts");
    for (method, path) in [
        (Method::GET, device.as_str()),
        (Method::DELETE, &device),
        (Method::PUT, &follow),
        (Method::DELETE, &follow),
        (Method::GET, &event),
        (Method::GET, &event_attempts),
        (Method::GET, "/v1/credentials/fcm"),
        (Method::DELETE, "/v1/credentials/apns"),
    ] {
        assert_eq!(world.call(method, path, &key, None).await.problem(404), "not-found", "{path}");
    }
    let patch = Some(json!({"os": "x"}));
    assert_eq!(world.call(Method::PATCH, &device, &key, patch).await.problem(404), "not-found");
    let keys = world.operator(Method::GET, &format!("/v1/apps/{}/keys", world.app), None).await.expect(200);
    let foreign_key = format!("/v1/apps/{other}/keys/{}", keys["items"][0]["id"].as_str().unwrap());
    assert_eq!(world.operator(Method::DELETE, &foreign_key, None).await.problem(404), "not-found");
    assert_eq!(phone.sync().await.feeds(), ["order:42"], "nothing happened to it");
    let theirs = world.call(Method::GET, "/v1/feeds/order:42/events", &key, None).await.expect(200);
    assert_eq!(theirs["events"], json!([]));
}

#[tokio::test]
async fn who_cannot_say_who_they_are_is_refused() {
    let world = World::start().await;
    let ask = async |header: Option<&str>| {
        let mut request = world.http.get(world.url("/v1/devices"));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        world.send(request).await
    };
    let basic = format!("Basic {}", world.key);
    for header in [None, Some(basic.as_str()), Some("Bearer"), Some("Bearer "), Some("rk_1"), Some("Bearer dt_unknown")]
    {
        let answer = ask(header).await;
        assert_eq!(answer.problem(401), "unauthorized", "{header:?}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{header:?}");
    }
    ask(Some(&format!("bearer {}", world.key))).await.expect(200);
    let in_query = world.http.get(world.url(&format!("/v1/devices?access_token={}", world.key)));
    assert_eq!(world.send(in_query).await.problem(401), "unauthorized");
}

#[tokio::test]
async fn guessing_is_slowed_down_after_ten_failures() {
    let world = World::start().await;
    let guess = async |n: u32| world.call(Method::GET, "/v1/devices", &format!("rk_guess-{n}"), None).await;
    for n in 0..10 {
        assert_eq!(guess(n).await.problem(401), "unauthorized");
    }
    let answer = guess(10).await;
    assert_eq!(answer.problem(429), "rate-limited");
    assert!((1..=60).contains(&answer.header("retry-after").unwrap().parse::<u32>().unwrap()));
    world.call(Method::GET, "/v1/apps", OPERATOR_KEY, None).await.expect(200);
}
