//! The backend of the phones' app, as far as phones need one: it holds the app key and registers its users' devices.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

/// How long a request to the relay may take, longer than the relay takes to answer anything.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Registers devices at a relay with an app key. Cloning it is cheap.
#[derive(Clone)]
pub struct Backend {
    http: reqwest::Client,
    relay: Arc<str>,
    app_key: SecretString,
}

/// What a registration answers.
#[derive(Deserialize)]
pub(super) struct Registered {
    pub id: String,
    pub device_token: SecretString,
    #[serde(default, rename = "for")]
    pub for_user: Option<String>,
    pub poll: Poll,
}

/// Where and from where the phone polls.
#[derive(Deserialize)]
pub(super) struct Poll {
    pub url: String,
    pub cursor: String,
    pub after_s: u64,
    pub reset: bool,
}

impl Backend {
    /// A backend that talks to the relay at `url` (`http://host:port`) with `app_key` (scope `devices:write`).
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(url: &str, app_key: SecretString) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, relay: url.trim_end_matches('/').into(), app_key })
    }

    pub(super) fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Registers an installation, known or not.
    pub(super) async fn register(&self, registration: &Value) -> anyhow::Result<Registered> {
        let request = self.http.post(format!("{}/v1/devices", self.relay)).json(registration);
        let answer = request.bearer_auth(self.app_key.expose_secret()).send().await.context("the relay is silent")?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("the relay refuses a registration, {status}: {}", answer.text().await.unwrap_or_default());
        }
        answer.json().await.context("the answer to a registration cannot be read")
    }
}
