//! The wake rate: what share of the pushes brings phones to poll, and when an hour of it is worth an alarm (contract §7).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{stats::ratio, tally, time::Timestamp};

/// Fewer pushes than this say nothing about a rate.
pub const LEAST_WAKES: i64 = 50;
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// The quarters that are compared: each by its beginning, the later end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Where the seven days begin; they end where the hour begins, so that a bad hour is not measured by itself.
    pub week_from: Timestamp,
    /// Where the hour begins.
    pub hour_from: Timestamp,
    /// Where it ends: the latest quarter whose every push has had its 15 minutes.
    pub until: Timestamp,
}

impl Windows {
    /// The windows at a moment; the same for all of a quarter.
    pub fn at(now: Timestamp) -> Self {
        let until = settled_before(now);
        let hour_from = until - HOUR;
        Self { week_from: hour_from - WEEK, hour_from, until }
    }
}

/// Quarters that begin before this are over, and so are the 15 minutes of their last push.
pub fn settled_before(now: Timestamp) -> Timestamp {
    tally::quarter(now - tally::IN_TIME)
}

/// Pushes accepted in some time, and those of them that a poll followed within 15 minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Accepted.
    pub wakes: i64,
    /// Followed.
    pub fetched: i64,
}

impl Rate {
    /// As a share of one; none without pushes.
    pub fn share(self) -> Option<f64> {
        ratio(self.fetched, self.wakes)
    }
}

/// What an hour says beside the seven days before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The rate has fallen under half of what it was.
    Fallen,
    /// It has not, or there is nothing to measure it by.
    Usual,
    /// Too few pushes to say either: what stands, stands.
    Unclear,
}

/// Compares an hour with the seven days before it.
pub fn compare(hour: Rate, week: Rate) -> Finding {
    if week.wakes < LEAST_WAKES {
        // An alarm whose measure has gone must not stand for ever.
        return Finding::Usual;
    }
    if hour.wakes < LEAST_WAKES {
        return Finding::Unclear;
    }
    // hour.fetched / hour.wakes < week.fetched / week.wakes / 2, without rounding.
    let product = |a: i64, b: i64| i128::from(a) * i128::from(b);
    if 2 * product(hour.fetched, week.wakes) < product(week.fetched, hour.wakes) {
        Finding::Fallen
    } else {
        Finding::Usual
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn findings_by_table() {
        use Finding::{Fallen, Unclear, Usual};
        let rate = |fetched, wakes| Rate { wakes, fetched };
        for (hour, week, expected) in [
            (rate(45, 50), rate(900, 1000), Usual),
            (rate(23, 50), rate(900, 1000), Usual),
            (rate(22, 50), rate(900, 1000), Fallen),
            (rate(0, 50), rate(900, 1000), Fallen),
            (rate(0, 49), rate(900, 1000), Unclear),
            (rate(0, 50), rate(49, 49), Usual),
            (rate(0, 50), rate(50, 50), Fallen),
            (rate(25, 50), rate(50, 50), Usual),
            (rate(24, 50), rate(50, 50), Fallen),
            (rate(0, 500), rate(0, 1000), Usual),
            (rate(0, 0), rate(0, 0), Usual),
            (rate(0, i64::MAX), rate(i64::MAX, i64::MAX), Fallen),
        ] {
            assert_eq!(compare(hour, week), expected, "{hour:?} after {week:?}");
        }
    }

    #[test]
    fn windows_by_table() {
        for (now, week_from, hour_from, until) in [
            ("2026-11-21T12:00:00Z", "2026-11-14T10:45:00Z", "2026-11-21T10:45:00Z", "2026-11-21T11:45:00Z"),
            ("2026-11-21T12:14:59Z", "2026-11-14T10:45:00Z", "2026-11-21T10:45:00Z", "2026-11-21T11:45:00Z"),
            ("2026-11-21T12:15:00Z", "2026-11-14T11:00:00Z", "2026-11-21T11:00:00Z", "2026-11-21T12:00:00Z"),
        ] {
            let at = |text: &str| text.parse::<Timestamp>().unwrap();
            let expected = Windows { week_from: at(week_from), hour_from: at(hour_from), until: at(until) };
            assert_eq!(Windows::at(at(now)), expected, "{now}");
        }
    }

    proptest! {
        /// Whenever the hour is looked at, its last push has had its time, and no quarter waits longer than it must.
        #[test]
        fn every_push_of_the_hour_has_had_its_time(now_ms in 0i64..10_000_000_000_000) {
            let now = Timestamp::from_ms(now_ms);
            let windows = Windows::at(now);
            prop_assert!(windows.until + tally::IN_TIME <= now && now < windows.until + tally::QUARTER + tally::IN_TIME);
            prop_assert_eq!(tally::quarter(windows.hour_from), windows.hour_from);
        }
    }
}
