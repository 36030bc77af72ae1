//! `reveille send`: one event into a feed, or a test event to one device, and how it fares.

mod fate;

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use self::fate::Form;
use super::{
    ask::{Answer, At, Question, Relay},
    exit::{Exit, Failure},
    given,
    screen::{Look, Screen},
    text::{span, text},
};

/// Arguments of `reveille send`.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// The feed, such as order:42
    #[arg(value_name = "FEED", required_unless_present = "device", conflicts_with = "device")]
    feed: Option<String>,
    /// The app's own word for what happened
    #[arg(value_name = "TYPE", default_value = "note", conflicts_with = "device")]
    kind: String,
    /// Send a test event to one device instead, by its id (dev_…) or its installation id
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["key", "op", "data", "href", "ttl_s", "title", "body", "idempotency_key"])]
    device: Option<String>,
    /// The key whose state the event changes, such as order/42
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// What becomes of the key's state
    #[arg(long, value_parser = ["upsert", "delete"], requires = "key")]
    op: Option<String>,
    /// JSON, or @FILE for a file that holds it, or - for stdin
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// Where the app may read more
    #[arg(long, value_name = "URL")]
    href: Option<String>,
    /// How loudly to wake; without it background, or alert if there is a title or a body
    #[arg(long, value_parser = ["alert", "background", "none"])]
    class: Option<String>,
    /// For how many seconds waking is worth while
    #[arg(long, value_name = "SECONDS")]
    ttl_s: Option<u32>,
    /// The title of the alert
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// The text of the alert
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Makes a repetition safe: the same command with the same key is stored once; without it one is made up
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Follow the event until no device is pending, or for so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
    /// Print what the relay answers; with --wait, the event again with every change, one to a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// An event as `POST /v1/events` takes it; `data` goes out as it came in.
#[derive(Debug, Serialize)]
struct NewEvent<'a> {
    feed: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    href: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake: Option<Value>,
}

/// Sends, prints, and waits if it is to.
///
/// # Errors
/// The relay does not take it, or with `--wait` some device is still pending in the end.
pub async fn run(args: SendArgs) -> anyhow::Result<()> {
    let screen = Screen::new();
    let body = match &args.device {
        Some(_) => test(&args)?,
        None => serde_json::to_string(&event(&args)?)?,
    };
    let relay = Relay::of_app(&args.at).await?;
    let (answer, repeat) = match &args.device {
        Some(device) => {
            let device = text(&relay.device(device).await?["id"]);
            let path = &["devices", &device, "test"];
            (relay.ask(Question { method: Method::POST, path, body: Some(body), ..Question::default() }).await?, None)
        }
        None => {
            let key = args.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            (post(&relay, body, &key).await?, Some(key))
        }
    };
    if args.json {
        screen.line(&answer.text);
    } else {
        show(screen, &answer, repeat.as_deref());
    }
    match args.wait {
        Some(limit_s) => {
            let form = if args.json { Form::Json } else { Form::People };
            fate::follow(&relay, screen, &text(&answer.body["id"]), Duration::from_secs(limit_s), form).await
        }
        None => Ok(()),
    }
}

async fn post(relay: &Relay, body: String, key: &str) -> Result<Answer, Failure> {
    let headers = &[("Idempotency-Key", key)];
    let question =
        Question { method: Method::POST, path: &["events"], headers, body: Some(body), ..Question::default() };
    relay.ask(question).await.map_err(|failure| match failure.pause {
        // Nobody knows whether it has been stored.
        Some(_) => failure.and(format!("it is safe to repeat this with --idempotency-key {key}")),
        None => failure,
    })
}

fn event(args: &SendArgs) -> anyhow::Result<NewEvent<'_>> {
    let alert = args.title.is_some() || args.body.is_some();
    let class = args.class.as_deref().or(alert.then_some("alert"));
    let mut wake = json!({});
    for (name, value) in [("class", class.map(Value::from)), ("ttl_s", args.ttl_s.map(Value::from))] {
        if let Some(value) = value {
            wake[name] = value;
        }
    }
    for (name, value) in [("title", &args.title), ("body", &args.body)] {
        if let Some(value) = value {
            wake["alert"][name] = value.as_str().into();
        }
    }
    Ok(NewEvent {
        feed: args.feed.as_deref().unwrap_or_default(),
        kind: &args.kind,
        key: args.key.as_deref(),
        op: args.op.as_deref(),
        href: args.href.as_deref(),
        data: args.data.as_deref().map(|data| given::json("--data", data)).transpose()?,
        wake: Some(wake).filter(|wake| *wake != json!({})),
    })
}

fn test(args: &SendArgs) -> Result<String, Failure> {
    match args.class.as_deref().unwrap_or("background") {
        "none" => Err(Failure::new(Exit::Usage, "a test wakes the device: --class alert or background")),
        class => Ok(json!({"class": class}).to_string()),
    }
}

fn show(screen: Screen, answer: &Answer, repeat: Option<&str>) {
    let event = &answer.body;
    let replayed = answer.headers.contains_key("idempotency-replayed");
    let label = |label: &str| screen.paint(Look::Dim, &format!("{label:<10}"));
    let already = if replayed { ", as it was the first time: nothing new was stored" } else { "" };
    screen.line(format!("{}{}{already}", label("accepted"), text(&event["id"])));
    screen.line(format!(
        "{}{} in {}, type {}",
        label("position"),
        text(&event["position"]),
        text(&event["feed"]),
        text(&event["type"])
    ));
    let class = text(&event["wake"]["class"]);
    let ttl = event["wake"]["ttl_s"].as_u64().filter(|_| class != "none");
    let ttl = ttl.map(|seconds| format!(", worth while for {}", span(seconds))).unwrap_or_default();
    screen.line(format!("{}{class}{ttl}", label("wake")));
    if let Some(key) = repeat {
        screen.line(format!("{}--idempotency-key {key}", label("repeat")));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        send: SendArgs,
    }

    fn made(line: &[&str]) -> Value {
        let args = Line::try_parse_from([&["send"], line].concat()).unwrap().send;
        serde_json::from_str(&serde_json::to_string(&event(&args).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn only_what_is_given_is_sent() {
        assert_eq!(made(&["order:42"]), json!({"feed": "order:42", "type": "note"}));
        assert_eq!(
            made(&["order:42", "paid", "--key", "k", "--op", "delete", "--data", "{\"a\": 1}", "--ttl-s", "60"]),
            json!({"feed": "order:42", "type": "paid", "key": "k", "op": "delete", "data": {"a": 1}, "wake": {"ttl_s": 60}})
        );
        assert_eq!(made(&["f", "--class", "none"])["wake"], json!({"class": "none"}));
    }

    #[test]
    fn a_title_makes_it_an_alert_unless_the_class_is_said() {
        assert_eq!(made(&["f", "--title", "T"])["wake"], json!({"class": "alert", "alert": {"title": "T"}}));
        let wake = &made(&["f", "--body", "B", "--class", "background"])["wake"];
        assert_eq!(
            *wake,
            json!({"class": "background", "alert": {"body": "B"}}),
            "the relay says what is wrong with it"
        );
    }

    #[test]
    fn a_device_takes_no_event_of_ones_own() {
        for line in [&["f", "--device", "d"][..], &["--device", "d", "--data", "1"], &[]] {
            assert!(Line::try_parse_from([&["send"], line].concat()).is_err(), "{line:?}");
        }
        let args = Line::try_parse_from(["send", "--device", "d", "--class", "none"]).unwrap().send;
        assert_eq!(test(&args).unwrap_err().exit(), Exit::Usage);
    }
}
