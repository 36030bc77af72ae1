//! The process dies between any two operations of the walk of an event, and is started again: nothing accepted is lost, and nobody is
//! pushed to more than once too often.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use crate::support::{
    phone::hex_token,
    served::{Served, free_port, within},
    world::without_pace,
};

const LEASE_S: u64 = 3;
const SOON: Duration = Duration::from_secs(20);

/// Where it dies, and how many attempts nobody will ever hear of.
const POINTS: [(&str, usize); 10] = [
    ("accept: before the commit", 0),
    ("accept: after the commit", 0),
    ("claim: before the commit", 0),
    ("claim: after the commit", 1),
    ("send: before the call", 1),
    ("send: after the answer", 1),
    ("finish: before the commit", 1),
    ("finish: after the commit", 0),
    ("fetch: before the commit", 0),
    ("fetch: after the commit", 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_it_dies_the_walk_is_ended_after_a_restart() {
    stream::iter(POINTS).for_each_concurrent(4, |(point, unknown)| dies(point, unknown)).await;
}

async fn dies(point: &str, unknown: usize) {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let served = Served::start(folder.path(), &sim, port, LEASE_S).await;
    let key = served.app_with(&sim, without_pace()).await;
    let put = served.http.put(format!("{}/v1/credentials/apns", served.url)).bearer_auth(&key);
    assert_eq!(put.json(&sim.apns_credential()).send().await.unwrap().status(), 201);
    let iphone = json!({"installation_id": "iphone", "transport": "apns", "topic": "com.example.shop",
        "token": hex_token("iphone"), "feeds": ["news"]});
    let phone = served.post("/v1/devices", &key, iphone).await;
    let token = phone["device_token"].as_str().unwrap();
    drop(served);

    let served = Served::doomed(folder.path(), &sim, port, LEASE_S, point).await;
    within(SOON, point, async || {
        // Whoever has come so far goes on; whoever has died has done so where it was to.
        walk(&served, &sim, &key, token).await;
        served.is_dead().then_some(())
    })
    .await;
    drop(served);

    let served = Served::start(folder.path(), &sim, port, LEASE_S).await;
    let event = post(&served, &key).await.expect("the backend's repetition is answered");
    let status = format!("/v1/events/{}", event["id"].as_str().unwrap());
    let told = within(Duration::from_secs(LEASE_S) + SOON, point, async || {
        let status = served.get(&status, &key).await;
        let devices = &status["devices"];
        (status["state"] == "settled" && (devices["told"] == 1 || devices["fetched"] == 1)).then_some(status)
    })
    .await;
    assert_eq!(told["devices"]["targeted"], 1, "{point}: {told:#}");
    let page = served.get("/v1/sync", token).await;
    let news: Vec<&Value> = page["events"].as_array().unwrap().iter().filter(|entry| entry["feed"] == "news").collect();
    let news: Vec<_> = news.iter().filter(|entry| entry["type"] == "t").map(|entry| &entry["id"]).collect();
    assert_eq!(news, [&event["id"]], "{point}: it is read, and there is one of it");

    let wakes: Vec<String> = sim.pushes().iter().map(|push| push.trigger().unwrap()["wake"].clone()).collect();
    assert!((1..=2).contains(&wakes.len()) && wakes.iter().all(|wake| *wake == wakes[0]), "{point}: {wakes:?}");
    let attempts = served.get("/v1/attempts", &key).await;
    let outcomes: Vec<_> = attempts["items"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert!(outcomes.iter().all(|outcome| outcome.is_string()), "{point}: {outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "unknown").count(), unknown, "{point}: {outcomes:?}");
}

/// One event from the backend to the phone, as far as the relay lives.
async fn walk(served: &Served, sim: &Sim, key: &str, token: &str) -> Option<()> {
    post(served, key).await?;
    let attempts = async || {
        let request = served.http.get(format!("{}/v1/attempts?outcome=accepted", served.url)).bearer_auth(key);
        request.send().await.ok()?.json::<Value>().await.ok()
    };
    while attempts().await?["items"].as_array()?.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!sim.pushes().is_empty());
    let sync = served.http.get(format!("{}/v1/sync", served.url)).bearer_auth(token);
    sync.send().await.ok()?;
    Some(())
}

/// The same request each time it is made.
async fn post(served: &Served, key: &str) -> Option<Value> {
    let request = served.http.post(format!("{}/v1/events", served.url)).bearer_auth(key);
    let request = request.header("idempotency-key", "once").json(&json!({"feed": "news", "type": "t"}));
    let response = request.send().await.ok()?;
    assert_eq!(response.status(), 202);
    response.json().await.ok()
}
