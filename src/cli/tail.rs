//! `reveille tail`: what happens in an app while it happens.

mod seen;

use std::time::Duration;

use console::Alignment;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::sleep;

use self::seen::Seen;
use super::{
    ask::{At, Relay},
    exit::{Exit, Failure},
    screen::{Look, Screen, abandoned},
    text::{look, text, time, when, wrapped},
};
use crate::domain::time::{Clock, Timestamp};

/// How often the relay is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A row may change for so long after the newest one: an attempt ends.
const SETTLES: Duration = Duration::from_secs(60);
/// Rows of a page.
const PAGE: usize = 500;
/// Pages that one look reads; what is beyond is said to be left out.
const PAGES: usize = 4;
/// Rows of the past that are shown where `--since` asks for none.
const BEFORE: usize = 10;
/// Columns of the time, the installation's name and the kind, with what is between them.
const TIME: usize = 10;
const NAME: usize = 18;
const KIND: usize = 12;
/// A terminal as wide as this has room for the kind, which most sentences begin with.
const WIDE: usize = 100;
/// In a narrower one a sentence is not broken into lines.
const NARROW: usize = 60;

/// Arguments of `reveille tail`.
#[derive(Debug, clap::Args)]
pub struct TailArgs {
    /// Begin so far back: a time such as 2026-11-21T12:00:00Z, or how long ago, such as 15m or 2h; without it with the last few rows
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Show only these kinds of rows; may be repeated
    #[arg(long = "kind", value_name = "KIND",
        value_parser = ["event", "attempt", "registered", "polled", "deferred", "dropped", "status"])]
    kinds: Vec<String>,
    /// Print the rows as the relay gives them, one to a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// When to begin.
#[derive(Debug, Clone, Copy)]
enum Since {
    At(Timestamp),
    Ago(Duration),
}

fn since(given: &str) -> Result<Since, String> {
    if let Ok(at) = given.parse() {
        return Ok(Since::At(at));
    }
    let ago = given.parse::<jiff::SignedDuration>().ok().and_then(|ago| Duration::try_from(ago).ok());
    ago.map(Since::Ago)
        .ok_or_else(|| "it must be a time such as 2026-11-21T12:00:00Z, or a duration such as 15m or 2h".to_owned())
}

/// Shows until it is asked to stop, or nobody reads any more.
///
/// # Errors
/// The relay refuses, or cannot be reached at first.
pub async fn run(args: TailArgs) -> anyhow::Result<()> {
    let relay = Relay::of_app(&args.at).await?;
    let begin = args.since.map(|since| match since {
        Since::At(at) => at,
        Since::Ago(ago) => Clock::System.now() - ago,
    });
    let tail = Tail { relay, args, screen: Screen::new() };
    tokio::select! {
        ended = tail.follow(begin) => ended,
        stopped = super::asked_to_stop() => stopped,
        () = abandoned() => Ok(()),
    }
}

struct Tail {
    relay: Relay,
    args: TailArgs,
    screen: Screen,
}

/// Something that happened, as it came and as it is read.
struct Row {
    raw: Box<RawValue>,
    row: Value,
}

/// A page as the relay gives it.
#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// What one look has found.
struct Found {
    /// Newest first.
    rows: Vec<Row>,
    /// Whether more has happened than was read.
    more: bool,
}

impl Tail {
    async fn follow(&self, begin: Option<Timestamp>) -> anyhow::Result<()> {
        let (mut seen, mut day, mut begin) = (Seen::default(), String::new(), begin);
        let mut found = match begin {
            Some(_) => self.look(begin, &seen).await?,
            None => {
                let (mut rows, _) = self.page(None, "", PAGE).await?;
                begin = rows.last().and_then(|row| time(&row.row["at"]));
                rows.retain(|row| self.wants(&row.row));
                for past in rows.drain(rows.len().min(BEFORE)..) {
                    seen.is_news(&past.row);
                }
                Found { rows, more: false }
            }
        };
        loop {
            if found.more {
                self.screen.aside("reveille: more has happened than can be shown here; some rows are left out");
            }
            for row in std::mem::take(&mut found.rows).into_iter().rev() {
                if seen.is_news(&row.row) && self.wants(&row.row) && self.show(&row, &mut day).is_err() {
                    return Ok(());
                }
            }
            sleep(LOOK_EVERY).await;
            let since = seen.newest().map(|newest| newest - SETTLES).max(begin);
            found = loop {
                match self.look(since, &seen).await {
                    Ok(found) => break found,
                    Err(failure) => {
                        let Some(pause) = failure.pause else { return Err(failure.into()) };
                        self.screen.aside(format!("reveille: {failure}; trying again"));
                        sleep(pause).await;
                    }
                }
            };
        }
    }

