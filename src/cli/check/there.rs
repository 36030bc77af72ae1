//! What a running relay tells: whether it is ready, whether the key is good, and what providers say about each credential.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{CheckArgs, here, outside, outside::Clocks, report::Report};
use crate::{
    cli::{
        ask::{Relay, cause},
        exit::{Exit, Failure},
        text::text,
    },
    config::{Config, ConfigError, Remote, Role, Wanted},
    domain::id::AppId,
    fault,
};

/// How long a relay may take to say that it is ready.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Apps whose credentials are checked, and checks at a time.
const APPS: usize = 100;
const AT_ONCE: usize = 4;

/// The relay, and what it can find out.
///
/// # Errors
/// The HTTP client cannot be set up.
pub async fn relay(report: &mut Report, args: &CheckArgs, config: &Config, clocks: &mut Clocks) -> anyhow::Result<()> {
    report.area("relay");
    let Some(url) = reached(report, args, config, clocks).await? else {
        report.not_checked(
            "credentials",
            "only a running relay can ask the providers about them",
            "check again when it runs",
        );
        return Ok(());
    };
    let wanted = if args.app.is_some() { Wanted::Operator } else { Wanted::App };
    let remote = match (Remote::of_process(&args.way(&url), wanted), &config.operator_key) {
        (Ok(remote), _) => remote,
        (Err(ConfigError::NoAppKey | ConfigError::NoOperatorKey), Some(key)) => {
            Remote { url, key: key.clone(), key_is: "operator key".to_owned() }
        }
        (Err(error @ (ConfigError::NoAppKey | ConfigError::NoOperatorKey)), None) => {
            report.not_checked("credentials", error.to_string(), "");
            return Ok(());
        }
        (Err(error), _) => {
            report.failed("key", error.to_string(), "name a file that holds one");
            return Ok(());
        }
    };
    let relay = Relay::new(&remote)?;
    if let Err(failure) = of_apps(report, args, &remote, &relay).await {
        let known = failure.downcast_ref::<Failure>();
        let again = known.and_then(Failure::again).map(|pause| format!("check again in {} s", pause.as_secs()));
        let todo = again.unwrap_or_else(|| "see the relay's log".to_owned());
        match known.map(Failure::exit) {
            Some(Exit::Refused) => report.failed("key", failure.to_string(), "give a key of this relay"),
            _ => report.failed("credentials", failure.to_string(), todo),
        }
    }
    Ok(())
}

/// Where a relay answers, if it does.
async fn reached(
    report: &mut Report,
    args: &CheckArgs,
    config: &Config,
    clocks: &mut Clocks,
) -> anyhow::Result<Option<String>> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .tls_info(true)
        .build()?;
    let (local, public) = (here::local_url(config), config.public_url.clone());
    let is_public = public != format!("http://{}", config.listen) && public != local;
    let mut places = Vec::new();
    match &args.url {
        Some(url) => places.push(("relay", url.clone())),
        None if !config.roles.contains(&Role::Api) && !is_public => {}
        None => {
            places.push(("relay", local));
            places.extend(is_public.then_some(("public URL", public)));
        }
    }
    if places.is_empty() {
        report.not_checked("relay", "this process does not listen: its roles lack api", "name the relay with --url");
    }
    let (mut found, clock) = (None, fault::clock());
    for (about, url) in places {
        let began = clock.now();
        let answer = http.get(format!("{url}/readyz")).send().await;
        let ended = clock.now();
        match answer {
            Ok(response) => {
                clocks.hear(&format!("the relay at {url}"), began, ended, &response);
                outside::server_certificate(report, &response);
                if is_ready(report, about, &url, response).await {
                    found.get_or_insert(url);
                }
            }
            // A machine that is to become a relay is none yet.
            Err(error) if error.is_connect() && about == "relay" && args.url.is_none() => {
                not_there(report, config, &url).await;
            }
            Err(error) => {
                let says = format!("{url} cannot be reached: {}", cause(&error));
                match (about, &found, &args.url) {
                    ("public URL", None, None) => report.not_checked(about, says, "check again when the relay runs"),
                    ("public URL", Some(_), None) => {
                        let todo =
                            "phones poll there: see to the proxy in front of the relay, its name and its certificate";
                        report.failed(about, format!("the relay runs, but {says}"), todo);
                    }
                    _ => report.failed(about, says, "see that it runs, and that this machine may connect to it"),
                }
            }
        }
    }
    Ok(found)
}

/// Nobody answers: a relay could listen there, or another program is in its place.
async fn not_there(report: &mut Report, config: &Config, url: &str) {
    match tokio::net::TcpListener::bind(config.listen).await {
        Ok(_) => report.not_checked("relay", format!("none runs at {url}"), "start it with `reveille serve`"),
        Err(error) => {
            let says = format!("none runs at {url}, and none could listen on {}: {error}", config.listen);
            report.failed("relay", says, "set REVEILLE_LISTEN to a free address of this machine");
        }
    }
}

/// An answer, if it is as short as a relay's: something else may be at this address.
async fn beginning(mut response: reqwest::Response) -> Option<Vec<u8>> {
    const MOST_BYTES: usize = 64 * 1024;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MOST_BYTES {
            return None;
        }
    }
    Some(bytes)
}

