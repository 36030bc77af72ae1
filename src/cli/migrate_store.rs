//! `reveille migrate-store`: from SQLite to PostgreSQL, with everything.

use std::{cell::RefCell, collections::BTreeMap};

use secrecy::{ExposeSecret as _, SecretString};

use super::screen::Screen;
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
    let screen = Screen::new();
    let copied: RefCell<BTreeMap<String, usize>> = RefCell::default();
    let tell = |moving: Moving<'_>| match moving {
        Moving::Copied(table, rows) => {
            let mut copied = copied.borrow_mut();
            let all = copied.entry(table.to_owned()).or_default();
            let before = *all / LINE_EVERY;
            *all += rows;
            if *all / LINE_EVERY > before {
                screen.line(format!("{table:<16} {all:>12} rows so far"));
            }
        }
        Moving::Verified(table, rows) => screen.line(format!("{table:<16} {rows:>12} rows, the same on both sides")),
    };
    migrate(&args.from, args.to.expose_secret(), &Clock::System, tell).await?;
    screen.line("\nDone. Serve the PostgreSQL database with the same master key, and leave the file alone: cursors of");
    screen.line("phones are good at either, but what one of them accepts the other does not know.");
    Ok(())
}
