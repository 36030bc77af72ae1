//! What is counted (contract §7, statistics), per quarter of an hour, and the histogram from push to fetch.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize, Serializer, de::value::StrDeserializer};

use super::{push::Outcome, time::Timestamp};

/// What one counter covers.
pub const QUARTER: Duration = Duration::from_secs(900);

/// A push that a poll has followed within this has woken its phone in time.
pub const IN_TIME: Duration = Duration::from_secs(900);

/// The quarter of an hour that a moment lies in, by its beginning.
pub fn quarter(at: Timestamp) -> Timestamp {
    at.floor(QUARTER)
}

/// A counter; its text form is the key it is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tally {
    /// An event that wants one device awake, counted once per device.
    Events,
    /// A wake that a provider accepted.
    Wakes,
    /// An attempt that ended so.
    Attempts(Outcome),
    /// A poll that brought a device up to what an accepted wake had announced, this long after the push: a bucket of [`bucket`].
    Fetched(u8),
    /// … within 10 s of the push,
    Within10s,
    /// … within 60 s,
    Within60s,
    /// … within 15 minutes.
    Within15min,
    /// A poll with news that named the push which caused it.
    WokeByPush,
    /// A poll with news that named none.
    CameByItself,
}

/// Buckets per factor of ten.
const PER_DECADE: f64 = 16.0;
/// The bucket of all that takes a hundred days or longer.
const LAST_BUCKET: u8 = 160;

/// The bucket of a latency: sixteen per factor of ten, from a millisecond on.
pub fn bucket(latency: Duration) -> u8 {
    let ms = latency.as_secs_f64() * 1000.0;
    if ms <= 1.0 { 0 } else { (ms.log10() * PER_DECADE).ceil().min(f64::from(LAST_BUCKET)) as u8 }
}

/// The longest latency that falls into a bucket.
pub fn upper_end(bucket: u8) -> Duration {
    Duration::from_secs_f64(10f64.powf(f64::from(bucket) / PER_DECADE) / 1000.0)
}

/// The latency that a share of all stay within, from counts per bucket in order; `None` if there are none. Exact to the bucket's end.
pub fn quantile(counts: impl IntoIterator<Item = (u8, i64)> + Clone, share: f64) -> Option<Duration> {
    let all: i64 = counts.clone().into_iter().map(|(_, n)| n).sum();
    let wanted = (all as f64 * share).ceil().max(1.0) as i64;
    let mut seen = 0;
    counts.into_iter().find_map(|(bucket, n)| {
        seen += n;
        (seen >= wanted).then(|| upper_end(bucket))
    })
}

impl Tally {
    /// Everything that is counted.
    pub fn all() -> impl Iterator<Item = Self> {
        use Tally::{CameByItself, Events, Wakes, Within10s, Within15min, Within60s, WokeByPush};
        let single = [Events, Wakes, Within10s, Within60s, Within15min, WokeByPush, CameByItself];
        let attempts = Outcome::ALL.into_iter().map(Self::Attempts);
        single.into_iter().chain(attempts).chain((0..=LAST_BUCKET).map(Self::Fetched))
    }

    /// All that a fetch counts as, this long after the push.
    pub fn of_fetch(latency: Duration) -> impl Iterator<Item = Self> {
        let within = [(10, Self::Within10s), (60, Self::Within60s), (IN_TIME.as_secs(), Self::Within15min)];
        let within =
            within.into_iter().filter(move |(s, _)| latency <= Duration::from_secs(*s)).map(|(_, tally)| tally);
        within.chain([Self::Fetched(bucket(latency))])
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("events"),
            Self::Wakes => f.write_str("wakes"),
            Self::Attempts(outcome) => write!(f, "attempts/{}", outcome.as_str()),
            Self::Fetched(bucket) => write!(f, "fetched/{bucket}"),
            Self::Within10s => f.write_str("within/10s"),
            Self::Within60s => f.write_str("within/60s"),
            Self::Within15min => f.write_str("within/15min"),
            Self::WokeByPush => f.write_str("came/push"),
            Self::CameByItself => f.write_str("came/self"),
        }
    }
}

