//! `reveille why`: what happened to a device, for people who ask why a phone did not update.

mod page;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use url::Url;

use super::screen::Screen;
use crate::{
    config::Remote,
    domain::{id::DeviceId, time::Clock},
};

/// How long the relay may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Arguments of `reveille why`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The app key (scope devices:read) comes from the environment, REVEILLE_APP_KEY, or from a file: never from \
    the command line, which others can see."
)]
pub struct WhyArgs {
    /// The device, by its id (dev_…) or its installation id
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The relay; without it the public URL of the configuration, or http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file that holds the app key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How many rows of its past
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Print the timeline as the relay gives it
    #[arg(long)]
    json: bool,
}

/// Asks the relay, and prints.
///
/// # Errors
/// There is no such device, the relay does not answer, or does not take the key.
pub async fn run(args: WhyArgs) -> anyhow::Result<()> {
    let remote = Remote::of_process(args.url.as_deref(), args.key_file.as_deref())?;
    let relay = Relay::new(remote)?;
    let device = relay.device(&args.device).await?;
    let id = device["id"].as_str().and_then(|id| id.parse::<DeviceId>().ok());
    let id = id.with_context(|| format!("{} does not answer as a relay does", relay.url))?;
    let limit = args.limit.to_string();
    let timeline = relay.get(&["devices", &id.to_string(), "timeline"], &[("limit", &limit)]).await?;
    let timeline = timeline.with_context(|| relay.no_device(&args.device))?;
    let screen = Screen::new();
    if args.json {
        screen.line(serde_json::to_string_pretty(&timeline)?);
    } else {
        page::show(screen, &device, &timeline, Clock::System.now());
    }
    Ok(())
}

/// A relay that is asked.
struct Relay {
    http: reqwest::Client,
    url: Url,
    remote: Remote,
}

impl Relay {
    fn new(remote: Remote) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("the HTTP client cannot be set up")?;
        Ok(Self { http, url: Url::parse(&remote.url)?, remote })
    }

    /// The device of this id or installation id.
    async fn device(&self, name: &str) -> anyhow::Result<Value> {
        let found = if name.parse::<DeviceId>().is_ok() {
            self.get(&["devices", name], &[]).await?
        } else {
            let page = self.get(&["devices"], &[("installation_id", name)]).await?;
            page.and_then(|mut page| page["items"].as_array_mut()?.pop())
        };
        found.with_context(|| self.no_device(name))
    }

    fn no_device(&self, name: &str) -> String {
        format!("there is no device {name:?} in the app of this key, at {}", self.remote.url)
    }

    /// What a route answers; `None` if there is no such thing.
    async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Option<Value>> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let at = &self.remote.url;
        let request = self.http.get(url).bearer_auth(self.remote.app_key.expose_secret());
        let response = request.send().await.with_context(|| format!("the relay at {at} cannot be reached"))?;
        let status = response.status();
        let body: Option<Value> = response.json().await.ok();
        match (status, body) {
            (StatusCode::OK, Some(body)) => Ok(Some(body)),
            (StatusCode::NOT_FOUND, Some(body)) if body["type"] == "/problems/not-found" => Ok(None),
            (StatusCode::UNAUTHORIZED, _) => bail!("the relay at {at} does not know this app key"),
            (_, Some(body)) if body["detail"].is_string() => {
                let detail = body["detail"].as_str().unwrap_or_default();
                bail!("the relay at {at} answers {status}: {}", page::printable(detail))
            }
            (status, _) => bail!("{at} answers {status}, and not as a relay does"),
        }
    }
}
