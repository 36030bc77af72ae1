//! Alarms as their feed tells of them (contract §7): what stands is a key of `reveille:alarms`, and what has ended is deleted there.

use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    brake::Counts,
    device::{Environment, Transport},
    event::{NewEvent, Op, WakeSpec},
    feed::FeedName,
    time::Timestamp,
    verdict::Evidence,
    wake_rate::{Rate, Windows},
};

/// The type of the events that tell of alarms.
const KIND: &str = "reveille.alarm";
/// The member of an alarm's data that says to people what it means and what to do.
const SAYS: &str = "says";

/// The event that tells that an alarm has been raised. An object as `data` becomes members of the event's data; whoever raises the
/// alarm may say in `says` what it means.
pub fn raised(name: &str, data: Value, raised_at: Timestamp) -> NewEvent {
    let mut members = if let Value::Object(members) = data { members } else { Map::new() };
    members.insert("alarm".to_owned(), name.into());
    members.insert("raised_at".to_owned(), json!(raised_at));
    members.entry(SAYS).or_insert_with(|| format!("The alarm {name} has been raised.").into());
    NewEvent { data: to_raw_value(&members).ok(), ..event(name, Op::Upsert, raised_at) }
}

/// The event that tells that it is over.
pub fn ended(name: &str, ended_at: Timestamp) -> NewEvent {
    event(name, Op::Delete, ended_at)
}

fn event(name: &str, op: Op, at: Timestamp) -> NewEvent {
    NewEvent {
        feed: FeedName::of_alarms(),
        kind: KIND.to_owned(),
        key: Some(name.to_owned()),
        op: Some(op),
        href: None,
        data: None,
        occurred_at: Some(at),
        wake: WakeSpec::default(),
    }
}

/// The name of the alarm that a mass brake raises.
pub fn mass_brake(transport: Transport, environment: Environment) -> String {
    format!("mass-brake/{transport}/{}", environment.as_str())
}

/// What is told with it: by what evidence it went on, and what has been counted since `window_from`.
pub fn mass_brake_data(
    transport: Transport,
    environment: Environment,
    kind: Evidence,
    window_from: Timestamp,
    counts: Counts,
) -> Value {
    let release = format!("/v1/brakes/{transport}/{}/release", environment.as_str());
    let says = format!(
        "Within ten minutes the provider called {} of {} push tokens dead. That is rarely true of so many at once: look for a wrong \
         environment, topic or project. No more devices are given up until somebody releases the brake: POST {release} with \
         {{\"window\": \"restore\"}} if the fault was found, or {{\"window\": \"confirm\"}} if they are dead indeed.",
        counts.ambiguous + counts.clear,
        counts.attempted,
    );
    json!({
        SAYS: says, "transport": transport, "environment": environment, "kind": kind, "window_from": window_from,
        "attempted": counts.attempted, "ambiguous": counts.ambiguous, "clear": counts.clear, "release": release,
    })
}

/// The name of the alarm that is raised when a transport's wake rate falls.
pub fn wake_rate(transport: Transport) -> String {
    format!("wake-rate/{transport}")
}

/// What is told with it.
pub fn wake_rate_data(transport: Transport, windows: Windows, hour: Rate, week: Rate) -> Value {
    let percent = |rate: Rate| (rate.share().unwrap_or(0.0) * 100.0).round();
    let (hour_percent, week_percent) = (percent(hour), percent(week));
    let says = format!(
        "Of {wakes} {transport} pushes accepted from {from} to {until}, {hour_percent} % were followed by a poll within 15 minutes; in \
         the seven days before it was {week_percent} %. The provider took them, so look at the app: does it still poll when it is \
         woken, and was a version released that does not?",
        wakes = hour.wakes,
        from = windows.hour_from,
        until = windows.until,
    );
    let shown = |rate: Rate, from: Timestamp, until: Timestamp| {
        json!({
            "from": from, "until": until, "wakes": rate.wakes, "fetched_within_15min": rate.fetched, "wake_rate": rate.share(),
        })
    };
    json!({
        "transport": transport,
        "hour": shown(hour, windows.hour_from, windows.until),
        "usual": shown(week, windows.week_from, windows.hour_from),
        SAYS: says,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(event: &NewEvent) -> Value {
        serde_json::from_str(event.data.as_ref().unwrap().get()).unwrap()
    }

    #[test]
    fn an_alarm_is_a_key_that_comes_and_goes() {
        let at = Timestamp::from_ms(1_790_000_000_000);
        let event = raised("a/b", json!({"transport": "fcm", "says": "Look there."}), at);
        assert_eq!(event.feed.as_str(), "reveille:alarms");
        assert_eq!((event.kind.as_str(), event.key.as_deref(), event.op), (KIND, Some("a/b"), Some(Op::Upsert)));
        assert_eq!(event.occurred_at, Some(at));
        let expected = json!({"alarm": "a/b", "transport": "fcm", "raised_at": at, "says": "Look there."});
        assert_eq!(data_of(&event), expected);
        let over = ended("a/b", at);
        assert_eq!((over.feed, over.key, over.op), (event.feed, event.key, Some(Op::Delete)));
        assert!(over.data.is_none());
    }

    #[test]
    fn an_alarm_that_says_nothing_is_given_a_sentence() {
        for data in [json!({}), Value::Null] {
            let event = raised("a/b", data, Timestamp::from_ms(0));
            assert_eq!(data_of(&event)["says"], "The alarm a/b has been raised.");
        }
    }

    #[test]
    fn a_fallen_wake_rate_says_by_how_much() {
        let windows = Windows::at("2026-11-21T12:00:00Z".parse().unwrap());
        let (hour, week) = (Rate { wakes: 120, fetched: 3 }, Rate { wakes: 1000, fetched: 926 });
        let data = wake_rate_data(Transport::Fcm, windows, hour, week);
        assert_eq!([&data["hour"]["wake_rate"], &data["usual"]["wake_rate"]], [&json!(0.025), &json!(0.926)]);
        assert_eq!(data["hour"]["until"], "2026-11-21T11:45:00.000Z");
        let says = data["says"].as_str().unwrap();
        assert!(says.contains("120 fcm pushes") && says.contains(" 3 % ") && says.contains(" 93 %"), "{says}");
    }
}