    /// What has happened since then and is not known, as far as a few pages go.
    async fn look(&self, since: Option<Timestamp>, seen: &Seen) -> Result<Found, Failure> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let (page, next) = self.page(since, &cursor, PAGE).await?;
            let news = page.iter().any(|row| !seen.knows(&row.row));
            let awaited = page.last().and_then(|row| time(&row.row["at"])).is_some_and(|at| seen.awaits(since, at));
            rows.extend(page);
            match next {
                Some(next) if news || awaited => cursor = next,
                _ => return Ok(Found { rows, more: false }),
            }
        }
        Ok(Found { rows, more: true })
    }

    async fn page(
        &self,
        since: Option<Timestamp>,
        cursor: &str,
        limit: usize,
    ) -> Result<(Vec<Row>, Option<String>), Failure> {
        let (since, limit) = (since.map(|at| at.to_string()), limit.to_string());
        let mut query = vec![("limit", limit.as_str())];
        query.extend(since.as_deref().map(|since| ("since", since)));
        query.extend(Some(("cursor", cursor)).filter(|(_, cursor)| !cursor.is_empty()));
        let answer = self.relay.get(&["activity"], &query).await?;
        let odd =
            |error| Failure::new(Exit::Failed, format!("{} does not answer as a relay does: {error}", self.relay.at));
        let page: Page = serde_json::from_str(&answer.text).map_err(odd)?;
        let read = |raw: Box<RawValue>| serde_json::from_str(raw.get()).map(|row| Row { raw, row });
        let rows: Result<_, _> = page.items.into_iter().map(read).collect();
        Ok((rows.map_err(odd)?, page.next))
    }

    fn wants(&self, row: &Value) -> bool {
        self.args.kinds.is_empty() || self.args.kinds.iter().any(|kind| row["kind"] == *kind)
    }

    /// Prints a row, and the day before it when a new one has begun.
    fn show(&self, Row { raw, row }: &Row, day: &mut String) -> std::io::Result<()> {
        let screen = self.screen;
        if self.args.json {
            return screen.tell(raw.get());
        }
        let at = when(&row["at"]);
        let (date, clock) = at.split_once(' ').unwrap_or(("", &at));
        if date != day.as_str() {
            date.clone_into(day);
            screen.tell(screen.paint(Look::Dim, &format!("{date} (UTC)")))?;
        }
        let whose = if row["kind"] == "event" { text(&row["feed"]) } else { text(&row["installation_id"]) };
        let (kind, says) = (text(&row["kind"]), text(&row["says"]));
        let Some(columns) = screen.columns() else {
            return screen.tell(format!("{clock:<8}  {whose:<16}  {kind:<10}  {says}"));
        };
        let whose = console::truncate_str(&whose, NAME - 2, "…");
        let whose = console::pad_str(&whose, NAME, Alignment::Left, None);
        let (kind, indent) = match columns {
            WIDE.. => (screen.paint(look(row), &format!("{kind:<KIND$}")), TIME + NAME + KIND),
            _ => (String::new(), TIME + NAME),
        };
        let lines = if columns < NARROW { vec![says] } else { wrapped(&says, columns - indent) };
        for (at, says) in lines.into_iter().enumerate() {
            screen.tell(match (at, says.split_once(' ')) {
                // Where the kind has no column, the first word has its colour.
                (0, Some((word, rest))) if kind.is_empty() => {
                    format!("{clock:<TIME$}{whose}{} {rest}", screen.paint(look(row), word))
                }
                (0, _) => format!("{clock:<TIME$}{whose}{kind}{says}"),
                _ => format!("{}{says}", " ".repeat(indent)),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_time_or_so_long_ago() {
        assert!(
            matches!(since("2026-11-21T12:00:00Z"), Ok(Since::At(at)) if at.to_string() == "2026-11-21T12:00:00.000Z")
        );
        for (given, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400)] {
            assert!(matches!(since(given), Ok(Since::Ago(ago)) if ago == Duration::from_secs(seconds)), "{given}");
        }
        for wrong in ["yesterday", "-5m", "15"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
