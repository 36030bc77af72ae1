//! Canaries: secrets that can be recognised go through every route, and then nothing that the relay tells or keeps has them: neither log,
//! metrics, answers and traces, nor the database's files.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use reqwest::Method;
use reveille::{
    api,
    sim::{Fault, FaultKind, Sim, SimConfig},
};
use serde_json::{Value, json};

use crate::{
    support::{
        served::{Served, free_port, within},
        world::{MASTER_KEY, OPERATOR_KEY, without_pace},
    },
    traces::{Spans, collector},
};

/// Sent where a key belongs, and good for nothing.
const WRONG_KEYS: [&str; 3] =
    ["rk_canary-of-an-app-key-000", "dt_canary-of-a-device-token", "canary-of-an-operator-key"];
const PUSH_TOKEN: &str = "canary-of-a-push-token-0123456789";
const OTHER_PUSH_TOKEN: &str = "canary-of-another-push-token";
/// No secret, but the app's own affair: it belongs in the database and in polls.
const DATA: &str = "canary-of-what-the-app-says";
const LOST: [&str; 2] = ["canary-of-a-query", "canary-of-a-path"];

/// What has been told, by where.
type Told = BTreeMap<String, String>;

#[track_caller]
fn nowhere(told: &Told, what: &str, secret: &str) {
    assert!(secret.len() >= 12, "{what} is too short to be recognised");
    for (place, text) in told {
        if let Some(at) = text.find(secret) {
            let from = text[..at].char_indices().rev().nth(120).map_or(0, |(from, _)| from);
            panic!("{what} is in {place}: …{}", &text[from..at + secret.len()]);
        }
    }
}

/// A line from the middle of a PEM text.
fn middle(pem: &Value) -> String {
    pem["private_key"].as_str().unwrap().lines().nth(1).unwrap()[..40].to_owned()
}

/// A request to every route there is, with canaries wherever something can be put; answers what came back.
async fn everywhere(relay: &Served, key: &str) -> Vec<(String, String)> {
    let description = api::description();
    let mut answers = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            // What would take the stage away.
            if method == "delete" && (path == "/v1/apps/{app}" || path.contains("keys")) {
                continue;
            }
            let named = path.replace('{', LOST[1]).replace('}', "");
            let url = format!("{}{named}?cursor={}&after={}&nonsense={1}", relay.url, LOST[0], LOST[0]);
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for bearer in WRONG_KEYS.into_iter().chain([key, OPERATOR_KEY]) {
                for body in [
                    json!({"token": PUSH_TOKEN, "private_key": PUSH_TOKEN, "data": DATA, "cursor": PUSH_TOKEN})
                        .to_string(),
                    format!("{{\"token\": \"{PUSH_TOKEN}\", "),
                ] {
                    let request = relay.http.request(method.clone(), &url).bearer_auth(bearer).body(body);
                    let request = request.header("Idempotency-Key", DATA).header("Cookie", format!("key={PUSH_TOKEN}"));
                    let answer = request.send().await.unwrap();
                    let headers = format!("{:?}", answer.headers());
                    answers.push((format!("{method} {path}"), headers + &answer.text().await.unwrap()));
                }
            }
        }
    }
    answers
}

/// A device's life: an update, a push that is put off for a moment, a poll, a new push token, which is dead. Answers the device's own token.
async fn live(relay: &Served, sim: &Sim, key: &str) -> String {
    let status = FaultKind::Status { status: 503, reason: None, retry_after: Some("1".into()) };
    sim.fcm().answer(Fault::new(status).times(1));
    let device = json!({
        "installation_id": "pixel", "transport": "fcm", "token": PUSH_TOKEN, "user": "17", "feeds": ["order:42"],
    });
    let device = relay.post("/v1/devices", key, device).await;
    let device_token = device["device_token"].as_str().unwrap().to_owned();
    let event = json!({"feed": "order:42", "type": "order.updated", "key": "order/42", "data": {"note": DATA}});
    relay.post("/v1/events", key, event.clone()).await;
    let limit = Duration::from_secs(20);
    within(limit, "a push", async || sim.pushes().into_iter().find(|push| push.status == 200)).await;
    relay.get("/v1/sync", &device_token).await;
    let patch = relay.http.patch(format!("{}/v1/devices/me", relay.url)).bearer_auth(&device_token);
    assert_eq!(patch.json(&json!({"token": OTHER_PUSH_TOKEN})).send().await.unwrap().status(), 200);
    sim.fcm().dead_token(OTHER_PUSH_TOKEN, None);
    relay.post("/v1/events", key, event).await;
    let path = format!("/v1/devices/{}", device["id"].as_str().unwrap());
    let gone = async || (relay.get(&path, key).await["status"] == "gone").then_some(());
    within(limit, "the verdict", gone).await;
    device_token
}

