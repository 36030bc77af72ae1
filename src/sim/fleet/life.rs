//! One phone's life in virtual time: relay, provider, system, app and user take turns by a calendar of steps.

#[cfg(test)]
mod tests;

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use serde::Serialize;

use super::{
    START,
    dice::{Dice, Stream},
    habits::{Habits, Leaves, Visit},
    provider::{Allowance, Provider},
    relay::{Relay, Rests, Wake},
    workload::{Event, Workload},
};
use crate::domain::{device::Platform, event::Class, feed::Position, settings::Settings, time::Timestamp};

/// Of accepted pushes, how many vanish without a word. The fleet is asked to bear this much; the demo loses as many.
const LOST: f64 = 0.3;
/// From the relay to an app that may run: least and most. Assumption.
const ON_THE_WAY: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));
/// Of background pushes beyond what iOS honours, how many it holds until it may run the app again, the newest replacing an older one
/// ("Pushing background updates to your app"); the others it drops (Apple's support, developer.apple.com/forums/thread/776933). Assumption:
/// half of them.
const HELD: f64 = 0.5;
/// How often an iPhone's user opens the app from an alert, at the next look at the phone. Assumption.
const TAPPED: f64 = 0.4;
/// Android runs periodic work no more often than this ("PeriodicWorkRequest": 15 minutes) …
const WORK_EVERY: Duration = Duration::from_mins(15);
/// … and less often the longer the app has not been opened: after so long (AOSP, `AppStandbyController`: the working set begins after 12
/// hours, frequent after 24, rare after 48), so seldom ("Power management restrictions": 2, 8 and 24 hours).
const STANDBY: [(Duration, Duration); 3] = [
    (Duration::from_hours(48), Duration::from_hours(24)),
    (Duration::from_hours(24), Duration::from_hours(8)),
    (Duration::from_hours(12), Duration::from_hours(2)),
];

/// What a phone's life is lived with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub seed: u64,
    /// Its number.
    pub phone: u64,
    pub habits: &'a Habits,
    /// Its own events.
    pub events: &'a [Event],
    /// All events of the app.
    pub workload: &'a Workload,
    pub settings: &'a Settings,
    pub until: Timestamp,
}

/// What has become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A poll has brought it.
    Fetched(Timestamp),
    /// It waits, for this reason.
    Waits(Rests),
}

/// A push that the provider accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Push {
    /// When.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests look at it"))]
    pub sent_at: Timestamp,
    pub wake: Wake,
    luck: Luck,
    pub end: End,
    /// Whether it got a sleeping phone up.
    pub broke_doze: bool,
}

/// What fate has in store for a push.
#[derive(Debug, Clone, Copy)]
struct Luck {
    lost: bool,
    on_the_way: Duration,
    held: bool,
    tapped: bool,
    /// How long the user stays after a tap.
    stays: Duration,
    leaves: Leaves,
}

impl Luck {
    /// The same under every policy, if it is the same push: the `nth` up to a head.
    fn of(setting: Setting<'_>, wake: Wake, nth: usize) -> Self {
        let Setting { seed, phone, habits, .. } = setting;
        let same = [phone, wake.class as u64, wake.head.0.unsigned_abs(), nth as u64];
        let mut dice = Dice::new(seed, Stream::Push, &same);
        let (lost, on_the_way) = (dice.chance(LOST), dice.between(ON_THE_WAY.0, ON_THE_WAY.1));
        let (held, tapped) = (dice.chance(HELD), dice.chance(TAPPED));
        let (stays, leaves) = habits.stay(&mut dice);
        Self { lost, on_the_way, held, tapped, stays, leaves }
    }
}

/// What has become of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Nothing yet.
    UnderWay,
    /// The phone polled because of it.
    Woke,
    /// It ran the app, which was already there and did not poll.
    NothingNew,
    /// An alert was shown, and the user did not open the app.
    Shown,
    /// It vanished.
    Lost,
    /// A newer one took its place at the provider or in the phone.
    Replaced,
    /// It was one too many for the system.
    Dropped,
    /// The system held it until the user came by himself.
    Late,
    /// The app had been ended by force.
    Discarded,
    /// It was kept for longer than it was worth.
    Expired,
}

/// How often the app polled, and what for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Polls {
    /// Because of a push.
    pub pushed: u64,
    /// By itself in the background.
    pub background: u64,
    /// While the user had it open.
    pub foreground: u64,
}

/// A life to its end.
#[derive(Debug)]
pub(super) struct Lived {
    /// Of each of the phone's events.
    pub fates: Vec<Fate>,
    pub pushes: Vec<Push>,
    /// Pushes to a dead token.
    pub refused: u64,
    pub polls: Polls,
    /// Up to where the relay has given it everything.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests look at it"))]
    pub reached: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// The backend posts an event.
    Post(usize),
    /// The relay looks at the device.
    Look(Class),
    /// The provider tries to deliver what it keeps.
    HandOver,
    /// A push is at the phone.
    Arrive(usize),
    /// iOS may let the app run for a push that it has held.
    Release,
    /// The user opens the app.
    Open(usize),
    /// The user opens the app from an alert.
    Tap(usize),
    /// The user leaves the app.
    Leave(Leaves),
    /// The app's own poll; an earlier plan than the last one is void.
    OwnPoll(u64),
    /// iOS lets the app refresh itself.
    Refresh,
    /// The push token changes.
    NewToken,
}

