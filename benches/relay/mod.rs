//! The real binary on a fresh database, for benches.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reveille::sim::Sim;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

const OPERATOR_KEY: &str = "ro_operator-key-of-the-bench";

/// A relay that runs by itself.
pub struct Served {
    child: Child,
    pub folder: tempfile::TempDir,
    url: String,
    http: reqwest::Client,
}

/// An app of it, with credentials for both providers.
pub struct App<'a> {
    served: &'a Served,
    key: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Served {
    pub async fn start(sim: &Sim) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), sim.ca_pem()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .arg("serve")
            .current_dir(folder.path())
            .envs([
                ("REVEILLE_LISTEN", format!("127.0.0.1:{port}")),
                ("REVEILLE_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()),
                ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY.into()),
                ("REVEILLE_FCM_URL", sim.fcm_url()),
                ("REVEILLE_APNS_URL", sim.apns_url()),
                ("REVEILLE_EXTRA_CA", "ca.pem".into()),
                ("REVEILLE_LOG", std::env::var("X_LOG").unwrap_or("error".into())),
                ("REVEILLE_LOG_FORMAT", "json".into()),
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { child, folder, url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
        while served.http.get(format!("{}/readyz", served.url)).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served
    }

    /// Its database, from outside.
    pub async fn database(&self) -> SqliteConnection {
        let file = self.folder.path().join("reveille.db");
        let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(60));
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// Of the relay's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes an app in which every wake goes at once, and none again.
    pub async fn app(&self, sim: &Sim) -> App<'_> {
        let class = json!({"gap_s": 0, "budget": {"burst": 1000, "refill_s": 1}, "rewake_s": []});
        let platform = json!({"background": class, "alert": class});
        let settings = json!({"wake": {"ios": platform, "android": platform}});
        let operator = App { served: self, key: OPERATOR_KEY.to_owned() };
        let app = operator.post("/v1/apps", json!({"name": "bench", "settings": settings})).await;
        let path = format!("/v1/apps/{}/keys", app["id"].as_str().unwrap());
        let key = operator.post(&path, json!({"name": "bench", "scopes": ["admin"]})).await;
        let app = App { served: self, key: key["secret"].as_str().unwrap().into() };
        for (transport, credential) in [("fcm", sim.fcm_credential()), ("apns", sim.apns_credential())] {
            let put = self.http.put(format!("{}/v1/credentials/{transport}", self.url)).bearer_auth(&app.key);
            assert_eq!(put.json(&credential).send().await.unwrap().status(), 201);
        }
        app
    }
}

impl App<'_> {
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.served.http.post(format!("{}{path}", self.served.url)).bearer_auth(&self.key).json(&body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    /// Puts devices into the database as if they had registered, each following one feed: a million registrations over HTTP take longer
    /// than a bench may. One that has registered is copied; the feed is an SQL expression over the device's number `i`.
    pub async fn seed(&self, transport: &str, count: usize, feed: &str) {
        let token = if transport == "apns" { "'ab' || (2e62 + i)" } else { "'token-of-the-usual-length-' || i" };
        let first = format!("{transport}-first");
        let mut body = json!({"installation_id": first, "transport": transport, "token": "ab".repeat(32)});
        if transport == "apns" {
            body["topic"] = json!("com.example.shop");
        }
        self.post("/v1/devices", body).await;
        let mut database = self.served.database().await;
        let sql = "select name from pragma_table_info('devices')";
        let columns: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut database).await.unwrap();
        // Ids are in the order of registration, and end in the number.
        let number = "substr(cast(1000000000000000 + i as text), 2)";
        let id = format!("'dev_01h455vb4{}e' || {number}", if transport == "apns" { "a" } else { "f" });
        let values = columns.iter().map(|column| match column.as_str() {
            "id" => id.clone(),
            "installation_id" => format!("'{transport}-' || i"),
            "token" => token.to_owned(),
            column => format!("d.{column}"),
        });
        let numbers = format!("with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})");
        let of_first = format!("from n cross join devices d where d.installation_id = '{first}'");
        let devices = format!(
            "{numbers} insert into devices ({}) select {} {of_first}",
            columns.join(", "),
            values.collect::<Vec<_>>().join(", ")
        );
        let follows = format!(
            "{numbers} insert into follows (app_id, device_id, feed, since) select d.app_id, {id}, {feed}, 0 {of_first}"
        );
        for sql in [devices, follows] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut database).await.unwrap();
        }
    }

    /// Registers Android phones, each following one feed.
    pub async fn register(&self, kind: &str, count: usize, feed: impl Fn(usize) -> String) {
        let registrations = stream::iter(0..count).map(|number| {
            let name = format!("{kind}-{number}");
            let token = format!("token-of-{name}");
            let body = json!({"installation_id": name, "transport": "fcm", "token": token, "feeds": [feed(number)]});
            self.post("/v1/devices", body)
        });
        registrations.buffer_unordered(16).for_each(|_| async {}).await;
    }
}
