//! `reveille backup` and `reveille epoch`: a copy of the database, and a new line of history after one was restored.

use std::{path::PathBuf, sync::OnceLock};

use secrecy::ExposeSecret as _;

use super::{
    progress::{Progress, Unit},
    screen::Screen,
};
use crate::{config::Flags, store};

/// Which database.
#[derive(Debug, clap::Args)]
struct Which {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The database, as `sqlite:PATH` or `postgres://…`; without it that of the configuration
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl Which {
    fn url(self) -> anyhow::Result<secrecy::SecretString> {
        let flags = Flags { config: self.config, database_url: self.database_url, ..Flags::default() };
        Ok(super::load(&flags)?.database_url)
    }
}

/// Arguments of `reveille backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The copy; it must not exist yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    which: Which,
}

/// What `reveille epoch` does.
#[derive(Debug, clap::Subcommand)]
pub enum EpochCommand {
    /// Begin a new epoch: phones that come with a cursor of before are told to start from their snapshot
    Bump(BumpArgs),
}

/// Arguments of `reveille epoch bump`.
#[derive(Debug, clap::Args)]
pub struct BumpArgs {
    #[command(flatten)]
    which: Which,
}

/// Writes the copy.
///
/// # Errors
/// There is no such database, it is PostgreSQL's, or the file exists or cannot be written.
pub async fn run(args: BackupArgs) -> anyhow::Result<()> {
    let url = args.which.url()?;
    // A small database is copied before anybody would look at a bar.
    let bar: OnceLock<Progress> = OnceLock::new();
    let tell = |done, of| bar.get_or_init(|| Progress::new(of, Unit::Bytes)).reach(done);
    let copied = store::back_up(url.expose_secret(), &args.file, tell).await;
    if let Some(bar) = bar.into_inner() {
        bar.end();
    }
    copied?;
    let screen = Screen::new();
    screen.line(format!("{} holds the whole database as of now.", args.file.display()));
    screen.line("Keep the master key with it: without it nobody can serve the copy.");
    screen.line(
        "The first relay that serves it begins a new epoch, so that phones from its future start from their snapshots.",
    );
    Ok(())
}

/// Begins a new epoch.
///
/// # Errors
/// There is no such database, or it was never served.
pub async fn epoch(command: EpochCommand) -> anyhow::Result<()> {
    let EpochCommand::Bump(args) = command;
    store::begin_epoch(args.which.url()?.expose_secret()).await?;
    let screen = Screen::new();
    screen.line(
        "A new epoch has begun: phones that come with a cursor of before get 410 epoch-changed and their snapshot.",
    );
    screen.line("Relays on PostgreSQL know within a second; start one on SQLite again.");
    Ok(())
}
