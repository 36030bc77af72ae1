//! `reveille serve`: the relay.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::screen::Screen;
use crate::{
    config::{Flags, unknown_variables},
    fault,
    relay::{Background, Relay},
    store::StoreOptions,
    telemetry,
};

/// Arguments of `reveille serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
    /// Show the configuration with secrets masked, and where each value comes from; then exit
    #[arg(long)]
    print_config: bool,
}

/// Every connection is a file, and a shell allows few by itself: as many as the system lets us have.
fn allow_files() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, ..limits };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, allowed = limits.current, "the number of open files could not be raised");
    }
}

/// Serves until asked to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let config = super::load(&args.flags)?;
    if args.print_config {
        Screen::new().line(config.print());
        return Ok(());
    }
    config.require_master_key()?;
    let collector = config.otlp_url.as_deref();
    let _telemetry = telemetry::init(&config.log, config.log_format, collector)?;
    let unknown = unknown_variables();
    if !unknown.is_empty() {
        let names = unknown.join(" ");
        tracing::warn!(names, "variables of the environment that are no settings are ignored: are they misspelt?");
    }
    allow_files();
    let relay = Relay::start(&config, fault::clock(), StoreOptions::default(), Background::Runs).await?;
    if config.operator_key.is_none() {
        tracing::warn!("there is no operator key: apps and app keys cannot be made (REVEILLE_OPERATOR_KEY)");
    }
    tracing::info!(address = relay.address().map(tracing::field::display), roles = ?config.roles, "serving");
    super::asked_to_stop().await?;
    tracing::info!("stopping");
    relay.stop().await;
    Ok(())
}
