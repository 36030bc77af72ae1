//! What phones and their users are like. Every number has its source, or says that it is an assumption.
//!
//! Sources: [A-bg] Apple, "Pushing background updates to your app"; [A-forum] Apple's support at developer.apple.com/forums/thread/776933
//! and 773486; [F-prio], [F-quota] Firebase, "Set and manage message priority" and "FCM throttling and quotas"; [D-doze] Android
//! developers, "Optimize for Doze and App Standby"; [D-power] "Power management restrictions"; [D-work] "PeriodicWorkRequest";
//! [AOSP] the defaults in `DeviceIdleController.java` and `AppStandbyController.java` of Android's source; [UbiComp] Hintze et al.,
//! "Diversity in locked and unlocked mobile device usage", UbiComp 2014 (1,960 Android phones).

use std::time::Duration;

use super::{
    START,
    dice::{Dice, Hours},
    spans::Spans,
};
use crate::domain::{device::Platform, time::Timestamp};

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// How often a phone is taken into the hand, a day [UbiComp: 57].
const PICKUPS_PER_DAY: f64 = 57.0;
/// For how long on average [UbiComp: 117 minutes a day over 57 times].
const PICKUP: Duration = Duration::from_secs(117 * 60 / 57);
/// At which hours, relative to each other. Assumption: little at night, most in the evening.
const PICKUP_HOURS: Hours = [
    0.5, 0.2, 0.1, 0.1, 0.1, 0.3, 1.0, 1.5, 1.5, 1.4, 1.4, 1.5, 1.6, 1.5, 1.4, 1.4, 1.5, 1.6, 1.7, 1.8, 1.8, 1.7, 1.4,
    0.9,
];

/// How often users open the app in question, a day, and how many of 100 do. Assumption: a few times a day on average (3.1), unevenly.
const OPENINGS_PER_DAY: [(f64, f64); 4] = [(20.0, 0.5), (40.0, 2.0), (30.0, 4.0), (10.0, 10.0)];

/// Offline for a while (cellar, underground, flight), so often a day. Assumption.
const OFFLINE_PER_DAY: f64 = 1.5;
/// For how long on average. Assumption.
const OFFLINE: Duration = Duration::from_mins(40);
/// The share of users whose phone is off or in flight mode at night. Assumption.
const OFF_AT_NIGHT: f64 = 0.15;
/// When the night begins and ends, on average; an hour earlier or later from person to person. Assumption.
const NIGHT: (Duration, Duration) = (Duration::from_mins(23 * 60), Duration::from_mins((24 + 6) * 60 + 30));

/// The share of users who force-quit apps on iOS, and how often they do so after using one. Assumption; what it means is in [A-bg]:
/// no background pushes until the user opens the app again.
const IOS_QUITTERS: (f64, f64) = (0.2, 0.5);
/// The same on Android, where makers' task killers do it as well. Assumption; a stopped app gets nothing until it is opened.
const ANDROID_QUITTERS: (f64, f64) = (0.1, 0.5);

/// Background pushes an hour that iOS honours [A-bg: "don't try to send more than two or three per hour"]: half of the phones are of
/// either kind. Assumption: a token bucket; [A-forum] says that it may as well be none.
const IOS_PER_HOUR: [(f64, f64); 2] = [(0.5, 2.0), (0.5, 3.0)];
/// Background refreshes that iOS grants an app by itself, a day. Assumption: almost none, Apple promises none.
const IOS_REFRESHES_PER_DAY: f64 = 1.0;

/// The share of Android phones that are plugged in at night; Doze does not apply to them [D-doze]. Assumption.
const CHARGING_AT_NIGHT: f64 = 0.7;
/// Screen off for so long, and light Doze begins [AOSP: LIGHT_IDLE_AFTER_INACTIVE_TIMEOUT 1 min + LIGHT_PRE_IDLE_TIMEOUT 3 min].
const LIGHT_DOZE_AFTER: Duration = Duration::from_mins(4);
/// Between light Doze's maintenance windows: first and most; it doubles [AOSP: LIGHT_IDLE_TIMEOUT, LIGHT_MAX_IDLE_TIMEOUT].
const LIGHT_IDLE: (Duration, Duration) = (Duration::from_mins(5), Duration::from_mins(15));
/// Such a window [AOSP: LIGHT_IDLE_MAINTENANCE_MIN_BUDGET].
const LIGHT_WINDOW: Duration = MINUTE;
/// Screen off for so long, and deep Doze begins [AOSP: INACTIVE_TIMEOUT 30 min + SENSING_TIMEOUT 4 min + IDLE_AFTER_INACTIVE_TIMEOUT
/// 30 min]. Assumption: a phone that nobody has touched for this long lies still.
const DEEP_DOZE_AFTER: Duration = Duration::from_mins(64);
/// Between deep Doze's windows: first and most; it doubles [AOSP: IDLE_TIMEOUT, MAX_IDLE_TIMEOUT].
const DEEP_IDLE: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(6));
/// Such a window: first and most; it doubles [AOSP: IDLE_PENDING_TIMEOUT, MAX_IDLE_PENDING_TIMEOUT].
const DEEP_WINDOW: (Duration, Duration) = (Duration::from_mins(5), Duration::from_mins(10));

