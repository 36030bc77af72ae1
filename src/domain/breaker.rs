//! The breaker of one credential: after a run of troubled answers its calls rest, and one at a time finds out whether the trouble is over
//! (contract §8). Pure.

use std::{collections::HashMap, time::Duration};

use super::{
    device::Transport,
    id::{AppId, DeviceId},
    policy::CredentialFit,
    push::{Meaning, Reply},
    time::Timestamp,
};

/// So many troubled answers, with no other between them, open it.
pub const RUN: u32 = 10;
/// How long calls rest the first time; after each failed probe twice as long, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// The answer to a probe that has not come by then is not coming any more: a call takes 15 s at most (contract §8).
const PROBE_LOST: Duration = Duration::from_secs(20);
/// A breaker that nobody has asked for this long belongs to a credential that is out of use, or to trouble long past.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What is known of one credential's provider. By default it is closed: calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls go; so many troubled answers came since the last good one.
    Closed { run: u32 },
    /// Calls rest until then; after that, one may go.
    Open { until: Timestamp, rest: Duration },
    /// One has gone to find out. If nothing is heard of it, another may go then.
    Probing { until: Timestamp, rest: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { run: 0 }
    }
}

/// Which calls a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// All.
    Closed,
    /// None before this time.
    Open(Timestamp),
    /// One, since this time.
    HalfOpen(Timestamp),
    /// None more before the one that has gone is answered, or before this time.
    Probing(Timestamp),
}

impl Stage {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen(_) | Self::Probing(_) => "half-open",
        }
    }

    /// From when on the next call may go, if not all may.
    pub const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Closed => None,
            Self::Open(until) | Self::HalfOpen(until) | Self::Probing(until) => Some(until),
        }
    }
}

impl Breaker {
    /// Which calls it lets through.
    pub fn stage(self, now: Timestamp) -> Stage {
        match self.0 {
            State::Closed { .. } => Stage::Closed,
            State::Open { until, .. } | State::Probing { until, .. } if now >= until + FORGOTTEN => Stage::Closed,
            State::Open { until, .. } | State::Probing { until, .. } if now >= until => Stage::HalfOpen(until),
            State::Open { until, .. } => Stage::Open(until),
            State::Probing { until, .. } => Stage::Probing(until),
        }
    }

    /// Whether a fresh one would do the same, so that it need not be kept.
    pub fn is_fresh(self, now: Timestamp) -> bool {
        self.known(now) == State::default()
    }

    /// The breaker after a call was let through.
    #[must_use]
    pub fn called(self, now: Timestamp) -> Self {
        match (self.stage(now), self.0) {
            (Stage::HalfOpen(_), State::Open { rest, .. } | State::Probing { rest, .. }) => {
                Self(State::Probing { until: now + rest.max(PROBE_LOST), rest })
            }
            _ => self,
        }
    }

    /// The breaker after an answer. One that is no trouble closes it, whichever call it belongs to.
    #[must_use]
    pub fn heard(self, reply: &Reply, now: Timestamp) -> Self {
        if !is_trouble(reply.meaning) {
            return Self::default();
        }
        let open = |rest: Duration| {
            let asked = reply.retry_after.unwrap_or_default().min(LONGEST_REST);
            State::Open { until: now + rest.max(asked), rest }
        };
        Self(match self.known(now) {
            State::Closed { run } if run + 1 >= RUN => open(FIRST_REST),
            State::Closed { run } => State::Closed { run: run + 1 },
            // A straggler from before it opened says nothing new.
            State::Open { until, rest } => State::Open { until, rest },
            State::Probing { rest, .. } => open((rest * 2).min(LONGEST_REST)),
        })
    }

    /// Until when a call to this device is put off now, if it is: each device a little differently, so that not all come back at once.
    fn puts_off(self, device: DeviceId, now: Timestamp) -> Option<Timestamp> {
        let (from, over) = match (self.stage(now), self.0) {
            (Stage::Open(until), State::Open { rest, .. }) => (until, rest),
            // The answer is likely to be there in a moment.
            (Stage::Probing(_), _) => (now + FIRST_REST, FIRST_REST),
            _ => return None,
        };
        // The end of a device's id is random.
        let share = f64::from(device.uuid().as_u128() as u16) / f64::from(u16::MAX);
        Some(from + over.mul_f64(share))
    }

    /// The state without what is too old to be true.
    fn known(self, now: Timestamp) -> State {
        match (self.0, self.stage(now)) {
            (State::Open { .. } | State::Probing { .. }, Stage::Closed) => State::default(),
            (state, _) => state,
        }
    }
}

/// Trouble that the next call is likely to meet too, whichever device it is for.
fn is_trouble(meaning: Meaning) -> bool {
    match meaning {
        Meaning::Throttled
        | Meaning::Unavailable
        | Meaning::Unreachable
        | Meaning::Timeout
        | Meaning::CredentialFault => true,
        Meaning::Accepted
        | Meaning::Unregistered { .. }
        | Meaning::AmbiguousToken
        | Meaning::DoubtfulToken
        | Meaning::StaleToken
        | Meaning::OurFault => false,
    }
}

