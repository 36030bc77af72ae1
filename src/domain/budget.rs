//! A token bucket kept as one instant: when it will be full again (the generic cell rate algorithm, ITU-T I.371).

use std::time::Duration;

use super::{settings::Budget, time::Timestamp};

/// The bucket of one device and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it will be full again; any time in the past means that it is.
    pub full_at: Timestamp,
}

impl Bucket {
    /// From when on a push may go.
    pub fn next_token_at(self, budget: Budget) -> Timestamp {
        self.full_at - refill(budget) * budget.burst.saturating_sub(1)
    }

    /// The bucket after a push at `now`.
    pub fn spent(self, budget: Budget, now: Timestamp) -> Self {
        Self { full_at: self.full_at.max(now) + refill(budget) }
    }
}

fn refill(budget: Budget) -> Duration {
    Duration::from_secs(u64::from(budget.refill_s))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);

    #[test]
    fn a_burst_and_then_one_per_refill() {
        let budget = Budget { burst: 2, refill_s: 1800 };
        let mut bucket = Bucket::default();
        for _ in 0..2 {
            assert!(bucket.next_token_at(budget) <= NOW);
            bucket = bucket.spent(budget, NOW);
        }
        assert_eq!(bucket.next_token_at(budget), NOW + Duration::from_secs(1800));
    }

    proptest! {
        /// Whoever pushes whenever there is a token never gets more than the burst and what has been refilled, over any window.
        #[test]
        fn no_window_holds_more_than_its_budget(
            burst in 1u32..6, refill_s in 1u32..100, steps_s in proptest::collection::vec(0u64..200, 1..60),
        ) {
            let budget = Budget { burst, refill_s };
            let (mut now, mut bucket, mut pushes) = (NOW, Bucket::default(), Vec::new());
            for step_s in steps_s {
                now = now + Duration::from_secs(step_s);
                if bucket.next_token_at(budget) <= now {
                    bucket = bucket.spent(budget, now);
                    pushes.push(now);
                }
            }
            for (first, from) in pushes.iter().enumerate() {
                for (last, to) in pushes.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + to.since(*from).as_secs() / u64::from(refill_s);
                    prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}
