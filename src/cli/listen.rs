//! `reveille listen`: a device's feeds in the terminal, read as a phone reads them.

mod poll;

use std::path::PathBuf;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::json;

use self::poll::Listener;
use super::{
    ask::{At, Relay},
    exit::{Exit, Failure},
    screen::{Look, Screen, abandoned},
    text::{printable, text},
};
use crate::config::{Remote, Wanted, Way};

/// No credential is of this Firebase project, for no project can be called so: nobody is pushed to for a device that is not there.
const NO_PROJECT: &str = "reveille.listen.has.no.project";

/// Arguments of `reveille listen`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The device token comes from the environment, REVEILLE_DEVICE_TOKEN, or from a file. Reading as a device \
    moves its levels: the relay takes the device to be up to date. --peek moves nothing."
)]
pub struct ListenArgs {
    /// A file that holds the device token; without it REVEILLE_DEVICE_TOKEN
    #[arg(long, value_name = "FILE", conflicts_with = "register")]
    token_file: Option<PathBuf>,
    /// Register a device of this installation id instead, with an app key (devices:write, devices:read), and delete it in the end
    #[arg(long, value_name = "ID")]
    register: Option<String>,
    /// A feed that it follows; may be repeated
    #[arg(long = "feed", value_name = "FEED", requires = "register")]
    feeds: Vec<String>,
    /// The user who is signed in on it
    #[arg(long, value_name = "USER", requires = "register")]
    user: Option<String>,
    /// Go on after this cursor; without it the snapshot is read first
    #[arg(long, value_name = "CURSOR", conflicts_with = "register")]
    after: Option<String>,
    /// Read without moving the device's levels
    #[arg(long)]
    peek: bool,
    /// How often to poll, in seconds: more often than a phone would, which is woken
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every_s: u64,
    /// Poll only as often as the relay tells phones to (`poll.after_s`)
    #[arg(long, conflicts_with = "every_s")]
    as_told: bool,
    /// Print events and items as the relay gives them, one to a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Follows until it is asked to stop, or nobody reads any more.
///
/// # Errors
/// The relay refuses, or cannot be reached at first.
pub async fn run(args: ListenArgs) -> anyhow::Result<()> {
    let screen = Screen::new();
    let whom = &args.at.whom;
    let relay = match &args.register {
        Some(installation) => {
            let relay = Relay::of_app(&args.at).await?;
            let (device, token) = register(&relay, installation, &args).await?;
            screen.aside(format!("Registered {device}; it is deleted in the end."));
            relay.with_token(token)
        }
        None => {
            let way = Way { url: whom.url.clone(), key_file: args.token_file.clone(), config: whom.config.clone() };
            Relay::new(&Remote::of_process(&way, Wanted::Device)?)?
        }
    };
    let mut listener = Listener::new(relay.clone(), screen, &args);
    if !args.json {
        let often = if args.as_told { "as often as it says".to_owned() } else { format!("every {} s", args.every_s) };
        screen.line(screen.paint(Look::Dim, &format!("Polling {} {often}; Ctrl-C ends it.", relay.at)));
    }
    let ended = tokio::select! {
        ended = listener.follow() => ended,
        stopped = super::asked_to_stop() => stopped,
        () = abandoned() => Ok(()),
    };
    if args.register.is_some() {
        match relay.send(Method::DELETE, &["devices", "me"], None).await {
            Ok(_) => screen.aside("Deleted the device."),
            // Why it ended is what people want to know first.
            Err(failure) => screen.aside(format!("reveille: the device could not be deleted: {failure}")),
        }
    } else if let (Some(cursor), Ok(())) = (listener.cursor(), &ended) {
        screen.aside(format!("To go on from here: --after {}", printable(cursor)));
    }
    ended
}

/// Makes a device that nobody is pushed to for; answers its id and its token.
async fn register(relay: &Relay, installation: &str, args: &ListenArgs) -> anyhow::Result<(String, SecretString)> {
    let known = relay.get(&["devices"], &[("installation_id", installation)]).await?;
    if known.body["items"].as_array().is_some_and(|items| !items.is_empty()) {
        let why = format!(
            "the installation {installation:?} has a device already, which would lose its push token: choose another id"
        );
        return Err(Failure::new(Exit::Failed, why).into());
    }
    let mut device = json!({
        "installation_id": installation, "transport": "fcm", "topic": NO_PROJECT, "feeds": args.feeds,
        "token": format!("reveille-listen-{}", uuid::Uuid::new_v4()), "os": "reveille listen",
    });
    if let Some(user) = &args.user {
        device["user"] = user.as_str().into();
    }
    let made = relay.send(Method::POST, &["devices"], Some(&device)).await?.body;
    let token = made["device_token"].as_str().map(SecretString::from);
    let token = token.ok_or_else(|| Failure::new(Exit::Failed, "the relay gave no device token"))?;
    Ok((text(&made["id"]), token))
}