/// Whether what answers is a relay, and says so.
async fn is_ready(report: &mut Report, about: &str, url: &str, response: reqwest::Response) -> bool {
    let status = response.status();
    let body: Value = beginning(response).await.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    match (status, body["status"].as_str()) {
        (StatusCode::OK, Some("ready")) => {
            report.ok(about, format!("{url} is ready"));
            true
        }
        (_, Some("not ready")) => {
            let todo = "its log says why, and so does /readyz to the operator key";
            report.failed(about, format!("{url} is not ready: its database or its dispatcher does not answer"), todo);
            true
        }
        _ => {
            report.failed(
                about,
                format!("{url} answers {status}, and not as a relay does"),
                "see what is at this address",
            );
            false
        }
    }
}

/// The credentials of the key's app, or of all apps if it is the operator's.
async fn of_apps(report: &mut Report, args: &CheckArgs, remote: &Remote, relay: &Relay) -> anyhow::Result<()> {
    if !remote.is_operators() {
        let me = relay.get(&["me"], &[]).await?.body;
        let name = text(&me["app"]["name"]);
        report.ok("key", format!("it is good for the app {name}"));
        return Ok(of_app(report, &name, relay).await?);
    }
    let apps: Vec<(AppId, String)> = match &args.app {
        Some(app) => vec![relay.app(Some(app)).await?],
        None => {
            let page = relay.get(&["apps"], &[("limit", &APPS.to_string())]).await?.body;
            let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            if page["next"].is_string() {
                report.not_checked("credentials", format!("of more than the first {APPS} apps"), "name one with --app");
            }
            items.iter().filter_map(|app| Some((app["id"].as_str()?.parse().ok()?, text(&app["name"])))).collect()
        }
    };
    report.ok("key", "the operator key is good");
    if apps.is_empty() {
        report.not_checked("credentials", "there is no app yet", "make one with `reveille apps create NAME`");
    }
    for (app, name) in apps {
        of_app(report, &name, &relay.within(app)).await?;
    }
    Ok(())
}

/// What the providers say about an app's credentials, and which alarms stand.
async fn of_app(report: &mut Report, app: &str, relay: &Relay) -> Result<(), Failure> {
    let credentials = match relay.get(&["credentials"], &[]).await {
        Ok(answer) => answer.body,
        Err(failure) if failure.exit() == Exit::Refused && failure.problem.is_some() => {
            report.not_checked(
                "credentials",
                failure.to_string(),
                "give a key with the scope credentials:write, or the operator's",
            );
            return alarms(report, app, relay).await;
        }
        Err(failure) => return Err(failure),
    };
    let credentials: Vec<(String, String)> = credentials["items"]
        .as_array()
        .map(|items| items.iter().map(|item| (text(&item["transport"]), text(&item["name"]))).collect())
        .unwrap_or_default();
    if credentials.is_empty() {
        let says = format!("{app} has none, so none of its devices is woken");
        report.warning(
            "credentials",
            says,
            "PUT /v1/credentials/{transport}; credentials-example/README.md says where they come from",
        );
    }
    let ask = |(transport, name): (String, String)| async move {
        let path = ["credentials", &transport, &name, "check"];
        let answer = relay.send(Method::POST, &path, None).await;
        (format!("{app} {transport}/{name}"), answer)
    };
    let answers: Vec<_> = futures_util::stream::iter(credentials).map(ask).buffered(AT_ONCE).collect().await;
    for (about, answer) in answers {
        match answer {
            Ok(answer) => credential(report, &about, &answer.body),
            Err(failure) => {
                let again = failure.pause.map(|pause| format!("check again in {} s", pause.as_secs()));
                report.not_checked(&about, failure.to_string(), again.unwrap_or_default());
            }
        }
    }
    alarms(report, app, relay).await
}

fn credential(report: &mut Report, about: &str, check: &Value) {
    let (meaning, says) = (text(&check["meaning"]), text(&check["says"]));
    // The sentence says what it means and then what to do.
    let (what, todo) = says.split_once(": ").unwrap_or((&says, ""));
    let words = [text(&check["status"]), text(&check["reason"])].join(" ");
    let said = if words.trim().is_empty() { String::new() } else { format!(" ({})", words.trim()) };
    match meaning.as_str() {
        "usable" => report.ok(about, format!("its provider accepts it, {} ms", text(&check["took_ms"]))),
        "throttled" | "unavailable" | "unclear" => report.warning(about, format!("{what}{said}"), todo),
        _ => report.failed(about, format!("{what}{said}"), todo),
    }
}

/// Alarms that stand are no failure of this machine, and worth a look.
async fn alarms(report: &mut Report, app: &str, relay: &Relay) -> Result<(), Failure> {
    let stats = match relay.get(&["stats"], &[]).await {
        Ok(stats) => stats.body,
        Err(failure) if failure.exit() == Exit::Refused => return Ok(()),
        Err(failure) => return Err(failure),
    };
    for alarm in stats["alarms"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let says = match text(&alarm["data"]["says"]) {
            says if says.is_empty() => text(&alarm["name"]),
            says => says,
        };
        let about = format!("{app} alarm");
        report.warning(
            &about,
            says,
            format!("since {}; GET /v1/brakes and /v1/stats say more", text(&alarm["raised_at"])),
        );
    }
    Ok(())
}
