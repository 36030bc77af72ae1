//! How an event fares after it was accepted: a line whenever a counter moves, until no device is pending.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cli::{
    ask::Relay,
    asked_to_stop,
    exit::{Exit, Failure},
    screen::{Look, Screen},
    text::text,
};

/// How often the relay is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The counters with a column; the others are named where they are not zero.
const COLUMNS: [&str; 5] = ["targeted", "pending", "told", "fetched", "acked"];
const OTHERS: [&str; 4] = ["coalesced", "suppressed", "expired", "unreachable"];

/// For whom it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table.
    People,
    /// The event as the relay gives it, to a line.
    Json,
}

/// Follows an event until it is settled.
///
/// # Errors
/// The time is over and some device is still pending, or the relay does not answer.
pub async fn follow(relay: &Relay, screen: Screen, event: &str, limit: Duration, form: Form) -> anyhow::Result<()> {
    let began = Instant::now();
    if form == Form::People {
        screen.line("");
        let titles = COLUMNS.iter().map(|title| format!("  {title:>8}")).collect::<String>();
        screen.line(screen.paint(Look::Dim, &format!("{:>6}  {:<8}{titles}", "at s", "state")));
    }
    let stop = asked_to_stop();
    tokio::pin!(stop);
    let mut shown = Value::Null;
    loop {
        let mut pause = LOOK_EVERY;
        match relay.get(&["events", event], &[]).await {
            Ok(answer) => {
                let now = standing(&answer.body);
                if now != shown {
                    screen.line(match form {
                        Form::Json => answer.text,
                        Form::People => line(screen, began.elapsed(), &answer.body),
                    });
                    shown = now;
                }
                if answer.body["state"] == "settled" {
                    return Ok(());
                }
            }
            Err(failure) if failure.pause.is_none() => return Err(failure.into()),
            // It is durable, whatever becomes of the relay.
            Err(failure) => {
                pause = failure.pause.map_or(pause, |asked| asked.max(pause));
                screen.aside(format!("reveille: {failure}; trying again"));
            }
        }
        if began.elapsed() >= limit {
            let pending = text(&shown["devices"]["pending"]);
            let why =
                format!("not settled after {} s, {pending} pending; the relay goes on waking them", limit.as_secs());
            return Err(Failure::new(Exit::Failed, why).into());
        }
        tokio::select! {
            () = sleep(pause) => {}
            stopped = &mut stop => {
                stopped?;
                return Err(Failure::new(Exit::Failed, "interrupted; the relay goes on waking the devices").into());
            }
        }
    }
}

/// What of the event may move.
fn standing(event: &Value) -> Value {
    let mut devices = event["devices"].clone();
    if let Some(devices) = devices.as_object_mut() {
        devices.remove("counted_at");
    }
    serde_json::json!({"state": event["state"], "devices": devices})
}

fn line(screen: Screen, after: Duration, event: &Value) -> String {
    let devices = &event["devices"];
    let counts = COLUMNS.iter().map(|name| format!("  {:>8}", text(&devices[name]))).collect::<String>();
    let others = OTHERS.iter().filter(|name| devices[name].as_u64().unwrap_or(0) > 0);
    let others = others.map(|name| format!("{} {name}", text(&devices[name]))).collect::<Vec<_>>().join(", ");
    let look = if event["state"] == "settled" { Look::Good } else { Look::Odd };
    let state = screen.paint(look, &format!("{:<8}", text(&event["state"])));
    format!("{:>6.1}  {state}{counts}  {others}", after.as_secs_f64())
}
