//! The real binary on a fresh database, for benches.
#![allow(dead_code, reason = "each bench uses its part")]

pub mod ceiling;
pub mod database;
pub mod load;

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reveille::sim::Sim;
use serde_json::{Value, json};

use self::database::Database;

pub const OPERATOR_KEY: &str = "ro_operator-key-of-the-bench";
/// What a process does if nothing else is said.
const ALL_ROLES: &str = "api,dispatch,janitor";

/// A relay that runs by itself, and can be started anew.
pub struct Served {
    child: Option<Child>,
    pub folder: tempfile::TempDir,
    pub database: Database,
    pub port: u16,
    fcm_url: String,
    apns_url: String,
    http: reqwest::Client,
}

/// An app of it, with credentials for both providers.
pub struct App<'a> {
    served: &'a Served,
    pub key: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Served {
    pub async fn start(sim: &Sim) -> Self {
        let mut served = Self::new(sim).await;
        served.serve(ALL_ROLES).await;
        served
    }

    /// A relay that is not started yet.
    pub async fn new(sim: &Sim) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), sim.ca_pem()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let database = Database::new(folder.path()).await;
        let (fcm_url, apns_url) = (sim.fcm_url(), sim.apns_url());
        Self { child: None, folder, database, port, fcm_url, apns_url, http: reqwest::Client::new() }
    }

    /// Starts it with these roles, and waits until it answers.
    pub async fn serve(&mut self, roles: &str) {
        self.kill();
        self.child = Some(self.begin(self.port, roles).await);
    }

    /// Starts another process at the same database; answers it and its port. Whoever has it ends it.
    pub async fn beside(&self, roles: &str) -> (Child, u16) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        (self.begin(port, roles).await, port)
    }

    async fn begin(&self, port: u16, roles: &str) -> Child {
        let child = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .arg("serve")
            .current_dir(self.folder.path())
            .envs([
                ("REVEILLE_LISTEN", format!("127.0.0.1:{port}").as_str()),
                ("REVEILLE_DATABASE_URL", &self.database.url()),
                ("REVEILLE_ROLES", roles),
                ("REVEILLE_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY),
                ("REVEILLE_FCM_URL", &self.fcm_url),
                ("REVEILLE_APNS_URL", &self.apns_url),
                ("REVEILLE_EXTRA_CA", "ca.pem"),
                ("REVEILLE_LOG", "error"),
                ("REVEILLE_LOG_FORMAT", "json"),
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while self.http.get(format!("http://127.0.0.1:{port}/readyz")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Of the relay's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits until nothing is due or under way, and answers how many attempts were accepted in all.
    pub async fn recorded(&self) -> usize {
        while self.database.count("select count(*) from levels where due_at is not null").await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.database.count("select count(*) from attempts where outcome = 'accepted'").await
    }

    /// Waits until it has nothing more to do, and nobody counts as at work any more.
    pub async fn rest(&self) {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let mut quiet_s = 0;
        while quiet_s < 11 {
            let before = ticks();
            tokio::time::sleep(Duration::from_secs(1)).await;
            quiet_s = if ticks() - before <= 5 { quiet_s + 1 } else { 0 };
        }
    }

    /// What it has in memory, in MiB.
    pub fn memory_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The peak of its memory since the last call, in MiB. The kernel is told to forget it (proc(5), clear_refs).
    pub fn peak_mib(&self) -> f64 {
        let peak_mib = self.status_mib("VmHWM:");
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
        peak_mib
    }

    fn status_mib(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kib: f64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        kib / 1024.0
    }

    /// Makes an app in which every wake goes at once, and none again.
    pub async fn app(&self, sim: &Sim) -> App<'_> {
        let class = json!({"gap_s": 0, "budget": {"burst": 1000, "refill_s": 1}, "rewake_s": []});
        let platform = json!({"background": class, "alert": class});
        let settings = json!({"wake": {"ios": platform, "android": platform}});
        let operator = self.app_of(OPERATOR_KEY.to_owned());
        let app = operator.post("/v1/apps", json!({"name": "bench", "settings": settings})).await;
        let path = format!("/v1/apps/{}/keys", app["id"].as_str().unwrap());
        let key = operator.post(&path, json!({"name": "bench", "scopes": ["admin"]})).await;
        let app = self.app_of(key["secret"].as_str().unwrap().into());
        for (transport, credential) in [("fcm", sim.fcm_credential()), ("apns", sim.apns_credential())] {
            let put = self.http.put(format!("{}/v1/credentials/{transport}", self.url())).bearer_auth(&app.key);
            assert_eq!(put.json(&credential).send().await.unwrap().status(), 201);
        }
        app
    }

    /// The app of a key.
    pub fn app_of(&self, key: String) -> App<'_> {
        App { served: self, key }
    }
}

impl App<'_> {
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.served.http.post(format!("{}{path}", self.served.url())).bearer_auth(&self.key).json(&body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// Posts one event for each of these feeds, a hundred in a request and four requests at a time.
    pub async fn post_to(&self, feeds: impl Iterator<Item = String>) {
        let events: Vec<Value> = feeds.map(|feed| json!({"feed": feed, "type": "t"})).collect();
        let posts = events.chunks(100).map(|events| self.post("/v1/events", Value::from(events)));
        stream::iter(posts).buffer_unordered(4).for_each(|_| async {}).await;
    }

    /// Puts devices into the database as if they had registered, each following one feed: a million registrations over HTTP take longer
    /// than a bench may. One that has registered is copied; the feed is an SQL expression over the device's number `i`.
    pub async fn seed(&self, transport: &str, count: usize, feed: &str) {
        let database = &self.served.database;
        let token = if transport == "apns" { database.hex() } else { "'token-of-the-usual-length-' || i" };
        let first = format!("{transport}-first");
        let mut body = json!({"installation_id": first, "transport": transport, "token": "ab".repeat(32)});
        if transport == "apns" {
            body["topic"] = json!("com.example.shop");
        }
        self.post("/v1/devices", body).await;
        let columns = database.columns("devices").await;
        // Ids are in the order of registration, and end in the number.
        let number = "substr(cast(1000000000000000 + i as text), 2)";
        let id = format!("'dev_01h455vb4{}e' || {number}", if transport == "apns" { "a" } else { "f" });
        let values = columns.iter().map(|column| match column.as_str() {
            "id" => id.clone(),
            "installation_id" => format!("'{transport}-' || i"),
            "token" => token.to_owned(),
            column => format!("d.{column}"),
        });
        let from = format!("from {} cross join devices d where d.installation_id = '{first}'", database.numbers(count));
        let devices = format!(
            "insert into devices ({}) select {} {from}",
            columns.join(", "),
            values.collect::<Vec<_>>().join(", ")
        );
        let follows =
            format!("insert into follows (app_id, device_id, feed, since) select d.app_id, {id}, {feed}, 0 {from}");
        database.execute(format!("begin; {devices}; {follows}; commit")).await;
        database.settle().await;
    }
}
