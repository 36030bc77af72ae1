//! How a phone reads: one request to the canonical endpoint, and a snapshot when it is told to take one.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::state::{Entry, SnapshotItem};

/// A pause that the relay asks for without saying how long.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer, whatever the relay says.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// A snapshot with more pages than this is given up: a phone would not take it either.
const MOST_PAGES: usize = 1000;

/// Why there is nothing to read.
pub(super) enum Trouble {
    /// 429 or 503: come again after this.
    Later { status: u16, pause: Duration },
    /// 400 or 410: the cursor leads nowhere; the state is at this path.
    Reset { snapshot: String },
    /// 401: the device token does not hold any more.
    Locked,
    /// Anything else, in words.
    Other(String),
}

/// A page of the sync.
#[derive(Deserialize)]
pub(super) struct Page {
    pub events: Vec<Entry>,
    pub next: String,
    pub through: i64,
    pub has_more: bool,
    pub poll: Hint,
    #[serde(default)]
    pub push: PushHint,
}

/// When to come again.
#[derive(Deserialize)]
pub(super) struct Hint {
    pub after_s: u64,
}

/// What the relay says of the phone's pushes.
#[derive(Deserialize, Default)]
pub(super) struct PushHint {
    #[serde(default)]
    pub register: bool,
}

/// A whole snapshot.
pub(super) struct Snapshot {
    pub items: Vec<SnapshotItem>,
    pub as_of: String,
    pub through: i64,
}

#[derive(Deserialize)]
struct SnapshotPage {
    as_of: String,
    through: i64,
    items: Vec<SnapshotItem>,
    #[serde(default)]
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    snapshot: Option<String>,
}

/// Reads with a device token.
pub(super) struct Reader {
    pub http: reqwest::Client,
    pub device_token: SecretString,
}

impl Reader {
    /// One page behind `after`, saying which push caused it, if one did.
    pub async fn page(&self, url: &Url, after: &str, wake: Option<&str>) -> Result<Page, Trouble> {
        let mut query = vec![("after", after)];
        query.extend(wake.map(|wake| ("wake", wake)));
        self.get(url.clone(), &query).await
    }

    /// The snapshot at `path` of the relay that is polled at `url`.
    pub async fn snapshot(&self, url: &Url, path: &str) -> Result<Snapshot, Trouble> {
        let place = url.join(path).map_err(|error| Trouble::Other(error.to_string()))?;
        if place.origin() != url.origin() {
            return Err(Trouble::Other("the snapshot is not at the relay".to_owned()));
        }
        let first: SnapshotPage = self.get(place.clone(), &[]).await?;
        let mut whole = Snapshot { items: first.items, as_of: first.as_of, through: first.through };
        let mut next = first.next_page;
        for _ in 1..MOST_PAGES {
            let Some(page) = next else { return Ok(whole) };
            let more: SnapshotPage = self.get(place.clone(), &[("page", &page)]).await?;
            whole.items.extend(more.items);
            next = more.next_page;
        }
        Err(Trouble::Other("the snapshot does not end".to_owned()))
    }

    async fn get<T: DeserializeOwned>(&self, mut url: Url, query: &[(&str, &str)]) -> Result<T, Trouble> {
        url.query_pairs_mut().extend_pairs(query);
        let unreadable = |error: reqwest::Error| Trouble::Other(error.without_url().to_string());
        let request = self.http.get(url).bearer_auth(self.device_token.expose_secret());
        let answer = request.send().await.map_err(unreadable)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(unreadable);
        }
        let pause = pause(answer.headers());
        let problem: Option<Problem> = answer.json().await.ok();
        Err(match (status, problem) {
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
                Trouble::Later { status: status.as_u16(), pause }
            }
            (StatusCode::UNAUTHORIZED, _) => Trouble::Locked,
            (StatusCode::BAD_REQUEST | StatusCode::GONE, Some(Problem { snapshot: Some(snapshot), .. })) => {
                Trouble::Reset { snapshot }
            }
            (_, problem) => {
                Trouble::Other(format!("{status} {}", problem.map(|problem| problem.title).unwrap_or_default()))
            }
        })
    }
}

fn pause(headers: &reqwest::header::HeaderMap) -> Duration {
    let seconds = headers.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(DEFAULT_PAUSE, Duration::from_secs).clamp(DEFAULT_PAUSE, LONGEST_PAUSE)
}
