//! Days in the life of one phone, each under a hundred fates.

use super::*;
use crate::sim::fleet::{Policy, spans::Spans, steps};

const MINUTE: Duration = Duration::from_mins(1);
const FATES: u64 = 100;

fn at(hour: u32, minute: u32) -> Timestamp {
    START + MINUTE * (hour * 60 + minute)
}

/// A phone that nobody touches: always awake and online.
fn untouched(platform: Platform) -> Habits {
    Habits {
        platform,
        pickups: Vec::new(),
        visits: Vec::new(),
        offline: Spans::default(),
        awake: Spans::always(),
        refreshes: Vec::new(),
        new_tokens: Vec::new(),
        honoured_per_hour: 2,
        ends_app: 0.0,
    }
}

fn background(times: &[Timestamp]) -> Vec<Event> {
    times.iter().map(|at| Event::new(*at, 1, Class::Background)).collect()
}

/// A day under every fate, with a push per event, or by the defaults.
fn days(habits: &Habits, events: &[Event], policy: &Policy) -> Vec<Lived> {
    let workload = Workload::of(vec![events.to_vec()]);
    let events = workload.phones().next().unwrap();
    let settings = &policy.settings;
    let setting = |seed| Setting { seed, phone: 0, habits, events, workload: &workload, settings, until: at(24, 0) };
    (0..FATES).map(|seed| live(setting(seed))).collect()
}

fn push_per_event() -> Policy {
    steps().remove(0)
}

fn defaults() -> Policy {
    steps().remove(3)
}

fn ends(days: &[Lived], push: usize) -> Vec<End> {
    days.iter().filter_map(|day| day.pushes.get(push)).map(|push| push.end).collect()
}

fn seconds(from: Timestamp, fate: Fate) -> u64 {
    let Fate::Fetched(at) = fate else { panic!("{fate:?}") };
    at.since(from).as_secs()
}

#[test]
fn a_push_wakes_the_phone_within_seconds_or_is_lost() {
    let days = days(&untouched(Platform::Ios), &background(&[at(12, 0)]), &push_per_event());
    let lost = days.iter().filter(|day| day.pushes[0].end == End::Lost).count();
    assert!((15..45).contains(&lost), "{lost} of 100");
    for day in &days {
        match day.pushes[0].end {
            End::Woke => assert!(seconds(at(12, 0), day.fates[0]) <= 3),
            end => assert!(end == End::Lost && matches!(day.fates[0], Fate::Waits(_)), "{end:?}"),
        }
    }
}

#[test]
fn who_is_silent_is_woken_again() {
    let days = days(&untouched(Platform::Ios), &background(&[at(12, 0)]), &defaults());
    for day in &days {
        let sent: Vec<u64> = day.pushes.iter().map(|push| push.sent_at.since(at(12, 0)).as_secs()).collect();
        assert_eq!(sent, [0, 1800, 1800 + 7200, 1800 + 7200 + 21_600][..sent.len()]);
        let (last, missed) = day.pushes.split_last().unwrap();
        assert!(missed.iter().all(|push| push.end == End::Lost));
        assert!(last.end == End::Woke || sent.len() == 4);
    }
    assert!(days.iter().any(|day| day.pushes.len() == 3), "somebody loses two");
}

#[test]
fn an_ended_app_gets_nothing_before_it_is_opened() {
    let mut habits = untouched(Platform::Ios);
    let visit = |hour, leaves| Visit { from: at(hour, 0), until: at(hour, 5), leaves };
    habits.visits = vec![visit(10, Leaves::Ended), visit(15, Leaves::Running)];
    let days = days(&habits, &background(&[at(9, 0), at(12, 0), at(17, 0)]), &push_per_event());
    assert!(ends(&days, 0).contains(&End::Woke));
    assert!(ends(&days, 1).iter().all(|end| [End::Discarded, End::Lost].contains(end)));
    assert!(ends(&days, 2).contains(&End::Woke));
    for day in &days {
        assert_eq!(day.fates[1], Fate::Fetched(at(15, 0)));
    }
}

#[test]
fn ios_honours_two_an_hour_and_holds_or_drops_the_others() {
    let every_other_minute: Vec<_> = (0..10).map(|n| at(12, 2 * n)).collect();
    let days = days(&untouched(Platform::Ios), &background(&every_other_minute), &push_per_event());
    for day in &days {
        let woke: Vec<_> = day.pushes.iter().filter(|push| push.end == End::Woke).collect();
        assert!(woke.len() <= 3, "two at once and the one that was held");
        assert!(woke.iter().take(2).all(|push| push.sent_at < at(12, 20)));
    }
    let all: Vec<End> = (0..10).flat_map(|push| ends(&days, push)).collect();
    assert!([End::Dropped, End::Replaced].iter().all(|end| all.contains(end)));
    let newest_held = days.iter().filter(|day| day.pushes[9].end == End::Woke);
    assert!(newest_held.clone().count() > 0);
    for day in newest_held {
        assert!(seconds(at(12, 18), day.fates[9]) >= 10 * 60, "not before iOS honours another");
    }
}

