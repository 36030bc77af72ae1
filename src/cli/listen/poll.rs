//! The polling itself: by cursor, with the entity tag of what is known, from the snapshot where the cursor leads nowhere.

use std::time::Duration;

use console::{Alignment, pad_str, truncate_str};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::sleep;

use super::ListenArgs;
use crate::{
    cli::{
        ask::{Question, Relay, pause},
        exit::{Exit, Failure},
        screen::{Look, Screen},
        text::{printable, text, when},
    },
    domain::time::Clock,
};

/// Where a device's own snapshot is.
const SNAPSHOT: &str = "/v1/sync/snapshot";
/// A snapshot with more pages than this is given up: a phone would not take it either.
const MOST_PAGES: usize = 1000;
/// Columns of the time, and from how many on a terminal is wide.
const TIME: usize = 10;
const WIDE: usize = 100;
/// After a cursor that the relay refuses although it has just given it.
const ODD_PAUSE: Duration = Duration::from_secs(10);

/// A device that reads.
pub struct Listener<'a> {
    relay: Relay,
    screen: Screen,
    args: &'a ListenArgs,
    after: Option<String>,
    /// The entity tag of the page after `after`.
    tag: Option<String>,
    /// Whether it has been said that the push token is dead.
    dead: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: String,
    has_more: bool,
    poll: Hint,
    #[serde(default)]
    push: Push,
}

#[derive(Deserialize)]
struct Hint {
    after_s: u64,
}

#[derive(Deserialize, Default)]
struct Push {
    #[serde(default)]
    register: bool,
}

#[derive(Deserialize)]
struct SnapshotPage {
    as_of: String,
    items: Vec<Box<RawValue>>,
    next_page: Option<String>,
}

/// Why it does not go on.
enum Trouble {
    /// The relay says no, or nothing.
    Failure(Failure),
    /// Nobody reads what is written.
    NoReader,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(_: std::io::Error) -> Self {
        Self::NoReader
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Failure(Failure::new(Exit::Failed, format!("the answer cannot be read: {error}")))
    }
}

impl<'a> Listener<'a> {
    /// One that has read nothing yet.
    pub fn new(relay: Relay, screen: Screen, args: &'a ListenArgs) -> Self {
        Self { relay, screen, args, after: args.after.clone(), tag: None, dead: false }
    }

