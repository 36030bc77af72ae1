//! The real binary on a fresh database, for benches.
#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reveille::sim::Sim;
use serde_json::{Value, json};

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
                ("REVEILLE_LOG", "error".into()),
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