/// A push token holds so many days on average (restored, installed anew, renewed by the provider). Assumption: 4 of 100 change in a week.
const TOKEN_LIFE_DAYS: f64 = 180.0;

/// The app is in the foreground.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    /// From here.
    pub from: Timestamp,
    /// Up to here.
    pub until: Timestamp,
    /// What the user does then.
    pub leaves: Leaves,
}

/// How a user leaves an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaves {
    /// It goes to the background.
    Running,
    /// It is ended by force.
    Ended,
}

/// A phone with its user, over the whole simulation, as far as no push has to do with it.
#[derive(Debug)]
pub(super) struct Habits {
    /// iPhone or Android phone.
    pub platform: Platform,
    /// When it is taken into the hand, in order.
    pub pickups: Vec<Timestamp>,
    /// When its user opens the app, in order.
    pub visits: Vec<Visit>,
    /// When it has no network.
    pub offline: Spans,
    /// When its system delivers pushes of normal priority and lets apps work in the background: not in Doze.
    pub awake: Spans,
    /// When iOS lets the app refresh itself.
    pub refreshes: Vec<Timestamp>,
    /// When its push token changes.
    pub new_tokens: Vec<Timestamp>,
    /// Background pushes an hour that iOS honours.
    pub honoured_per_hour: u32,
    /// How often the app is ended by force after it has been used.
    pub ends_app: f64,
}

impl Habits {
    /// A phone of this platform.
    pub fn new(platform: Platform, until: Timestamp, dice: &mut Dice) -> Self {
        let all_day = [1.0; 24];
        let quitters = if platform == Platform::Ios { IOS_QUITTERS } else { ANDROID_QUITTERS };
        let ends_app = if dice.chance(quitters.0) { quitters.1 } else { 0.0 };
        let honoured_per_hour = dice.pick(&IOS_PER_HOUR) as u32;
        let opens = dice.pick(&OPENINGS_PER_DAY) / PICKUPS_PER_DAY;
        let shift = dice.between(Duration::ZERO, MINUTE * 120);
        let nights: Vec<_> = nights(until, shift).collect();
        let (charging, off) = (dice.chance(CHARGING_AT_NIGHT), dice.chance(OFF_AT_NIGHT));

        let (mut pickups, mut visits, mut screen_on) = (Vec::new(), Vec::<Visit>::new(), Vec::new());
        for at in dice.moments(until, PICKUPS_PER_DAY, &PICKUP_HOURS) {
            let end = at + dice.lasting(PICKUP);
            let leaves = if dice.chance(ends_app) { Leaves::Ended } else { Leaves::Running };
            pickups.push(at);
            screen_on.push((at, end));
            // A user who has not left the app yet does not open it a second time.
            if dice.chance(opens) && visits.last().is_none_or(|last| last.until < at) {
                visits.push(Visit { from: at, until: end, leaves });
            }
        }
        let mut offline: Vec<_> =
            dice.moments(until, OFFLINE_PER_DAY, &all_day).into_iter().map(|at| (at, at)).collect();
        for (from, until) in &mut offline {
            *until = *from + dice.lasting(OFFLINE);
        }
        offline.extend(nights.iter().filter(|_| off));
        let awake = match platform {
            Platform::Ios => Spans::always(),
            Platform::Android | Platform::Web => {
                let mut awake = not_dozing(&Spans::covering(screen_on), until);
                awake.extend(nights.iter().filter(|_| charging));
                Spans::covering(awake)
            }
        };
        let refreshes = match platform {
            Platform::Ios => dice.moments(until, IOS_REFRESHES_PER_DAY, &all_day),
            Platform::Android | Platform::Web => Vec::new(),
        };
        let new_tokens = dice.moments(until, 1.0 / TOKEN_LIFE_DAYS, &all_day);
        let offline = Spans::covering(offline);
        Self { platform, pickups, visits, offline, awake, refreshes, new_tokens, honoured_per_hour, ends_app }
    }

    /// The next moment from `at` on at which the phone is online and its system lets the app run.
    pub fn can_run(&self, mut at: Timestamp) -> Option<Timestamp> {
        loop {
            let awake = self.awake.next_inside(at)?;
            at = self.offline.next_outside(awake);
            if at == awake {
                return Some(at);
            }
        }
    }

    /// The next time from `at` on that the phone is taken into the hand.
    pub fn next_pickup(&self, at: Timestamp) -> Option<Timestamp> {
        self.pickups.get(self.pickups.partition_point(|pickup| *pickup < at)).copied()
    }

