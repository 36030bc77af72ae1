//! A phone as the stories see it: what it was pushed, and what it reads.

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{Answer, World};

/// A phone that is about to register.
pub struct PhoneBuilder<'a> {
    world: &'a World,
    body: Value,
}

/// A registered phone.
pub struct Phone<'a> {
    pub world: &'a World,
    pub id: String,
    pub token: String,
    pub device_token: String,
    pub registered: Value,
    cursor: std::cell::RefCell<Option<String>>,
}

/// A page that a phone has read.
#[derive(Debug)]
pub struct Read(pub Value);

impl<'a> PhoneBuilder<'a> {
    pub fn new(world: &'a World, name: &str) -> Self {
        let body = json!({
            "installation_id": name, "transport": "fcm", "token": format!("fcm-token-of-{name}"), "feeds": [],
        });
        Self { world, body }
    }

    pub fn ios(mut self) -> Self {
        let name = self.body["installation_id"].as_str().unwrap().to_owned();
        self.body["transport"] = "apns".into();
        self.body["topic"] = "com.example.shop".into();
        self.body["token"] = hex_token(&name).into();
        self
    }

    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body[field] = value.into();
        self
    }

    pub fn user(self, user: &str) -> Self {
        self.with("user", user)
    }

    /// Registers, following these feeds.
    pub async fn follows(mut self, feeds: &[&str]) -> Phone<'a> {
        self.body["feeds"] = json!(feeds);
        self.registers().await
    }

    /// Registers.
    pub async fn registers(self) -> Phone<'a> {
        let answer = self.world.post("/v1/devices", self.body.clone()).await;
        assert!(matches!(answer.status, 200 | 201), "{:#}", answer.body);
        let registered = answer.body;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Phone {
            world: self.world,
            id: text(&registered["id"]),
            token: text(&self.body["token"]),
            device_token: text(&registered["device_token"]),
            cursor: Some(text(&registered["poll"]["cursor"])).into(),
            registered,
        }
    }

    /// The request as it would be sent.
    pub fn body(self) -> Value {
        self.body
    }
}

/// A well-formed APNs token of a name.
pub fn hex_token(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:a<64}")
}

impl Phone<'_> {
    /// How many pushes have arrived.
    pub fn received(&self) -> usize {
        self.pushes().len()
    }

    /// The triggers that have arrived, oldest first.
    pub fn pushes(&self) -> Vec<Value> {
        let pushes = self.world.sim.pushes();
        let mine = pushes.iter().filter(|push| push.token == self.token && push.delivered);
        mine.map(|push| json!(push.trigger().unwrap())).collect()
    }

    /// The heads that have been announced, oldest first.
    pub fn heads(&self) -> Vec<i64> {
        self.pushes().iter().map(|push| push["head"].as_str().unwrap().parse().unwrap()).collect()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.world.call(Method::GET, path, &self.device_token, None).await
    }

    pub async fn call(&self, method: Method, path: &str, body: impl Into<Option<Value>>) -> Answer {
        self.world.call(method, path, &self.device_token, body.into()).await
    }

    /// Polls after its cursor, with more headers; keeps the cursor it has.
    pub async fn poll_with(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.world.http.get(self.world.url(&format!("/v1/sync?after={}", self.cursor())));
        request = request.bearer_auth(&self.device_token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.world.send(request).await
    }

    /// Polls after its cursor and keeps the next one.
    pub async fn sync(&self) -> Read {
        let after = self.cursor.borrow().clone().map(|cursor| format!("?after={cursor}")).unwrap_or_default();
        let page = self.get(&format!("/v1/sync{after}")).await.expect(200);
        *self.cursor.borrow_mut() = Some(page["next"].as_str().unwrap().to_owned());
        Read(page)
    }

    /// The cursor it holds.
    pub fn cursor(&self) -> String {
        self.cursor.borrow().clone().unwrap()
    }

    /// How far it has been given, and how far it has come back with.
    pub async fn levels(&self) -> [i64; 2] {
        let seen = self.seen().await;
        [seen["fetched"].as_i64().unwrap(), seen["acked"].as_i64().unwrap()]
    }

    /// The device as the backend sees it.
    pub async fn seen(&self) -> Value {
        self.world.get(&format!("/v1/devices/{}", self.id)).await.expect(200)
    }
}

impl Read {
    /// The entries of the page.
    pub fn events(&self) -> &Vec<Value> {
        self.0["events"].as_array().unwrap()
    }

    /// The feeds of its events, without follows.
    pub fn feeds(&self) -> Vec<&str> {
        let events = self.events().iter().filter(|event| event["type"] != "reveille.followed");
        events.map(|event| event["feed"].as_str().unwrap()).collect()
    }

    /// The positions of its entries.
    pub fn positions(&self) -> Vec<i64> {
        self.events().iter().map(|event| event["position"].as_i64().unwrap()).collect()
    }
}
