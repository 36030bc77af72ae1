//! The heart: does this device need a wake, when, and why. One pure function, used by every path.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    budget::Bucket,
    device::DeviceStatus,
    event::{CancelOn, Class},
    feed::Position,
    settings::Budget,
    time::Timestamp,
};

/// How long a device with doubtful answers is left alone between two probes (contract §5: one probe a day).
pub const PROBE_EVERY: Duration = Duration::from_secs(86_400);

/// All that is known of one device in one class when a wake comes up for a decision (contract §§3, 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation<'a> {
    /// Whether the device may be pushed to.
    pub status: DeviceStatus,
    /// Since when.
    pub status_at: Timestamp,
    /// How far the device is: `fetched`, or `acked` where the app confirms by ack.
    pub reached: Position,
    /// Head of the newest wake a provider accepted in this class.
    pub told: Position,
    /// The open wake; if none is, the one that would be opened.
    pub wake: Candidate,
    /// Whether the device still follows the one feed that the wake is about.
    pub feed: Followed,
    /// Whether one of the app's credentials serves this device.
    pub credential: CredentialFit,
    /// Wakes that were accepted in this class since the device last came.
    pub unanswered: u32,
    /// How many of them were re-wakes.
    pub rewakes: u32,
    /// What the list of re-wakes counts from: the last of these, or the poll that started the list again.
    pub rewake_from: Timestamp,
    /// Seconds from there to the next one (contract §8, `rewake_s`).
    pub rewake_s: &'a [u32],
    /// How often the device may be pushed to in the class that the wake goes out in.
    pub pace: Pace,
    /// Until when an accepted alert lies at Apple for this device, which a background push would replace (contract §8).
    pub alert_stored_until: Option<Timestamp>,
    /// What time a device with a live connection is given to come by itself (contract §8, `online_grace_s`).
    pub grace: Grace,
}

/// The time that a device with a live connection is given before it is pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// It has no live connection.
    None,
    /// So many seconds, from now on.
    Begins(u32),
    /// It has begun before, and ends then.
    Ends(Timestamp),
}

/// How often a device may be pushed to in one class, and what has gone before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When a provider last accepted a push of this class.
    pub pushed_at: Option<Timestamp>,
    /// Least seconds until the next one.
    pub gap_s: u32,
    /// What is left of the budget.
    pub bucket: Bucket,
    /// The budget.
    pub budget: Budget,
}

/// A wake that may go out; its head and expiry are fixed when it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it has been claimed before.
    pub stage: Stage,
    /// The class it goes out in.
    pub class: Class,
    /// Up to where it announces news.
    pub head: Position,
    /// Until when it may be sent or repeated.
    pub expires_at: Timestamp,
    /// Whether a poll that reaches `head` takes it back.
    pub cancel_on: CancelOn,
}

/// Whether a wake has been claimed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It would be opened now: for news, or again if what it announces has been told.
    Fresh,
    /// It is open, and waits for its next try.
    Open,
}

/// Whether a device follows what a wake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// It does, or the wake is about several feeds.
    Still,
    /// It has left the feed since the wake was claimed.
    Left,
}

/// Whether one of the app's credentials serves a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialFit {
    /// Yes.
    Fits,
    /// Its breaker is open until then: the provider has been in trouble.
    Resting(Timestamp),
    /// None does.
    Missing,
}

/// What is to be done about a device in one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Call the provider now: with a new wake, or the open one again.
    Send,
    /// Look again at this time.
    Defer(Timestamp, DeferReason),
    /// Nothing is due any more.
    Drop(DropReason),
}

/// Why a wake waits (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeferReason {
    /// It is too soon after the previous push.
    Gap,
    /// The budget is spent until the next token.
    Budget,
    /// The device has been told, and is given time to come.
    Rewake,
    /// The provider keeps an alert for the device, which a background push would replace.
    AlertStored,
    /// The device is quarantined: one probe a day.
    Quarantined,
    /// The credential's breaker is open.
    ProviderDown,
    /// The device is being called on behalf of its other class, and that call is in the way.
    CallUnderWay,
    /// It has a live connection, and is given time to come by itself.
    Online,
}

/// Why no wake goes out (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The device is already there.
    AlreadyFetched,
    /// It has come by its live connection.
    Online,
    /// A provider has already accepted a wake for all of it.
    AlreadyTold,
    /// It has been told as often as the list says, and never came.
    Unanswered,
    /// It is too late.
    Expired,
    /// The provider said that the token is dead.
    Gone,
    /// The device has shown no sign of life for so long that only alerts go out.
    Stale,
    /// No credential serves the device.
    NoCredential,
    /// The device has left the feed, and what waits there goes with it.
    Unfollowed,
}