    /// How long a visit lasts that is not one of [`Habits::visits`], and how it ends.
    pub fn stay(&self, dice: &mut Dice) -> (Duration, Leaves) {
        (dice.lasting(PICKUP), if dice.chance(self.ends_app) { Leaves::Ended } else { Leaves::Running })
    }
}

fn nights(until: Timestamp, shift: Duration) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    let evening = move |day: u32| START + DAY * day + NIGHT.0 + shift - MINUTE * 60;
    // The simulation begins at midnight, in the middle of a night.
    let first = (START, START + NIGHT.1 + shift - MINUTE * 60 - DAY);
    let others = (0..).map(evening).take_while(move |from| *from < until);
    std::iter::once(first).chain(others.map(|from| (from, from + NIGHT.1 - NIGHT.0)))
}

/// When an Android phone is not in Doze, on battery: while the screen is on, shortly after, and in the maintenance windows.
fn not_dozing(screen_on: &Spans, until: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let mut awake = Vec::new();
    let begins = screen_on.iter().map(|(from, _)| from).chain([until]);
    let screen_off = std::iter::once(START).chain(screen_on.iter().map(|(_, until)| until));
    for (off, on) in screen_off.zip(begins) {
        awake.push((off, on.min(off + LIGHT_DOZE_AFTER)));
        let deep = off + DEEP_DOZE_AFTER;
        windows(&mut awake, off + LIGHT_DOZE_AFTER, on.min(deep), LIGHT_IDLE, (LIGHT_WINDOW, LIGHT_WINDOW));
        windows(&mut awake, deep, on, DEEP_IDLE, DEEP_WINDOW);
    }
    awake.extend(screen_on.iter());
    awake
}

/// Maintenance windows between two moments: idle time and window both double until they are at their most.
fn windows(
    found: &mut Vec<(Timestamp, Timestamp)>,
    from: Timestamp,
    until: Timestamp,
    (mut idle, most_idle): (Duration, Duration),
    (mut window, most_window): (Duration, Duration),
) {
    let mut opens = from + idle;
    while opens < until {
        found.push((opens, until.min(opens + window)));
        (idle, window) = ((idle * 2).min(most_idle), (window * 2).min(most_window));
        opens = opens + window + idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fleet::dice::Stream;

    fn at_min(minute: u32) -> Timestamp {
        START + MINUTE * minute
    }

    #[test]
    fn doze_opens_its_windows_ever_less_often() {
        // The screen is on from minute 0 to 1, and then not again for ten hours.
        let screen_on = Spans::covering(vec![(at_min(0), at_min(1))]);
        let awake = Spans::covering(not_dozing(&screen_on, at_min(601)));
        let windows: Vec<i64> = awake.iter().map(|(from, _)| from.as_s() / 60).collect();
        assert_eq!(windows, [0, 10, 21, 37, 53, 125, 255, 505]);
        let lengths: Vec<i64> = awake.iter().map(|(from, until)| (until.as_s() - from.as_s()) / 60).collect();
        assert_eq!(lengths, [5, 1, 1, 1, 1, 5, 10, 10]);
    }

    #[test]
    fn a_fleet_is_as_the_numbers_say() {
        const PHONES: u64 = 300;
        const DAYS: u32 = 10;
        let until = START + DAY * DAYS;
        let phones: Vec<Habits> = (0..PHONES)
            .map(|phone| Habits::new(Platform::Android, until, &mut Dice::new(1, Stream::Habits, &[phone])))
            .collect();
        let per_day = |count: usize| count as f64 / PHONES as f64 / f64::from(DAYS);
        let pickups = per_day(phones.iter().map(|phone| phone.pickups.len()).sum());
        let visits = per_day(phones.iter().map(|phone| phone.visits.len()).sum());
        assert!((54.0..60.0).contains(&pickups), "{pickups} pickups a day");
        assert!((2.6..3.5).contains(&visits), "{visits} visits a day");
        for phone in &phones {
            assert!(phone.visits.windows(2).all(|pair| pair[0].until < pair[1].from));
            assert!(phone.pickups.iter().all(|at| phone.awake.hold(*at)), "a phone in the hand does not doze");
        }
    }

    #[test]
    fn a_phone_runs_apps_when_it_is_both_awake_and_online() {
        let mut phone = Habits::new(Platform::Ios, START + DAY, &mut Dice::new(1, Stream::Habits, &[]));
        phone.awake = Spans::covering(vec![(at_min(10), at_min(20)), (at_min(30), at_min(40))]);
        phone.offline = Spans::covering(vec![(at_min(15), at_min(35))]);
        assert_eq!(phone.can_run(at_min(0)), Some(at_min(10)));
        assert_eq!(phone.can_run(at_min(16)), Some(at_min(35)));
        assert_eq!(phone.can_run(at_min(40)), None);
    }
}
