//! The commands.

mod backup;
mod demo;
pub mod init;
mod migrate_store;
mod screen;
mod serve;
pub mod sim;
mod why;

use clap::{Parser, Subcommand};

use crate::config::{Config, Flags};

/// A push relay for mobile backends: it wakes the app; the app asks for the truth.
#[derive(Debug, Parser)]
#[command(name = "reveille", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: relay, simulated providers and virtual phones on this machine, with pushes lost on purpose
    Demo(demo::DemoArgs),
    /// Make a configuration file, a master key and an operator key
    Init(init::InitArgs),
    /// Run the relay
    Serve(serve::ServeArgs),
    /// Run simulators of APNs, FCM and Google's token endpoint, and virtual phones; or a fleet in virtual time
    Sim(sim::SimArgs),
    /// Copy the SQLite database to a file while the relay goes on
    Backup(backup::BackupArgs),
    /// Move everything from SQLite to PostgreSQL
    MigrateStore(migrate_store::MigrateStoreArgs),
    /// Begin a new epoch after a database was restored by other means
    #[command(subcommand)]
    Epoch(backup::EpochCommand),
    /// Show what happened to a device, and why it did or did not update
    Why(why::WhyArgs),
}

/// Reads the command line and does what it says.
pub fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match cli.command {
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Init(args) => init::run(args),
        Command::Serve(args) => runtime()?.block_on(serve::run(args)),
        Command::Sim(args) => runtime()?.block_on(sim::run(args)),
        Command::Backup(args) => runtime()?.block_on(backup::run(args)),
        Command::Epoch(command) => runtime()?.block_on(backup::epoch(command)),
        Command::MigrateStore(args) => runtime()?.block_on(migrate_store::run(args)),
        Command::Why(args) => runtime()?.block_on(why::run(args)),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_stop() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn load(flags: &Flags) -> anyhow::Result<Config> {
    Ok(Config::of_process(flags)?)
}
