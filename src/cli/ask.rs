//! Asking a relay over HTTP: where it is, who asks, in which app, and what its answers mean for the command.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use reqwest::{Method, StatusCode, header::HeaderMap};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::exit::{Exit, Failure};
use crate::{
    config::{Remote, Wanted, Way},
    domain::id::{AppId, DeviceId},
};

/// How long the relay may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A pause that the relay asks for without saying how long, or that follows a failure.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer, whatever the relay says.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Most of an answer that is read, in bytes. A page of 500 events with 64 KiB each is the largest.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Apps that are looked through for a name.
const APPS: &str = "500";

/// Which relay, asked with which key.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The relay and the key")]
pub struct Whom {
    /// The relay; without it the public URL of the configuration, or http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A file that holds the key; without it that of the environment or the configuration
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The configuration file; without it `reveille.toml` in the current folder, if there is one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The same, and which app.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The relay and the key")]
pub struct At {
    /// Which relay, asked with which key.
    #[command(flatten)]
    pub whom: Whom,
    /// The app, by id or name, if the key is the operator's; without it the only one there is
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
}

impl Whom {
    /// What the flags say about the way to the relay.
    pub fn way(&self) -> Way {
        Way { url: self.url.clone(), key_file: self.key_file.clone(), config: self.config.clone() }
    }
}

/// A request.
#[derive(Debug, Default)]
pub struct Question<'a> {
    /// GET if it is not said.
    pub method: Method,
    /// The parts of the path behind `/v1`.
    pub path: &'a [&'a str],
    /// Parameters.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers beside the usual ones.
    pub headers: &'a [(&'a str, &'a str)],
    /// JSON.
    pub body: Option<String>,
}

/// What a relay answered: 2xx or 304.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null if there is none.
    pub body: Value,
}

/// A relay that is asked. Cloning it is cheap.
#[derive(Clone)]
pub struct Relay {
    http: reqwest::Client,
    url: Url,
    /// Its URL, for people.
    pub at: String,
    key: SecretString,
    /// What it is, for people.
    key_is: String,
    /// Sent along with the operator key.
    app: Option<AppId>,
}

impl Relay {
    /// One that is asked about an app: by its key, or by the operator, who names it or has only one.
    ///
    /// # Errors
    /// There is no key, or it is not clear which app is meant.
    pub async fn of_app(at: &At) -> anyhow::Result<Self> {
        // Whoever names an app is the operator, whatever else is in the environment.
        let wanted = if at.app.is_some() { Wanted::Operator } else { Wanted::App };
        let remote = Remote::of_process(&at.whom.way(), wanted)?;
        let relay = Self::new(&remote)?;
        if remote.is_operators() {
            let (app, _) = relay.app(at.app.as_deref()).await?;
            return Ok(relay.within(app));
        }
        if at.app.is_some() {
            let text = "--app goes with the operator key; an app key has its app already";
            return Err(Failure::new(Exit::Usage, text).into());
        }
        Ok(relay)
    }

    /// One that the operator asks.
    ///
    /// # Errors
    /// There is no operator key.
    pub fn of_operator(whom: &Whom) -> anyhow::Result<Self> {
        let remote = Remote::of_process(&whom.way(), Wanted::Operator)?;
        if !remote.is_operators() {
            return Err(Failure::new(Exit::Usage, "this command takes the operator key").into());
        }
        Self::new(&remote)
    }

