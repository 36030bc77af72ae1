//! When a call is repeated (contract §8, Retries).

use std::time::Duration;

use super::{device::Transport, push::Meaning};

const LEAST_RETRY_AFTER: Duration = Duration::from_secs(1);
/// No pause is longer.
pub const CAP: Duration = Duration::from_secs(3600);

/// The pause before try `tries + 1`: the provider's `Retry-After`, clamped, else a floor plus exponential backoff with full jitter.
///
/// `jitter` is a random number in `0.0..1.0`, handed in so that the rule stays pure.
pub fn pause(
    transport: Transport,
    meaning: Meaning,
    retry_after: Option<Duration>,
    tries: u32,
    jitter: f64,
) -> Duration {
    if let Some(asked) = retry_after {
        return asked.clamp(LEAST_RETRY_AFTER, CAP);
    }
    let floor = floor(transport, meaning);
    let spread = floor.saturating_mul(1 << tries.saturating_sub(1).min(12)).min(CAP);
    (floor + spread.mul_f64(jitter.clamp(0.0, 1.0))).min(CAP)
}

/// Apple: "retry 5xx after 15 minutes"; Google: 429 without `Retry-After` 60 s, 5xx at least 10 s.
fn floor(transport: Transport, meaning: Meaning) -> Duration {
    Duration::from_secs(match (meaning, transport) {
        (Meaning::Throttled | Meaning::CredentialFault, _) => 60,
        (Meaning::Unavailable, Transport::Apns) => 900,
        (Meaning::Unavailable, Transport::Fcm) => 10,
        _ => 1,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn retry_after_is_clamped_and_wins() {
        for (asked, got) in [(0, 1), (3, 3), (3600, 3600), (86_400, 3600)] {
            assert_eq!(pause(Transport::Fcm, Meaning::Unavailable, Some(S(asked)), 1, 0.9), S(got));
        }
    }

    #[test]
    fn floors_by_table() {
        for (transport, meaning, floor) in [
            (Transport::Fcm, Meaning::Throttled, 60),
            (Transport::Fcm, Meaning::Unavailable, 10),
            (Transport::Apns, Meaning::Throttled, 60),
            (Transport::Apns, Meaning::Unavailable, 900),
            (Transport::Apns, Meaning::Unreachable, 1),
            (Transport::Fcm, Meaning::Timeout, 1),
        ] {
            assert_eq!(pause(transport, meaning, None, 1, 0.0), S(floor));
        }
    }

    proptest! {
        #[test]
        fn a_pause_is_never_under_the_floor_nor_over_an_hour(tries in 0u32..1000, jitter in 0.0..1.0f64) {
            let pause = pause(Transport::Fcm, Meaning::Unavailable, None, tries, jitter);
            prop_assert!(pause >= S(10) && pause <= CAP);
        }
    }
}