/// All that the relay has told, by where.
async fn told(relay: &Served, key: &str, log: &Path, spans: &Spans) -> Told {
    let mut told = Told::new();
    for path in ["/v1/devices", "/v1/activity", "/v1/attempts", "/v1/credentials", "/v1/events", "/v1/me"] {
        told.insert(format!("GET {path}"), relay.get(path, key).await.to_string());
    }
    for (route, answer) in everywhere(relay, key).await {
        told.entry(format!("an answer to {route}")).or_default().push_str(&answer);
    }
    let metrics = relay.http.get(format!("{}/metrics", relay.url)).bearer_auth(OPERATOR_KEY).send().await.unwrap();
    told.insert("the metrics".into(), metrics.text().await.unwrap());
    // The last of all spans is that of the last request that is told of.
    relay.get("/v1/limits", key).await;
    let last = async || spans.lock().unwrap().iter().any(|span| span.name == "GET /v1/limits").then_some(());
    within(Duration::from_secs(20), "the traces", last).await;
    told.insert("the traces".into(), format!("{:?}", spans.lock().unwrap()));
    relay.kill();
    told.insert("the log".into(), fs::read_to_string(log).unwrap());
    told
}

#[tokio::test]
async fn no_secret_is_told_or_kept() {
    let (collector, spans) = collector().await;
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let env = [
        ("REVEILLE_OTLP_URL", collector.as_str()),
        ("REVEILLE_LOG", "info,reveille=trace"),
        ("REVEILLE_LOG_FORMAT", "json"),
    ];
    let relay = Served::with(folder.path(), &sim, free_port(), 45, &env).await;
    let key = relay.app_with(&sim, without_pace()).await;
    let put = relay.http.put(format!("{}/v1/credentials/apns", relay.url)).bearer_auth(&key);
    assert_eq!(put.json(&sim.apns_credential()).send().await.unwrap().status(), 201);
    let device_token = live(&relay, &sim, &key).await;
    let told = told(&relay, &key, &folder.path().join("relay.log"), &spans).await;

    // There is something to be found at all: the attempts in the log, the requests in the traces, the device in its answers.
    assert!(told["the log"].contains("\"outcome\":\"rejected\""), "{}", told["the log"]);
    assert!(told["the traces"].contains("POST /v1/events"));
    assert!(told["GET /v1/devices"].contains("pixel"));
    let secrets = [
        ("an app key", key),
        ("a device token", device_token),
        ("the operator key", OPERATOR_KEY.to_owned()),
        ("the master key", MASTER_KEY.to_owned()),
        ("Google's private key", middle(&sim.fcm_credential())),
        ("Apple's private key", middle(&sim.apns_credential())),
    ];
    let wrong = WRONG_KEYS.map(|wrong| ("a wrong key", wrong.to_owned()));
    let pushed = [PUSH_TOKEN, OTHER_PUSH_TOKEN].map(|token| ("a push token", token.to_owned()));
    for (what, secret) in secrets.iter().chain(&wrong).chain(&pushed) {
        nowhere(&told, what, secret);
    }
    // What apps and their users say is no business of those who run the relay.
    let machines: Told = told.into_iter().filter(|(place, _)| place.starts_with("the ")).collect();
    for private in [DATA, LOST[0], LOST[1]] {
        nowhere(&machines, "what an app or its user says", private);
    }
    let files = database_files(folder.path());
    assert_eq!(files.is_empty(), std::env::var_os("TEST_DATABASE_URL").is_some(), "SQLite's files are looked into");
    for (what, secret) in secrets.iter().chain(&wrong) {
        nowhere(&files, what, secret);
    }
    sim.stop().await;
}

fn database_files(folder: &Path) -> Told {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_database = files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("reveille.db"));
    of_database
        .map(|file| (file.display().to_string(), String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned()))
        .collect()
}
