//! The relay's side of one device: levels kept as the contract says (§§3, 8), every decision by the real rules of `domain`.
//!
//! A call takes no time here and always gets an answer, so there are no open wakes, leases and retries.

use serde::Serialize;

use super::workload::Event;
use crate::domain::{
    budget::Bucket,
    device::{DeviceStatus, Platform, Transport},
    event::{CancelOn, Class},
    feed::Position,
    policy::{
        self, Candidate, CredentialFit, Decision, DeferReason, DropReason, Followed, Grace, Pace, Situation, Stage,
    },
    push::{Meaning, Reply},
    record::{self, Load, Unfetched},
    settings::Settings,
    time::Timestamp,
    verdict::{self, Answered, Verdict},
};

/// One device as the relay knows it.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    settings: &'a Settings,
    platform: Platform,
    status: DeviceStatus,
    status_at: Timestamp,
    token_version: i64,
    registered_at: Timestamp,
    reached: Position,
    missed: u32,
    background: Level,
    alert: Level,
    /// Alerts that have not been told: the newest per feed.
    waiting: Vec<Event>,
}

/// How far the device should be in one class, and what has gone before.
#[derive(Debug, Default)]
struct Level {
    head: Position,
    expires_at: Timestamp,
    told: Position,
    told_at: Option<Timestamp>,
    told_expires_at: Timestamp,
    unanswered: u32,
    rewakes: u32,
    rewake_from: Timestamp,
    unfetched: Unfetched,
    bucket: Bucket,
    due_at: Option<Timestamp>,
    rests: Rests,
}

/// Why nothing goes out in a class for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rests {
    /// It is looked at again later.
    Deferred(DeferReason),
    /// Not before something new happens.
    Dropped(DropReason),
}

impl Default for Rests {
    fn default() -> Self {
        Self::Dropped(DropReason::AlreadyFetched)
    }
}

/// A push that is to go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wake {
    /// The class whose level wants it.
    pub wanted_by: Class,
    /// The class it goes out in.
    pub class: Class,
    /// Up to where it announces news.
    pub head: Position,
    /// Until when the provider may keep it.
    pub expires_at: Timestamp,
    /// The token it goes to.
    pub token_version: i64,
}

/// What the device is told at a poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// In how many seconds it is to poll by itself.
    pub after_s: u32,
}

impl<'a> Relay<'a> {
    /// A device that has just registered and has nothing to fetch.
    pub fn new(settings: &'a Settings, platform: Platform, now: Timestamp) -> Self {
        Self {
            settings,
            platform,
            status: DeviceStatus::Active,
            status_at: now,
            token_version: 1,
            registered_at: now,
            reached: Position(0),
            missed: 0,
            background: Level::default(),
            alert: Level::default(),
            waiting: Vec::new(),
        }
    }

    /// An event has been committed.
    pub fn accept(&mut self, event: Event, now: Timestamp) {
        if event.class == Class::Alert {
            self.waiting.retain(|waiting| waiting.feed != event.feed);
            self.waiting.push(event);
        }
        let level = self.level_mut(event.class);
        level.head = event.position;
        level.expires_at = level.expires_at.max(event.expires_at);
        // News does not change what else a level waits for, unless it has been told of everything so far.
        if level.due_at.is_none() || level.rests == Rests::Deferred(DeferReason::Rewake) {
            level.due_at = Some(now);
        }
    }

    /// When the device is next due in a class.
    pub fn due_at(&self, class: Class) -> Option<Timestamp> {
        self.level(class).due_at
    }

    /// Decides about a class that is due; a wake that is to go out has to be followed by [`Relay::accepted`] or [`Relay::refused`].
    pub fn decide(&mut self, class: Class, now: Timestamp) -> Option<Wake> {
        self.waiting.retain(|alert| alert.expires_at > now);
        let candidate = self.candidate(class);
        let decision = candidate.map(|candidate| policy::decide(&self.situation(class, candidate), now));
        let (due_at, rests) = match decision {
            None => (None, Rests::default()),
            Some(Decision::Drop(reason)) => (None, Rests::Dropped(reason)),
            Some(Decision::Defer(until, reason)) => (Some(until), Rests::Deferred(reason)),
            Some(Decision::Send) => {
                return candidate.map(|Candidate { class: goes_as, head, expires_at, .. }| Wake {
                    wanted_by: class,
                    class: goes_as,
                    head,
                    expires_at,
                    token_version: self.token_version,
                });
            }
        };
        let level = self.level_mut(class);
        (level.due_at, level.rests) = (due_at, rests);
        None
    }

    /// The provider has accepted a wake.
    pub fn accepted(&mut self, wake: Wake, now: Timestamp) {
        let budget = self.settings.policy(self.platform, wake.class).budget;
        let level = self.level_mut(wake.wanted_by);
        level.rewakes += u32::from(level.told >= wake.head);
        level.told = level.told.max(wake.head);
        level.told_expires_at = level.told_expires_at.max(wake.expires_at);
        level.unanswered += 1;
        level.rewake_from = now;
        level.unfetched.told(wake.head, now);
        level.due_at = Some(now);
        if wake.wanted_by == wake.class {
            level.told_at = Some(now);
            level.bucket = level.bucket.spent(budget, now);
        }
        if wake.wanted_by == Class::Alert {
            self.waiting.retain(|alert| alert.position > wake.head);
            // An accepted alert tells the background class too; what goes out as background counts there.
            let (reached, background) = (self.reached, &mut self.background);
            let silent_news = background.unanswered == 0 && background.head > reached && background.told < wake.head;
            background.told = background.told.max(wake.head);
            if wake.class == Class::Background {
                background.told_at = Some(now);
                background.rewake_from = now;
                background.unanswered += 1;
                background.bucket = background.bucket.spent(budget, now);
            } else if silent_news {
                // It goes on by its own list from there.
                (background.unanswered, background.rewake_from) = (1, now);
            }
        }
    }

