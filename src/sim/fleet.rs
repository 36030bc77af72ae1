//! A fleet in virtual time: the relay's real rules (`domain`), providers, systems, apps and users, without network or database.
//!
//! It compares policies over the same phones: the same events, habits and luck for each (common random numbers). What it assumes, and
//! what came of it, is in `docs/policy.md`.

mod dice;
mod figures;
mod habits;
mod life;
mod plot;
mod provider;
mod relay;
mod spans;
mod table;
#[cfg(test)]
mod tests;
mod workload;

use std::time::Duration;

pub use self::figures::{Ages, Figures};
pub use self::life::End;
pub use self::plot::plot;
pub use self::relay::Rests;
pub use self::table::{json, table};

use self::dice::{Dice, Stream};
use self::habits::Habits;
use self::life::Setting;
use self::workload::Workload;
use crate::domain::{
    device::Platform,
    settings::{Budget, ClassPolicy, Settings},
    time::Timestamp,
};

/// Every simulation begins here, at midnight.
const START: Timestamp = Timestamp::from_ms(0);

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Phones; every other one is an iPhone.
    pub phones: u32,
    /// Days.
    pub days: u32,
    /// The same seed gives the same phones, events and luck.
    pub seed: u64,
}

/// A policy that is tried.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What it is called.
    pub name: String,
    /// The app settings that make it.
    pub settings: Settings,
}

/// How one policy did.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is called.
    pub policy: String,
    /// On iPhones.
    pub ios: Figures,
    /// On Android phones.
    pub android: Figures,
}

impl Row {
    /// On all phones.
    pub fn all(&self) -> Figures {
        self.ios.clone().and(&self.android)
    }
}

/// A push for every event, and then one rule of the defaults after the other, up to all of them.
pub fn steps() -> Vec<Policy> {
    let defaults = Settings::default();
    let step = |name: &str, change: &dyn Fn(&mut ClassPolicy)| {
        let mut settings = defaults.clone();
        let wake = &mut settings.wake;
        for platform in [&mut wake.ios, &mut wake.android] {
            change(&mut platform.background);
            change(&mut platform.alert);
        }
        Policy { name: name.to_owned(), settings }
    };
    let no_budget = Budget { burst: 1000, refill_s: 1 };
    vec![
        step("push per event", &|rules| (rules.gap_s, rules.budget, rules.rewake_s) = (0, no_budget, Vec::new())),
        step("coalesce", &|rules| (rules.budget, rules.rewake_s) = (no_budget, Vec::new())),
        step("+ budget", &|rules| rules.rewake_s = Vec::new()),
        step("+ re-wake", &|_| {}),
    ]
}

/// Lives the plan under each of the policies; `tell` is called after each phone.
pub fn run(plan: Plan, policies: &[Policy], mut tell: impl FnMut()) -> Vec<Row> {
    let until = START + Duration::from_hours(24) * plan.days;
    let numbers = 0..u64::from(plan.phones);
    let workload = Workload::new(until, numbers.clone().map(|phone| Dice::new(plan.seed, Stream::Events, &[phone])));
    let row =
        |policy: &Policy| Row { policy: policy.name.clone(), ios: Figures::default(), android: Figures::default() };
    let mut rows: Vec<Row> = policies.iter().map(row).collect();
    for (phone, events) in numbers.zip(workload.phones()) {
        let platform = if phone % 2 == 0 { Platform::Ios } else { Platform::Android };
        let habits = Habits::new(platform, until, &mut Dice::new(plan.seed, Stream::Habits, &[phone]));
        for (policy, row) in policies.iter().zip(&mut rows) {
            let settings = &policy.settings;
            let lived = life::live(Setting {
                seed: plan.seed,
                phone,
                habits: &habits,
                events,
                workload: &workload,
                settings,
                until,
            });
            let figures = if platform == Platform::Ios { &mut row.ios } else { &mut row.android };
            figures.add(&lived, events, plan.days);
        }
        tell();
    }
    for row in &mut rows {
        row.ios.sort();
        row.android.sort();
    }
    rows
}
