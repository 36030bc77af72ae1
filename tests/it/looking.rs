//! Looking on: what tools and dashboards ask beside the routes of backends and phones.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::{OPERATOR_KEY, World};

/// A request of the operator's in the stead of an app.
async fn as_operator(world: &World, app: &str, path: &str) -> (u16, Value) {
    let request = world.http.get(world.url(path)).bearer_auth(OPERATOR_KEY);
    let answer = request.header("Reveille-App", app).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_key_says_whose_it_is() {
    let world = World::start().await;
    let me = world.get("/v1/me").await.expect(200);
    assert_eq!([&me["caller"], &me["app"]["id"], &me["app"]["name"]], ["app", &*world.app, "shop"]);
    assert_eq!(me["key"]["scopes"].as_array().unwrap().len(), 6);
    assert_eq!(me["key"]["secret"], Value::Null, "the key is shown once, when it is made");
    let me = world.call(Method::GET, "/v1/me", OPERATOR_KEY, None).await.expect(200);
    assert_eq!(me, json!({"caller": "operator", "app": null}));
    let phone = world.phone("pixel").follows(&[]).await;
    assert_eq!(phone.get("/v1/me").await.problem(403), "forbidden");
}

#[tokio::test]
async fn the_operator_may_look_in_the_stead_of_an_app() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let (other, _) = world.new_app("other").await;
    assert_eq!(world.call(Method::GET, "/v1/devices", OPERATOR_KEY, None).await.problem(403), "forbidden");
    let (status, devices) = as_operator(&world, &world.app, "/v1/devices").await;
    assert_eq!((status, &devices["items"][0]["id"]), (200, &json!(phone.id)));
    let (status, devices) = as_operator(&world, &other, "/v1/devices").await;
    assert_eq!((status, devices["items"].as_array().unwrap().len()), (200, 0), "its own devices only");
    let (status, me) = as_operator(&world, &other, "/v1/me").await;
    assert_eq!((status, &me["app"]["name"]), (200, &json!("other")));
    for unknown in ["app_01m4y3vkk5f5r9vts0xg5mfh1q", "shop", ""] {
        let (status, problem) = as_operator(&world, unknown, "/v1/devices").await;
        assert_eq!((status, &problem["type"]), (404, &json!("/problems/not-found")), "{unknown:?}");
    }
    // It is still the operator.
    assert_eq!(as_operator(&world, &other, "/v1/apps").await.0, 200);
    // An app's key stays that app's.
    let request = world.http.get(world.url("/v1/devices")).bearer_auth(&world.key);
    let answer: Value = request.header("Reveille-App", &other).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn events_are_listed_newest_first() {
    let world = World::start().await;
    for order in [1, 2, 1, 2, 1] {
        world.publish(&format!("order:{order}")).await;
    }
    let all = world.get("/v1/events").await.expect(200);
    let feeds: Vec<_> = all["items"].as_array().unwrap().iter().map(|event| event["feed"].as_str().unwrap()).collect();
    assert_eq!(feeds, ["order:1", "order:2", "order:1", "order:2", "order:1"]);
    assert_eq!(all["next"], Value::Null);
    let first = world.get("/v1/events?feed=order:1&limit=2").await.expect(200);
    let rest = world.get(&format!("/v1/events?feed=order:1&limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    let rest = rest.expect(200);
    let positions = |page: &Value| -> Vec<i64> {
        page["items"].as_array().unwrap().iter().map(|event| event["position"].as_i64().unwrap()).collect()
    };
    let all_of_one = [positions(&first), positions(&rest)].concat();
    assert_eq!(all_of_one.len(), 3);
    assert!(all_of_one.is_sorted_by(|newer, older| newer > older), "{all_of_one:?}");
    assert_eq!(world.get("/v1/events?feed=order:9").await.expect(200), json!({"items": [], "next": null}));
    for (query, word) in [("feed=%21", "feed"), ("limit=501", "limit"), ("colour=red", "colour")] {
        let answer = world.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.problem(422), "invalid", "{query}");
        assert!(answer.body["detail"].as_str().unwrap().contains(word), "{query}: {}", answer.body["detail"]);
    }
    assert_eq!(world.get("/v1/events?cursor=x").await.problem(400), "cursor-invalid");
    let blind = world.new_key(&world.app, &["devices:read"]).await;
    assert_eq!(world.call(Method::GET, "/v1/events", &blind, None).await.problem(403), "missing-scope");
}

#[tokio::test]
async fn a_page_of_large_events_is_short_and_the_next_goes_on() {
    let world = World::start().await;
    let large = json!({"feed": "order:42", "type": "t", "data": "x".repeat(60_000), "wake": {"class": "none"}});
    for _ in 0..10 {
        world.post("/v1/events", json!([large, large, large])).await.expect(202);
    }
    let (mut pages, mut positions, mut cursor) = (0, Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/events?cursor={cursor}")).await.expect(200);
        assert!(page.to_string().len() < 1_100_000);
        pages += 1;
        positions.extend(page["items"].as_array().unwrap().iter().map(|event| event["position"].as_i64().unwrap()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!((pages, positions.len()), (2, 30), "17 of them are a page of 1 MiB");
    assert!(positions.is_sorted_by(|newer, older| newer > older), "{positions:?}");
}

#[tokio::test]
async fn what_happens_in_an_app_is_told_newest_first() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let began = world.clock.now();
    world.clock.advance(Duration::from_secs(1));
    world.publish("order:42").await;
    world.settle().await;
    world.clock.advance(Duration::from_secs(1));
    phone.get("/v1/sync").await.expect(200);
    let all = world.get(&format!("/v1/activity?since={began}")).await.expect(200);
    let rows = all["items"].as_array().unwrap();
    let kinds: Vec<_> = rows.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["polled", "attempt", "event", "registered"]);
    for row in rows.iter().filter(|row| row["kind"] != "event") {
        assert_eq!([&row["device"], &row["installation_id"]], [&*phone.id, "pixel"], "{row:#}");
    }
    assert!(rows.iter().all(|row| row["id"].is_string() && row["says"].is_string() && row["at"].is_string()));
    assert_eq!(rows[2]["device"], Value::Null, "an event is for all that follow its feed");
    // The device's own timeline has the same rows.
    let own = world.get(&format!("/v1/devices/{}/timeline", phone.id)).await.expect(200);
    let ids = |page: &Value| -> Vec<String> {
        let rows = page["items"].as_array().unwrap().iter().filter(|row| row["kind"] != "state");
        rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&own), ids(&all));
    // Page by page, and no further back than asked.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/activity?limit=1&cursor={cursor}")).await.expect(200);
        paged.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(paged, ids(&all));
    let late = world.get(&format!("/v1/activity?since={}", world.clock.now())).await.expect(200);
    assert_eq!((ids(&late).len(), &late["next"]), (1, &Value::Null));
    // Others' doings are none of its business.
    let (_, other) = world.new_app("other").await;
    let others = world.call(Method::GET, "/v1/activity", &other, None).await.expect(200);
    assert_eq!(others, json!({"items": [], "next": null}));
    assert_eq!(world.get("/v1/activity?cursor=nonsense").await.problem(400), "cursor-invalid");
    let blind = world.new_key(&world.app, &["events:write"]).await;
    assert_eq!(world.call(Method::GET, "/v1/activity", &blind, None).await.problem(403), "missing-scope");
}

#[tokio::test]
async fn an_attempt_that_is_under_way_shows_and_is_complete_later() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let (_, calls) = world.relay().dispatcher().look().await.unwrap();
    let row = world.get("/v1/activity?limit=1").await.expect(200)["items"][0].clone();
    assert_eq!([&row["kind"], &row["outcome"], &row["device"]], [&json!("attempt"), &Value::Null, &json!(phone.id)]);
    world.relay().dispatcher().start(calls);
    world.settle().await;
    let done = world.get("/v1/activity?limit=1").await.expect(200)["items"][0].clone();
    assert_eq!([&done["id"], &done["outcome"]], [&row["id"], &json!("accepted")]);
}

#[tokio::test]
async fn the_dashboard_and_the_documentation_come_from_the_relay_alone() {
    let world = World::start().await;
    let get = async |path: &str| world.http.get(world.url(path)).send().await.unwrap();
    let page = get("/").await;
    assert_eq!((page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let tag = page.headers()["etag"].to_str().unwrap().to_owned();
    let again = world.http.get(world.url("/")).header("If-None-Match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let page = page.text().await.unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing comes from elsewhere:\n{page}");
    for (at, _) in page.match_indices("dashboard/") {
        let file = page[at..].split(|c: char| !c.is_ascii_alphanumeric() && !"._-/".contains(c)).next().unwrap();
        assert_eq!(get(&format!("/{file}")).await.status(), 200, "{file}");
    }
    let script = get("/dashboard/main.js").await;
    assert_eq!(script.headers()["content-type"], "text/javascript");
    assert_eq!(get("/dashboard/../Cargo.toml").await.status(), 404);
    assert_eq!(get("/dashboard/nothing.js").await.status(), 404);
    let description: Value = get("/openapi.json").await.json().await.unwrap();
    assert_eq!(description["openapi"], "3.1.0");
    let docs = get("/docs").await;
    assert_eq!((docs.status().as_u16(), docs.url().path()), (200, "/docs/"));
    let docs = docs.text().await.unwrap();
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert!(docs.contains(file), "{docs}");
        assert_eq!(get(&format!("/docs/{file}")).await.status(), 200, "{file}");
    }
    assert!(get("/docs/swagger-initializer.js").await.text().await.unwrap().contains("../openapi.json"));
}

#[tokio::test]
async fn statistics_step_by_step_add_up() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let began = world.clock.now();
    for _ in 0..4 {
        world.publish("order:42").await;
        world.settle().await;
        phone.get("/v1/sync").await.expect(200);
        world.later(Duration::from_secs(1800)).await;
    }
    let path = format!("/v1/stats?since={began}");
    assert_eq!(world.get(&path).await.expect(200)["series"], Value::Null, "only if asked for");
    let stats = world.get(&format!("{path}&step_s=1800")).await.expect(200);
    let steps = stats["series"].as_array().unwrap();
    let wakes = |figures: &Value| figures["transports"][0]["wakes"].as_i64().unwrap();
    assert_eq!(steps.iter().map(wakes).collect::<Vec<_>>(), [1, 1, 1, 1]);
    assert_eq!(wakes(&stats), 4);
    assert_eq!(steps[0]["at"], stats["since"]);
    let whole = world.get(&format!("{path}&step_s=86400")).await.expect(200);
    assert_eq!(whole["series"][0]["transports"], whole["transports"]);
    for step_s in ["0", "899", "901", "-900", "x"] {
        assert_eq!(world.get(&format!("{path}&step_s={step_s}")).await.problem(422), "invalid", "{step_s}");
    }
    let month = world.clock.now() - Duration::from_secs(30 * 86_400);
    let fine = world.get(&format!("/v1/stats?since={month}&step_s=900")).await;
    assert_eq!(fine.problem(422), "invalid");
    assert!(fine.body["detail"].as_str().unwrap().contains("720"), "{}", fine.body["detail"]);
    world.get(&format!("/v1/stats?since={month}&step_s=3600")).await.expect(200);
}
