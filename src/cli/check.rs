//! `reveille check`: what would go wrong, found before it does. It changes nothing, and disturbs no relay at work.

mod here;
mod outside;
mod report;
mod there;

use std::path::PathBuf;

use self::report::Report;
use super::exit::Exit;
use crate::config::{Config, Flags, Way, url_of_flag};

/// Arguments of `reveille check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing is changed, and a relay at work is not disturbed. Every credential is checked with its provider by the \
    running relay, if there is one and a key to it: an app key, or the operator's, which is good for all apps. The exit code is 6 if \
    something has failed; warnings are none."
)]
pub struct CheckArgs {
    #[command(flatten)]
    flags: Flags,
    /// The running relay; without it the one of the configuration, where it listens and under its public URL
    #[arg(long, value_name = "URL", help_heading = "The relay and the key")]
    url: Option<String>,
    /// A file that holds the key; without it REVEILLE_APP_KEY, else the operator key
    #[arg(long, value_name = "FILE", help_heading = "The relay and the key")]
    key_file: Option<PathBuf>,
    /// Only this app's credentials, by its id or name, with the operator key
    #[arg(long, value_name = "APP", help_heading = "The relay and the key")]
    app: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    fn way(&self, url: &str) -> Way {
        Way { url: Some(url.to_owned()), key_file: self.key_file.clone(), config: self.flags.config.clone() }
    }
}

/// Looks at all of it, and answers whether something has failed.
///
/// # Errors
/// The URL given is none, or nothing could be looked at: what has failed is a finding.
pub async fn run(mut args: CheckArgs) -> anyhow::Result<Exit> {
    args.url = args.url.as_deref().map(|url| url_of_flag("--url", url)).transpose()?;
    let mut report = Report::new(if args.json { report::Form::Json } else { report::Form::People });
    match Config::of_process(&args.flags) {
        Ok(config) => {
            here::configuration(&mut report, &config);
            here::database(&mut report, &config).await;
            let mut clocks = outside::Clocks::default();
            outside::providers(&mut report, &config, &mut clocks).await;
            there::relay(&mut report, &args, &config, &mut clocks).await?;
            outside::clocks(&mut report, &clocks);
        }
        Err(error) => {
            report.area("configuration");
            report.failed("settings", error.to_string(), "correct it; nothing else was looked at");
        }
    }
    Ok(report.end())
}
