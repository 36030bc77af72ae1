//! The simulators keep the providers' rules, seen through plain HTTP clients.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may fail, and has the time")]

mod fcm;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Response, StatusCode, Version};
use reveille::sim::{Fault, FaultKind, Sim, SimClock, SimConfig};
use serde_json::{Value, json};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn client(sim: &Sim) -> Client {
    let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
    Client::builder().tls_certs_only([ca]).build().unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}

fn jwt(sim: &Sim, iat_s: i64, change: impl FnOnce(&mut Header)) -> String {
    let credential = sim.apns_credential();
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(text(&credential, "key_id"));
    change(&mut header);
    let key = EncodingKey::from_ec_pem(text(&credential, "private_key").as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &json!({"iss": credential["team_id"], "iat": iat_s}), &key).unwrap()
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A right background push, to be spoilt or repeated. Each new one has a provider token of its own.
#[derive(Clone)]
struct ApnsCall {
    token: String,
    headers: BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

impl ApnsCall {
    fn new(sim: &Sim) -> Self {
        let headers = [
            ("authorization", format!("bearer {}", jwt(sim, now_s(), |_| {}))),
            ("apns-topic", "com.example.shop".to_owned()),
            ("apns-push-type", "background".to_owned()),
            ("apns-priority", "5".to_owned()),
            ("apns-expiration", "0".to_owned()),
        ];
        let body = json!({"aps": {"content-available": 1}, "reveille": {"v": "1", "head": "7"}});
        Self { token: TOKEN.to_owned(), headers: headers.into(), body: body.to_string().into() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    async fn send(self, sim: &Sim, client: &Client) -> reqwest::Result<Response> {
        let mut request = client.post(format!("{}/3/device/{}", sim.apns_url(), self.token)).body(self.body);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.send().await
    }

    async fn refused(self, sim: &Sim) -> (u16, Value) {
        let answer = self.send(sim, &client(sim)).await.unwrap();
        assert!(answer.headers().contains_key("apns-id"));
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn apns_takes_a_right_push_and_the_phone_hears_it() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let mut phone = sim.subscribe(TOKEN);
    let id = "9f7a1b52-8a0e-4b5c-9d4f-0123456789ab";
    let answer = ApnsCall::new(&sim).with("apns-id", id).send(&sim, &client(&sim)).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.headers()["apns-id"], id);
    let heard = phone.recv().await.unwrap();
    assert_eq!(heard.trigger().unwrap()["head"], "7");
    assert_eq!(heard.headers["apns-priority"], "5");
    assert!(!heard.headers.contains_key("authorization"));
    let pushes = sim.pushes();
    assert_eq!((pushes.len(), pushes[0].id.as_str(), pushes[0].status, pushes[0].delivered), (1, id, 200, true));
    sim.stop().await;
}

#[tokio::test]
async fn apns_refuses_what_apple_refuses() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let call = || ApnsCall::new(&sim);
    let large = json!({"aps": {"content-available": 1}, "x": "x".repeat(4096)}).to_string().into_bytes();
    let alert = json!({"aps": {"content-available": 1, "alert": "no"}}).to_string().into_bytes();
    let cases = [
        (call().with("apns-id", "9F7A1B52-8A0E-4B5C-9D4F-0123456789AB"), 400, "BadMessageId"),
        (call().with("apns-topic", ""), 400, "MissingTopic"),
        (call().with("apns-topic", "com.example.other"), 400, "TopicDisallowed"),
        (call().with("apns-collapse-id", "c".repeat(65)), 400, "BadCollapseId"),
        (call().with("apns-priority", "10"), 400, "BadPriority"),
        (call().with("apns-priority", "7"), 400, "BadPriority"),
        (call().with("apns-push-type", "silent"), 400, "InvalidPushType"),
        (call().with("apns-expiration", "tomorrow"), 400, "BadExpirationDate"),
        (ApnsCall { token: "not-hex".to_owned(), ..call() }, 400, "BadDeviceToken"),
        (ApnsCall { token: "0".repeat(64), ..call() }, 400, "BadDeviceToken"),
        (ApnsCall { token: String::new(), ..call() }, 400, "MissingDeviceToken"),
        (ApnsCall { body: Vec::new(), ..call() }, 400, "PayloadEmpty"),
        (ApnsCall { body: large, ..call() }, 413, "PayloadTooLarge"),
        (ApnsCall { body: alert, ..call() }, 400, "InvalidPushType"),
    ];
    let expected = cases.len();
    for (call, status, reason) in cases {
        assert_eq!(call.refused(&sim).await, (status, json!({ "reason": reason })));
    }
    let get = client(&sim).get(format!("{}/3/device/{TOKEN}", sim.apns_url())).send().await.unwrap();
    assert_eq!(
        (get.status().as_u16(), get.json::<Value>().await.unwrap()),
        (405, json!({"reason": "MethodNotAllowed"}))
    );
    assert_eq!(sim.apns().received(), expected + 1);
    assert!(sim.pushes().iter().all(|push| !push.delivered));
}

#[tokio::test]
async fn apns_judges_provider_tokens_strictly() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let good = jwt(&sim, now_s(), |_| {});
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let spoilt: String = signature.chars().rev().collect();
    let cases = [
        (String::new(), "MissingProviderToken"),
        ("Basic abc".to_owned(), "MissingProviderToken"),
        ("bearer abc".to_owned(), "InvalidProviderToken"),
        (format!("bearer {good}="), "InvalidProviderToken"),
        (format!("bearer {signed}.{spoilt}"), "InvalidProviderToken"),
        (format!("bearer {}", jwt(&sim, now_s(), |header| header.kid = None)), "InvalidProviderToken"),
        (format!("bearer {}", jwt(&sim, now_s() - 3700, |_| {})), "ExpiredProviderToken"),
    ];
    for (authorization, reason) in cases {
        let refused = ApnsCall::new(&sim).with("authorization", authorization).refused(&sim).await;
        assert_eq!(refused, (403, json!({ "reason": reason })));
    }
    // A connection may not take a second new one within 20 minutes, but go on with the first.
    let client = client(&sim);
    let mut answers = Vec::new();
    let other = jwt(&sim, now_s(), |header| header.typ = None);
    for token in [&good, &other, &good] {
        let call = ApnsCall::new(&sim).with("authorization", format!("bearer {token}"));
        answers.push(call.send(&sim, &client).await.unwrap().status().as_u16());
    }
    assert_eq!(answers, [200, 429, 200]);
}

#[tokio::test]
async fn a_removed_app_is_told_with_its_time_until_it_is_back() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    sim.apns().dead_token(TOKEN, Some(1_700_000_000_123));
    let gone = json!({"reason": "Unregistered", "timestamp": 1_700_000_000_123_i64});
    assert_eq!(ApnsCall::new(&sim).refused(&sim).await, (410, gone));
    sim.apns().revive_token(TOKEN);
    assert_eq!(ApnsCall::new(&sim).send(&sim, &client(&sim)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_expired_provider_token_expires_by_the_simulators_own_clock() {
    let now_ms = Arc::new(AtomicI64::new(now_s() * 1000));
    let clock = SimClock::new({
        let now_ms = Arc::clone(&now_ms);
        move || now_ms.load(Ordering::Relaxed)
    });
    let sim = Sim::start(SimConfig { clock, ..SimConfig::default() }).await.unwrap();
    let (first, client) = (ApnsCall::new(&sim), client(&sim));
    let bearer = first.headers["authorization"].clone();
    assert_eq!(first.send(&sim, &client).await.unwrap().status(), 200);
    now_ms.fetch_add(3_601_000, Ordering::Relaxed);
    let late = ApnsCall::new(&sim).with("authorization", bearer).send(&sim, &client).await.unwrap();
    assert_eq!(late.json::<Value>().await.unwrap()["reason"], "ExpiredProviderToken");
    let fresh = format!("bearer {}", jwt(&sim, now_s() + 3600, |_| {}));
    assert_eq!(ApnsCall::new(&sim).with("authorization", fresh).send(&sim, &client).await.unwrap().status(), 200);
}

#[tokio::test]
async fn faults_befall_whom_and_as_often_as_asked() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let (client, call) = (client(&sim), ApnsCall::new(&sim));
    let mut phone = sim.subscribe(TOKEN);
    let throttle = || FaultKind::Status {
        status: 429,
        reason: Some("TooManyRequests".to_owned()),
        retry_after: Some("7".to_owned()),
    };
    sim.apns().answer(Fault::new(throttle()).to_token(&"ab".repeat(32)));
    sim.apns().answer(Fault::new(throttle()).to_token(TOKEN).times(1));
    sim.apns().answer(Fault::new(FaultKind::Html502).times(1));
    sim.apns().answer(Fault::new(FaultKind::Reset).times(1));
    sim.apns().answer(Fault::new(FaultKind::Empty { status: 500 }).times(1));
    sim.apns().answer(Fault::new(FaultKind::Lost).times(1));
    let throttled = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!((throttled.status().as_u16(), throttled.headers()["retry-after"].as_bytes()), (429, b"7".as_slice()));
    let html = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!((html.status().as_u16(), html.headers()["content-type"].as_bytes()), (502, b"text/html".as_slice()));
    assert!(call.clone().send(&sim, &client).await.is_err(), "reset");
    let empty = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!((empty.status().as_u16(), empty.bytes().await.unwrap().len()), (500, 0));
    assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    assert!(phone.try_recv().is_err(), "lost");
    assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    assert!(phone.try_recv().is_ok());
    assert_eq!(sim.apns().queued().len(), 1);
}

#[tokio::test]
async fn a_paused_provider_has_the_push_and_holds_its_answer() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let mut phone = sim.subscribe(TOKEN);
    sim.apns().pause();
    let (call, client) = (ApnsCall::new(&sim), client(&sim));
    let sending = call.send(&sim, &client);
    tokio::pin!(sending);
    tokio::select! {
        _ = &mut sending => panic!("answered while paused"),
        heard = phone.recv() => assert!(heard.is_some()),
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut sending).await.is_err());
    assert_eq!(sim.apns().received(), 1);
    sim.apns().resume();
    assert_eq!(sending.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_black_hole_answers_nobody_and_a_share_is_lost() {
    let sim = Sim::start(SimConfig { record_pushes: 200, ..SimConfig::default() }).await.unwrap();
    let (client, call) = (client(&sim), ApnsCall::new(&sim));
    sim.apns().answer(Fault::new(FaultKind::BlackHole).times(1));
    let hole = tokio::time::timeout(Duration::from_millis(200), call.clone().send(&sim, &client)).await;
    assert!(hole.is_err());
    sim.forget_pushes();
    sim.apns().lose_share(30, 42);
    for _ in 0..100 {
        assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    }
    let lost = sim.pushes().iter().filter(|push| !push.delivered).count();
    assert!((15..=45).contains(&lost), "{lost} of 100");
}

#[tokio::test]
async fn the_control_api_takes_the_same_faults() {
    let any = "127.0.0.1:0".parse().unwrap();
    let sim = Sim::start(SimConfig { control_listen: Some(any), ..SimConfig::default() }).await.unwrap();
    let (control, http) = (sim.control_url().unwrap(), Client::new());
    let about: Value = http.get(&control).send().await.unwrap().json().await.unwrap();
    assert_eq!(about["apns_url"], sim.apns_url());
    for fault in about["faults"].as_array().unwrap() {
        let fault = json!({"provider": "fcm", "token": "nobody", "count": 1, "fault": fault});
        let answer = http.post(format!("{control}/faults")).json(&fault).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{fault}");
        assert_eq!(answer.json::<Value>().await.unwrap()["provider"], "fcm");
    }
    assert_eq!(sim.fcm().queued().len(), about["faults"].as_array().unwrap().len());
    let fault = json!({"provider": "apns", "token": TOKEN, "count": 1, "fault": {"status": {"status": 410}}});
    http.post(format!("{control}/faults")).json(&fault).send().await.unwrap();
    assert_eq!(ApnsCall::new(&sim).refused(&sim).await.0, 410);
    let pushes: Value = http.get(format!("{control}/pushes?token={TOKEN}")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&pushes[0]["provider"], &pushes[0]["status"]), (&json!("apns"), &json!(410)));
    let stats: Value = http.get(format!("{control}/stats")).send().await.unwrap().json().await.unwrap();
    assert_eq!(stats["apns"]["received"], 1);
    assert_eq!(http.delete(format!("{control}/faults")).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(http.delete(format!("{control}/pushes")).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!((sim.fcm().queued().len(), sim.pushes().len()), (0, 0));
    let wrong = json!({"provider": "apns", "fault": {"explode": {}}});
    assert_eq!(http.post(format!("{control}/faults")).json(&wrong).send().await.unwrap().status(), 422);
}

#[tokio::test]
async fn a_restarted_simulator_has_its_port_and_its_keys_again() {
    let first = Sim::start(SimConfig::default()).await.unwrap();
    let (call, identity, url) = (ApnsCall::new(&first), first.identity(), first.apns_url());
    let client = client(&first);
    assert_eq!(call.clone().send(&first, &client).await.unwrap().status(), 200);
    first.stop().await;
    assert!(client.post(format!("{url}/3/device/{TOKEN}")).send().await.is_err());
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let apns_listen = ([127, 0, 0, 1], port).into();
    let again = SimConfig { apns_listen, identity: Some(identity), ..SimConfig::default() };
    let second = Sim::start(again).await.unwrap();
    assert_eq!(call.send(&second, &client).await.unwrap().status(), 200);
    assert_eq!(second.apns().connections(), 1);
}