    /// The provider has refused a wake: the token is dead.
    pub fn refused(&mut self, wake: Wake, now: Timestamp) {
        let (transport, since) = match self.platform {
            Platform::Ios => (Transport::Apns, Some(now)),
            Platform::Android | Platform::Web => (Transport::Fcm, None),
        };
        let meaning = Meaning::Unregistered { since };
        let reply = Reply { meaning, status: None, reason: None, provider_id: None, retry_after: None, bytes: 0 };
        let call = Answered {
            transport,
            started_at: now,
            token_version: wake.token_version,
            tries: 1,
            expires_at: wake.expires_at,
            current_token_version: self.token_version,
            registered_at: self.registered_at,
            jitter: 0.0,
        };
        if let Verdict::Dead(_) = verdict::judge(&reply, &call, now) {
            (self.status, self.status_at) = (DeviceStatus::Gone, now);
        }
        self.level_mut(wake.wanted_by).due_at = Some(now);
    }

    /// The device has polled and been given everything up to `through`.
    pub fn polled(&mut self, through: Position, now: Timestamp) -> Answer {
        self.reached = self.reached.max(through);
        self.waiting.retain(|alert| alert.position > through);
        for level in [&mut self.alert, &mut self.background] {
            self.missed = level.unfetched.reached(self.reached, now, self.missed);
            if level.head <= self.reached {
                (level.unanswered, level.rewakes) = (0, 0);
                (level.due_at, level.rests) = (None, Rests::default());
            }
        }
        let after_s = record::poll_after_s(self.settings.poll_after_s, self.status, self.missed, Load::Normal);
        Answer { after_s }
    }

    /// The backend has registered the device again, with another push token.
    pub fn register(&mut self, token_version: i64, now: Timestamp) {
        (self.token_version, self.registered_at) = (token_version, now);
        (self.status, self.status_at) = (DeviceStatus::Active, now);
        for level in [&mut self.alert, &mut self.background] {
            if level.head > self.reached {
                level.due_at = Some(now);
            }
        }
    }

    /// Up to where the device has been given everything.
    pub fn reached(&self) -> Position {
        self.reached
    }

    /// Why nothing goes out in a class for the time being.
    pub fn rests(&self, class: Class) -> Rests {
        self.level(class).rests
    }

    /// The wake that would go out: for news, or again for what was told and not fetched.
    fn candidate(&self, class: Class) -> Option<Candidate> {
        let level = self.level(class);
        let fresh = |class, head, expires_at| Candidate {
            stage: Stage::Fresh,
            class,
            head,
            expires_at,
            cancel_on: CancelOn::Fetch,
        };
        match class {
            // Of the newest unexpired one per feed, the oldest.
            Class::Alert if !self.waiting.is_empty() => {
                let oldest = self.waiting.iter().min_by_key(|alert| alert.position)?;
                Some(fresh(Class::Alert, oldest.position, oldest.expires_at))
            }
            _ if level.head <= self.reached => None,
            // None of its alerts is left: they were too late.
            Class::Alert if level.told <= self.reached => Some(fresh(class, level.head, Timestamp::default())),
            Class::Alert => {
                let again_as = self.settings.policy(self.platform, class).rewake_as.unwrap_or(class);
                Some(fresh(again_as, level.told, level.told_expires_at))
            }
            Class::Background => Some(fresh(class, level.head.max(level.told), level.expires_at)),
        }
    }

    fn situation(&self, class: Class, wake: Candidate) -> Situation<'a> {
        let level = self.level(class);
        let (pacing, rules) = (self.level(wake.class), self.settings.policy(self.platform, wake.class));
        Situation {
            status: self.status,
            status_at: self.status_at,
            reached: self.reached,
            told: level.told,
            wake,
            feed: Followed::Still,
            credential: CredentialFit::Fits,
            unanswered: level.unanswered,
            rewakes: level.rewakes,
            rewake_from: level.rewake_from,
            rewake_s: &self.settings.policy(self.platform, class).rewake_s,
            pace: Pace { pushed_at: pacing.told_at, gap_s: rules.gap_s, bucket: pacing.bucket, budget: rules.budget },
            alert_stored_until: self.alert_stored_until(),
            grace: Grace::None,
        }
    }

    /// Apple keeps one notification per app and device; an alert that lies there would be lost to a background push.
    fn alert_stored_until(&self) -> Option<Timestamp> {
        let Level { told, told_expires_at, unanswered, .. } = self.alert;
        (self.platform == Platform::Ios && unanswered > 0 && told > self.reached).then_some(told_expires_at)
    }

    fn level(&self, class: Class) -> &Level {
        match class {
            Class::Alert => &self.alert,
            Class::Background => &self.background,
        }
    }

    fn level_mut(&mut self, class: Class) -> &mut Level {
        match class {
            Class::Alert => &mut self.alert,
            Class::Background => &mut self.background,
        }
    }
}
