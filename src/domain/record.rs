//! A device's own record: whether its pushes lead to polls, and so how soon it is to poll by itself (contract §5, `poll.after_s`).

use serde::{Deserialize, Serialize};

use super::{device::DeviceStatus, feed::Position, settings::PollAfter, tally, time::Timestamp};

/// After so many missed heads in a row a device's pushes are doubtful.
const DOUBTFUL: u32 = 3;
/// How much longer everybody waits while the node is overloaded.
const OVERLOADED: u32 = 4;

/// The last heads that were told and have not been fetched yet, each with the time of its first push; no more than are ever looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfetched(Vec<(Position, i64)>);

impl Unfetched {
    /// A provider has accepted a push for `head`.
    pub fn told(&mut self, head: Position, now: Timestamp) {
        if self.0.iter().all(|(known, _)| *known != head) {
            self.0.push((head, now.as_ms()));
            let surplus = self.0.len().saturating_sub(DOUBTFUL as usize);
            self.0.drain(..surplus);
        }
    }

    /// The device has come as far as `reached`. Answers how many heads in a row have been missed by now, of `missed` before.
    pub fn reached(&mut self, reached: Position, now: Timestamp, missed: u32) -> u32 {
        let (fetched, left) = self.0.iter().partition(|(head, _)| *head <= reached);
        self.0 = left;
        Vec::into_iter(fetched).fold(missed, |missed: u32, (_, told_at)| {
            let in_time = now.since(Timestamp::from_ms(told_at)) <= tally::IN_TIME;
            if in_time { 0 } else { (missed + 1).min(DOUBTFUL) }
        })
    }
}

/// How busy the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// As usual.
    Normal,
    /// Requests queue up.
    Overloaded,
}

/// In how many seconds a device is to poll by itself.
pub fn poll_after_s(settings: PollAfter, status: DeviceStatus, missed: u32, load: Load) -> u32 {
    let after_s = match status {
        DeviceStatus::Active if missed < DOUBTFUL => settings.healthy,
        DeviceStatus::Active | DeviceStatus::Quarantined | DeviceStatus::Stale | DeviceStatus::Gone => {
            settings.doubtful
        }
    };
    match load {
        Load::Normal => after_s,
        Load::Overloaded => after_s.saturating_mul(OVERLOADED),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    /// Tells heads at minutes, and has the device come for all at another.
    fn missed(before: u32, told_at_min: &[u32], comes_at_min: u32) -> u32 {
        let mut unfetched = Unfetched::default();
        for (head, minute) in (1..).zip(told_at_min) {
            unfetched.told(Position(head), NOW + MINUTE * *minute);
        }
        unfetched.reached(Position(100), NOW + MINUTE * comes_at_min, before)
    }

    #[test]
    fn heads_by_table() {
        assert_eq!(missed(0, &[0], 1), 0, "it came at once");
        assert_eq!(missed(2, &[0], 15), 0, "in time is enough, whatever was before");
        assert_eq!(missed(0, &[0], 16), 1);
        assert_eq!(missed(0, &[0, 1, 2], 20), 3);
        assert_eq!(missed(0, &[0, 1, 2, 3, 4], 30), 3, "more than three are no worse");
        assert_eq!(missed(2, &[0, 18], 20), 0, "the last one counts last");
        assert_eq!(missed(2, &[], 20), 2, "a poll that no push was for counts neither way");
    }

    #[test]
    fn a_repeated_wake_is_the_same_head() {
        let mut unfetched = Unfetched::default();
        unfetched.told(Position(1), NOW);
        unfetched.told(Position(1), NOW + MINUTE * 20);
        assert_eq!(unfetched.reached(Position(1), NOW + MINUTE * 21, 0), 1);
    }

    #[test]
    fn what_is_not_reached_stays() {
        let mut unfetched = Unfetched::default();
        unfetched.told(Position(1), NOW);
        unfetched.told(Position(9), NOW);
        assert_eq!(unfetched.reached(Position(5), NOW + MINUTE, 1), 0);
        assert_eq!(unfetched.reached(Position(9), NOW + MINUTE * 60, 0), 1);
        assert_eq!(unfetched.reached(Position(9), NOW + MINUTE * 61, 1), 1);
    }

    #[test]
    fn seconds_by_table() {
        use DeviceStatus::{Active, Gone, Quarantined, Stale};
        let settings = PollAfter { healthy: 900, doubtful: 60 };
        for (status, missed, load, expected) in [
            (Active, 0, Load::Normal, 900),
            (Active, 2, Load::Normal, 900),
            (Active, 3, Load::Normal, 60),
            (Quarantined, 0, Load::Normal, 60),
            (Stale, 0, Load::Normal, 60),
            (Gone, 0, Load::Normal, 60),
            (Active, 0, Load::Overloaded, 3600),
            (Gone, 0, Load::Overloaded, 240),
        ] {
            assert_eq!(poll_after_s(settings, status, missed, load), expected);
        }
    }
}