impl FromStr for Tally {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is not counted");
        Ok(match text.split_once('/') {
            None if text == "events" => Self::Events,
            None if text == "wakes" => Self::Wakes,
            Some(("attempts", outcome)) => {
                let outcome = StrDeserializer::<serde::de::value::Error>::new(outcome);
                Self::Attempts(Outcome::deserialize(outcome).map_err(|_| unknown())?)
            }
            Some(("fetched", bucket)) => Self::Fetched(bucket.parse().map_err(|_| unknown())?),
            Some(("within", "10s")) => Self::Within10s,
            Some(("within", "60s")) => Self::Within60s,
            Some(("within", "15min")) => Self::Within15min,
            Some(("came", "push")) => Self::WokeByPush,
            Some(("came", "self")) => Self::CameByItself,
            _ => return Err(unknown()),
        })
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_counter_is_read_back_as_it_was_written() {
        let mut texts = HashSet::new();
        for tally in Tally::all() {
            assert_eq!(tally.to_string().parse(), Ok(tally));
            assert!(texts.insert(tally.to_string()), "{tally} stands for two counters");
        }
        for outcome in ["accepted", "rejected", "throttled", "unavailable", "timeout", "unknown"] {
            assert!(texts.contains(&format!("attempts/{outcome}")), "{outcome}");
        }
        for other in ["", "event", "attempts", "attempts/lost", "fetched/", "fetched/256", "within/1h", "came/late"] {
            assert!(other.parse::<Tally>().is_err(), "{other}");
        }
    }

    #[test]
    fn quarters_by_table() {
        let quarter_of = |text: &str| quarter(text.parse().unwrap()).to_string();
        for (at, begins) in [
            ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00.000Z"),
            ("2026-11-21T12:14:59.999Z", "2026-11-21T12:00:00.000Z"),
            ("2026-11-21T12:15:00Z", "2026-11-21T12:15:00.000Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:45:00.000Z"),
        ] {
            assert_eq!(quarter_of(at), begins, "{at}");
        }
    }

    #[test]
    fn fetches_by_table() {
        use Tally::{Fetched, Within10s, Within15min, Within60s};
        let ms = Duration::from_millis;
        for (latency, expected) in [
            (ms(0), vec![Within10s, Within60s, Within15min, Fetched(0)]),
            (ms(1), vec![Within10s, Within60s, Within15min, Fetched(0)]),
            (ms(2), vec![Within10s, Within60s, Within15min, Fetched(5)]),
            (ms(10_000), vec![Within10s, Within60s, Within15min, Fetched(64)]),
            (ms(10_001), vec![Within60s, Within15min, Fetched(65)]),
            (ms(60_000), vec![Within60s, Within15min, Fetched(77)]),
            (ms(60_001), vec![Within15min, Fetched(77)]),
            (ms(900_000), vec![Within15min, Fetched(96)]),
            (ms(900_001), vec![Fetched(96)]),
            (Duration::from_secs(u64::MAX), vec![Fetched(LAST_BUCKET)]),
        ] {
            assert_eq!(Tally::of_fetch(latency).collect::<Vec<_>>(), expected, "{latency:?}");
        }
    }

    #[test]
    fn quantiles_by_table() {
        assert_eq!(quantile([], 0.5), None);
        assert_eq!(quantile([(7, 1)], 0.5), Some(upper_end(7)));
        assert_eq!(quantile([(7, 1)], 0.95), Some(upper_end(7)));
        assert_eq!(quantile([(7, 1), (9, 1)], 0.5), Some(upper_end(7)));
        assert_eq!(quantile([(7, 19), (9, 1)], 0.95), Some(upper_end(7)));
        assert_eq!(quantile([(7, 18), (9, 2)], 0.95), Some(upper_end(9)));
        assert_eq!(upper_end(0), Duration::from_millis(1));
        assert_eq!(upper_end(64), Duration::from_secs(10));
    }

    /// What rounding may add, as a share.
    const ROUNDING: f64 = 1e-6;

    proptest! {
        #[test]
        fn a_bucket_ends_where_its_longest_latency_lies(ms in 1u64..10_000_000_000) {
            let end_ms = upper_end(bucket(Duration::from_millis(ms))).as_secs_f64() * 1000.0;
            prop_assert!(ms as f64 <= end_ms * (1.0 + ROUNDING));
            prop_assert!(end_ms <= ms as f64 * 10f64.powf(1.0 / PER_DECADE) * (1.0 + ROUNDING));
        }

        #[test]
        fn a_quantile_is_the_exact_one_up_to_its_bucket(
            mut latencies_ms in proptest::collection::vec(1u64..1_000_000, 1..200), share in 0.01..1.0f64,
        ) {
            let mut counts: BTreeMap<u8, i64> = BTreeMap::new();
            for ms in &latencies_ms {
                *counts.entry(bucket(Duration::from_millis(*ms))).or_default() += 1;
            }
            latencies_ms.sort_unstable();
            let rank = (latencies_ms.len() as f64 * share).ceil() as usize;
            let exact = Duration::from_millis(latencies_ms[rank - 1]);
            prop_assert_eq!(quantile(counts.iter().map(|(bucket, n)| (*bucket, *n)), share), Some(upper_end(bucket(exact))));
        }
    }
}
