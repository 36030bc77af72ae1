//! The commands.

mod apps;
mod ask;
mod backup;
mod check;
mod demo;
mod devices;
mod events;
mod exit;
mod given;
pub mod init;
mod keys;
mod listen;
mod migrate_store;
mod progress;
mod screen;
mod send;
mod serve;
pub mod sim;
mod table;
mod tail;
mod text;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::exit::Exit;
use crate::config::{Config, Flags};

/// A push relay for mobile backends: it wakes the app; the app asks for the truth.
#[derive(Debug, Parser)]
#[command(name = "reveille", version, about, after_help = exit::CODES)]
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
    /// Look at configuration, database, relay, credentials, clocks and certificates before and while a relay runs
    Check(check::CheckArgs),
    /// Run the relay
    Serve(serve::ServeArgs),
    /// List the apps of a relay, or make, change or delete one
    Apps(apps::AppsArgs),
    /// List the keys of an app, or make or revoke one
    Keys(keys::KeysArgs),
    /// Append one event to a feed, or send a test event to one device
    Send(send::SendArgs),
    /// Show what happens in an app while it happens
    Tail(tail::TailArgs),
    /// List devices and how they stand
    Devices(devices::DevicesArgs),
    /// List events, newest first, and how far they have come
    Events(events::EventsArgs),
    /// Show what happened to a device, and why it did or did not update
    Why(why::WhyArgs),
    /// Follow a device's feeds as a phone does
    Listen(listen::ListenArgs),
    /// Run simulators of APNs, FCM and Google's token endpoint, and virtual phones; or a fleet in virtual time
    Sim(sim::SimArgs),
    /// Copy the SQLite database to a file while the relay goes on
    Backup(backup::BackupArgs),
    /// Move everything from SQLite to PostgreSQL
    MigrateStore(migrate_store::MigrateStoreArgs),
    /// Begin a new epoch after a database was restored by other means
    #[command(subcommand)]
    Epoch(backup::EpochCommand),
    /// Print what makes a shell complete these commands
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Reads the command line, does what it says, and says why it could not.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "reveille", &mut std::io::stdout());
            Ok(Exit::Done)
        }
        command => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(obey(command))),
    };
    done.unwrap_or_else(|error| exit::report(&error)).into()
}

async fn obey(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => demo::run(args).await?,
        Command::Init(args) => init::run(args)?,
        Command::Check(args) => return check::run(args).await,
        Command::Serve(args) => serve::run(args).await?,
        Command::Apps(args) => apps::run(args).await?,
        Command::Keys(args) => keys::run(args).await?,
        Command::Send(args) => send::run(args).await?,
        Command::Tail(args) => tail::run(args).await?,
        Command::Devices(args) => devices::run(args).await?,
        Command::Events(args) => events::run(args).await?,
        Command::Why(args) => why::run(args).await?,
        Command::Listen(args) => listen::run(args).await?,
        Command::Sim(args) => sim::run(args).await?,
        Command::Backup(args) => backup::run(args).await?,
        Command::MigrateStore(args) => migrate_store::run(args).await?,
        Command::Epoch(command) => backup::epoch(command).await?,
        Command::Completions { .. } => {}
    }
    Ok(Exit::Done)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