    /// Where it is.
    pub fn cursor(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Reads on and on; ends well when nobody reads what is written.
    ///
    /// # Errors
    /// The relay refuses, or cannot be reached at first.
    pub async fn follow(&mut self) -> anyhow::Result<()> {
        let mut begun = false;
        loop {
            let pause = match self.read().await {
                Ok(pause) => {
                    begun = true;
                    pause
                }
                Err(Trouble::NoReader) => return Ok(()),
                Err(Trouble::Failure(failure)) => self.recover(failure, begun)?,
            };
            sleep(pause).await;
        }
    }

    /// What to do about a failure, if anything can be done: after how long to go on.
    fn recover(&mut self, failure: Failure, begun: bool) -> Result<Duration, Failure> {
        let snapshot = failure.problem.as_ref().is_some_and(|problem| problem["snapshot"].is_string());
        if snapshot {
            // A phone starts anew. One that is sent there again and again does not hurry.
            let pause = if self.after.take().is_some() { Duration::ZERO } else { ODD_PAUSE };
            self.tag = None;
            self.screen.aside(format!("reveille: {failure}; starting from the snapshot"));
            return Ok(pause);
        }
        match failure.pause {
            Some(pause) if begun || failure.exit() != Exit::Unreachable => {
                self.screen.aside(format!("reveille: {failure}; again in {} s", pause.as_secs()));
                Ok(pause)
            }
            _ => Err(failure),
        }
    }

    /// Reads all that there is; answers when to come again.
    async fn read(&mut self) -> Result<Duration, Trouble> {
        loop {
            let Some(after) = self.after.clone() else {
                let as_of = self.snapshot(SNAPSHOT).await?;
                (self.after, self.tag) = (Some(as_of), None);
                continue;
            };
            let mut query = vec![("after", after.as_str())];
            query.extend(self.args.peek.then_some(("peek", "true")));
            let tag = self.tag.as_deref().map(|tag| ("If-None-Match", tag));
            let headers: Vec<_> = tag.into_iter().collect();
            let question = Question { path: &["sync"], query: &query, headers: &headers, ..Question::default() };
            let answer = self.relay.ask(question).await?;
            if answer.status == StatusCode::NOT_MODIFIED {
                return Ok(self.pause(pause(&answer.headers)));
            }
            let page: Page = serde_json::from_str(&answer.text)?;
            for event in &page.events {
                self.event(event).await?;
            }
            if page.push.register && !self.dead {
                self.screen.aside("reveille: the device's push token is dead; it is to register again");
            }
            self.dead = page.push.register;
            if page.events.is_empty() && !page.has_more {
                // The same question again has the same answer, and the relay can say so by its tag.
                self.tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                return Ok(self.pause(Duration::from_secs(page.poll.after_s)));
            }
            (self.after, self.tag) = (Some(page.next), None);
        }
    }

    fn pause(&self, told: Duration) -> Duration {
        if self.args.as_told { told } else { Duration::from_secs(self.args.every_s) }
    }

    /// Shows an event. A feed that is new to the device is read from its snapshot first.
    async fn event(&self, raw: &RawValue) -> Result<(), Trouble> {
        let event: Value = serde_json::from_str(raw.get())?;
        self.show(raw, &event)?;
        if let (Some("reveille.followed"), Some(path)) = (event["type"].as_str(), event["snapshot"].as_str()) {
            self.snapshot(path).await?;
        }
        Ok(())
    }

    /// Shows a whole snapshot; answers the cursor to go on after.
    async fn snapshot(&self, path: &str) -> Result<String, Trouble> {
        let parts: Vec<&str> = path.strip_prefix("/v1/").unwrap_or(path).split('/').collect();
        let (mut next, mut as_of) = (None::<String>, None);
        for _ in 0..MOST_PAGES {
            let query: Vec<_> = next.as_deref().map(|page| ("page", page)).into_iter().collect();
            let page: SnapshotPage = serde_json::from_str(&self.relay.get(&parts, &query).await?.text)?;
            for item in &page.items {
                self.show(item, &serde_json::from_str(item.get())?)?;
            }
            let first = as_of.get_or_insert(page.as_of).clone();
            match page.next_page {
                None => return Ok(first),
                following => next = following,
            }
        }
        Err(Failure::new(Exit::Failed, "the snapshot does not end").into())
    }

    fn show(&self, raw: &RawValue, event: &Value) -> std::io::Result<()> {
        if self.args.json {
            return self.screen.tell(raw.get());
        }
        let now = when(&Clock::System.now().to_string().into());
        let clock = now.split(' ').next_back().unwrap_or_default();
        // Only what a snapshot holds has no id; a follow has none either, and says what it is.
        let is_state = event["id"].is_null() && event["type"] != "reveille.followed";
        let what = match (is_state, event["op"].as_str()) {
            (true, _) => "state".to_owned(),
            (false, op) => printable(op.unwrap_or_default()),
        };
        let data = if event["data"].is_null() { String::new() } else { printable(&event["data"].to_string()) };
        let (feed, kind) = (text(&event["feed"]), text(&event["type"]));
        let rest = format!("{what:<6}  {} {data}", text(&event["key"]));
        let position = text(&event["position"]);
        let line = match self.screen.columns() {
            Some(columns) => {
                let (feed_width, kind_width) = if columns < WIDE { (12, 14) } else { (20, 20) };
                let column = |text: &str, width| {
                    let text = truncate_str(text, width, "…");
                    pad_str(&text, width, Alignment::Left, None).into_owned()
                };
                let line =
                    format!("{position:>6}  {}  {}  {rest}", column(&feed, feed_width), column(&kind, kind_width));
                truncate_str(line.trim_end(), columns.saturating_sub(TIME), "…").into_owned()
            }
            None => format!("{position:>6}  {feed:<16}  {kind:<18}  {rest}"),
        };
        self.screen.tell(format!("{}  {line}", self.screen.paint(Look::Dim, clock)))
    }
}
