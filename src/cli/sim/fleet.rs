//! `reveille sim --phones`: a fleet of phones in virtual time, one row of figures per policy.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::{
    exit::{Exit, Failure},
    progress::{Progress, Unit},
    screen::Screen,
};
use crate::domain::settings::Settings;
use crate::sim::fleet::{self, Plan, Policy};

/// A fleet in virtual time.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Phones in virtual time (docs/policy.md)")]
pub struct FleetArgs {
    /// For how many days.
    #[arg(long, default_value_t = 7, requires = "phones", conflicts_with = "relay",
        value_parser = clap::value_parser!(u32).range(1..=60))]
    pub days: u32,
    /// The same seed gives the same phones, events and luck.
    #[arg(long, default_value_t = 1, requires = "phones", conflicts_with = "relay")]
    pub seed: u64,
    /// App settings to try beside the defaults, as `PATCH /v1/apps/{app}` takes them; may be repeated.
    #[arg(long, value_name = "JSON", requires = "phones", conflicts_with = "relay")]
    pub settings: Vec<String>,
    /// Where a plot is written.
    #[arg(long, value_name = "FILE", requires = "phones", conflicts_with = "relay")]
    pub svg: Option<PathBuf>,
    /// Print all figures as JSON.
    #[arg(long, requires = "phones", conflicts_with = "relay")]
    pub json: bool,
}

/// Simulates, prints and ends.
pub(super) fn run(phones: u32, args: &FleetArgs) -> anyhow::Result<()> {
    let plan = Plan { phones, days: args.days, seed: args.seed };
    let mut policies = fleet::steps();
    for overrides in &args.settings {
        policies.push(policy(overrides)?);
    }
    let screen = Screen::new();
    let progress = Progress::new(u64::from(phones), Unit::Things("phones"));
    let rows = fleet::run(plan, &policies, || progress.advance(1));
    progress.end();
    if args.json {
        screen.line(format!("{:#}", fleet::json(plan, &rows)));
    } else {
        screen.line(fleet::table(plan, &rows));
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, fleet::plot(plan, &rows)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn policy(overrides: &str) -> Result<Policy, Failure> {
    let wrong = |why: String| Failure::new(Exit::Usage, format!("--settings {why}"));
    let parsed = serde_json::from_str::<serde_json::Value>(overrides);
    let parsed = parsed.map_err(|error| wrong(format!("{overrides} is not JSON: {error}")))?;
    let settings = Settings::of(&parsed).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(|error| format!("{} {}", error.pointer, error.detail)).collect();
        wrong(errors.join("; "))
    })?;
    Ok(Policy { name: overrides.to_owned(), settings })
}
