//! Phones at a relay that answers by script.

use std::collections::VecDeque;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::*;
use crate::sim::inbox::Push;
use crate::sim::{Sim, SimConfig};

/// What was asked, and what is to be answered: polls and registrations in this order, else nothing new.
#[derive(Clone, Default)]
struct Script {
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    url: Arc<Mutex<String>>,
}

async fn sync(State(script): State<Script>, RawQuery(query): RawQuery) -> Response {
    script.asked.lock().unwrap().push(query.unwrap_or_default());
    let next = script.answers.lock().unwrap().pop_front();
    let (status, body) = next.unwrap_or_else(|| (200, page(&[], "c9", 9, false)));
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "1")], Json(body)).into_response()
}

async fn snapshot() -> Json<Value> {
    Json(json!({"as_of": "snap", "through": 5, "items": [item("a", 5)]}))
}

async fn register(State(script): State<Script>, Json(body): Json<Value>) -> Json<Value> {
    let first = body.get("feeds").is_some();
    if !first {
        script.asked.lock().unwrap().push("registration".to_owned());
    }
    let url = format!("{}/v1/sync", script.url.lock().unwrap());
    let poll = json!({"url": url, "cursor": "c0", "after_s": 900, "reset": false});
    Json(json!({"id": "dev_1", "device_token": "dt_1", "for": "0badcafe", "poll": poll}))
}

fn item(key: &str, position: i64) -> Value {
    json!({"feed": "f", "type": "t", "key": key, "op": "upsert", "position": position, "data": position})
}

fn page(events: &[Value], next: &str, through: i64, has_more: bool) -> Value {
    json!({"events": events, "next": next, "through": through, "has_more": has_more, "poll": {"after_s": 900}})
}

struct Scene {
    sim: Sim,
    script: Script,
    phone: Phone,
    news: mpsc::Receiver<News>,
}

