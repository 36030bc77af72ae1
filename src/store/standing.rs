//! Where a device stands in one class: its level beside all else that decides whether it is woken.

use super::{
    db::{Each, Word, row},
    levels::Level,
};
use crate::domain::{
    budget::Bucket,
    device::{DeviceStatus, Environment, Platform, TokenKind, Transport},
    event::{CancelOn, Class},
    feed::{FeedName, Position},
    id::{AppId, DeviceId, WakeId},
    policy::{Candidate, CredentialFit, DeferReason, Followed, Grace, Pace, Situation, Stage},
    settings::{ClassPolicy, Confirm, Settings},
    time::Timestamp,
    verdict::Evidence,
};

row! {
    /// One level row with its device, its app, and what matters of the device's other class.
    #[derive(Debug, Clone)]
    pub(super) struct Standing {
        pub level: Level,
        pub confirm: Word<Confirm>,
        pub overrides: String,
        pub app_deleted: bool,
        pub fetched: i64,
        pub acked: i64,
        pub transport: Word<Transport>,
        pub platform: Word<Platform>,
        pub token: Option<String>,
        pub token_kind: Word<TokenKind>,
        pub token_version: i64,
        pub registered_at: i64,
        pub environment: Word<Environment>,
        pub topic: Option<String>,
        pub user_id: Option<String>,
        pub status: Word<DeviceStatus>,
        pub status_at: i64,
        pub verdict: Option<Word<Evidence>>,
        pub feed_left: bool,
        pub other_told: Option<i64>,
        pub other_told_at: Option<i64>,
        pub other_told_expires_at: Option<i64>,
        pub other_wakes_unfetched: Option<i64>,
        pub other_budget_full_at: Option<i64>,
        pub other_wake_class: Option<Word<Class>>,
        pub other_lease_ends_at: Option<i64>,
        pub online_until: Option<i64>,
    }
}

/// Standings, by the clauses that follow: they begin with where `l` (levels) comes from.
macro_rules! select_standings {
    ($from:literal $($clause:literal)*) => {
        concat!(
            "select ", crate::store::levels::level_columns!(), ",
                 a.confirm, a.overrides, a.deleted_at is not null as app_deleted, d.fetched, d.acked, d.transport, d.platform,
                 d.token, d.token_kind, d.token_version, d.registered_at, d.environment, d.topic, d.user_id, d.status, d.status_at,
                 d.verdict,
                 l.wake_id is not null and l.wake_feed is not null and not exists (
                     select 1 from follows f
                     where f.app_id = l.app_id and f.device_id = l.device_id and f.feed = l.wake_feed) as feed_left,
                 o.told as other_told, o.told_at as other_told_at, o.told_expires_at as other_told_expires_at,
                 o.wakes_unfetched as other_wakes_unfetched, o.budget_full_at as other_budget_full_at,
                 o.wake_class as other_wake_class, case when o.lease is not null then o.due_at end as other_lease_ends_at,
                 (select max(p.until) from presence p where p.app_id = l.app_id and p.device_id = l.device_id) as online_until
             ", $from, "
             cross join devices d
             join apps a on a.id = d.app_id
             left join levels o on o.app_id = l.app_id and o.device_id = l.device_id
                 and o.class = case l.class when 'alert' then 'background' else 'alert' end ",
            $($clause),*
        )
    };
}
pub(super) use select_standings;

/// Where some levels stand, by their [`Key`](super::levels::Key); PostgreSQL locks them as `lock` says.
pub(super) fn of_levels(lock: &str) -> Each {
    Each::reading(
        select_standings!(
            "{each} levels l"
            "where l.app_id = {app} and l.device_id = {device} and l.class = {class}
               and d.app_id = l.app_id and d.id = l.device_id"
        ),
        lock,
    )
}

/// What a wake is about: the open one's, or that of the one that would be opened.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// `None` if it would be opened now.
    pub wake: Option<WakeId>,
    pub candidate: Candidate,
    pub feed: Option<FeedName>,
    pub tries: u32,
}

/// An alert that waits: the newest unexpired one of a feed.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub position: i64,
    pub feed: FeedName,
    pub expires_at: i64,
    pub cancel_on: CancelOn,
}

