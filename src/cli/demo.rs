//! `reveille demo`: the whole story on one machine with no account. The relay, the providers, the phones and the backend run in this
//! process and talk to each other over real sockets.

mod ledger;
mod life;
mod plan;
mod shop;
mod story;
mod summary;
mod world;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use self::plan::Plan;
use self::story::Story;
use self::world::World;
use super::screen::{self, Screen};
use crate::telemetry::{self, LogFormat};

/// Everything must be true by then, or the demo has failed.
const DEADLINE: Duration = Duration::from_secs(27);
/// How long closing down may take, so that the whole takes at most 30 s.
const CLOSING: Duration = Duration::from_secs(2);

/// Arguments of `reveille demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// How many virtual phones take part
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    phones: u16,
    /// Seeds the order of events and what is lost
    #[arg(long, value_name = "N", default_value_t = 4)]
    seed: u64,
    /// Begin a day earlier, leave everything running afterwards, and print a link to the dashboard and requests to try, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// What is logged to stderr: a level, or a filter such as `warn,reveille=debug`
    #[arg(long, value_name = "FILTER", default_value = "error", value_parser = log_filter)]
    log: String,
}

fn log_filter(given: &str) -> Result<String, String> {
    let parsed = tracing_subscriber::EnvFilter::builder().parse(given);
    parsed.map(|_| given.to_owned()).map_err(|error| error.to_string())
}

/// Runs the demo.
///
/// # Errors
/// When a phone does not have the true state in the end, naming it; or when something could not be set up.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.log, LogFormat::Text, None)?;
    let started = Instant::now();
    let deadline = started + DEADLINE;
    let screen = Screen::new();
    let plan = Plan::new(usize::from(args.phones), args.seed);
    let late = "the demo could not be set up within 27 s";
    let (world, news) =
        tokio::time::timeout_at(deadline, World::start(&plan, args.seed, args.keep)).await.context(late)??;
    if args.keep {
        screen.line("A day of the shop's life passes first, in some seconds; then the story, and then it goes on.");
        screen.line("");
    }
    summary::introduce(screen, &world, &plan);

    world.lose_pushes(args.seed);
    let (mut world, mut started, mut deadline) = (world, started, deadline);
    if args.keep {
        life::day_before(&world, args.seed).await?;
        world.begin(args.seed);
        (started, deadline) = (Instant::now(), Instant::now() + DEADLINE);
    }
    let mut story = Story::new(screen, plan, news);
    let told = tokio::select! {
        told = tokio::time::timeout_at(deadline, story.tell(&world)) => told,
        asked = super::asked_to_stop(), if !args.keep => {
            let _ = tokio::time::timeout(CLOSING, world.stop()).await;
            return asked.and_then(|()| bail!("interrupted"));
        }
    };
    story.show_rest(&world);
    if let Ok(told) = told {
        told?;
    }
    let missing = story.missing(&world);
    summary::conclude(screen, &world, &story, &missing, started.elapsed()).await?;
    if args.keep {
        life::leave_one_behind(&world).await?;
        world.invite(screen);
        tokio::select! {
            ended = story.go_on(&world) => ended?,
            failed = life::go_on(&world, args.seed) => failed?,
        }
    }
    // What is still under way has no say any more.
    let _ = tokio::time::timeout(CLOSING, world.stop()).await;
    if !missing.is_empty() {
        bail!("not the true state after {} s: {}", started.elapsed().as_secs(), missing.join(", "));
    }
    Ok(())
}
