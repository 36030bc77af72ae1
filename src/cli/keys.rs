//! `reveille keys`: the keys of an app, for the relay's operator.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    ask::{At, Relay},
    exit::{Exit, Failure},
    screen::{Look, Screen},
    table::{Column, Table},
    text::{printable, text, when},
};
use crate::domain::{
    id::{AppId, KeyId},
    time::Timestamp,
};

/// Arguments of `reveille keys`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: Option<KeysCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// List them
    List(ListArgs),
    /// Make one; its secret is printed once and alone on stdout
    Create {
        /// What it is called, for people
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do; may be repeated, or separated by commas
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = SCOPES)]
        scopes: Vec<String>,
        /// When it ends, such as 2027-11-21T12:00:00Z; without it never
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Revoke one at once
    Revoke {
        /// Its id or name
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        at: At,
    },
}

const SCOPES: [&str; 6] =
    ["events:write", "events:read", "devices:write", "devices:read", "credentials:write", "admin"];

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

#[derive(Debug, clap::Args)]
struct Asked {
    /// Print what the relay answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Does what it says.
///
/// # Errors
/// The relay cannot be reached or refuses, or it is not clear which app is meant.
pub async fn run(args: KeysArgs) -> anyhow::Result<()> {
    let screen = Screen::new();
    match args.command.unwrap_or(KeysCommand::List(args.list)) {
        KeysCommand::List(list) => {
            let (relay, app, name) = of(&list.asked.at).await?;
            let limit = list.limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(list.cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = relay.get(&["apps", &app.to_string(), "keys"], &query).await?;
            if list.asked.json { screen.line(page.text) } else { show(screen, &name, &page.body) }
        }
        KeysCommand::Create { name, scopes, expires_at, asked } => {
            let (relay, app, of) = of(&asked.at).await?;
            let mut new = json!({"name": name, "scopes": scopes});
            if let Some(at) = expires_at {
                new["expires_at"] = json!(at);
            }
            let made = relay.send(Method::POST, &["apps", &app.to_string(), "keys"], Some(&new)).await?;
            let id = text(&made.body["id"]);
            let shown = if asked.json {
                screen.tell(made.text)
            } else {
                screen.aside(format!(
                    "Made {id}, {}, for {of}: {}. Keep it well: it is not shown again.",
                    printable(&name),
                    scopes.join(" ")
                ));
                screen.tell(text(&made.body["secret"]))
            };
            // It is not shown again, so it must not get lost in silence.
            shown.map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("the key {id} was made, and its secret could not be written: {error}; revoke it"),
                )
            })?;
        }
        KeysCommand::Revoke { key, at } => {
            let (relay, app, of) = of(&at).await?;
            let (id, name) = known(&relay, app, &key).await?;
            relay.send(Method::DELETE, &["apps", &app.to_string(), "keys", &id.to_string()], None).await?;
            screen.line(format!("Revoked {id}{name}, of {of}."));
        }
    }
    Ok(())
}

/// The relay, the app and its name.
async fn of(at: &At) -> anyhow::Result<(Relay, AppId, String)> {
    let relay = Relay::of_operator(&at.whom)?;
    let (app, name) = relay.app(at.app.as_deref()).await?;
    Ok((relay, app, name))
}

/// The key of this id or name.
async fn known(relay: &Relay, app: AppId, wanted: &str) -> anyhow::Result<(KeyId, String)> {
    if let Ok(id) = wanted.parse() {
        return Ok((id, String::new()));
    }
    let page = relay.get(&["apps", &app.to_string(), "keys"], &[("limit", "500")]).await?.body;
    let keys = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if page["next"].is_string() {
        let why = "the app has more than 500 keys: say which by its id";
        return Err(Failure::new(Exit::Usage, why).into());
    }
    let ids: Vec<KeyId> =
        keys.iter().filter(|key| key["name"] == wanted).filter_map(|key| key["id"].as_str()?.parse().ok()).collect();
    match ids.as_slice() {
        [id] => Ok((*id, format!(", {}", printable(wanted)))),
        [] => Err(Failure::new(Exit::NotFound, format!("the app has no key {wanted:?}")).into()),
        several => {
            let failure = Failure::new(Exit::Usage, format!("several keys are called {wanted:?}: say which by its id"));
            Err(several.iter().map(ToString::to_string).fold(failure, Failure::and).into())
        }
    }
}

fn show(screen: Screen, app: &str, page: &Value) {
    let keys = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if keys.is_empty() {
        screen.line(format!("{app} has no key yet. Make one:\n  reveille keys create NAME --scope events:write"));
        return;
    }
    let mut table = Table::new(&[
        Column::new("key"),
        Column::new("name").least(8),
        Column::new("scopes").least(34),
        Column::new("made (UTC)").rank(2),
        Column::new("ends (UTC)").rank(1),
    ]);
    for key in keys {
        let scopes = key["scopes"].as_array().map(|scopes| scopes.iter().map(text).collect::<Vec<_>>().join(" "));
        table.row(vec![
            text(&key["id"]).into(),
            text(&key["name"]).into(),
            scopes.unwrap_or_default().into(),
            when(&key["created_at"]).into(),
            when(&key["expires_at"]).into(),
        ]);
    }
    table.show(screen);
    if let Some(next) = page["next"].as_str() {
        screen.line(screen.paint(Look::Dim, &format!("There may be more: --cursor {next}")));
    }
}