struct Life<'a> {
    setting: Setting<'a>,
    now: Timestamp,
    calendar: BinaryHeap<Reverse<(Timestamp, u64, Step)>>,
    planned: u64,
    relay: Relay<'a>,
    provider: Provider,
    pushes: Vec<Push>,
    refused: u64,
    polls: Polls,
    fetched_at: Vec<Timestamp>,
    through: Position,
    polled_at: Timestamp,
    after: Duration,
    own_poll: u64,
    token_version: i64,
    opened_at: Timestamp,
    open_until: Timestamp,
    ended: bool,
    honoured: Allowance,
    held: Option<usize>,
}

/// Lives one phone's life.
pub(super) fn live(setting: Setting<'_>) -> Lived {
    let Setting { habits, events, settings, .. } = setting;
    let per_hour = habits.honoured_per_hour;
    let mut life = Life {
        setting,
        now: START,
        calendar: BinaryHeap::new(),
        planned: 0,
        relay: Relay::new(settings, habits.platform, START),
        provider: Provider::new(habits.platform),
        pushes: Vec::new(),
        refused: 0,
        polls: Polls::default(),
        fetched_at: Vec::new(),
        through: Position(0),
        polled_at: START,
        after: Duration::ZERO,
        own_poll: 0,
        token_version: 1,
        opened_at: START,
        open_until: START,
        ended: false,
        honoured: Allowance::new(per_hour, Duration::from_hours(1) / per_hour.max(1)),
        held: None,
    };
    life.plan_what_comes_anyway();
    life.poll();
    while let Some(Reverse((at, _, step))) = life.calendar.pop() {
        life.now = at;
        life.step(step);
    }
    let waits = events.iter().skip(life.fetched_at.len()).map(|event| Fate::Waits(life.relay.rests(event.class)));
    Lived {
        fates: life.fetched_at.iter().copied().map(Fate::Fetched).chain(waits).collect(),
        refused: life.refused,
        polls: life.polls,
        reached: life.relay.reached(),
        pushes: life.pushes,
    }
}