impl DeferReason {
    /// Whether people want to read of it; to be given time, be it after a push or on a live connection, is the ordinary course of things.
    pub const fn belongs_in_timeline(self) -> bool {
        !matches!(self, Self::Rewake | Self::CallUnderWay | Self::Online)
    }
}

impl DropReason {
    /// Whether people want to read of it; that a device has been told is in its attempts already.
    pub const fn belongs_in_timeline(self) -> bool {
        !matches!(self, Self::AlreadyTold | Self::Unanswered)
    }
}

/// Decides about one wake of one device.
pub fn decide(situation: &Situation<'_>, now: Timestamp) -> Decision {
    let Situation { status, reached, told, wake, .. } = situation;
    // Either the wake is news, or all that it announces has been told and it would be a re-wake.
    let again = wake.stage == Stage::Fresh && *told >= wake.head;
    if situation.feed == Followed::Left {
        return Decision::Drop(DropReason::Unfollowed);
    }
    if *reached >= wake.head && (again || wake.cancel_on == CancelOn::Fetch) {
        return Decision::Drop(DropReason::AlreadyFetched);
    }
    // An open re-wake repeats what was told; whatever tells more than an open wake announces has taken its place.
    let overtaken = wake.stage == Stage::Open && *told > wake.head;
    if overtaken || (again && situation.unanswered == 0) {
        return Decision::Drop(DropReason::AlreadyTold);
    }
    let rewake_at = match (again, situation.rewake_s.get(situation.rewakes as usize)) {
        (false, _) => None,
        (true, Some(after_s)) => Some(situation.rewake_from + seconds(*after_s)),
        (true, None) => return Decision::Drop(DropReason::Unanswered),
    };
    if now >= wake.expires_at {
        return Decision::Drop(if again { DropReason::Unanswered } else { DropReason::Expired });
    }
    match (status, situation.credential, wake.class) {
        (DeviceStatus::Gone, ..) => return Decision::Drop(DropReason::Gone),
        (DeviceStatus::Stale, _, Class::Background) => return Decision::Drop(DropReason::Stale),
        (_, CredentialFit::Missing, _) => return Decision::Drop(DropReason::NoCredential),
        _ => {}
    }
    match situation.latest_wait(rewake_at, again, now) {
        Some((until, _)) if again && until >= wake.expires_at => Decision::Drop(DropReason::Unanswered),
        // News that has to wait longer than it is worth is looked at once more when it ends.
        Some((until, reason)) if until > now => Decision::Defer(until.min(wake.expires_at), reason),
        _ => Decision::Send,
    }
}

impl Situation<'_> {
    /// Of all that a wake has to wait for, what takes the longest.
    fn latest_wait(
        &self,
        rewake_at: Option<Timestamp>,
        again: bool,
        now: Timestamp,
    ) -> Option<(Timestamp, DeferReason)> {
        let Pace { pushed_at, gap_s, bucket, budget } = self.pace;
        let background = self.wake.class == Class::Background;
        // Only for news, and only if to come helps: what insists is pushed in any case.
        let may_come = !again && self.wake.stage == Stage::Fresh && self.wake.cancel_on == CancelOn::Fetch;
        let grace_ends = match self.grace {
            Grace::None => None,
            Grace::Begins(grace_s) => Some(now + seconds(grace_s)),
            Grace::Ends(at) => Some(at),
        };
        let waits = [
            rewake_at.map(|at| (at, DeferReason::Rewake)),
            pushed_at.map(|at| (at + seconds(gap_s), DeferReason::Gap)),
            Some((bucket.next_token_at(budget), DeferReason::Budget)),
            self.alert_stored_until.filter(|_| background).map(|at| (at, DeferReason::AlertStored)),
            (self.status == DeviceStatus::Quarantined)
                .then_some((self.status_at + PROBE_EVERY, DeferReason::Quarantined)),
            match self.credential {
                CredentialFit::Resting(until) => Some((until, DeferReason::ProviderDown)),
                CredentialFit::Fits | CredentialFit::Missing => None,
            },
            // What would be too late by then is not waited with.
            grace_ends.filter(|at| may_come && *at < self.wake.expires_at).map(|at| (at, DeferReason::Online)),
        ];
        waits.into_iter().flatten().max_by_key(|(at, _)| *at)
    }
}

fn seconds(s: u32) -> Duration {
    Duration::from_secs(u64::from(s))
}

#[cfg(test)]
mod tests;