impl Scene {
    async fn start(answers: Vec<(u16, Value)>) -> Self {
        let script = Script { answers: Arc::new(Mutex::new(answers.into())), ..Script::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        script.url.lock().unwrap().clone_from(&url);
        let router = Router::new()
            .route("/v1/sync", get(sync))
            .route("/v1/sync/snapshot", get(snapshot))
            .route("/v1/devices", post(register))
            .with_state(script.clone());
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        sim.tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let setup = PhoneSetup {
            name: "ios-1".to_owned(),
            installation_id: None,
            provider: Provider::Apns,
            user: Some("17".to_owned()),
            feeds: vec!["f".to_owned()],
            topic: "com.example.shop".to_owned(),
            floor: None,
            lose_percent: 0,
            seed: 1,
        };
        let (sender, news) = mpsc::channel(64);
        let backend = Backend::new(&url, "rk_1".into()).unwrap();
        let phone = Phone::start(&sim, setup, backend, sender).await.unwrap();
        Self { sim, script, phone, news }
    }

    /// A push for `user`'s tag, as the provider would pass it on.
    fn push(&self, for_user: &str, head: i64, poll: &str) {
        let reveille = json!({"v": "1", "wake": "wake_1", "head": head.to_string(), "for": for_user, "poll": poll});
        let token = self.phone.push_token();
        self.sim.inbox.take(&token, true, || Push {
            provider: Provider::Apns,
            token: token.clone(),
            id: String::new(),
            headers: Default::default(),
            body: json!({ "reveille": reveille }),
            at_ms: 0,
            status: 200,
            delivered: true,
        });
    }

    fn poll_url(&self) -> String {
        format!("{}/v1/sync", self.script.url.lock().unwrap())
    }

    async fn told(&mut self) -> What {
        tokio::time::timeout(Duration::from_secs(10), self.news.recv()).await.unwrap().unwrap().what
    }

    fn asked(&self) -> Vec<String> {
        self.script.asked.lock().unwrap().clone()
    }

    fn held(&self) -> Vec<(String, i64)> {
        self.phone.items().into_iter().map(|((_, key), item)| (key, item.position)).collect()
    }
}

#[tokio::test]
async fn it_reads_page_after_page_and_names_the_wake_once() {
    let start = (200, page(&[], "c1", 1, false));
    let first = (200, page(&[item("a", 2)], "c2", 2, true));
    let second = (200, page(&[item("b", 3)], "c3", 3, false));
    let mut scene = Scene::start(vec![start, first, second]).await;
    assert!(matches!(scene.told().await, What::Polled { cause: Cause::Start, .. }));
    scene.push("0badcafe", 3, &scene.poll_url());
    assert!(matches!(scene.told().await, What::Pushed { head: 3, .. }));
    assert!(matches!(scene.told().await, What::Polled { cause: Cause::Push { .. }, through: 3, .. }));
    assert_eq!(scene.asked(), ["after=c0", "after=c1&wake=wake_1", "after=c2"]);
    assert_eq!(scene.held(), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    // It is already there.
    scene.push("0badcafe", 3, &scene.poll_url());
    assert!(matches!(scene.told().await, What::Pushed { .. }));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(scene.asked().len(), 3);
    let counts = scene.phone.counts();
    assert_eq!((counts.pushes_received, counts.polls_by_push, counts.events_applied), (2, 1, 2));
    scene.sim.stop().await;
}

#[tokio::test]
async fn it_drops_what_is_for_another_user_and_polls_nobody_but_its_relay() {
    let mut scene = Scene::start(Vec::new()).await;
    scene.told().await;
    scene.push("deadbeef", 99, &scene.poll_url());
    scene.push("0badcafe", 99, "http://evil.example/v1/sync");
    scene.push("0badcafe", 99, &scene.poll_url());
    assert!(matches!(scene.told().await, What::Pushed { .. }));
    assert!(matches!(scene.told().await, What::Polled { .. }));
    let counts = scene.phone.counts();
    assert_eq!((counts.pushes_received, counts.pushes_foreign, counts.polls_by_push), (3, 2, 1));
    scene.sim.stop().await;
}

#[tokio::test]
async fn an_expired_cursor_leads_to_the_snapshot() {
    let old = (200, page(&[item("gone", 1)], "c1", 1, false));
    let expired = (410, json!({"title": "cursor expired", "snapshot": "/v1/sync/snapshot"}));
    let mut scene = Scene::start(vec![old, expired]).await;
    scene.told().await;
    scene.push("0badcafe", 9, &scene.poll_url());
    scene.told().await;
    assert!(matches!(scene.told().await, What::Polled { through: 9, .. }));
    assert_eq!(scene.asked(), ["after=c0", "after=c1&wake=wake_1", "after=snap"]);
    assert_eq!(scene.held(), [("a".to_owned(), 5)]);
    scene.sim.stop().await;
}

#[tokio::test]
async fn it_comes_later_when_asked_to() {
    let mut scene = Scene::start(vec![(503, json!({})), (429, json!({}))]).await;
    let started = Instant::now();
    assert!(matches!(scene.told().await, What::Later { status: 503, .. }));
    assert!(matches!(scene.told().await, What::Later { status: 429, .. }));
    assert!(matches!(scene.told().await, What::Polled { cause: Cause::Start, .. }));
    assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
    scene.sim.stop().await;
}

#[tokio::test]
async fn a_dead_push_token_is_replaced_and_the_network_comes_back() {
    let mut dead = page(&[], "c1", 1, false);
    dead["push"] = json!({"status": "gone", "register": true});
    let mut scene = Scene::start(vec![(200, dead)]).await;
    let before = scene.phone.push_token();
    scene.told().await;
    assert!(matches!(scene.told().await, What::TokenDead));
    assert!(matches!(scene.told().await, What::RegisteredAgain));
    assert_ne!(scene.phone.push_token(), before);
    assert_eq!(scene.asked(), ["after=c0", "registration"]);

    scene.phone.go_offline();
    assert!(matches!(scene.told().await, What::Offline));
    scene.push("0badcafe", 99, &scene.poll_url());
    scene.phone.go_online();
    assert!(matches!(scene.told().await, What::Online));
    assert!(matches!(scene.told().await, What::Polled { cause: Cause::Itself, .. }));
    assert_eq!(scene.phone.counts().pushes_received, 0);
    scene.sim.stop().await;
}
