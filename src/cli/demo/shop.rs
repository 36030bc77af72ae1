//! The shop's backend: it sets the relay up with the operator key and publishes order updates with its app key, all over HTTP.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::domain::time::Timestamp;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts asked for at once.
const ATTEMPTS_PAGE: usize = 100;
/// More pages of attempts than any demo makes.
const MOST_PAGES: usize = 200;

/// The backend of the demo.
pub struct Shop {
    http: reqwest::Client,
    url: String,
    app_key: SecretString,
}

/// An accepted event.
#[derive(Deserialize)]
pub struct Accepted {
    pub position: i64,
}

/// One call of the relay to a provider.
#[derive(Deserialize)]
pub struct Attempt {
    #[serde(rename = "try")]
    pub tries: u32,
    pub outcome: Option<String>,
}

#[derive(Deserialize)]
struct Attempts {
    items: Vec<Attempt>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

#[derive(Deserialize)]
struct Key {
    secret: SecretString,
}

impl Shop {
    /// Makes an app and a key with every scope at the relay at `url`.
    pub async fn open(url: &str, operator_key: &SecretString) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        let app = json!({"name": "shop", "settings": settings()});
        let app: Made = ask(&http, Method::POST, &format!("{url}/v1/apps"), operator_key, Some(&app)).await?;
        let key = json!({"name": "backend", "scopes": ["admin"]});
        let keys = format!("{url}/v1/apps/{}/keys", app.id);
        let key: Key = ask(&http, Method::POST, &keys, operator_key, Some(&key)).await?;
        Ok(Self { http, url: url.to_owned(), app_key: key.secret })
    }

    /// The key of the app.
    pub fn app_key(&self) -> &SecretString {
        &self.app_key
    }

    /// Hands a provider credential over.
    pub async fn put_credential(&self, transport: &str, credential: &Value) -> anyhow::Result<()> {
        let url = format!("{}/v1/credentials/{transport}", self.url);
        let _: Value = ask(&self.http, Method::PUT, &url, &self.app_key, Some(credential)).await?;
        Ok(())
    }

    /// Publishes an event.
    pub async fn publish(&self, event: &Value) -> anyhow::Result<Accepted> {
        ask(&self.http, Method::POST, &format!("{}/v1/events", self.url), &self.app_key, Some(event)).await
    }

    /// Every call to a provider since then, by the relay's own record.
    pub async fn attempts(&self, since: Timestamp) -> anyhow::Result<Vec<Attempt>> {
        let mut all = Vec::new();
        let first = format!("{}/v1/attempts?limit={ATTEMPTS_PAGE}&since={since}", self.url);
        let mut url = first.clone();
        for _ in 0..MOST_PAGES {
            let page: Attempts = ask(&self.http, Method::GET, &url, &self.app_key, None).await?;
            all.extend(page.items);
            let Some(next) = page.next else { break };
            url = format!("{first}&cursor={next}");
        }
        Ok(all)
    }
}

/// The demo's phones are watched for seconds, so no push is saved up; a real app keeps the defaults (contract §8).
fn settings() -> Value {
    let often = json!({"gap_s": 0, "budget": {"burst": 1000, "refill_s": 1}});
    let platform = json!({"background": often, "alert": often});
    json!({"wake": {"ios": platform, "android": platform}, "online_grace_s": 0})
}

async fn ask<T: DeserializeOwned>(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    key: &SecretString,
    body: Option<&Value>,
) -> anyhow::Result<T> {
    let mut request = http.request(method, url).bearer_auth(key.expose_secret());
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.context("the relay does not answer")?;
    if !answer.status().is_success() {
        let (status, path) = (answer.status(), answer.url().path().to_owned());
        bail!("{path} answers {status}: {}", answer.text().await.unwrap_or_default());
    }
    answer.json().await.context("an answer of the relay cannot be read")
}
