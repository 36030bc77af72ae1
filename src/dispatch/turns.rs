//! Turns: how many calls each app may have under way, so that one app's slow provider or million devices never hold up another's push.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    domain::{id::AppId, time::Timestamp},
    store::{Queue, Share},
};

/// Calls to providers that are under way at once; ten apps whose providers all hang leave one for the eleventh.
const CALLS: usize = 2_000;
/// Devices that one claim of apps with few due decides about in all.
const EXPRESS: usize = 32;
/// Devices that one claim of apps with many decides about, and followers that one chunk of fan-out raises, while one app has the relay to itself …
const ALONE: Portion = Portion { claim: 256, fan_out: u32::MAX };
/// … and while several are at work: the writer is never taken for long, so a single push waits for little.
const IN_COMPANY: Portion = Portion { claim: 4, fan_out: 4 };
/// For how long an app counts as at work after its last turn.
const AT_WORK: Duration = Duration::from_secs(10);
/// An app of which one claim finds so many devices has many due; and so has one that has more due than its share.
const MANY: usize = 8;
/// For how long it still has: what a fan-out brings comes by and by.
const HAS_MANY: Duration = Duration::from_secs(1);

/// How much one transaction takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portion {
    claim: usize,
    pub fan_out: u32,
}

/// Who has calls under way. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Turned when a call has ended.
    freed: watch::Sender<()>,
    /// Rung when an app turns out to have much to do.
    has_many: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<AppId, usize>,
    all: usize,
    /// The app that had the last turn.
    last: Option<AppId>,
    /// When each app had its last turn, for as long as it counts as at work.
    at_work: HashMap<AppId, Instant>,
    /// Apps with many devices due, and when that was last seen.
    with_many: HashMap<AppId, Instant>,
}

/// One call that is under way; dropping it ends it.
#[derive(Debug)]
pub(super) struct Turn {
    app: AppId,
    turns: Turns,
}

/// Whose devices are to be looked at, and how many.
#[derive(Debug)]
pub(super) struct Shares {
    pub apps: Vec<Share>,
    /// Some app's devices have to wait until calls end.
    pub some_must_wait: bool,
    /// When the first of the queue's other apps is due.
    pub next: Option<Timestamp>,
}

impl Turns {
    /// Deals a claim out to the apps of a queue that have something due: to each the same share, and to none more than half of the calls
    /// that it and nobody else could have, so that something is always left for the next.
    pub fn shares(&self, queue: Queue, mut waiting: Vec<(AppId, Timestamp)>, at: Timestamp) -> Shares {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.with_many.retain(|_, seen| now.duration_since(*seen) < HAS_MANY);
        waiting.retain(|(app, _)| state.queue(*app) == queue);
        let next = waiting.iter().map(|(_, due_at)| *due_at).filter(|due_at| *due_at > at).min();
        let mut due: Vec<AppId> =
            (waiting.into_iter()).filter(|(_, due_at)| *due_at <= at).map(|(app, _)| app).collect();
        due.sort_by_key(|app| app.uuid());
        let turn = state.last.map_or(0, |last| due.partition_point(|app| app.uuid() <= last.uuid()));
        let turn = if turn < due.len() { turn } else { 0 };
        due.rotate_left(turn);
        let free = CALLS.saturating_sub(state.all);
        state.at_work.extend(due.iter().map(|app| (*app, now)));
        let claim = match queue {
            Queue::Express => EXPRESS,
            Queue::Bulk => state.portion(now).claim,
        };
        let fair = (claim / due.len().max(1)).max(1);
        let (mut apps, mut some_must_wait, mut dealt) = (Vec::new(), false, 0);
        for app in due {
            let own = state.under_way.get(&app).copied().unwrap_or(0);
            let may_have = ((free + own) / 2).saturating_sub(own);
            let devices = fair.min(may_have).min(claim.min(free) - dealt);
            if devices == 0 {
                some_must_wait = true;
            } else {
                apps.push(Share { app, devices });
                dealt += devices;
            }
        }
        state.last = apps.last().map(|share| share.app).or(state.last);
        Shares { apps, some_must_wait, next }
    }

    /// Notes how many devices each app's share has found.
    pub fn taken(&self, shares: &Shares, looked_at: &HashMap<AppId, usize>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        for share in &shares.apps {
            let found = looked_at.get(&share.app).copied().unwrap_or(0);
            // A share of one says nothing.
            let was_too_small = found == share.devices && found > 1;
            if (found >= MANY || was_too_small) && state.with_many.insert(share.app, Instant::now()).is_none() {
                self.0.has_many.notify_one();
            }
        }
    }

    /// Waits until an app changes to the queue of those with many devices due.
    pub async fn some_have_many(&self) {
        self.0.has_many.notified().await;
    }

