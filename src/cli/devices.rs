//! `reveille devices`: the devices of an app and how they stand.

use serde_json::Value;

use super::{
    ask::{At, Relay},
    screen::{Look, Screen},
    table::{Cell, Column, Table},
    text::{age, text, time},
};
use crate::domain::time::Clock;

/// Arguments of `reveille devices`.
#[derive(Debug, clap::Args)]
pub struct DevicesArgs {
    /// Of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The one of this app installation
    #[arg(long, value_name = "ID")]
    installation_id: Option<String>,
    /// Those that follow this feed
    #[arg(long, value_name = "FEED")]
    feed: Option<String>,
    /// Those of this status
    #[arg(long, value_parser = ["active", "quarantined", "stale", "gone"])]
    status: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Where to go on: the `next` of the page before
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
    /// Print the list as the relay gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

const COLUMNS: &[Column] = &[
    Column::new("installation").least(12),
    Column::new("device"),
    Column::new("status"),
    Column::new("user").least(6).rank(2),
    Column::new("platform").rank(1),
    Column::new("seen").right(),
    Column::new("fetched").right().rank(4),
    Column::new("feeds").right().rank(5),
    Column::new("version").least(5).rank(6),
];

/// Asks, and prints.
///
/// # Errors
/// The relay cannot be reached or refuses.
pub async fn run(args: DevicesArgs) -> anyhow::Result<()> {
    let relay = Relay::of_app(&args.at).await?;
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    for (name, value) in [
        ("user", &args.user),
        ("installation_id", &args.installation_id),
        ("feed", &args.feed),
        ("status", &args.status),
        ("cursor", &args.cursor),
    ] {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    let page = relay.get(&["devices"], &query).await?;
    let screen = Screen::new();
    if args.json {
        screen.line(page.text);
        return Ok(());
    }
    let devices = page.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if devices.is_empty() {
        screen.line("There is no such device.");
        return Ok(());
    }
    let mut table = Table::new(COLUMNS);
    devices.iter().for_each(|device| table.row(row(device)));
    table.show(screen);
    if let Some(next) = page.body["next"].as_str() {
        screen.line(screen.paint(Look::Dim, &format!("There may be more: --cursor {next}")));
    }
    Ok(())
}

fn row(device: &Value) -> Vec<Cell> {
    let status = text(&device["status"]);
    let look = match status.as_str() {
        "active" => Look::Good,
        "gone" => Look::Bad,
        _ => Look::Odd,
    };
    let platform = match (text(&device["platform"]), text(&device["transport"])) {
        (platform, transport) if (&*platform, &*transport) == ("ios", "apns") => platform,
        (platform, transport) if (&*platform, &*transport) == ("android", "fcm") => platform,
        (platform, transport) => format!("{platform}, {transport}"),
    };
    let seen = time(&device["seen_at"]).map(|at| age(Clock::System.now(), at)).unwrap_or_default();
    vec![
        text(&device["installation_id"]).into(),
        text(&device["id"]).into(),
        Cell::of(look, status),
        text(&device["user"]).into(),
        platform.into(),
        seen.into(),
        text(&device["fetched"]).into(),
        device["feeds"].as_array().map_or(0, Vec::len).to_string().into(),
        text(&device["app_version"]).into(),
    ]
}
