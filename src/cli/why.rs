//! `reveille why`: what happened to a device, for people who ask why a phone did not update.

mod page;

use anyhow::Context as _;

use super::{
    ask::{At, Relay},
    screen::Screen,
};
use crate::domain::{id::DeviceId, time::Clock};

/// Arguments of `reveille why`.
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// The device, by its id (dev_…) or its installation id
    #[arg(value_name = "DEVICE")]
    device: String,
    /// How many rows of its past
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Print the timeline as the relay gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Asks the relay, and prints.
///
/// # Errors
/// There is no such device, the relay does not answer, or does not take the key.
pub async fn run(args: WhyArgs) -> anyhow::Result<()> {
    let relay = Relay::of_app(&args.at).await?;
    let device = relay.device(&args.device).await?;
    let id = device["id"].as_str().and_then(|id| id.parse::<DeviceId>().ok());
    let id = id.with_context(|| format!("{} does not answer as a relay does", relay.at))?;
    let limit = args.limit.to_string();
    let timeline = relay.get(&["devices", &id.to_string(), "timeline"], &[("limit", &limit)]).await?;
    let screen = Screen::new();
    if args.json {
        screen.line(timeline.text);
    } else {
        page::show(screen, &device, &timeline.body, Clock::System.now());
    }
    Ok(())
}