impl Standing {
    /// Why a wake goes out now, in a word for those who count: for news, again for the same news, or because its call failed.
    pub fn why_sent(&self, about: &About) -> &'static str {
        match (about.tries, self.level.wakes_unfetched) {
            (1.., _) => "retry",
            (0, 1..) if about.candidate.head.0 <= self.level.told => "rewake",
            _ => "news",
        }
    }

    pub fn app(&self) -> AppId {
        self.level.app_id.0
    }

    pub fn device(&self) -> DeviceId {
        self.level.device_id.0
    }

    pub fn class(&self) -> Class {
        self.level.class.0
    }

    /// How far the device is, by what the app counts.
    pub fn reached(&self) -> i64 {
        self.confirm.0.reached(self.fetched, self.acked)
    }

    /// The wake that is open, or else the one that would be opened: for news, or again for what was told and not fetched.
    pub fn about(&self, alert: Option<&Waiting>, settings: &Settings) -> Option<About> {
        let level = &self.level;
        if let (Some(wake), Some(head), Some(expires_at)) = (level.wake_id, level.wake_head, level.wake_expires_at) {
            let candidate = Candidate {
                stage: Stage::Open,
                class: level.wake_class.map_or(self.class(), |word| word.0),
                head: Position(head),
                expires_at: Timestamp::from_ms(expires_at),
                cancel_on: level.wake_cancel_on.map_or(CancelOn::Fetch, |word| word.0),
            };
            let tries = u32::try_from(level.tries).unwrap_or(u32::MAX);
            return Some(About { wake: Some(wake.0), candidate, feed: level.wake_feed.clone().map(|f| f.0), tries });
        }
        let fresh = |class, head, expires_at, cancel_on| Candidate {
            stage: Stage::Fresh,
            class,
            head: Position(head),
            expires_at: Timestamp::from_ms(expires_at),
            cancel_on,
        };
        if let Some(alert) = alert {
            let candidate = fresh(Class::Alert, alert.position, alert.expires_at, alert.cancel_on);
            return Some(About { wake: None, candidate, feed: Some(alert.feed.clone()), tries: 0 });
        }
        if level.head <= self.reached() {
            return None;
        }
        let (candidate, feed) = match self.class() {
            // An alert may have told more than this class has heard of; a re-wake announces all of it.
            Class::Background => {
                let head = level.head.max(level.told);
                let feed = level.feed.clone().map(|feed| feed.0).filter(|_| head == level.head);
                (fresh(Class::Background, head, level.expires_at, CancelOn::Fetch), feed)
            }
            // None of its alerts is left: what has not been given up was too late.
            Class::Alert if level.told <= self.reached() => {
                if level.passed >= level.head {
                    return None;
                }
                (fresh(Class::Alert, level.head, 0, CancelOn::Fetch), None)
            }
            Class::Alert => {
                let class = settings.policy(self.platform.0, Class::Alert).rewake_as.unwrap_or(Class::Alert);
                // Neither what was told in a feed that the device has left is repeated, nor what was given up untold.
                let head = level.told.min(level.head);
                (fresh(class, head, level.told_expires_at, CancelOn::Fetch), None)
            }
        };
        Some(About { wake: None, candidate, feed, tries: 0 })
    }

    /// All that decides about a wake.
    pub fn situation<'a>(
        &self,
        about: &About,
        credential: CredentialFit,
        settings: &'a Settings,
        now: Timestamp,
    ) -> Situation<'a> {
        let level = &self.level;
        let class = about.candidate.class;
        let ClassPolicy { gap_s, budget, .. } = *settings.policy(self.platform.0, class);
        let (pushed_at, full_at) = if class == self.class() {
            (level.told_at, level.budget_full_at)
        } else {
            (self.other_told_at, self.other_budget_full_at.unwrap_or_default())
        };
        Situation {
            status: self.status.0,
            status_at: Timestamp::from_ms(self.status_at),
            reached: Position(self.reached()),
            told: Position(level.told),
            wake: about.candidate,
            feed: if self.feed_left { Followed::Left } else { Followed::Still },
            credential,
            unanswered: u32::try_from(level.wakes_unfetched).unwrap_or(u32::MAX),
            rewakes: u32::try_from(level.rewakes).unwrap_or(u32::MAX),
            rewake_from: Timestamp::from_ms(level.rewake_from),
            rewake_s: &settings.policy(self.platform.0, self.class()).rewake_s,
            pace: Pace {
                pushed_at: pushed_at.map(Timestamp::from_ms),
                gap_s,
                bucket: Bucket { full_at: Timestamp::from_ms(full_at) },
                budget,
            },
            alert_stored_until: self.alert_stored_until(),
            grace: self.grace(settings.online_grace_s, now),
        }
    }

    /// What time its live connection, if it has one, gives it to come by itself.
    fn grace(&self, grace_s: u32, now: Timestamp) -> Grace {
        match (self.level.waits_for, self.level.due_at, self.online_until) {
            (Some(Word(DeferReason::Online)), Some(due_at), _) => Grace::Ends(Timestamp::from_ms(due_at)),
            (_, _, Some(until)) if until > now.as_ms() => Grace::Begins(grace_s),
            _ => Grace::None,
        }
    }

    /// Until when a call on behalf of the device's other class is in the way of a wake of `class`, if one is under way.
    pub fn call_under_way(&self, class: Class) -> Option<Timestamp> {
        let until = self.other_lease_ends_at.map(Timestamp::from_ms);
        until.filter(|_| self.other_wake_class.is_some_and(|other| self.is_in_the_way(other.0, class)))
    }

    /// Whether a call of one class has to end before a wake of another may go: gap and budget count for both, and on iOS a silent push
    /// could replace an alert that Apple is just being given.
    pub fn is_in_the_way(&self, call: Class, wake: Class) -> bool {
        call == wake || (self.platform.0 == Platform::Ios && call == Class::Alert && wake == Class::Background)
    }

    /// Apple keeps one notification per app and device; an alert that lies there would be lost to a background push.
    fn alert_stored_until(&self) -> Option<Timestamp> {
        if self.platform.0 != Platform::Ios {
            return None;
        }
        let (told, until, unanswered) = match self.class() {
            Class::Alert => (self.level.told, self.level.told_expires_at, self.level.wakes_unfetched),
            Class::Background => (
                self.other_told.unwrap_or_default(),
                self.other_told_expires_at.unwrap_or_default(),
                self.other_wakes_unfetched.unwrap_or_default(),
            ),
        };
        (unanswered > 0 && told > self.reached()).then(|| Timestamp::from_ms(until))
    }
}
