//! A world: a relay with the real router and store, simulated providers on real HTTP/2 with TLS, and a clock that stands until turned.

use std::time::Duration;

use reqwest::Method;
use reveille::{
    config::{Config, Flags},
    domain::{
        breaker::Resting,
        time::{Clock, Timestamp},
    },
    relay::{Background, Relay},
    sim::{Sim, SimClock, SimConfig},
    store::{Call, Queue, Share, StoreOptions},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{database::Database, phone::PhoneBuilder};

pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const OPERATOR_KEY: &str = "ro_operator-key-of-the-tests";
const ALL_SCOPES: [&str; 6] =
    ["events:write", "events:read", "devices:write", "devices:read", "credentials:write", "admin"];

/// A relay, its providers and one app with all credentials.
pub struct World {
    pub sim: Sim,
    pub clock: Clock,
    relay: Option<Relay>,
    pub app: String,
    pub key: String,
    pub http: reqwest::Client,
    database: Database,
    /// By which the relay reaches it.
    url: String,
    folder: TempDir,
    options: StoreOptions,
}

impl Drop for World {
    fn drop(&mut self) {
        self.database.discard();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body, if the status is as expected.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:#}", self.body);
        self.body
    }

    /// The problem's slug, if the answer is one with this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{:#}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        self.body["type"].as_str().unwrap().strip_prefix("/problems/").unwrap()
    }

    /// Where a validation problem points.
    #[track_caller]
    pub fn pointers(&self, status: u16) -> Vec<&str> {
        self.problem(status);
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(StoreOptions::default()).await
    }

    pub async fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::of(folder.path()).await;
        Self::made(folder, options, database.url(), database).await
    }

    /// A world whose relay reaches its database by another URL.
    pub async fn reached_by(through: impl Fn(&str) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::of(folder.path()).await;
        Self::made(folder, StoreOptions::default(), through(&database.url()), database).await
    }

    /// A world on SQLite, whatever the others are on.
    pub async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::Sqlite { folder: folder.path().to_owned() };
        Self::made(folder, StoreOptions::default(), database.url(), database).await
    }

    async fn made(folder: TempDir, options: StoreOptions, url: String, database: Database) -> Self {
        let clock = Clock::manual(Timestamp::from_ms(1_790_000_000_000));
        let provider_clock = clock.clone();
        let sim = Sim::start(SimConfig {
            clock: SimClock::new(move || provider_clock.now().as_ms()),
            ..SimConfig::default()
        });
        let sim = sim.await.unwrap();
        let relay = Some(start_relay(&Node::only(&sim, &clock, &folder, &url, options)).await);
        let http = reqwest::Client::new();
        let (app, key) = (String::new(), String::new());
        let mut world = Self { sim, clock, relay, app, key, http, database, url, folder, options };
        let (app, key) = world.new_app("shop").await;
        (world.app, world.key) = (app, key);
        for (transport, credential) in [("apns", world.sim.apns_credential()), ("fcm", world.sim.fcm_credential())] {
            world.put(&format!("/v1/credentials/{transport}"), credential).await.expect(201);
        }
        world
    }

    /// Another app and a key to it with all scopes.
    pub async fn new_app(&self, name: &str) -> (String, String) {
        let app = self.call(Method::POST, "/v1/apps", OPERATOR_KEY, Some(json!({"name": name}))).await.expect(201);
        let app = app["id"].as_str().unwrap().to_owned();
        let key = self.new_key(&app, &ALL_SCOPES).await;
        (app, key)
    }

    /// A key with some scopes.
    pub async fn new_key(&self, app: &str, scopes: &[&str]) -> String {
        let new = json!({"name": "backend", "scopes": scopes});
        let key = self.call(Method::POST, &format!("/v1/apps/{app}/keys"), OPERATOR_KEY, Some(new)).await.expect(201);
        key["secret"].as_str().unwrap().to_owned()
    }

    /// Changes the app's settings.
    pub async fn settings(&self, settings: Value) {
        let path = format!("/v1/apps/{}", self.app);
        self.call(Method::PATCH, &path, OPERATOR_KEY, Some(json!({"settings": settings}))).await.expect(200);
    }

    /// Lets every wake go at once and none again: for stories about something else than the pace.
    pub async fn without_pace(&self) {
        self.settings(without_pace()).await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.relay().address().unwrap())
    }

    pub async fn call(&self, method: Method, path: &str, bearer: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, self.url(path)).bearer_auth(bearer);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    /// With the operator's key.
    pub async fn operator(&self, method: Method, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.call(method, path, OPERATOR_KEY, body.into()).await
    }

    /// A body as it is, with the app's key.
    pub async fn post_text(&self, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
        let mut request = self.http.post(self.url(path)).bearer_auth(&self.key).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &self.key, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &self.key, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &self.key, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, &self.key, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &self.key, None).await
    }

    /// An Android phone, unless it says otherwise.
    pub fn phone<'a>(&'a self, name: &str) -> PhoneBuilder<'a> {
        PhoneBuilder::new(self, name)
    }

    /// Appends a background event; answers it.
    pub async fn publish(&self, feed: &str) -> Value {
        self.post("/v1/events", json!({"feed": feed, "type": "order.updated"})).await.expect(202)
    }

    /// Appends an alert; answers it.
    pub async fn alert(&self, feed: &str, title: &str) -> Value {
        let wake = json!({"class": "alert", "ttl_s": 3600, "alert": {"title": title}});
        self.post("/v1/events", json!({"feed": feed, "type": "order.updated", "wake": wake})).await.expect(202)
    }

    /// Steps the dispatcher until nothing is due now and no call is under way.
    pub async fn settle(&self) {
        let settled = tokio::time::timeout(Duration::from_secs(60), self.relay().dispatcher().settle()).await;
        settled.expect("the dispatcher settles").unwrap();
    }

    /// Claims what is due in the app, and makes no call.
    pub async fn claim(&self) -> Vec<Call> {
        let shares = [Share { app: self.app.parse().unwrap(), devices: 100 }];
        self.relay().store().claim_due(&shares, Queue::Express, &mut Resting::default()).await.unwrap().calls
    }

    /// When something is next due, if anything is.
    pub async fn next_due(&self) -> Option<Timestamp> {
        self.relay().store().due().await.unwrap().into_iter().map(|(_, at)| at).min()
    }

    /// Turns the clock and lets what has become due happen.
    pub async fn later(&self, by: Duration) {
        self.clock.advance(by);
        self.settle().await;
    }

    /// Turns the clock and has the janitor do all there is to do.
    pub async fn tidy_after(&self, by: Duration) {
        self.clock.advance(by);
        while self.relay().janitor().step().await.unwrap() {}
    }

    /// All attempts of the app, newest first.
    pub async fn attempts(&self) -> Vec<Value> {
        self.get("/v1/attempts?limit=500").await.expect(200)["items"].as_array().unwrap().clone()
    }

    /// The outcomes of all attempts, oldest first.
    pub async fn outcomes(&self) -> Vec<String> {
        let attempts = self.attempts().await;
        attempts.iter().rev().map(|attempt| attempt["outcome"].as_str().unwrap_or("under way").to_owned()).collect()
    }

    /// Stops the relay and starts it again on the same database.
    pub async fn restart(self) -> Self {
        self.restart_after(async |_| {}).await
    }

    /// Stops the relay, has something done to the database, and starts it again.
    pub async fn restart_after(mut self, change: impl AsyncFnOnce(&Database)) -> Self {
        self.relay.take().unwrap().stop().await;
        change(&self.database).await;
        self.relay = Some(start_relay(&self.node()).await);
        self.http = reqwest::Client::new();
        self
    }

    /// Stops the relay, has everything taken to another database, and starts a relay there.
    pub async fn moves_to(mut self, database: Database, carry: impl AsyncFnOnce(&Database, &Database)) -> Self {
        self.relay.take().unwrap().stop().await;
        carry(&self.database, &database).await;
        (self.url, self.database) = (database.url(), database);
        self.relay = Some(start_relay(&self.node()).await);
        self.http = reqwest::Client::new();
        self
    }

    /// Ends the relay; the database stays as long as what is answered.
    pub async fn stopped(mut self) -> Self {
        self.relay.take().unwrap().stop().await;
        self
    }

    /// Ends the relay as SIGTERM would.
    pub async fn stop(mut self) {
        self.relay.take().unwrap().stop().await;
    }

    /// Another relay at the same database, at work by itself.
    pub async fn another(&self, roles: &str) -> Relay {
        start_relay(&Node { roles, background: Background::Runs, ..self.node() }).await
    }

    fn node(&self) -> Node<'_> {
        Node::only(&self.sim, &self.clock, &self.folder, &self.url, self.options)
    }

    /// The relay, to be stepped.
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    /// The database, to be looked at from outside.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Where the relay's files are.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// Where a relay answers.
pub fn url(relay: &Relay, path: &str) -> String {
    format!("http://{}{path}", relay.address().unwrap())
}

