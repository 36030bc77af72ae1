//! The heart: does this device need a wake, when, and why; and what an answer means for it. Pure.

use std::time::Duration;

use super::{
    device::{DeviceStatus, Transport},
    event::CancelOn,
    feed::Position,
    push::{Meaning, Reply},
    retry,
    time::Timestamp,
};

/// How long a device with doubtful answers is left alone between two probes (contract §5: one probe a day).
pub const PROBE_EVERY: Duration = Duration::from_secs(86_400);

/// All that is known of one device in one class when a wake comes up for a decision (contract §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Whether the device may be pushed to.
    pub status: DeviceStatus,
    /// Since when.
    pub status_at: Timestamp,
    /// How far the device is: `fetched`, or `acked` where the app confirms by ack.
    pub reached: Position,
    /// Head of the newest wake a provider accepted in this class.
    pub told: Position,
    /// The open wake; if none is, the one that would be opened.
    pub wake: Candidate,
    /// Whether the device still follows the one feed that the wake is about.
    pub feed: Followed,
    /// Whether one of the app's credentials serves this device.
    pub credential: CredentialFit,
}

/// A wake that may go out; its head and expiry are fixed when it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Up to where it announces news.
    pub head: Position,
    /// Until when it may be sent or repeated.
    pub expires_at: Timestamp,
    /// Whether a poll that reaches `head` takes it back.
    pub cancel_on: CancelOn,
}

/// Whether a device follows what a wake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// It does, or the wake is about several feeds.
    Still,
    /// It has left the feed since the wake was claimed.
    Left,
}

/// Whether one of the app's credentials serves a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFit {
    /// Yes.
    Fits,
    /// None does.
    Missing,
}

/// What is to be done about a device in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Call the provider now: with a new wake, or the open one again.
    Send,
    /// Look again at this time.
    Defer(Timestamp, DeferReason),
    /// Nothing is due any more.
    Drop(DropReason),
}

/// Why a wake waits (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferReason {
    /// The device is quarantined: one probe a day.
    Quarantined,
}

/// Why no wake goes out (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The device is already there.
    AlreadyFetched,
    /// A provider has already accepted a wake for all of it.
    AlreadyTold,
    /// It is too late.
    Expired,
    /// The provider said that the token is dead.
    Gone,
    /// No credential serves the device.
    NoCredential,
    /// The device has left the feed, and what waits there goes with it.
    Unfollowed,
}

/// Decides about one wake of one device.
pub fn decide(situation: &Situation, now: Timestamp) -> Decision {
    let Situation { status, status_at, reached, told, wake, feed, credential } = situation;
    if *feed == Followed::Left {
        Decision::Drop(DropReason::Unfollowed)
    } else if wake.cancel_on == CancelOn::Fetch && *reached >= wake.head {
        Decision::Drop(DropReason::AlreadyFetched)
    } else if *told >= wake.head {
        Decision::Drop(DropReason::AlreadyTold)
    } else if now >= wake.expires_at {
        Decision::Drop(DropReason::Expired)
    } else if *status == DeviceStatus::Gone {
        Decision::Drop(DropReason::Gone)
    } else if *credential == CredentialFit::Missing {
        Decision::Drop(DropReason::NoCredential)
    } else if *status == DeviceStatus::Quarantined && now < *status_at + PROBE_EVERY {
        Decision::Defer(*status_at + PROBE_EVERY, DeferReason::Quarantined)
    } else {
        Decision::Send
    }
}

/// One call that has been answered, beside what the device is by now.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The provider.
    pub transport: Transport,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// The version of the token it was made with.
    pub token_version: i64,
    /// Calls made for this wake, this one included.
    pub tries: u32,
    /// When the wake ends.
    pub expires_at: Timestamp,
    /// The device's token version now.
    pub current_token_version: i64,
    /// When the device last registered.
    pub registered_at: Timestamp,
    /// A random number in `0.0..1.0` for the backoff.
    pub jitter: f64,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider accepted: the device is told.
    Told,
    /// The same wake again at this time.
    RetryAt(Timestamp),
    /// The token is dead: no pushes until the device registers again.
    Gone,
    /// The token is doubtful: one probe a day.
    Quarantine,
    /// This wake ends without having been told; what came after it waits until this time.
    GiveUp(Timestamp),
}

