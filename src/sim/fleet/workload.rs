//! What the backend has to tell: order updates, single ones and bursts, and now and then an alert.

use std::time::Duration;

use super::dice::{Dice, Hours};
use crate::domain::{event::Class, feed::Position, time::Timestamp};

/// Single background events per phone and day, on average. Assumption, as all numbers here: a shop with orders under way.
const SINGLES_PER_DAY: f64 = 4.0;
/// Bursts of background events per phone and day (a courier's steps, a picked order).
const BURSTS_PER_DAY: f64 = 1.0;
/// Events of a burst: least and most, all alike.
const BURST_EVENTS: (u32, u32) = (3, 7);
/// All within this.
const BURST: Duration = Duration::from_mins(1);
/// Alerts per phone and day.
const ALERTS_PER_DAY: f64 = 1.0;
/// How busy a phone's orders are, and how many of 100 are so.
const BUSY: [(f64, f64); 3] = [(40.0, 0.4), (40.0, 1.0), (20.0, 2.2)];
/// Orders that a phone follows at a time; each is a feed.
const FEEDS: u32 = 3;
/// When it happens, by the hour: a shop's day.
const HOURS: Hours = [
    0.2, 0.1, 0.1, 0.1, 0.1, 0.2, 0.6, 1.0, 1.4, 1.7, 1.8, 1.8, 1.7, 1.7, 1.6, 1.6, 1.7, 1.8, 1.8, 1.5, 1.1, 0.7, 0.4,
    0.3,
];
/// How long a background wake is worth while: the default of the contract (§5, Events).
const BACKGROUND_TTL: Duration = Duration::from_hours(24);
/// How long an alert is: as in the contract's example.
const ALERT_TTL: Duration = Duration::from_hours(1);

/// One event for one phone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// Its place in the app's order.
    pub position: Position,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Which of the phone's feeds it is in.
    pub feed: u32,
    /// How loudly it wakes.
    pub class: Class,
    /// Until when waking for it is worth while.
    pub expires_at: Timestamp,
}

impl Event {
    /// One that has no place in the order yet.
    pub fn new(accepted_at: Timestamp, feed: u32, class: Class) -> Self {
        let ttl = if class == Class::Alert { ALERT_TTL } else { BACKGROUND_TTL };
        Self { position: Position(0), accepted_at, feed, class, expires_at: accepted_at + ttl }
    }
}

/// The events of all phones, in the app's order.
#[derive(Debug)]
pub(super) struct Workload {
    accepted_at: Vec<Timestamp>,
    of_phones: Vec<Vec<Event>>,
}

impl Workload {
    /// The events of as many phones as there are dice.
    pub fn new(until: Timestamp, dice: impl Iterator<Item = Dice>) -> Self {
        Self::of(dice.map(|dice| of_phone(until, dice)).collect())
    }

    /// These events of these phones; each gets its place in the app's order.
    pub fn of(mut of_phones: Vec<Vec<Event>>) -> Self {
        let mut all: Vec<&mut Event> = of_phones.iter_mut().flatten().collect();
        // The sort is stable: what comes at the same moment stays in the order of the phones.
        all.sort_by_key(|event| event.accepted_at);
        for (position, event) in (1..).zip(&mut all) {
            event.position = Position(position);
        }
        Self { accepted_at: all.iter().map(|event| event.accepted_at).collect(), of_phones }
    }

    /// The events of each phone, in order.
    pub fn phones(&self) -> impl Iterator<Item = &[Event]> {
        self.of_phones.iter().map(Vec::as_slice)
    }

    /// The app's counter at some moment: the position of the newest event.
    pub fn counter(&self, at: Timestamp) -> Position {
        Position(self.accepted_at.partition_point(|accepted_at| *accepted_at <= at) as i64)
    }
}

fn of_phone(until: Timestamp, mut dice: Dice) -> Vec<Event> {
    let busy = dice.pick(&BUSY);
    let mut events = Vec::new();
    let mut add = |accepted_at: Timestamp, feed, class| {
        if accepted_at < until {
            events.push(Event::new(accepted_at, feed, class));
        }
    };
    for at in dice.moments(until, SINGLES_PER_DAY * busy, &HOURS) {
        add(at, dice.number(1, FEEDS), Class::Background);
    }
    for at in dice.moments(until, BURSTS_PER_DAY * busy, &HOURS) {
        let feed = dice.number(1, FEEDS);
        for _ in 0..dice.number(BURST_EVENTS.0, BURST_EVENTS.1) {
            add(at + dice.between(Duration::ZERO, BURST), feed, Class::Background);
        }
    }
    for at in dice.moments(until, ALERTS_PER_DAY * busy, &HOURS) {
        add(at, dice.number(1, FEEDS), Class::Alert);
    }
    events.sort_by_key(|event| event.accepted_at);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fleet::{START, dice::Stream};

    #[test]
    fn positions_are_the_apps_order() {
        let until = START + Duration::from_hours(48);
        let dice = (0..50).map(|phone| Dice::new(1, Stream::Events, &[phone]));
        let workload = Workload::new(until, dice);
        let mut all: Vec<Event> = workload.phones().flatten().copied().collect();
        all.sort_by_key(|event| event.position);
        assert!((700..1400).contains(&all.len()), "{}", all.len());
        for (position, event) in (1..).zip(&all) {
            assert_eq!(event.position, Position(position));
            assert!(workload.counter(event.accepted_at) >= event.position);
            assert!(workload.counter(event.accepted_at - Duration::from_millis(1)) < event.position);
        }
        assert!(all.is_sorted_by_key(|event| event.accepted_at));
        assert!(all.iter().any(|event| event.class == Class::Alert));
        assert_eq!(workload.counter(START), Position(0));
    }
}