/// What a relay is started with.
struct Node<'a> {
    sim: &'a Sim,
    clock: &'a Clock,
    folder: &'a TempDir,
    url: &'a str,
    options: StoreOptions,
    roles: &'a str,
    background: Background,
}

impl<'a> Node<'a> {
    /// The only one, which is stepped.
    fn only(sim: &'a Sim, clock: &'a Clock, folder: &'a TempDir, url: &'a str, options: StoreOptions) -> Self {
        Self { sim, clock, folder, url, options, roles: "api,dispatch,janitor", background: Background::Stepped }
    }
}

async fn start_relay(node: &Node<'_>) -> Relay {
    let Node { sim, clock, folder, url, options, roles, background } = node;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, sim.ca_pem()).unwrap();
    let variables = [
        ("REVEILLE_LISTEN", "127.0.0.1:0".to_owned()),
        ("REVEILLE_DATABASE_URL", (*url).to_owned()),
        ("REVEILLE_ROLES", (*roles).to_owned()),
        ("REVEILLE_MASTER_KEY", MASTER_KEY.to_owned()),
        ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY.to_owned()),
        ("REVEILLE_APNS_URL", sim.apns_url()),
        ("REVEILLE_FCM_URL", sim.fcm_url()),
        ("REVEILLE_EXTRA_CA", ca.to_str().unwrap().to_owned()),
    ];
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let config = Config::load(&Flags::default(), env, folder.path()).unwrap();
    Relay::start(&config, (*clock).clone(), *options, *background).await.unwrap()
}

/// Settings under which every wake goes at once, and none again.
pub fn without_pace() -> Value {
    let class = json!({"gap_s": 0, "budget": {"burst": 1000, "refill_s": 1}, "rewake_s": []});
    let platform = json!({"background": class, "alert": class});
    json!({"wake": {"ios": platform, "android": platform}})
}