/// Judges one answer. A verdict on a token counts only for the token it was made with, and only if it is not older than the last
/// registration (contract §5; Apple: the `timestamp` of a 410).
pub fn judge(reply: &Reply, call: &Call, now: Timestamp) -> Verdict {
    let current = call.token_version == call.current_token_version;
    match reply.meaning {
        Meaning::Accepted => Verdict::Told,
        Meaning::OurFault => Verdict::GiveUp(now),
        Meaning::Unregistered { .. } | Meaning::DoubtfulToken if !current => Verdict::RetryAt(now),
        Meaning::Unregistered { since } if since.unwrap_or(call.started_at) >= call.registered_at => Verdict::Gone,
        Meaning::DoubtfulToken if call.started_at >= call.registered_at => Verdict::Quarantine,
        meaning => {
            let pause = retry::pause(call.transport, meaning, reply.retry_after, call.tries, call.jitter);
            let at = now + pause;
            if at < call.expires_at { Verdict::RetryAt(at) } else { Verdict::GiveUp(at) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
    const LATER: Timestamp = Timestamp::from_ms(1_000_000_000 + 60_000);

    fn situation() -> Situation {
        Situation {
            status: DeviceStatus::Active,
            status_at: Timestamp::from_ms(0),
            reached: Position(3),
            told: Position(3),
            wake: Candidate { head: Position(7), expires_at: LATER, cancel_on: CancelOn::Fetch },
            feed: Followed::Still,
            credential: CredentialFit::Fits,
        }
    }

    #[test]
    fn decisions_by_table() {
        use Decision::{Defer, Drop, Send};
        type Change = fn(&mut Situation);
        let table: &[(&str, Change, Decision)] = &[
            ("something new", |_| {}, Send),
            ("already fetched", |s| s.reached = Position(7), Drop(DropReason::AlreadyFetched)),
            ("fetched, but it insists", |s| (s.reached, s.wake.cancel_on) = (Position(7), CancelOn::Never), Send),
            ("already told", |s| s.told = Position(7), Drop(DropReason::AlreadyTold)),
            ("too late", |s| s.wake.expires_at = NOW, Drop(DropReason::Expired)),
            ("token dead", |s| s.status = DeviceStatus::Gone, Drop(DropReason::Gone)),
            ("feed left", |s| s.feed = Followed::Left, Drop(DropReason::Unfollowed)),
            ("no credential", |s| s.credential = CredentialFit::Missing, Drop(DropReason::NoCredential)),
            ("doubtful long ago", |s| s.status = DeviceStatus::Quarantined, Send),
            (
                "doubtful just now",
                |s| (s.status, s.status_at) = (DeviceStatus::Quarantined, NOW),
                Defer(NOW + PROBE_EVERY, DeferReason::Quarantined),
            ),
        ];
        for (name, change, expected) in table {
            let mut situation = situation();
            change(&mut situation);
            assert_eq!(decide(&situation, NOW), *expected, "{name}");
        }
    }

    fn reply(meaning: Meaning) -> Reply {
        Reply { meaning, status: None, reason: None, provider_id: None, retry_after: None, bytes: 0 }
    }

    fn call() -> Call {
        Call {
            transport: Transport::Fcm,
            started_at: NOW,
            token_version: 2,
            tries: 1,
            expires_at: LATER + PROBE_EVERY,
            current_token_version: 2,
            registered_at: Timestamp::from_ms(NOW.as_ms() - 5000),
            jitter: 0.0,
        }
    }

    #[test]
    fn verdicts_by_table() {
        let old = Timestamp::from_ms(NOW.as_ms() - 6000);
        let second = Duration::from_secs(1);
        type Change = fn(&mut Call);
        let table: &[(&str, Meaning, Change, Verdict)] = &[
            ("accepted", Meaning::Accepted, |_| {}, Verdict::Told),
            ("our fault", Meaning::OurFault, |_| {}, Verdict::GiveUp(NOW)),
            ("dead", Meaning::Unregistered { since: None }, |_| {}, Verdict::Gone),
            ("dead since now", Meaning::Unregistered { since: Some(NOW) }, |_| {}, Verdict::Gone),
            (
                "dead before it registered",
                Meaning::Unregistered { since: Some(old) },
                |_| {},
                Verdict::RetryAt(NOW + second),
            ),
            (
                "an older token is dead",
                Meaning::Unregistered { since: None },
                |c| c.token_version = 1,
                Verdict::RetryAt(NOW),
            ),
            (
                "registered during the call",
                Meaning::Unregistered { since: None },
                |c| c.registered_at = LATER,
                Verdict::RetryAt(NOW + second),
            ),
            ("doubtful", Meaning::DoubtfulToken, |_| {}, Verdict::Quarantine),
            ("an older token is doubtful", Meaning::DoubtfulToken, |c| c.token_version = 1, Verdict::RetryAt(NOW)),
            ("provider down", Meaning::Unavailable, |_| {}, Verdict::RetryAt(NOW + second * 10)),
            (
                "provider down, too late",
                Meaning::Unavailable,
                |c| c.expires_at = LATER,
                Verdict::RetryAt(NOW + second * 10),
            ),
            ("throttled, too late", Meaning::Throttled, |c| c.expires_at = LATER, Verdict::GiveUp(NOW + second * 60)),
        ];
        for (name, meaning, change, expected) in table {
            let mut call = call();
            change(&mut call);
            assert_eq!(judge(&reply(*meaning), &call, NOW), *expected, "{name}");
        }
    }

    fn statuses() -> impl Strategy<Value = DeviceStatus> {
        use DeviceStatus::{Active, Gone, Quarantined, Stale};
        prop_oneof![Just(Active), Just(Quarantined), Just(Stale), Just(Gone)]
    }

    proptest! {
        #[test]
        fn nobody_is_woken_who_is_there_or_told_or_late(
            status in statuses(), reached in 0..10i64, told in 0..10i64, head in 0..10i64, left_ms in -5..5i64,
        ) {
            let wake = Candidate { head: Position(head), expires_at: Timestamp::from_ms(NOW.as_ms() + left_ms), cancel_on: CancelOn::Fetch };
            let situation = Situation { status, reached: Position(reached), told: Position(told), wake, ..situation() };
            if decide(&situation, NOW) == Decision::Send {
                prop_assert!(reached < head && told < head && left_ms > 0 && status != DeviceStatus::Gone);
            } else if reached < head && told < head && left_ms > 0 && status == DeviceStatus::Active {
                prop_assert!(false, "a device with news was left alone");
            }
        }
    }
}