    /// How much one transaction may take on at present.
    pub fn portion(&self) -> Portion {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).portion(Instant::now())
    }

    /// A call begins.
    pub fn take(&self, app: AppId) -> Turn {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.under_way.entry(app).or_default() += 1;
        state.all += 1;
        Turn { app, turns: self.clone() }
    }

    /// Calls under way.
    pub fn under_way(&self) -> usize {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// Tells when a call has ended.
    pub fn freed(&self) -> watch::Receiver<()> {
        self.0.freed.subscribe()
    }
}

impl State {
    fn queue(&self, app: AppId) -> Queue {
        if self.with_many.contains_key(&app) { Queue::Bulk } else { Queue::Express }
    }

    fn portion(&mut self, now: Instant) -> Portion {
        self.at_work.retain(|_, last| now.duration_since(*last) < AT_WORK);
        if self.at_work.len() > 1 { IN_COMPANY } else { ALONE }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.all -= 1;
        if let Some(own) = state.under_way.get_mut(&self.app) {
            *own -= 1;
            if *own == 0 {
                state.under_way.remove(&self.app);
            }
        }
        drop(state);
        self.turns.0.freed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id;

    fn apps(count: usize) -> Vec<AppId> {
        (0..count).map(|_| id::new(Timestamp::from_ms(1_000))).collect()
    }

    const NOW: Timestamp = Timestamp::from_ms(1_000);

    /// What the apps get if all of them are due.
    fn shares(turns: &Turns, queue: Queue, due: &[AppId]) -> Shares {
        turns.shares(queue, due.iter().map(|app| (*app, NOW)).collect(), NOW)
    }

    #[test]
    fn who_is_due_later_gets_nothing_yet() {
        let (turns, apps) = (Turns::default(), apps(3));
        let later = |s: u64| NOW + Duration::from_secs(s);
        let waiting = vec![(apps[0], NOW), (apps[1], later(20)), (apps[2], later(10))];
        let shares = turns.shares(Queue::Express, waiting, NOW);
        assert_eq!(shares.apps.iter().map(|share| share.app).collect::<Vec<_>>(), [apps[0]]);
        assert_eq!(shares.next, Some(later(10)));
    }

    #[test]
    fn all_that_is_due_gets_the_same_share() {
        let shares = shares(&Turns::default(), Queue::Express, &apps(4));
        assert_eq!(shares.apps.iter().map(|share| share.devices).collect::<Vec<_>>(), [8; 4]);
        assert!(!shares.some_must_wait);
    }

    #[test]
    fn who_has_many_devices_due_changes_to_a_queue_of_its_own_and_back() {
        let (turns, due) = (Turns::default(), apps(2));
        let both = shares(&turns, Queue::Express, &due);
        turns.taken(&both, &HashMap::from([(due[0], both.apps[0].devices), (due[1], 1)]));
        let of = |queue| shares(&turns, queue, &due).apps.iter().map(|share| share.app).collect::<Vec<_>>();
        assert_eq!((of(Queue::Express), of(Queue::Bulk)), (vec![due[1]], vec![due[0]]));

        let bulk = shares(&turns, Queue::Bulk, &due);
        assert_eq!(bulk.apps[0].devices, IN_COMPANY.claim);
        turns.taken(&bulk, &HashMap::from([(due[0], 1)]));
        assert_eq!(of(Queue::Bulk), [due[0]], "there may be more in a moment");
        let long_ago = Instant::now() - HAS_MANY;
        turns.0.state.lock().unwrap().with_many.insert(due[0], long_ago);
        assert_eq!(of(Queue::Bulk), []);
    }

    #[test]
    fn with_more_apps_than_a_claim_takes_each_gets_its_turn() {
        let (turns, due) = (Turns::default(), apps(300));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..300_usize.div_ceil(EXPRESS) {
            seen.extend(shares(&turns, Queue::Express, &due).apps.into_iter().map(|share| share.app));
        }
        assert_eq!(seen.len(), 300);
    }

    #[test]
    fn whoever_hangs_leaves_something_for_the_next() {
        let (turns, due) = (Turns::default(), apps(10));
        let mut held = Vec::new();
        for app in &due[..9] {
            // This one's calls never end, and it takes all that it may.
            loop {
                let shares = shares(&turns, Queue::Express, &[*app]);
                let Some(share) = shares.apps.first() else {
                    assert!(shares.some_must_wait);
                    break;
                };
                held.extend((0..share.devices).map(|_| turns.take(*app)));
            }
        }
        assert!(shares(&turns, Queue::Express, &due[9..]).apps.first().is_some_and(|share| share.devices >= 1));
        drop(held);
        assert_eq!(turns.under_way(), 0);
    }
}
