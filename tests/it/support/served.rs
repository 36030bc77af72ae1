//! The real binary as a child process, for what only a process can show.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use reveille::sim::Sim;
use serde_json::{Value, json};

use super::{
    database::Database,
    world::{MASTER_KEY, OPERATOR_KEY},
};

/// The real binary, serving.
pub struct Served {
    pub child: Mutex<Child>,
    pub url: String,
    pub http: reqwest::Client,
    /// What it has logged.
    log: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the relay's log:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Served {
    /// The real binary, once it is ready.
    pub async fn start(folder: &Path, sim: &Sim, port: u16, lease_s: u64) -> Self {
        Self::with(folder, sim, port, lease_s, &[]).await
    }

    /// One that dies at a fault point.
    pub async fn doomed(folder: &Path, sim: &Sim, port: u16, lease_s: u64, point: &str) -> Self {
        Self::with(folder, sim, port, lease_s, &[("REVEILLE_FAULT", point)]).await
    }

    /// One with more in its environment.
    pub async fn with(folder: &Path, sim: &Sim, port: u16, lease_s: u64, more: &[(&str, &str)]) -> Self {
        std::fs::write(folder.join("ca.pem"), sim.ca_pem()).unwrap();
        let database = Database::of(folder).await;
        let child = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .arg("serve")
            .current_dir(folder)
            .env_clear()
            .envs([
                ("REVEILLE_LISTEN", format!("127.0.0.1:{port}")),
                ("REVEILLE_MASTER_KEY", MASTER_KEY.into()),
                ("REVEILLE_DATABASE_URL", database.url()),
                ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY.into()),
                ("REVEILLE_APNS_URL", sim.apns_url()),
                ("REVEILLE_FCM_URL", sim.fcm_url()),
                ("REVEILLE_EXTRA_CA", "ca.pem".into()),
                ("REVEILLE_LEASE_S", lease_s.to_string()),
                ("REVEILLE_LOG", "warn".into()),
            ])
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stderr(File::create(folder.join("relay.log")).unwrap())
            .spawn()
            .unwrap();
        let served = Self {
            child: Mutex::new(child),
            url: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::new(),
            log: folder.join("relay.log"),
        };
        within(Duration::from_secs(20), "the relay is ready", async || {
            let ready = served.http.get(format!("{}/readyz", served.url)).send().await;
            ready.is_ok_and(|ready| ready.status() == 200).then_some(())
        })
        .await;
        served
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Dies without a word.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        drop(child.kill());
        child.wait().unwrap();
    }

    /// Makes an app with an FCM credential; answers a key that may do everything.
    pub async fn app_with_fcm(&self, sim: &Sim) -> String {
        self.app_with(sim, json!({})).await
    }

    /// The same with these settings.
    pub async fn app_with(&self, sim: &Sim, settings: Value) -> String {
        let app = self.post("/v1/apps", OPERATOR_KEY, json!({"name": "shop", "settings": settings})).await;
        let scopes = json!({"name": "backend", "scopes": ["admin"]});
        let path = format!("/v1/apps/{}/keys", app["id"].as_str().unwrap());
        let key = self.post(&path, OPERATOR_KEY, scopes).await["secret"].as_str().unwrap().to_owned();
        let put = self.http.put(format!("{}/v1/credentials/fcm", self.url)).bearer_auth(&key);
        assert_eq!(put.json(&sim.fcm_credential()).send().await.unwrap().status(), 201);
        key
    }

    pub async fn try_post(&self, path: &str, bearer: &str, body: &Value) -> Option<(u16, Value)> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(bearer).json(body);
        let response = request.send().await.ok()?;
        Some((response.status().as_u16(), response.json().await.ok()?))
    }

    pub async fn post(&self, path: &str, bearer: &str, body: Value) -> Value {
        let (status, body) = self.try_post(path, bearer, &body).await.unwrap();
        assert!((200..300).contains(&status), "{path}: {status} {body:#}");
        body
    }

    pub async fn get(&self, path: &str, bearer: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }
}

/// Looks until there is something.
pub async fn within<T>(limit: Duration, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