impl Life<'_> {
    fn plan_what_comes_anyway(&mut self) {
        let habits = self.setting.habits;
        for (index, event) in self.setting.events.iter().enumerate() {
            self.plan(event.accepted_at, Step::Post(index));
        }
        for (index, visit) in habits.visits.iter().enumerate() {
            self.plan(visit.from, Step::Open(index));
        }
        habits.refreshes.iter().for_each(|at| self.plan(*at, Step::Refresh));
        habits.new_tokens.iter().for_each(|at| self.plan(*at, Step::NewToken));
    }

    fn plan(&mut self, at: Timestamp, step: Step) {
        if at < self.setting.until {
            self.planned += 1;
            self.calendar.push(Reverse((at, self.planned, step)));
        }
    }

    fn step(&mut self, step: Step) {
        let habits = self.setting.habits;
        match step {
            Step::Post(index) => {
                let event = self.setting.events[index];
                self.relay.accept(event, self.now);
                self.look(event.class);
            }
            Step::Look(class) => self.look(class),
            Step::HandOver => self.hand_over(),
            Step::Arrive(push) => self.arrive(push),
            Step::Release => self.release(),
            Step::Open(index) => self.open(habits.visits[index]),
            // Without network the alert is no use; it stays what it is, shown.
            Step::Tap(_) if habits.offline.hold(self.now) => {}
            Step::Tap(push) => {
                self.pushes[push].end = End::Woke;
                let Luck { stays, leaves, .. } = self.pushes[push].luck;
                self.open(Visit { from: self.now, until: self.now + stays, leaves });
            }
            Step::Leave(leaves) => self.leave(leaves),
            Step::OwnPoll(plan) if plan == self.own_poll && !self.ended => {
                if self.now < self.open_until {
                    self.polls.foreground += 1;
                } else {
                    self.polls.background += 1;
                }
                self.poll();
            }
            Step::OwnPoll(_) => {}
            Step::Refresh => {
                let wanted = self.now >= self.polled_at + self.after && self.now >= self.open_until;
                if wanted && !self.ended && !habits.offline.hold(self.now) {
                    self.polls.background += 1;
                    self.poll();
                }
            }
            Step::NewToken => self.token_version += 1,
        }
    }

    /// The relay decides until there is nothing more to do now.
    fn look(&mut self, class: Class) {
        while let Some(due_at) = self.relay.due_at(class) {
            if due_at > self.now {
                return self.plan(due_at, Step::Look(class));
            }
            if let Some(wake) = self.relay.decide(class, self.now) {
                self.send(wake);
            }
        }
    }

    fn send(&mut self, wake: Wake) {
        if wake.token_version != self.token_version {
            self.refused += 1;
            return self.relay.refused(wake, self.now);
        }
        self.relay.accepted(wake, self.now);
        let push = self.pushes.len();
        let nth =
            self.pushes.iter().filter(|push| (push.wake.class, push.wake.head) == (wake.class, wake.head)).count();
        let luck = Luck::of(self.setting, wake, nth);
        let end = if luck.lost { End::Lost } else { End::UnderWay };
        self.pushes.push(Push { sent_at: self.now, wake, luck, end, broke_doze: false });
        if luck.lost {
            return;
        }
        if let Some(replaced) = self.provider.take(push, wake.class) {
            self.pushes[replaced].end = End::Replaced;
        }
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let habits = self.setting.habits;
        for push in self.provider.hand_over(habits, self.now) {
            self.plan(self.now + self.pushes[push].luck.on_the_way, Step::Arrive(push));
        }
        if let Some(at) = self.provider.next_at(habits, self.now) {
            self.plan(at, Step::HandOver);
        }
    }

    fn arrive(&mut self, push: usize) {
        let Push { wake, luck, .. } = self.pushes[push];
        let iphone = self.setting.habits.platform == Platform::Ios;
        if self.now >= wake.expires_at {
            self.pushes[push].end = End::Expired;
        } else if iphone && wake.class == Class::Alert {
            self.show(push);
        } else if self.ended {
            self.pushes[push].end = End::Discarded;
        } else if !iphone || self.now < self.open_until || self.honoured.take(self.now) {
            self.run(push);
        } else if !luck.held {
            self.pushes[push].end = End::Dropped;
        } else {
            if let Some(replaced) = self.held.replace(push) {
                self.pushes[replaced].end = End::Replaced;
            }
            self.plan(self.honoured.next_at(self.now), Step::Release);
        }
    }

    /// An alert on an iPhone is shown without the app; it runs once the user opens it.
    fn show(&mut self, push: usize) {
        self.pushes[push].end = End::Shown;
        if self.pushes[push].luck.tapped
            && let Some(at) = self.setting.habits.next_pickup(self.now)
        {
            self.plan(at, Step::Tap(push));
        }
    }

    fn release(&mut self) {
        let Some(push) = self.held else {
            return;
        };
        let online = self.setting.habits.offline.next_outside(self.now);
        if online > self.now {
            return self.plan(online, Step::Release);
        }
        if self.now >= self.pushes[push].wake.expires_at {
            self.pushes[push].end = End::Expired;
        } else if self.honoured.take(self.now) {
            self.run(push);
        } else {
            return self.plan(self.honoured.next_at(self.now), Step::Release);
        }
        self.held = None;
    }

    /// The system runs the app for a push.
    fn run(&mut self, push: usize) {
        let Push { wake, .. } = self.pushes[push];
        self.pushes[push].broke_doze = !self.setting.habits.awake.hold(self.now);
        if wake.head <= self.through {
            self.pushes[push].end = End::NothingNew;
            return;
        }
        self.pushes[push].end = End::Woke;
        self.polls.pushed += 1;
        self.poll();
    }

    fn open(&mut self, visit: Visit) {
        (self.ended, self.opened_at, self.open_until) = (false, self.now, visit.until);
        if let Some(held) = self.held.take() {
            self.pushes[held].end = End::Late;
        }
        self.plan(visit.until, Step::Leave(visit.leaves));
        if self.setting.habits.offline.hold(self.now) {
            return;
        }
        self.relay.register(self.token_version, self.now);
        self.polls.foreground += 1;
        self.poll();
    }

    fn leave(&mut self, leaves: Leaves) {
        if self.now < self.open_until || leaves == Leaves::Running {
            return;
        }
        self.ended = true;
        if let Some(held) = self.held.take() {
            self.pushes[held].end = End::Discarded;
        }
    }

    fn poll(&mut self) {
        self.through = self.setting.workload.counter(self.now);
        let answer = self.relay.polled(self.through, self.now);
        let fetched = self.setting.events.partition_point(|event| event.position <= self.through);
        self.fetched_at.resize(fetched, self.now);
        self.polled_at = self.now;
        self.after = Duration::from_secs(u64::from(answer.after_s));
        self.own_poll += 1;
        if let Some(at) = self.next_own_poll() {
            self.plan(at, Step::OwnPoll(self.own_poll));
        }
    }

    /// When the app polls next if nothing else happens: as the relay asks while the user has it open, else as Android lets it. On iOS it
    /// has to wait for a [`Step::Refresh`].
    fn next_own_poll(&self) -> Option<Timestamp> {
        let (habits, wanted) = (self.setting.habits, self.now + self.after);
        if wanted < self.open_until {
            return Some(habits.offline.next_outside(wanted));
        }
        let unused = self.now.since(self.opened_at);
        let standby = STANDBY.iter().find(|(after, _)| unused >= *after).map_or(WORK_EVERY, |(_, every)| *every);
        match habits.platform {
            Platform::Ios => None,
            Platform::Android | Platform::Web => habits.can_run(wanted.max(self.now + standby)),
        }
    }
}
