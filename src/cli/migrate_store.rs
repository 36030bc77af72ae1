//! `reveille migrate-store`: from SQLite to PostgreSQL, with everything.

use std::{cell::RefCell, collections::BTreeMap};

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    exit::{Exit, Failure},
    progress::{Progress, Unit},
    screen::Screen,
};
use crate::{
    domain::time::Clock,
    store::{Moving, migrate},
};

/// Rows between two lines about the same table.
const LINE_EVERY: usize = 100_000;

/// Arguments of `reveille migrate-store`.
#[derive(Debug, clap::Args)]
pub struct MigrateStoreArgs {
    /// The database to move, as `sqlite:PATH`; no relay may be using it
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where it is to go, as `postgres://USER:PASSWORD@HOST/DATABASE`; it must be empty
    #[arg(long, value_name = "URL")]
    to: SecretString,
}

/// Copies, compares, and says how far it is.
///
/// # Errors
/// A database cannot be reached, the target is not empty, or what has arrived is not what was there.
pub async fn run(args: MigrateStoreArgs) -> anyhow::Result<()> {
    if !args.from.starts_with("sqlite:") {
        return Err(Failure::new(Exit::Usage, "--from: a move begins at sqlite:PATH").into());
    }
    if !["postgres://", "postgresql://"].iter().any(|scheme| args.to.expose_secret().starts_with(scheme)) {
        // What was given may hold a password.
        return Err(Failure::new(Exit::Usage, "--to: a move ends at postgres://USER@HOST/DATABASE").into());
    }
    let screen = Screen::new();
    let copied: RefCell<BTreeMap<String, usize>> = RefCell::default();
    let bar: RefCell<Option<Progress>> = RefCell::default();
    let tell = |moving: Moving<'_>| match moving {
        Moving::Begun(rows) => {
            let rows = u64::try_from(rows).unwrap_or_default();
            bar.replace(Some(Progress::new(rows, Unit::Things("rows"))));
        }
        Moving::Copied(table, rows) => {
            let (bar, mut copied) = (bar.borrow(), copied.borrow_mut());
            let all = copied.entry(table.to_owned()).or_default();
            let before = *all / LINE_EVERY;
            *all += rows;
            match bar.as_ref().filter(|bar| bar.is_seen()) {
                Some(bar) => {
                    bar.advance(rows as u64);
                    bar.say(format!("copying {table}"));
                }
                None if *all / LINE_EVERY > before => screen.line(format!("{table:<16} {all:>12} rows so far")),
                None => {}
            }
        }
        Moving::Verified(table, rows) => {
            let line = || screen.line(format!("{table:<16} {rows:>12} rows, the same on both sides"));
            match bar.borrow().as_ref() {
                Some(bar) => {
                    bar.say("comparing");
                    bar.above(line);
                }
                None => line(),
            }
        }
    };
    let moved = migrate(&args.from, args.to.expose_secret(), &Clock::System, tell).await;
    if let Some(bar) = bar.take() {
        bar.end();
    }
    moved?;
    screen.line("\nDone. Serve the PostgreSQL database with the same master key, and leave the file alone: cursors of");
    screen.line("phones are good at either, but what one of them accepts the other does not know.");
    Ok(())
}
