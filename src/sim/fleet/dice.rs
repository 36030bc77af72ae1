//! Chance, from seeded streams: whatever the policy, the same phone has the same habits, the same events and the same luck.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::domain::time::Timestamp;

/// What a stream is for; streams know nothing of each other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// What a phone and its user do by themselves.
    Habits = 1,
    /// What the backend has to tell.
    Events = 2,
    /// What becomes of one push.
    Push = 3,
}

/// One stream of chance.
#[derive(Debug)]
pub(super) struct Dice(StdRng);

/// A weight for each hour of the day.
pub(super) type Hours = [f64; 24];

impl Dice {
    /// The stream for `what`, numbered by whom or what it concerns.
    pub fn new(seed: u64, what: Stream, numbers: &[u64]) -> Self {
        let start = mix(mix(seed) ^ what as u64);
        Self(StdRng::seed_from_u64(numbers.iter().fold(start, |mixed, number| mix(mixed ^ number))))
    }

    /// Whether something happens that happens in this share of cases.
    pub fn chance(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    /// Any time between two, all alike.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.0.random_range(least..=most)
    }

    /// Any number of a range, all alike.
    pub fn number(&mut self, least: u32, most: u32) -> u32 {
        self.0.random_range(least..=most)
    }

    /// How long something takes that may end at any moment (exponential).
    pub fn lasting(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-self.0.random_range(f64::MIN_POSITIVE..1.0).ln())
    }

    /// One of several values, each as often as its weight says.
    pub fn pick(&mut self, weighted: &[(f64, f64)]) -> f64 {
        let all: f64 = weighted.iter().map(|(weight, _)| weight).sum();
        let mut left = self.0.random_range(0.0..all);
        for (weight, value) in weighted {
            left -= weight;
            if left < 0.0 {
                return *value;
            }
        }
        weighted.last().map_or(0.0, |(_, value)| *value)
    }

    /// When something happens that happens `per_day` times a day on average, more at some hours than at others (a Poisson process,
    /// thinned).
    pub fn moments(&mut self, until: Timestamp, per_day: f64, hours: &Hours) -> Vec<Timestamp> {
        let busiest = hours.iter().copied().fold(0.0, f64::max);
        let mean = hours.iter().sum::<f64>() / hours.len() as f64;
        let mean_gap = Duration::from_hours(24).div_f64(per_day * busiest / mean);
        let (mut now, mut moments) = (super::START, Vec::new());
        loop {
            now = now + self.lasting(mean_gap);
            if now >= until {
                return moments;
            }
            if self.chance(hours[hour_of_day(now)] / busiest) {
                moments.push(now);
            }
        }
    }
}

fn hour_of_day(at: Timestamp) -> usize {
    usize::try_from(at.as_s().div_euclid(3600).rem_euclid(24)).unwrap_or(0)
}

/// SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_as_often_and_when_they_should() {
        let mut hours = [0.0; 24];
        (hours[8], hours[20]) = (3.0, 1.0);
        let until = crate::sim::fleet::START + Duration::from_hours(24 * 1000);
        let moments = Dice::new(1, Stream::Events, &[1]).moments(until, 4.0, &hours);
        let at_eight = moments.iter().filter(|at| hour_of_day(**at) == 8).count();
        assert!((3800..4200).contains(&moments.len()), "{}", moments.len());
        assert!((2850..3150).contains(&at_eight), "{at_eight}");
        assert!(moments.iter().all(|at| [8, 20].contains(&hour_of_day(*at))));
    }

    #[test]
    fn streams_repeat_themselves_and_nobody_else() {
        let first = |what, numbers: &[u64]| Dice::new(7, what, numbers).number(0, u32::MAX);
        assert_eq!(first(Stream::Push, &[1, 2]), first(Stream::Push, &[1, 2]));
        assert_ne!(first(Stream::Push, &[1, 2]), first(Stream::Push, &[2, 1]));
        assert_ne!(first(Stream::Push, &[1]), first(Stream::Events, &[1]));
    }

    #[test]
    fn lasting_has_its_mean() {
        let mut dice = Dice::new(3, Stream::Habits, &[]);
        let all: Duration = (0..10_000).map(|_| dice.lasting(Duration::from_secs(100))).sum();
        assert!((970_000..1_030_000).contains(&all.as_secs()), "{all:?}");
    }
}