    /// One that is asked with this key.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(remote: &Remote) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("the HTTP client cannot be set up")?;
        let (at, key, key_is) = (remote.url.clone(), remote.key.clone(), remote.key_is.clone());
        Ok(Self { http, url: Url::parse(&at)?, at, key, key_is, app: None })
    }

    /// The same, asked with a device's token.
    pub fn with_token(&self, token: SecretString) -> Self {
        Self { key: token, key_is: "device token".to_owned(), app: None, ..self.clone() }
    }

    /// The same, asked by the operator about this app.
    pub fn within(&self, app: AppId) -> Self {
        Self { app: Some(app), ..self.clone() }
    }

    /// The app of this id or name, or the only one, as the operator finds it; and its name.
    ///
    /// # Errors
    /// There is none, or several would do.
    pub async fn app(&self, wanted: Option<&str>) -> anyhow::Result<(AppId, String)> {
        let page = self.get(&["apps"], &[("limit", APPS)]).await?.body;
        let apps = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = |app: &Value| Some((app["id"].as_str()?.parse().ok()?, super::text::text(&app["name"])));
        let fits = |app: &(AppId, String)| wanted.is_none_or(|wanted| app.0.to_string() == wanted || app.1 == wanted);
        let all: Vec<(AppId, String)> = apps.iter().filter_map(known).collect();
        let found: Vec<_> = all.iter().filter(|app| fits(app)).collect();
        match (found.as_slice(), wanted) {
            ([(_, name)], Some(wanted)) if name == wanted && page["next"].is_string() => {
                let why = "there are so many apps that another may be called so: say which by its id";
                Err(Failure::new(Exit::Usage, why).into())
            }
            ([(id, name)], _) => Ok((*id, name.clone())),
            // One that is not among the first is asked for by its id.
            ([], Some(wanted)) => match wanted.parse() {
                Ok(id) if page["next"].is_string() => Ok((id, wanted.to_owned())),
                _ => Err(Failure::new(Exit::NotFound, format!("there is no app {wanted:?} at {}", self.at)).into()),
            },
            ([], None) => {
                let text = format!("there is no app at {} yet: make one with `reveille apps create NAME`", self.at);
                Err(Failure::new(Exit::NotFound, text).into())
            }
            (several, _) => {
                let what = wanted.map_or_else(
                    || "there are several apps".to_owned(),
                    |name| format!("several apps are called {name:?}"),
                );
                let list = several.iter().take(10).map(|(id, name)| format!("{id}  {name}"));
                let failure = Failure::new(Exit::Usage, format!("{what}: say which with --app"));
                Err(list.fold(failure, Failure::and).into())
            }
        }
    }

    /// The device of this id or installation id.
    ///
    /// # Errors
    /// There is none, or the relay refuses.
    pub async fn device(&self, name: &str) -> anyhow::Result<Value> {
        let found = if name.parse::<DeviceId>().is_ok() {
            self.look(&["devices", name], &[]).await?.map(|answer| answer.body)
        } else {
            let mut page = self.get(&["devices"], &[("installation_id", name)]).await?.body;
            page["items"].as_array_mut().and_then(Vec::pop)
        };
        Ok(found.ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no device {name:?} in the app of this key, at {}", self.at))
        })?)
    }

    /// What a route answers to a GET.
    ///
    /// # Errors
    /// As [`Relay::ask`].
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.ask(Question { path, query, ..Question::default() }).await
    }

    /// The same; `None` if there is no such thing.
    ///
    /// # Errors
    /// As [`Relay::ask`].
    pub async fn look(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Option<Answer>, Failure> {
        match self.get(path, query).await {
            Err(failure) if failure.exit() == Exit::NotFound => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// What a route answers to this body.
    ///
    /// # Errors
    /// As [`Relay::ask`].
    pub async fn send(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Answer, Failure> {
        self.ask(Question { method, path, body: body.map(Value::to_string), ..Question::default() }).await
    }

    /// Asks.
    ///
    /// # Errors
    /// The relay cannot be reached, says no, or does not answer as a relay does.
    pub async fn ask(&self, question: Question<'_>) -> Result<Answer, Failure> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(question.path);
        }
        if !question.query.is_empty() {
            url.query_pairs_mut().extend_pairs(question.query);
        }
        let mut request = self.http.request(question.method, url).bearer_auth(self.key.expose_secret());
        if let Some(app) = self.app {
            request = request.header("Reveille-App", app.to_string());
        }
        for (name, value) in question.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = question.body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers, mut bytes) = (response.status(), response.headers().clone(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES {
                let text = format!("{} answers with more than {ANSWER_BYTES} bytes, which no relay does", self.at);
                return Err(Failure::new(Exit::Failed, text));
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body: Option<Value> = serde_json::from_str(&text).ok();
        match (status, body) {
            (status, body) if status == StatusCode::NOT_MODIFIED || (status.is_success() && text.is_empty()) => {
                Ok(Answer { status, headers, text, body: body.unwrap_or_default() })
            }
            (status, Some(body)) if status.is_success() => Ok(Answer { status, headers, text, body }),
            (StatusCode::UNAUTHORIZED, Some(body)) if body["type"] == "/problems/unauthorized" => {
                let text = format!("the relay at {} does not know this {}", self.at, self.key_is);
                Err(Failure::new(Exit::Refused, text))
            }
            (status, Some(body)) if body["detail"].is_string() => {
                let failure = Failure::of_problem(&self.at, status, body);
                Err(match status {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                        failure.passes_after(pause(&headers))
                    }
                    _ if status.is_server_error() => failure.passes_after(DEFAULT_PAUSE),
                    _ => failure,
                })
            }
            (status, _) => {
                let text = format!("{} answers {status}, and not as a relay does", self.at);
                let failure = Failure::new(Exit::Failed, text);
                // What stands in front of a relay speaks for it while that is away.
                Err(if status.is_server_error() { failure.passes_after(DEFAULT_PAUSE) } else { failure })
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let text = format!("the relay at {} cannot be reached: {}", self.at, cause(error));
        Failure::new(Exit::Unreachable, text).passes_after(DEFAULT_PAUSE)
    }
}

/// The last cause of an error, which says most, in words.
pub fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    // What TLS takes the beginning of an answer in plain HTTP for.
    let hint = if text.contains("InvalidContentType") { "; what answers there may speak http, not https" } else { "" };
    text + hint
}

/// How long the relay wants to be left alone.
pub fn pause(headers: &HeaderMap) -> Duration {
    let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(DEFAULT_PAUSE, Duration::from_secs).clamp(DEFAULT_PAUSE, LONGEST_PAUSE)
}
