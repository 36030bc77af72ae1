//! The sentence of each row of a timeline: the words of contract §7 first, then what they mean to people.

use crate::{
    domain::{
        device::{DeviceStatus, Transport},
        event::{Class, WakeClass},
        feed::Position,
        lag::{Lag, Present},
        policy::{DeferReason, DropReason},
        push::Outcome,
        timeline::{Moment, Registered},
    },
    store::{Attempt, Device, Heard},
};

/// Why a device that is not active is not woken as others are.
pub(super) fn standing(device: &Device) -> String {
    let since = format!("{} since {}", device.status.as_str(), device.status_at);
    let reason = device.status_reason.as_deref().map(|reason| format!(": {}", in_words(reason))).unwrap_or_default();
    format!("{since}{reason}; {}", consequence(device.status))
}

/// How it stands with what has not been fetched. `attempt` is the newest call that was made for it.
pub(super) fn present(lag: &Lag, present: Present, attempt: Option<&Attempt>) -> String {
    let what = up_to(lag.class, lag.head);
    let answer = attempt.and_then(answer).map(|answer| format!("; {answer}")).unwrap_or_default();
    match present {
        Present::Called(_) => format!("sent: {what}; no answer yet"),
        Present::Told(again_at) => {
            let told = match (lag.wakes, lag.told_at) {
                (0, _) | (_, None) => "told by an alert".to_owned(),
                (1, Some(at)) => format!("told once, at {at}"),
                (wakes, Some(at)) => format!("told {wakes} times, last at {at}"),
            };
            let next = again_at.map_or_else(|| "no more wakes".to_owned(), |at| format!("next wake at {at}"));
            format!(
                "{told}, and not fetched: the push was lost, the phone is offline, or the app was closed; {next} ({what})"
            )
        }
        Present::Retries(until) => format!("deferred: retry, until {until}{answer} ({what})"),
        Present::Waits(until, None) => format!("about to be looked at, at {until} ({what})"),
        Present::Waits(until, Some(reason)) => {
            let before = match lag.wakes {
                0 => String::new(),
                wakes => format!("; told before ({wakes}), up to {}, and not fetched", lag.told),
            };
            format!("deferred: {}, until {until}; {}{before} ({what})", reason.as_str(), why_deferred(reason))
        }
        Present::Ended(Some(reason)) => format!("{} ({what})", dropped(reason)),
        Present::Ended(None) => format!("not told, and no wake is planned{answer} ({what})"),
    }
}

/// What a row of the timeline tells.
pub(super) fn moment(moment: &Moment) -> String {
    match moment {
        Moment::Registered { change } => match change {
            Registered::Created => "registered: a new installation",
            Registered::UserChanged => {
                "registered: user changed; what waited for the user before has ended, and only what is new from here on counts"
            }
            Registered::TokenChanged => "registered: another push token, environment or topic",
            Registered::Same => "registered again: nothing new",
        }
        .to_owned(),
        Moment::Deferred { class, head, reason, until } => {
            let why = why_deferred(*reason);
            format!("deferred: {}, until {until}; {why} ({})", reason.as_str(), up_to(*class, *head))
        }
        Moment::Dropped { class, head, reason } => format!("{} ({})", dropped(*reason), up_to(*class, *head)),
        Moment::Polled { fetched, acked, wake } => {
            let cause = wake.map(|wake| format!("; brought by {wake}")).unwrap_or_default();
            format!("polled: came back with everything up to {acked}, was given everything up to {fetched}{cause}")
        }
        Moment::Status { status, reason } => {
            let reason = reason.as_deref().map(|reason| format!(": {}", in_words(reason))).unwrap_or_default();
            format!("now {}{reason}; {}", status.as_str(), consequence(*status))
        }
    }
}

/// What a call was for, and what the provider said.
pub(super) fn attempt(attempt: &Attempt) -> String {
    let what = up_to(attempt.class, attempt.head);
    let again = if attempt.tries > 1 { format!(" again, try {}", attempt.tries) } else { String::new() };
    let answer = answer(attempt).unwrap_or_else(|| "no answer yet".to_owned());
    let retry = attempt.retry_at.map(|at| format!("; deferred: retry, until {at}")).unwrap_or_default();
    format!("sent{again}: {answer}{retry} ({what})")
}

/// What an event asks for, and what has become of it.
pub(super) fn event(event: &Heard) -> String {
    let wanted = match event.class {
        WakeClass::Alert => "an alert",
        WakeClass::Background => "a background wake",
        WakeClass::None => "no wake",
    };
    let taken = event.wake.filter(|(_, head)| *head != event.position);
    let taken = taken.map(|(_, head)| format!("; coalesced: the wake up to {head} took it along")).unwrap_or_default();
    format!("event {} in {} ({}) asks for {wanted}{taken}", event.position, event.feed, event.kind)
}

