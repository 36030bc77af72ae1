//! `reveille events`: the newest events of an app, and how far each has come.

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    ask::{Answer, At, Relay},
    exit::Failure,
    screen::{Look, Screen},
    table::{Cell, Column, Table},
    text::{age, text, time},
};
use crate::domain::time::Clock;

/// Events that are asked about at a time: each costs the relay a count.
const AT_ONCE: usize = 4;

/// Arguments of `reveille events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Only those of this feed
    #[arg(long, value_name = "FEED")]
    feed: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Where to go on: the `next` of the page before
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
    /// Print the list with each event as the relay gives it, with its state and counters
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

const COLUMNS: &[Column] = &[
    Column::new("position").right(),
    Column::new("feed").least(8),
    Column::new("type").least(8),
    Column::new("key").least(6).rank(3),
    Column::new("class").rank(2),
    Column::new("ago").right(),
    Column::new("state"),
    Column::new("targeted").right().rank(1),
    Column::new("pending").right().rank(5),
    Column::new("told").right(),
    Column::new("fetched").right(),
    Column::new("acked").right().rank(4),
    Column::new("unreachable").right().rank(6),
    Column::new("event").rank(7),
];

/// The list as it is printed: the relay's, with the whole event in each place.
#[derive(Serialize)]
struct Whole<'a> {
    items: Vec<&'a RawValue>,
    next: &'a Value,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// Asks, and prints.
///
/// # Errors
/// The relay cannot be reached or refuses.
pub async fn run(args: EventsArgs) -> anyhow::Result<()> {
    let relay = Relay::of_app(&args.at).await?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(args.feed.as_deref().map(|feed| ("feed", feed)));
    query.extend(args.cursor.as_deref().map(|cursor| ("cursor", cursor)));
    let mut page = relay.get(&["events"], &query).await?.body;
    let listed: Vec<Listed> = serde_json::from_value(page["items"].take())?;
    let next = &page["next"];
    let ask = |event: Listed| {
        let relay = relay.clone();
        async move { relay.look(&["events", &event.id], &[]).await }
    };
    let asked = futures_util::stream::iter(listed).map(ask).buffered(AT_ONCE);
    // One that retention has taken meanwhile is gone.
    let events: Vec<Answer> = asked.try_filter_map(async |event| Ok::<_, Failure>(event)).try_collect().await?;
    let screen = Screen::new();
    if args.json {
        let items: Result<_, _> = events.iter().map(|event| serde_json::from_str(&event.text)).collect();
        screen.line(serde_json::to_string(&Whole { items: items?, next })?);
        return Ok(());
    }
    if events.is_empty() {
        screen.line("There is no such event.");
        return Ok(());
    }
    let mut table = Table::new(COLUMNS);
    events.iter().for_each(|event| table.row(row(&event.body)));
    table.show(screen);
    if let Some(next) = next.as_str() {
        screen.line(screen.paint(Look::Dim, &format!("There may be more: --cursor {next}")));
    }
    Ok(())
}

fn row(event: &Value) -> Vec<Cell> {
    let devices = &event["devices"];
    let state = text(&event["state"]);
    let look = if state == "settled" { Look::Good } else { Look::Odd };
    let unreachable = devices["unreachable"].as_u64().filter(|count| *count > 0);
    let unreachable = unreachable.map_or_else(String::new, |count| count.to_string());
    vec![
        text(&event["position"]).into(),
        text(&event["feed"]).into(),
        text(&event["type"]).into(),
        text(&event["key"]).into(),
        text(&event["wake"]["class"]).into(),
        time(&event["accepted_at"]).map(|at| age(Clock::System.now(), at)).unwrap_or_default().into(),
        Cell::of(look, state),
        text(&devices["targeted"]).into(),
        text(&devices["pending"]).into(),
        text(&devices["told"]).into(),
        text(&devices["fetched"]).into(),
        text(&devices["acked"]).into(),
        Cell::of(Look::Bad, unreachable),
        text(&event["id"]).into(),
    ]
}
