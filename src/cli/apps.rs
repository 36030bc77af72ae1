//! `reveille apps`: the apps of a relay, for its operator.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    ask::{Answer, Relay, Whom},
    exit::{Exit, Failure},
    given,
    screen::{Look, Screen},
    table::{Cell, Column, Table},
    text::{text, when},
};

/// Arguments of `reveille apps`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AppsArgs {
    #[command(subcommand)]
    command: Option<AppsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum AppsCommand {
    /// List them
    List(ListArgs),
    /// Make one
    Create {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        /// Settings other than the defaults, as JSON, or @FILE, or - for stdin
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Show one with all its settings
    Show {
        /// Its id or name
        #[arg(value_name = "APP")]
        app: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Give one another name or other settings
    Update {
        /// Its id or name
        #[arg(value_name = "APP")]
        app: String,
        /// The new name
        #[arg(long, value_name = "NAME", required_unless_present = "settings")]
        name: Option<String>,
        /// What changes, as JSON, or @FILE, or - for stdin: a merge patch (RFC 7396), so null takes a setting back to its default
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Delete one with its devices, feeds, keys and credentials; there is no way back
    Delete {
        /// Its id or name
        #[arg(value_name = "APP")]
        app: String,
        /// Its name once more, so that it is not done by mistake
        #[arg(long, value_name = "NAME")]
        confirm: String,
        #[command(flatten)]
        whom: Whom,
    },
}

/// Arguments of the list.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Where to go on: the `next` of the page before
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// What all but `delete` take.
#[derive(Debug, clap::Args)]
struct Asked {
    /// Print what the relay answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

/// Does what it says.
///
/// # Errors
/// The relay cannot be reached or refuses.
pub async fn run(args: AppsArgs) -> anyhow::Result<()> {
    let screen = Screen::new();
    match args.command.unwrap_or(AppsCommand::List(args.list)) {
        AppsCommand::List(list) => {
            let limit = list.limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(list.cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = Relay::of_operator(&list.asked.whom)?.get(&["apps"], &query).await?;
            if list.asked.json { screen.line(page.text) } else { show(screen, &page.body) }
        }
        AppsCommand::Create { name, settings, asked } => {
            let mut new = json!({"name": name});
            if let Some(settings) = settings {
                new["settings"] = serde_json::from_str(given::json("--settings", &settings)?.get())?;
            }
            let made = Relay::of_operator(&asked.whom)?.send(Method::POST, &["apps"], Some(&new)).await?;
            told(screen, &made, &asked, "Made");
            if !asked.json {
                let name = quoted(&name);
                screen.line(format!(
                    "Next: a key for its backend\n  reveille keys create backend --app {name} --scope admin"
                ));
            }
        }
        AppsCommand::Show { app, asked } => {
            let relay = Relay::of_operator(&asked.whom)?;
            let (id, _) = relay.app(Some(&app)).await?;
            let app = relay.get(&["apps", &id.to_string()], &[]).await?;
            if asked.json {
                screen.line(app.text);
            } else {
                screen.line(format!(
                    "{}  {}, made {} UTC",
                    text(&app.body["id"]),
                    text(&app.body["name"]),
                    when(&app.body["created_at"])
                ));
                screen.line(format!("settings  {:#}", app.body["settings"]));
            }
        }
        AppsCommand::Update { app, name, settings, asked } => {
            let relay = Relay::of_operator(&asked.whom)?;
            let (id, _) = relay.app(Some(&app)).await?;
            let mut patch = json!({});
            if let Some(name) = name {
                patch["name"] = name.into();
            }
            if let Some(settings) = settings {
                patch["settings"] = serde_json::from_str(given::json("--settings", &settings)?.get())?;
            }
            let changed = relay.send(Method::PATCH, &["apps", &id.to_string()], Some(&patch)).await?;
            told(screen, &changed, &asked, "Changed");
        }
        AppsCommand::Delete { app, confirm, whom } => {
            let relay = Relay::of_operator(&whom)?;
            let (id, _) = relay.app(Some(&app)).await?;
            let name = text(&relay.get(&["apps", &id.to_string()], &[]).await?.body["name"]);
            if name != confirm {
                let why = format!("{id} is called {name:?}, not {confirm:?}; nothing was deleted");
                return Err(Failure::new(Exit::Usage, why).into());
            }
            relay.send(Method::DELETE, &["apps", &id.to_string()], None).await?;
            screen.line(format!("Deleted {name} ({id})."));
        }
    }
    Ok(())
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn told(screen: Screen, answer: &Answer, asked: &Asked, done: &str) {
    if asked.json {
        screen.line(&answer.text);
    } else {
        screen.line(format!("{done} {} ({}).", text(&answer.body["name"]), text(&answer.body["id"])));
    }
}

fn show(screen: Screen, page: &Value) {
    let apps = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if apps.is_empty() {
        screen.line("There is no app yet. Make one:\n  reveille apps create NAME");
        return;
    }
    let mut table = Table::new(&[Column::new("app"), Column::new("name").least(10), Column::new("made (UTC)").rank(1)]);
    for app in apps {
        table.row(vec![
            text(&app["id"]).into(),
            Cell::of(Look::Bold, text(&app["name"])),
            when(&app["created_at"]).into(),
        ]);
    }
    table.show(screen);
    if let Some(next) = page["next"].as_str() {
        screen.line(screen.paint(Look::Dim, &format!("There may be more: --cursor {next}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_a_shell_wants_it() {
        assert_eq!(quoted("shop"), "shop");
        assert_eq!(quoted("my shop"), "'my shop'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