#[test]
fn doze_holds_background_pushes_back_and_no_alert() {
    let mut habits = untouched(Platform::Android);
    habits.awake = Spans::covering(vec![(at(0, 0), at(1, 0)), (at(6, 0), at(6, 5)), (at(12, 0), at(24, 0))]);
    let alert = Event::new(at(5, 30), 2, Class::Alert);
    let mut events = background(&[at(3, 0), at(4, 0)]);
    let days_without = days(&habits, &events, &push_per_event());
    for day in &days_without {
        assert!(day.fates.iter().all(|fate| matches!(fate, Fate::Fetched(fetched) if *fetched >= at(6, 0))), "{day:?}");
    }
    assert!(ends(&days_without, 0).contains(&End::Replaced));
    events.push(alert);
    for day in days(&habits, &events, &push_per_event()) {
        let push = day.pushes[2];
        assert!(
            push.end == End::Lost || push.broke_doze && day.fates.iter().all(|fate| seconds(at(3, 0), *fate) < 9004)
        );
    }
}

#[test]
fn a_phone_that_is_offline_finds_the_newest_push_only() {
    let mut habits = untouched(Platform::Ios);
    habits.offline = Spans::covering(vec![(at(11, 0), at(13, 0))]);
    let days = days(&habits, &background(&[at(11, 10), at(11, 20), at(11, 30)]), &push_per_event());
    for day in &days {
        let through: Vec<_> = day.pushes.iter().filter(|push| push.end != End::Lost).collect();
        if let Some((newest, older)) = through.split_last() {
            assert!(older.iter().all(|push| push.end == End::Replaced));
            assert_eq!(newest.end, End::Woke);
            assert!(
                day.fates.iter().all(|fate| matches!(fate, Fate::Fetched(at_) if at_.since(at(13, 0)).as_secs() <= 3))
            );
        }
    }
}

#[test]
fn a_new_token_is_known_once_the_app_has_been_opened() {
    let mut habits = untouched(Platform::Ios);
    habits.new_tokens = vec![at(8, 0)];
    habits.visits = vec![Visit { from: at(12, 0), until: at(12, 5), leaves: Leaves::Running }];
    for day in days(&habits, &background(&[at(9, 0), at(10, 0), at(14, 0)]), &push_per_event()) {
        assert_eq!(day.refused, 1, "the second event finds the device gone");
        assert_eq!(day.pushes.len(), 1);
        assert_eq!(day.fates[..2], [Fate::Fetched(at(12, 0)); 2]);
    }
}

#[test]
fn an_iphone_shows_an_alert_and_its_user_decides() {
    let mut habits = untouched(Platform::Ios);
    habits.pickups = vec![at(12, 30)];
    let days = days(&habits, &[Event::new(at(12, 0), 1, Class::Alert)], &push_per_event());
    for day in &days {
        match day.pushes[0].end {
            End::Woke => assert_eq!(day.fates[0], Fate::Fetched(at(12, 30))),
            end => assert!([End::Shown, End::Lost].contains(&end), "{end:?}"),
        }
    }
    assert!([End::Woke, End::Shown].iter().all(|end| ends(&days, 0).contains(end)));
}

#[test]
fn apps_poll_by_themselves_as_their_system_lets_them() {
    let polls = |habits: &Habits| days(habits, &[], &defaults()).remove(0).polls;
    let mut android = untouched(Platform::Android);
    android.awake = Spans::covering(vec![(at(0, 0), at(6, 0))]);
    assert_eq!(polls(&android).background, 23, "every 15 minutes for six hours, without the first moment and the last");
    let awake_all_day = untouched(Platform::Android);
    assert_eq!(
        polls(&awake_all_day).background,
        48 + 6 - 1,
        "every two hours once the app has not been opened for twelve"
    );
    let mut iphone = untouched(Platform::Ios);
    assert_eq!(polls(&iphone).background, 0);
    iphone.refreshes = vec![at(4, 0)];
    assert_eq!(polls(&iphone).background, 1);
    iphone.visits = vec![Visit { from: at(3, 0), until: at(3, 40), leaves: Leaves::Ended }];
    assert_eq!(polls(&iphone), Polls { pushed: 0, background: 0, foreground: 3 });
}
