//! Polls that wait: `Prefer: wait` (RFC 7240) on both canonical endpoints.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::support::{
    phone::Phone,
    served::{Served, within},
    world::{Answer, World},
};

const SOON: Duration = Duration::from_secs(10);

/// Polls, waiting so long for something new.
async fn wait(phone: &Phone<'_>, seconds: u32) -> Answer {
    phone.poll_with(&[("prefer", &format!("wait={seconds}"))]).await
}

/// Waits until so many connections of this kind are open.
async fn open(world: &World, channel: &str, connections: usize) {
    let line = format!("reveille_live_connections{{channel=\"{channel}\"}} {connections}\n");
    within(SOON, &line, async || metrics(world).await.contains(&line).then_some(())).await;
}

async fn metrics(world: &World) -> String {
    let operator = crate::support::world::OPERATOR_KEY;
    world.call(Method::GET, "/metrics", operator, None).await.body.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_poll_that_waits_is_answered_when_there_is_something() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let began = Instant::now();
    let (answer, event) = tokio::join!(wait(&phone, 25), async {
        open(&world, "long_poll", 1).await;
        world.publish("order:41").await;
        world.publish("order:42").await
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(answer.header("preference-applied"), Some("wait=25"));
    let page = answer.expect(200);
    let events = page["events"].as_array().unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["id"], event["id"]);
    open(&world, "long_poll", 0).await;
    assert_eq!(phone.levels().await[0], page["through"].as_i64().unwrap());
}

#[tokio::test]
async fn what_is_there_already_is_not_waited_for() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    world.publish("order:42").await;
    let page = wait(&phone, 25).await.expect(200);
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn where_nothing_comes_the_page_is_empty_and_as_new_as_can_be() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let began = Instant::now();
    let (answer, other) = tokio::join!(wait(&phone, 1), async {
        open(&world, "long_poll", 1).await;
        world.publish("order:41").await
    });
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let page = answer.expect(200);
    assert_eq!(page["events"], json!([]));
    assert_eq!(page["through"], other["position"]);

    let tag = phone.poll_with(&[]).await.headers["etag"].to_str().unwrap().to_owned();
    let unchanged = phone.poll_with(&[("prefer", "wait=1"), ("if-none-match", &tag)]).await;
    assert_eq!((unchanged.status, unchanged.header("preference-applied")), (304, Some("wait=1")));
    let minimal = phone.poll_with(&[("prefer", "return=minimal, wait=1")]).await;
    assert_eq!((minimal.status, minimal.header("preference-applied")), (204, Some("wait=1")));
}

#[tokio::test]
async fn who_has_the_page_is_told_when_it_changes() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let tag = phone.poll_with(&[]).await.headers["etag"].to_str().unwrap().to_owned();
    let headers = [("prefer", "wait=25"), ("if-none-match", tag.as_str())];
    let (answer, event) = tokio::join!(phone.poll_with(&headers), async {
        open(&world, "long_poll", 1).await;
        world.publish("order:42").await
    });
    assert_eq!(answer.expect(200)["events"][0]["id"], event["id"]);
}

#[tokio::test]
async fn a_feed_that_is_followed_meanwhile_is_news_and_so_is_what_comes_there() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&[]).await;
    phone.sync().await;
    let path = format!("/v1/devices/{}/feeds/order:42", phone.id);
    let (answer, _) = tokio::join!(wait(&phone, 25), async {
        open(&world, "long_poll", 1).await;
        world.put(&path, json!({})).await.expect(200);
    });
    assert_eq!(answer.expect(200)["events"][0]["type"], "reveille.followed");
    phone.sync().await;
    let (answer, event) = tokio::join!(wait(&phone, 25), async {
        open(&world, "long_poll", 1).await;
        world.publish("order:42").await
    });
    assert_eq!(answer.expect(200)["events"][0]["id"], event["id"]);
}

#[tokio::test]
async fn one_feed_is_waited_for_by_devices_and_by_backends() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let path = "/v1/feeds/order:42/events";
    let end = phone.get(path).await.expect(200)["next"].as_str().unwrap().to_owned();
    let ask = async |token: &str| {
        let request = world.http.get(world.url(&format!("{path}?after={end}"))).bearer_auth(token);
        world.send(request.header("prefer", "wait=25")).await
    };
    let (by_device, by_key, event) = tokio::join!(ask(&phone.device_token), ask(&world.key), async {
        open(&world, "long_poll", 2).await;
        world.publish("order:42").await
    });
    assert_eq!(by_device.expect(200)["events"][0]["id"], event["id"]);
    assert_eq!(by_key.expect(200)["events"][0]["id"], event["id"]);
}

