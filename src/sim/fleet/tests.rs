//! Lives checked against what must hold whatever the dice say.

use std::collections::HashMap;

use super::life::{Fate, Lived};
use super::workload::Event;
use super::*;
use crate::domain::{event::Class, policy::DropReason, settings::Budget};

const PLAN: Plan = Plan { phones: 40, days: 3, seed: 11 };

/// Lives every phone of the plan under a policy, and hands each life to `check`.
fn lives(plan: Plan, policy: &Policy, mut check: impl FnMut(&Habits, &[Event], &Workload, &Lived)) {
    let until = START + Duration::from_hours(24) * plan.days;
    let dice = |what, phone| Dice::new(plan.seed, what, &[phone]);
    let phones = 0..u64::from(plan.phones);
    let workload = Workload::new(until, phones.clone().map(|phone| dice(Stream::Events, phone)));
    for (phone, events) in phones.zip(workload.phones()) {
        let platform = if phone % 2 == 0 { Platform::Ios } else { Platform::Android };
        let habits = Habits::new(platform, until, &mut dice(Stream::Habits, phone));
        let settings = &policy.settings;
        let setting = Setting { seed: plan.seed, phone, habits: &habits, events, workload: &workload, settings, until };
        check(&habits, events, &workload, &life::live(setting));
    }
}

#[test]
fn a_seed_is_a_fleet() {
    let policies = steps();
    let rows = run(PLAN, &policies, || {});
    assert_eq!(rows, run(PLAN, &policies, || {}));
    assert_eq!(table(PLAN, &rows), table(PLAN, &run(PLAN, &policies, || {})));
    assert_ne!(rows, run(Plan { seed: 12, ..PLAN }, &policies, || {}));
}

#[test]
fn other_policies_in_the_same_run_change_nothing() {
    let policies = steps();
    let alone = run(PLAN, &policies[3..], || {});
    assert_eq!(alone[0], run(PLAN, &policies, || {})[3]);
}

#[test]
fn every_event_is_fetched_or_waits_for_a_reason() {
    for policy in steps() {
        let mut waiting = 0;
        lives(PLAN, &policy, |_, events, workload, lived| {
            assert_eq!(events.len(), lived.fates.len());
            let end = START + Duration::from_hours(24) * PLAN.days;
            assert!(lived.reached <= workload.counter(end), "nobody is ahead of the counter");
            for (event, fate) in events.iter().zip(&lived.fates) {
                match fate {
                    Fate::Fetched(at) => {
                        assert!(*at >= event.accepted_at && event.position <= lived.reached);
                    }
                    Fate::Waits(rests) => {
                        waiting += 1;
                        assert!(event.position > lived.reached);
                        assert_ne!(*rests, Rests::Dropped(DropReason::AlreadyFetched), "{event:?}");
                    }
                }
            }
        });
        assert!(waiting > 0, "somebody is always asleep at midnight");
    }
}

#[test]
fn no_phone_is_pushed_to_more_often_than_its_settings_say() {
    let policy = steps().remove(3);
    let mut spent = false;
    lives(Plan { phones: 100, ..PLAN }, &policy, |habits, _, _, lived| {
        for class in [Class::Alert, Class::Background] {
            let ClassPolicy { gap_s, budget, .. } = *policy.settings.policy(habits.platform, class);
            let Budget { burst, refill_s } = budget;
            let sent: Vec<_> =
                lived.pushes.iter().filter(|push| push.wake.class == class).map(|push| push.sent_at).collect();
            for (first, from) in sent.iter().enumerate() {
                for (last, to) in sent.iter().enumerate().skip(first) {
                    let (pushes, within) = ((last - first + 1) as u64, to.since(*from));
                    let allowed = u64::from(burst) + within.as_secs() / u64::from(refill_s);
                    assert!(pushes <= allowed, "{pushes} of class {class:?} within {within:?}");
                    spent |= pushes == allowed && pushes > u64::from(burst);
                }
            }
            for pair in sent.windows(2) {
                assert!(pair[1].since(pair[0]) >= Duration::from_secs(u64::from(gap_s)));
            }
        }
    });
    assert!(spent, "some phone lives at the limit, or the budget is not tested");
}

#[test]
fn nothing_is_told_again_for_ever() {
    for policy in steps() {
        lives(PLAN, &policy, |habits, events, _, lived| {
            let mut times: HashMap<_, usize> = HashMap::new();
            for push in &lived.pushes {
                *times.entry((push.wake.wanted_by, push.wake.head)).or_default() += 1;
            }
            for ((class, head), times) in &times {
                let most = 1 + policy.settings.policy(habits.platform, *class).rewake_s.len();
                assert!(*times <= most, "{head:?} was told {times} times");
            }
            if policy.settings.wake.ios.background.rewake_s.is_empty() {
                assert!(lived.pushes.len() <= events.len(), "one push per event at most");
            }
        });
    }
}

#[test]
fn a_dead_token_is_called_once() {
    let (mut dead, mut refused) = (0, 0);
    lives(Plan { phones: 200, ..PLAN }, &steps()[0], |habits, _, _, lived| {
        assert!(lived.refused <= habits.new_tokens.len() as u64);
        dead += habits.new_tokens.len();
        refused += lived.refused;
    });
    assert!(dead > 0 && refused > 0, "{dead} tokens died, and {refused} pushes found it out");
}

#[test]
fn the_rules_are_worth_what_they_cost() {
    let rows = run(Plan { phones: 200, ..PLAN }, &steps(), || {});
    let [each, coalesced, budgeted, again] = rows.try_into().unwrap_or_else(|_| panic!("four policies"));
    assert!(coalesced.all().pushes_per_event() < each.all().pushes_per_event());
    assert!(budgeted.all().pushes_per_event() <= coalesced.all().pushes_per_event());
    assert!(budgeted.ios.stopped() < each.ios.stopped(), "fewer pushes die of Apple's limits");
    let in_time = |row: &Row| row.all().background.within(Duration::from_hours(1));
    assert!(in_time(&again) > in_time(&budgeted), "who is woken again comes sooner");
}
