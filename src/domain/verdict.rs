//! What an answer means for a wake and its device: told, again, dead, doubtful. Pure.

use super::{
    device::Transport,
    push::{Meaning, Reply},
    retry,
    time::Timestamp,
};

/// One call that has been answered, beside what the device is by now.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
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
    /// The token is dead, by this evidence: no pushes until the device registers again, unless the mass brake is on.
    Dead(Evidence),
    /// The token is doubtful: one probe a day.
    Quarantine,
    /// This wake ends without having been told; what came after it waits until this time.
    GiveUp(Timestamp),
}

/// How surely a token is dead (contract §5, Mass brake).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The provider said that it is: APNs 410, FCM `UNREGISTERED`.
    Clear,
    /// The provider does not know it here, which may be our fault.
    Ambiguous,
}

/// Judges one answer. A verdict on a token counts only for the token it was made with, and only if it is not older than the last
/// registration (contract §5; Apple: the `timestamp` of a 410).
pub fn judge(reply: &Reply, call: &Answered, now: Timestamp) -> Verdict {
    let of_this_token = call.token_version == call.current_token_version;
    let of_this_registration = |since: Option<Timestamp>| since.unwrap_or(call.started_at) >= call.registered_at;
    match reply.meaning {
        Meaning::Accepted => Verdict::Told,
        Meaning::OurFault => Verdict::GiveUp(now),
        Meaning::Unregistered { .. } | Meaning::AmbiguousToken | Meaning::DoubtfulToken if !of_this_token => {
            Verdict::RetryAt(now)
        }
        Meaning::Unregistered { since } if of_this_registration(since) => Verdict::Dead(Evidence::Clear),
        Meaning::AmbiguousToken if of_this_registration(None) => Verdict::Dead(Evidence::Ambiguous),
        Meaning::DoubtfulToken if of_this_registration(None) => Verdict::Quarantine,
        meaning => {
            let pause = retry::pause(call.transport, meaning, reply.retry_after, call.tries, call.jitter);
            let at = now + pause;
            if at < call.expires_at { Verdict::RetryAt(at) } else { Verdict::GiveUp(at) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
    const LATER: Timestamp = Timestamp::from_ms(1_000_000_000 + 60_000);

    fn reply(meaning: Meaning) -> Reply {
        Reply { meaning, status: None, reason: None, provider_id: None, retry_after: None, bytes: 0 }
    }

    fn call() -> Answered {
        Answered {
            transport: Transport::Fcm,
            started_at: NOW,
            token_version: 2,
            tries: 1,
            expires_at: LATER + Duration::from_secs(86_400),
            current_token_version: 2,
            registered_at: Timestamp::from_ms(NOW.as_ms() - 5000),
            jitter: 0.0,
        }
    }

    #[test]
    fn verdicts_by_table() {
        use Evidence::{Ambiguous, Clear};
        let old = Timestamp::from_ms(NOW.as_ms() - 6000);
        let second = Duration::from_secs(1);
        type Change = fn(&mut Answered);
        let table: &[(&str, Meaning, Change, Verdict)] = &[
            ("accepted", Meaning::Accepted, |_| {}, Verdict::Told),
            ("our fault", Meaning::OurFault, |_| {}, Verdict::GiveUp(NOW)),
            ("dead", Meaning::Unregistered { since: None }, |_| {}, Verdict::Dead(Clear)),
            ("dead since now", Meaning::Unregistered { since: Some(NOW) }, |_| {}, Verdict::Dead(Clear)),
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
            ("not known here", Meaning::AmbiguousToken, |_| {}, Verdict::Dead(Ambiguous)),
            (
                "an older token is not known here",
                Meaning::AmbiguousToken,
                |c| c.token_version = 1,
                Verdict::RetryAt(NOW),
            ),
            (
                "not known before it registered",
                Meaning::AmbiguousToken,
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
}
