//! What lives add up to: how fresh the phones are, and what it costs.

use std::time::Duration;

use super::{
    life::{End, Fate, Lived},
    relay::Rests,
    workload::Event,
};
use crate::domain::{event::Class, time::Timestamp};

/// What a battery bears, in runs of the app in the background. Assumptions: a run with a poll counts as one, …
const RUN_WITH_POLL: f64 = 1.0;
/// … a run for a push that tells nothing new, so that the app need not poll, as half of it, …
const RUN_WITHOUT_POLL: f64 = 0.5;
/// … and once more if the whole phone had to leave Doze for it.
const BROKE_DOZE: f64 = 1.0;

/// The sums over some phones under one policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Background events.
    pub background: Ages,
    /// Alerts; people see them without fetching them.
    pub alerts: Ages,
    /// Accepted pushes, by class and by what became of them.
    pub pushes: Vec<((Class, End), u64)>,
    /// Pushes to dead tokens.
    pub refused: u64,
    /// Polls by the app itself in the background.
    pub own_polls: u64,
    /// Events that no poll had brought at the end, by why nothing goes out for them.
    pub waiting: Vec<(Rests, u64)>,
    battery: f64,
    phone_days: f64,
}

/// How old events were when they were fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ages {
    events: u64,
    /// Of those that were; the youngest first.
    fetched_ms: Vec<u64>,
}

impl Figures {
    /// Adds a phone's life.
    pub(super) fn add(&mut self, lived: &Lived, events: &[Event], days: u32) {
        for (event, fate) in events.iter().zip(&lived.fates) {
            let of_class = match event.class {
                Class::Alert => &mut self.alerts,
                Class::Background => &mut self.background,
            };
            of_class.add(event.accepted_at, *fate);
            if let Fate::Waits(rests) = fate {
                count(&mut self.waiting, *rests, 1);
            }
        }
        for push in &lived.pushes {
            count(&mut self.pushes, (push.wake.class, push.end), 1);
            self.battery += if push.end == End::NothingNew { RUN_WITHOUT_POLL } else { 0.0 };
            self.battery += if push.broke_doze { BROKE_DOZE } else { 0.0 };
        }
        self.battery += RUN_WITH_POLL * (lived.polls.pushed + lived.polls.background) as f64;
        self.own_polls += lived.polls.background;
        self.refused += lived.refused;
        self.phone_days += f64::from(days);
    }

    /// Brings the ages in order; to be done once all phones are in.
    pub(super) fn sort(&mut self) {
        for ages in [&mut self.background, &mut self.alerts] {
            ages.fetched_ms.sort_unstable();
        }
    }

    /// Both together.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (ages, others) in [(&mut self.background, &other.background), (&mut self.alerts, &other.alerts)] {
            ages.events += others.events;
            ages.fetched_ms.extend(&others.fetched_ms);
        }
        other.pushes.iter().for_each(|(end, n)| count(&mut self.pushes, *end, *n));
        other.waiting.iter().for_each(|(rests, n)| count(&mut self.waiting, *rests, *n));
        self.refused += other.refused;
        self.own_polls += other.own_polls;
        self.battery += other.battery;
        self.phone_days += other.phone_days;
        self.sort();
        self
    }

    /// Events of either class.
    pub fn events(&self) -> u64 {
        self.background.events + self.alerts.events
    }

    /// Pushes that a provider accepted.
    pub fn accepted(&self) -> u64 {
        self.pushes.iter().map(|(_, n)| n).sum()
    }

    /// Accepted pushes per event.
    pub fn pushes_per_event(&self) -> f64 {
        ratio(self.accepted() as f64, self.events() as f64)
    }

    /// The share of accepted pushes that led to a poll.
    pub fn wake_rate(&self) -> f64 {
        self.share(&[End::Woke])
    }

    /// The share of accepted pushes that providers and systems kept from waking anybody. What was lost is not in it.
    pub fn stopped(&self) -> f64 {
        self.share(&[End::Replaced, End::Dropped, End::Late, End::Discarded, End::Expired])
    }

    /// What it costs a phone a day, in runs of the app in the background.
    pub fn battery_per_day(&self) -> f64 {
        ratio(self.battery, self.phone_days)
    }

    fn share(&self, ends: &[End]) -> f64 {
        let such: u64 = self.pushes.iter().filter(|((_, end), _)| ends.contains(end)).map(|(_, n)| n).sum();
        ratio(such as f64, self.accepted() as f64)
    }
}

impl Ages {
    fn add(&mut self, accepted_at: Timestamp, fate: Fate) {
        self.events += 1;
        if let Fate::Fetched(at) = fate {
            self.fetched_ms.push(u64::try_from(at.since(accepted_at).as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Events, fetched or not.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events that have been fetched.
    pub fn fetched(&self) -> u64 {
        self.fetched_ms.len() as u64
    }

    /// The age by which this share of the events had been fetched; `None` if fewer ever were.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.events as f64 * share).ceil() as usize).max(1);
        self.fetched_ms.get(wanted - 1).map(|ms| Duration::from_millis(*ms))
    }

    /// The share of the events that had been fetched by this age.
    pub fn within(&self, age: Duration) -> f64 {
        ratio(self.fetched_ms.partition_point(|ms| u128::from(*ms) <= age.as_millis()) as f64, self.events as f64)
    }
}

fn count<What: PartialEq>(counts: &mut Vec<(What, u64)>, what: What, n: u64) {
    match counts.iter_mut().find(|(known, _)| *known == what) {
        Some((_, count)) => *count += n,
        None => counts.push((what, n)),
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fleet::START;

    #[test]
    fn what_was_never_fetched_counts_as_never() {
        let mut ages = Ages::default();
        for age_s in [30, 10, 20] {
            ages.add(START, Fate::Fetched(START + Duration::from_secs(age_s)));
        }
        ages.add(START, Fate::Waits(Rests::default()));
        ages.fetched_ms.sort_unstable();
        assert_eq!(ages.quantile(0.5), Some(Duration::from_secs(20)));
        assert_eq!(ages.quantile(0.75), Some(Duration::from_secs(30)));
        assert_eq!(ages.quantile(0.76), None);
        assert!((ages.within(Duration::from_secs(20)) - 0.5).abs() < 1e-9);
        assert_eq!((ages.events(), ages.fetched()), (4, 3));
    }
}