fn up_to(class: Class, head: Position) -> String {
    format!("{}, up to {head}", class.as_str())
}

fn consequence(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Active => "it is woken as usual",
        DeviceStatus::Quarantined => "one probe a day, until one is accepted or the device polls",
        DeviceStatus::Stale => "no sign of life for long: no background wakes until it polls, alerts go on",
        DeviceStatus::Gone => "no pushes until it registers again",
    }
}

fn why_deferred(reason: DeferReason) -> &'static str {
    match reason {
        DeferReason::Gap => "it is too soon after the push before",
        DeferReason::Budget => "out of budget: the platform would hold back more pushes",
        DeferReason::Rewake => "it has been told and has time to come",
        DeferReason::AlertStored => "Apple keeps one notification per app, and this one would replace the alert",
        DeferReason::Quarantined => "its token is doubtful: one probe a day",
        DeferReason::ProviderDown => "the provider has been in trouble, and is left alone for a while",
        DeferReason::CallUnderWay => "the device is being called on behalf of its other class",
        DeferReason::Online => "it has a live connection, and time to come by itself",
    }
}

fn dropped(reason: DropReason) -> String {
    let why = match reason {
        DropReason::AlreadyFetched => "the device polled before a push was needed",
        DropReason::Online => "the device has a live connection and came by itself",
        DropReason::AlreadyTold => "another push has told all of it",
        DropReason::Unanswered => "it was told as often as it may be, and never came",
        DropReason::Expired => "its time was over before it could be sent",
        DropReason::Gone => "no pushes until the device registers again",
        DropReason::Stale => "no sign of life for long: no background wakes until it polls",
        DropReason::NoCredential => {
            "wrong topic, wrong environment, or a missing credential: none of the app's serves this device"
        }
        DropReason::Unfollowed => "the device has left the feed",
    };
    format!("{}: {}; {why}", reason.decided().as_str(), reason.as_str())
}

/// What the provider answered, in its words and in ours; `None` while it has not.
fn answer(attempt: &Attempt) -> Option<String> {
    let outcome = attempt.outcome?;
    let words = match (attempt.status, &attempt.reason) {
        (Some(status), Some(reason)) => format!(": {status} {}", in_words(reason)),
        (Some(status), None) => format!(": {status}"),
        (None, Some(reason)) => format!(": {}", in_words(reason)),
        (None, None) => String::new(),
    };
    let provider = match attempt.transport {
        Transport::Fcm => "FCM",
        Transport::Apns => "APNs",
    };
    Some(match outcome {
        Outcome::Accepted => format!("{provider} accepted it"),
        Outcome::Rejected => format!("{provider} rejected it{words}"),
        Outcome::Throttled => format!("throttled by the provider{words}"),
        Outcome::Unavailable => format!("provider down{words}"),
        Outcome::Timeout => format!("{provider} did not answer in time; it may have arrived"),
        Outcome::Unknown => "the relay stopped during the call; it may have arrived".to_owned(),
    })
}

/// The provider's word, and what it means if that is known.
fn in_words(reason: &str) -> String {
    match meaning(reason) {
        Some(meaning) => format!("{reason} ({meaning})"),
        None => reason.to_owned(),
    }
}

/// What a provider's word means to people (Apple: "Handling notification responses from APNs"; FCM: "ErrorCode" reference).
fn meaning(reason: &str) -> Option<&'static str> {
    // The token endpoint's word stands within a sentence.
    if ["invalid_grant", "invalid_client", "unauthorized_client"].iter().any(|word| reason.contains(word)) {
        return Some("expired or revoked provider key: Google gives no access token for it");
    }
    Some(match reason {
        "Unregistered" | "UNREGISTERED" | "ExpiredToken" => {
            "dead token: the app was removed, or has another token by now"
        }
        "BadDeviceToken" => "unknown token: the wrong environment, or no token at all",
        "DeviceTokenNotForTopic" => "wrong topic: the token belongs to another app",
        "BadTopic" | "MissingTopic" | "TopicDisallowed" => "wrong topic: the credential may not push to it",
        "SENDER_ID_MISMATCH" => "wrong project: the token belongs to another sender",
        "ExpiredProviderToken" => "expired provider key: its token has run out",
        "InvalidProviderToken" | "MissingProviderToken" | "Forbidden" | "BadCertificate" | "UNAUTHENTICATED" => {
            "expired or revoked provider key: the provider does not take it"
        }
        "THIRD_PARTY_AUTH_ERROR" => "expired or revoked provider key: the APNs key that Firebase holds does not work",
        "BadCertificateEnvironment" | "BadEnvironmentKeyIdInToken" | "BadEnvironmentKeyInToken" => {
            "wrong environment: the provider key is for the other one"
        }
        "INVALID_ARGUMENT" => "the provider does not take the token or the message",
        _ => return None,
    })
}