#[tokio::test]
async fn a_newer_poll_of_the_same_caller_and_scope_ends_the_older_with_an_empty_page() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let (older, newer, event) = tokio::join!(
        wait(&phone, 25),
        async {
            open(&world, "long_poll", 1).await;
            wait(&phone, 25).await
        },
        async {
            within(SOON, "the older one is answered", async || {
                let begun = "reveille_live_connections_begun_total{channel=\"long_poll\"} 2\n";
                metrics(&world).await.contains(begun).then_some(())
            })
            .await;
            open(&world, "long_poll", 1).await;
            world.publish("order:42").await
        }
    );
    assert_eq!(older.expect(200)["events"], json!([]));
    assert_eq!(newer.expect(200)["events"][0]["id"], event["id"]);
}

#[tokio::test]
async fn a_client_that_has_vanished_leaves_nothing_behind() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let gone = tokio::time::timeout(Duration::from_millis(300), wait(&phone, 25)).await;
    assert!(gone.is_err());
    open(&world, "long_poll", 0).await;
}

#[tokio::test]
async fn who_is_revoked_waits_no_longer() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let began = Instant::now();
    let (answer, _) = tokio::join!(wait(&phone, 25), async {
        open(&world, "long_poll", 1).await;
        world.delete(&format!("/v1/devices/{}", phone.id)).await.expect(204)
    });
    assert_eq!(answer.problem(401), "unauthorized");

    let key = world.new_key(&world.app, &["events:read"]).await;
    let keys = format!("/v1/apps/{}/keys", world.app);
    let listed = world.operator(Method::GET, &keys, None).await.expect(200);
    let newest = listed["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let request = world.http.get(world.url("/v1/feeds/order:42/events")).bearer_auth(&key);
    let (answer, _) = tokio::join!(world.send(request.header("prefer", "wait=25")), async {
        open(&world, "long_poll", 1).await;
        world.operator(Method::DELETE, &format!("{keys}/{newest}"), None).await.expect(204)
    });
    assert_eq!(answer.problem(401), "unauthorized");
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn a_preference_is_only_a_preference() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    for odd in ["wait=soon", "wait=-1", "wait=0", "wait", "waiting=5", "respond-async"] {
        let answer = phone.poll_with(&[("prefer", odd)]).await;
        assert_eq!((answer.status, answer.header("preference-applied")), (200, None), "{odd}");
    }
    world.publish("order:42").await;
    let answer = wait(&phone, 4_000).await;
    assert_eq!(answer.header("preference-applied"), Some("wait=25"), "no longer than the limit");
}

#[tokio::test]
async fn where_too_many_wait_one_more_is_answered_at_once_and_told_to_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let sim = reveille::sim::Sim::start(reveille::sim::SimConfig::default()).await.unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let none = [("REVEILLE_LIVE_CONNECTIONS", "0")];
    let served = Served::with(folder.path(), &sim, port, 45, &none).await;
    let key = served.app_with_fcm(&sim).await;
    let device = json!({"installation_id": "phone-1", "transport": "fcm", "token": "token-1"});
    let token = served.post("/v1/devices", &key, device).await["device_token"].as_str().unwrap().to_owned();
    let get = async |path: &str| {
        let request = served.http.get(format!("{}{path}", served.url)).bearer_auth(&token);
        request.header("prefer", "wait=25").send().await.unwrap()
    };
    let next = served.get("/v1/sync", &token).await["next"].as_str().unwrap().to_owned();
    let plain = served.get(&format!("/v1/sync?after={next}"), &token).await;
    let answer = get(&format!("/v1/sync?after={next}")).await;
    assert_eq!(answer.headers().get("preference-applied"), None);
    let crowded: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(crowded["poll"]["after_s"].as_i64(), plain["poll"]["after_s"].as_i64().map(|after_s| after_s * 4));
    let stream = get("/v1/sync/stream").await;
    assert_eq!(stream.status(), 503);
    assert!(stream.headers().contains_key("retry-after"));
    let problem: serde_json::Value = stream.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/connections-full");
}