/// Breakers that are not closed, as they were at one moment: who claims calls asks it which of them may go. By default nothing rests.
#[derive(Debug, Clone, Default)]
pub struct Resting {
    now: Timestamp,
    breakers: HashMap<(AppId, Transport), Vec<Rest>>,
}

/// The breaker of one version of a credential.
#[derive(Debug, Clone)]
struct Rest {
    name: String,
    version: i64,
    breaker: Breaker,
}

impl Resting {
    /// At `now` nothing rests, until breakers are added.
    pub fn at(now: Timestamp) -> Self {
        Self { now, ..Self::default() }
    }

    /// Adds the breaker of one version of a credential.
    pub fn add(&mut self, app: AppId, transport: Transport, name: &str, version: i64, breaker: Breaker) {
        let rest = Rest { name: name.to_owned(), version, breaker };
        self.breakers.entry((app, transport)).or_default().push(rest);
    }

    /// Whether a call to `device` goes now with this version of a credential that serves it. While the breaker is half-open, the first to
    /// ask is the probe, and all others are put off.
    pub fn fit(
        &mut self,
        app: AppId,
        transport: Transport,
        name: &str,
        version: i64,
        device: DeviceId,
    ) -> CredentialFit {
        let mut of_app = self.breakers.get_mut(&(app, transport)).into_iter().flatten();
        let Some(rest) = of_app.find(|rest| rest.name == name && rest.version == version) else {
            return CredentialFit::Fits;
        };
        match rest.breaker.puts_off(device, self.now) {
            Some(until) => CredentialFit::Resting(until),
            None => {
                rest.breaker = rest.breaker.called(self.now);
                CredentialFit::Fits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::id, *};

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000_000);
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn reply(meaning: Meaning) -> Reply {
        Reply { meaning, status: None, reason: None, provider_id: None, retry_after: None, bytes: 0 }
    }

    fn trouble() -> Reply {
        reply(Meaning::Unavailable)
    }

    fn opened() -> Breaker {
        (0..RUN).fold(Breaker::default(), |breaker, _| breaker.heard(&trouble(), NOW))
    }

    /// The breaker after its probes at these times, each answered at once with trouble.
    fn after_failed_probes(times: &[Timestamp]) -> Breaker {
        times.iter().fold(opened(), |breaker, at| breaker.called(*at).heard(&trouble(), *at))
    }

    #[test]
    fn meanings_by_table() {
        for (meaning, expected) in [
            (Meaning::Throttled, Stage::Open(NOW + S(1))),
            (Meaning::Unavailable, Stage::Open(NOW + S(1))),
            (Meaning::Unreachable, Stage::Open(NOW + S(1))),
            (Meaning::Timeout, Stage::Open(NOW + S(1))),
            (Meaning::CredentialFault, Stage::Open(NOW + S(1))),
            (Meaning::Accepted, Stage::Closed),
            (Meaning::Unregistered { since: None }, Stage::Closed),
            (Meaning::AmbiguousToken, Stage::Closed),
            (Meaning::DoubtfulToken, Stage::Closed),
            (Meaning::StaleToken, Stage::Closed),
            (Meaning::OurFault, Stage::Closed),
        ] {
            let nine = (1..RUN).fold(Breaker::default(), |breaker, _| breaker.heard(&reply(meaning), NOW));
            assert_eq!(nine.stage(NOW), Stage::Closed, "{meaning:?}");
            assert_eq!(nine.heard(&reply(meaning), NOW).stage(NOW), expected, "{meaning:?}");
        }
    }

    #[test]
    fn an_answer_between_them_ends_a_run() {
        let nine = (1..RUN).fold(Breaker::default(), |breaker, _| breaker.heard(&trouble(), NOW));
        let other = nine.heard(&reply(Meaning::Accepted), NOW);
        assert!(other.is_fresh(NOW) && !nine.is_fresh(NOW));
        assert_eq!((1..RUN).fold(other, |breaker, _| breaker.heard(&trouble(), NOW)).stage(NOW), Stage::Closed);
    }

    #[test]
    fn rests_double_from_one_second_to_a_minute() {
        let (mut at, mut rests) = (NOW + S(1), Vec::new());
        let mut times = Vec::new();
        for _ in 0..8 {
            times.push(at);
            let Stage::Open(until) = after_failed_probes(&times).stage(at) else { panic!("it is open") };
            rests.push(until.since(at).as_secs());
            at = until;
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_provider_may_ask_for_a_longer_rest_of_a_minute_at_most() {
        for (asked, rest) in [(0, 1), (7, 7), (60, 60), (3600, 60)] {
            let answer = Reply { retry_after: Some(S(asked)), ..trouble() };
            let opened = (0..RUN).fold(Breaker::default(), |breaker, _| breaker.heard(&answer, NOW));
            assert_eq!(opened.stage(NOW), Stage::Open(NOW + S(rest)));
            let again = opened.called(NOW + S(rest)).heard(&trouble(), NOW + S(rest));
            assert_eq!(again.stage(NOW), Stage::Open(NOW + S(rest) + S(2)), "asking does not double");
        }
    }

    #[test]
    fn the_life_of_a_probe() {
        let open = opened();
        assert_eq!(open.stage(NOW + S(1)), Stage::HalfOpen(NOW + S(1)));
        let probing = open.called(NOW + S(1));
        assert_eq!(probing.stage(NOW + S(2)), Stage::Probing(NOW + S(21)), "no other goes");
        assert_eq!(probing.stage(NOW + S(21)), Stage::HalfOpen(NOW + S(21)), "nothing was heard of it");
        assert_eq!(open.heard(&trouble(), NOW), open, "a straggler opens nothing further");
        assert_eq!(open.called(NOW), open, "before its time there is no probe");
        assert_eq!(probing.heard(&reply(Meaning::Accepted), NOW + S(2)).stage(NOW + S(2)), Stage::Closed);
    }

    #[test]
    fn what_nobody_asked_for_an_hour_is_forgotten() {
        for breaker in [opened(), opened().called(NOW + S(1))] {
            assert!(!breaker.is_fresh(NOW + S(3600)));
            assert!(breaker.is_fresh(NOW + S(3700)));
            assert_eq!(breaker.stage(NOW + S(3700)), Stage::Closed);
            assert_eq!(breaker.heard(&trouble(), NOW + S(3700)).stage(NOW + S(3700)), Stage::Closed);
        }
    }

    #[test]
    fn of_all_who_ask_one_may_probe() {
        let (app, other_app, device) = (id::new(NOW), id::new(NOW), id::new(NOW));
        let at = NOW + S(1);
        let mut resting = Resting::at(at);
        resting.add(app, Transport::Fcm, "default", 7, opened());
        for (app, transport, name, version) in [
            (other_app, Transport::Fcm, "default", 7),
            (app, Transport::Apns, "default", 7),
            (app, Transport::Fcm, "other", 7),
            (app, Transport::Fcm, "default", 8),
        ] {
            for _ in 0..2 {
                assert_eq!(resting.fit(app, transport, name, version, device), CredentialFit::Fits);
            }
        }
        let mut ask = || resting.fit(app, Transport::Fcm, "default", 7, device);
        assert_eq!(ask(), CredentialFit::Fits, "it may probe");
        for _ in 0..2 {
            let put_off = ask();
            assert!(matches!(put_off, CredentialFit::Resting(until) if until >= at + S(1) && until <= at + S(2)));
        }
        let by_default = Resting::default().fit(app, Transport::Fcm, "default", 7, device);
        assert_eq!(by_default, CredentialFit::Fits, "nothing rests");
    }

    #[test]
    fn those_who_are_put_off_come_back_one_after_another() {
        let times: Vec<Timestamp> = (0..1000).filter_map(|_| opened().puts_off(id::new(NOW), NOW)).collect();
        assert_eq!(times.len(), 1000);
        assert!(times.iter().all(|at| *at >= NOW + S(1) && *at <= NOW + S(2)));
        for tenth in 0..10 {
            let from = NOW + S(1) + Duration::from_millis(100 * tenth);
            let within = times.iter().filter(|at| **at >= from && **at < from + Duration::from_millis(100)).count();
            assert!((40..200).contains(&within), "{within} of 1000 within a tenth of the rest");
        }
    }

    proptest! {
        /// Whoever calls whenever a probe may go never calls twice within one rest, whether or not the calls are answered.
        #[test]
        fn one_call_per_rest(steps in proptest::collection::vec((1u64..90_000, any::<bool>()), 1..100)) {
            let (mut now, mut breaker, mut rest_ends) = (NOW, opened(), NOW + FIRST_REST);
            let mut rest = FIRST_REST;
            for (ms, answered) in steps {
                now = now + Duration::from_millis(ms);
                if !matches!(breaker.stage(now), Stage::HalfOpen(_)) {
                    continue;
                }
                prop_assert!(now >= rest_ends);
                breaker = breaker.called(now);
                prop_assert!(matches!(breaker.stage(now), Stage::Probing(_)));
                if answered {
                    breaker = breaker.heard(&trouble(), now);
                    rest = (rest * 2).min(LONGEST_REST);
                }
                rest_ends = now + rest;
            }
        }

        /// Whatever has happened: one good answer closes it, and without any it lets a call through within a minute and a bit.
        #[test]
        fn it_never_sticks(steps in proptest::collection::vec((0u64..90_000, 0u8..3), 0..100)) {
            let (mut now, mut breaker) = (NOW, Breaker::default());
            for (ms, what) in steps {
                now = now + Duration::from_millis(ms);
                breaker = match what {
                    0 => breaker.called(now),
                    _ => breaker.heard(&trouble(), now),
                };
                prop_assert!(matches!(breaker.stage(now + LONGEST_REST), Stage::Closed | Stage::HalfOpen(_)));
                prop_assert_eq!(breaker.heard(&reply(Meaning::Accepted), now), Breaker::default());
            }
        }
    }
}
