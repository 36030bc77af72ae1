//! Statistics: what the counters of one transport and class add up to (contract §7).

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    device::Transport,
    event::Class,
    push::Outcome,
    tally::{self, Tally},
};

/// A counter's sum over the time that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// By which way.
    pub transport: Transport,
    /// How loudly.
    pub class: Class,
    /// What.
    pub what: Tally,
    /// How often.
    pub n: i64,
    /// How often among the quarters whose every push has had its 15 minutes.
    pub n_settled: i64,
}

/// What is shown of one transport and class.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Figures {
    /// By which way.
    pub transport: Transport,
    /// How loudly.
    pub class: Class,
    /// Events that wanted a device awake, counted once per device.
    pub events: i64,
    /// Wakes that a provider accepted.
    pub wakes: i64,
    /// Attempts by outcome; all outcomes are named.
    pub attempts: BTreeMap<&'static str, i64>,
    /// Events per wake; none without wakes.
    pub coalescing_ratio: Option<f64>,
    /// Pushes that a poll followed in time.
    pub fetched: Fetched,
    /// From the push to the poll that had its news.
    pub push_to_fetch_ms: PushToFetch,
    /// Polls with news that named the push which caused them.
    pub woke_by_push: i64,
    /// Polls with news that named none.
    pub came_by_itself: i64,
    /// The share of the wakes accepted at least 15 minutes ago that a poll followed within 15 minutes; none without such wakes.
    pub wake_rate: Option<f64>,
}

/// How many pushes a poll followed within a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Fetched {
    pub within_10s: i64,
    pub within_60s: i64,
    pub within_15min: i64,
}

/// Latencies, in milliseconds; none without fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PushToFetch {
    pub median: Option<u64>,
    pub p95: Option<u64>,
}

/// A share or ratio, to four digits: what is exact to one event need not look exact to sixteen digits.
pub fn ratio(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0)
}

/// Figures per transport and class, in the order of their names; those that nothing was counted for are left out.
pub fn figures(counts: &[Counted]) -> Vec<Figures> {
    let mut by_kind: BTreeMap<(&str, &str), Vec<&Counted>> = BTreeMap::new();
    for counted in counts.iter().filter(|counted| counted.n > 0) {
        by_kind.entry((counted.transport.as_str(), counted.class.as_str())).or_default().push(counted);
    }
    by_kind.into_values().filter_map(|counts| Some(figures_of(counts.first()?, &counts))).collect()
}

fn figures_of(kind: &Counted, counts: &[&Counted]) -> Figures {
    let find = |what: Tally| counts.iter().find(|counted| counted.what == what);
    let n = |what| find(what).map_or(0, |counted| counted.n);
    let n_settled = |what| find(what).map_or(0, |counted| counted.n_settled);
    let mut latencies: Vec<(u8, i64)> = (counts.iter())
        .filter_map(|counted| if let Tally::Fetched(bucket) = counted.what { Some((bucket, counted.n)) } else { None })
        .collect();
    latencies.sort_unstable();
    let quantile_ms = |share| tally::quantile(latencies.iter().copied(), share).map(whole_ms);
    Figures {
        transport: kind.transport,
        class: kind.class,
        events: n(Tally::Events),
        wakes: n(Tally::Wakes),
        attempts: Outcome::ALL.into_iter().map(|outcome| (outcome.as_str(), n(Tally::Attempts(outcome)))).collect(),
        coalescing_ratio: ratio(n(Tally::Events), n(Tally::Wakes)),
        fetched: Fetched {
            within_10s: n(Tally::Within10s),
            within_60s: n(Tally::Within60s),
            within_15min: n(Tally::Within15min),
        },
        push_to_fetch_ms: PushToFetch { median: quantile_ms(0.5), p95: quantile_ms(0.95) },
        woke_by_push: n(Tally::WokeByPush),
        came_by_itself: n(Tally::CameByItself),
        wake_rate: ratio(n_settled(Tally::Within15min), n_settled(Tally::Wakes)),
    }
}

fn whole_ms(latency: Duration) -> u64 {
    (latency.as_secs_f64() * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(transport: Transport, class: Class, what: Tally, n: i64, n_settled: i64) -> Counted {
        Counted { transport, class, what, n, n_settled }
    }

    #[test]
    fn counters_add_up_per_transport_and_class() {
        use Tally::{
            Attempts, CameByItself, Events, Fetched as In, Wakes, Within10s, Within15min, Within60s, WokeByPush,
        };
        let of = |what, n, n_settled| counted(Transport::Fcm, Class::Background, what, n, n_settled);
        let counts = [
            of(In(96), 1, 1),
            of(Events, 60, 60),
            of(Wakes, 8, 4),
            of(Attempts(Outcome::Accepted), 8, 4),
            of(Attempts(Outcome::Throttled), 1, 0),
            of(Within10s, 2, 2),
            of(Within60s, 2, 2),
            of(Within15min, 3, 3),
            of(In(48), 2, 2),
            of(WokeByPush, 2, 2),
            of(CameByItself, 1, 1),
            counted(Transport::Apns, Class::Alert, Attempts(Outcome::Rejected), 3, 3),
            counted(Transport::Apns, Class::Background, Events, 0, 0),
        ];
        let shown = figures(&counts);
        assert_eq!(shown.len(), 2, "{shown:#?}");
        let alert = &shown[0];
        assert_eq!((alert.transport, alert.class), (Transport::Apns, Class::Alert));
        assert_eq!((alert.events, alert.wakes, alert.attempts["rejected"]), (0, 0, 3));
        assert_eq!((alert.coalescing_ratio, alert.wake_rate), (None, None));
        assert_eq!(alert.push_to_fetch_ms, PushToFetch::default());
        let background = &shown[1];
        assert_eq!((background.transport, background.class), (Transport::Fcm, Class::Background));
        assert_eq!((background.events, background.wakes, background.coalescing_ratio), (60, 8, Some(7.5)));
        let attempts: Vec<_> = background.attempts.iter().map(|(outcome, n)| (*outcome, *n)).collect();
        assert_eq!(
            attempts,
            [("accepted", 8), ("rejected", 0), ("throttled", 1), ("timeout", 0), ("unavailable", 0), ("unknown", 0)]
        );
        assert_eq!(background.fetched, Fetched { within_10s: 2, within_60s: 2, within_15min: 3 });
        assert_eq!(background.push_to_fetch_ms, PushToFetch { median: Some(1000), p95: Some(1_000_000) });
        assert_eq!((background.woke_by_push, background.came_by_itself), (2, 1));
        assert_eq!(background.wake_rate, Some(0.75), "of the wakes that have had their time");
    }

    #[test]
    fn ratios_by_table() {
        for (part, whole, expected) in
            [(1, 0, None), (0, 5, Some(0.0)), (1, 3, Some(0.3333)), (2, 3, Some(0.6667)), (60, 2, Some(30.0))]
        {
            assert_eq!(ratio(part, whole), expected);
        }
    }
}
