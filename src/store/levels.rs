//! The level row: how far a device should be in one class, the one wake that may be open, and what has gone before (decision 4).

use std::sync::LazyLock;

use super::{
    Result,
    call::Call,
    db::{Each, Json, Tx, Word, fields, row, rows},
};
use crate::domain::{
    budget::Bucket,
    event::{CancelOn, Class},
    feed::FeedName,
    id::{AppId, DeviceId, WakeId},
    policy::DeferReason,
    record::Unfetched,
    settings::Budget,
    time::Timestamp,
};

row! {
    /// A level row. What wants the device awake is written by fan-out and follows; all else by who holds it in a transaction.
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Level {
        pub app_id: Word<AppId>,
        pub device_id: Word<DeviceId>,
        pub class: Word<Class>,
        pub head: i64,
        pub sticky_head: i64,
        pub feed: Option<Word<FeedName>>,
        pub expires_at: i64,
        pub told: i64,
        pub told_at: Option<i64>,
        pub told_expires_at: i64,
        pub passed: i64,
        pub wakes_unfetched: i64,
        pub heads_unfetched: Json<Unfetched>,
        pub rewake_from: i64,
        pub rewakes: i64,
        pub budget_full_at: i64,
        pub due_at: Option<i64>,
        pub waits_for: Option<Word<DeferReason>>,
        pub wake_id: Option<Word<WakeId>>,
        pub wake_head: Option<i64>,
        pub wake_feed: Option<Word<FeedName>>,
        pub wake_expires_at: Option<i64>,
        pub wake_cancel_on: Option<Word<CancelOn>>,
        pub wake_class: Option<Word<Class>>,
        pub tries: i64,
        /// The id of the attempt that holds the wake.
        pub lease: Option<String>,
    }
}

// What of it is written back.
fields!(of Level {
    app_id device_id class told told_at told_expires_at passed wakes_unfetched heads_unfetched rewake_from rewakes budget_full_at
    due_at waits_for wake_id wake_head wake_feed wake_expires_at wake_cancel_on wake_class tries lease
});

fields! {
    /// What names a level.
    pub(super) struct Key {
        app: Word<AppId>,
        device: Word<DeviceId>,
        class: Word<Class>,
    }
}

impl Key {
    pub fn new(app: AppId, device: DeviceId, class: Class) -> Self {
        Self { app: Word(app), device: Word(device), class: Word(class) }
    }

    pub fn is_of(&self, class: Class) -> bool {
        self.class.0 == class
    }
}

/// The columns of a [`Level`], of the table alias `l`.
macro_rules! level_columns {
    () => {
        "l.app_id, l.device_id, l.class, l.head, l.sticky_head, l.feed, l.expires_at, l.told, l.told_at, l.told_expires_at,
         l.passed, l.wakes_unfetched, l.heads_unfetched, l.rewake_from, l.rewakes, l.budget_full_at, l.due_at, l.waits_for, l.wake_id,
         l.wake_head, l.wake_feed, l.wake_expires_at, l.wake_cancel_on, l.wake_class, l.tries, l.lease"
    };
}
pub(super) use level_columns;

/// No wake is open: the columns of one, set to nothing, as [`Level::close`] does it.
macro_rules! close_wake {
    () => {
        "waits_for = null, wake_id = null, wake_head = null, wake_feed = null, wake_expires_at = null, wake_cancel_on = null,
         wake_class = null, tries = 0, lease = null"
    };
}
pub(super) use close_wake;

/// How far a device is by what its app counts: where `a` (apps) and `d` (devices) are joined, or as a scalar subquery for a row of the
/// table named.
macro_rules! reached {
    () => {
        "case a.confirm when 'ack' then d.acked else d.fetched end"
    };
    ($levels:literal) => {
        concat!(
            "(select ",
            reached!(),
            " from devices d join apps a on a.id = d.app_id where d.app_id = ",
            $levels,
            ".app_id and d.id = ",
            $levels,
            ".device_id)"
        )
    };
}
pub(super) use reached;

impl Level {
    /// Whether anything wants the device awake beyond what it has reached.
    pub fn wanted(&self, reached: i64) -> bool {
        self.head > reached || self.sticky_head > self.told
    }

    /// The wake of `call` is open and ours.
    pub fn claim(&mut self, call: &Call) {
        self.due_at = Some(call.lease_ends_at.as_ms());
        self.waits_for = None;
        self.wake_id = Some(Word(call.trigger.wake));
        self.wake_head = Some(call.trigger.head.0);
        self.wake_feed = call.trigger.feed.clone().map(Word);
        self.wake_expires_at = Some(call.trigger.expires_at.as_ms());
        self.wake_cancel_on = Some(Word(call.cancel_on));
        self.wake_class = Some(Word(call.wake_class));
        self.tries = i64::from(call.tries);
        self.lease = Some(call.attempt.to_string());
    }

    /// No wake is open; the row is looked at again at `due_at`, if ever.
    pub fn close(&mut self, due_at: Option<Timestamp>) {
        self.due_at = due_at.map(Timestamp::as_ms);
        self.waits_for = None;
        (self.wake_id, self.wake_head, self.wake_feed, self.wake_expires_at) = (None, None, None, None);
        (self.wake_cancel_on, self.wake_class, self.tries, self.lease) = (None, None, 0, None);
    }

    /// The row waits; answers whether for another reason than before.
    pub fn wait(&mut self, until: Timestamp, reason: DeferReason) -> bool {
        self.due_at = Some(until.as_ms());
        self.lease = None;
        self.waits_for.replace(Word(reason)) != Some(Word(reason))
    }

    /// A provider has accepted the wake of `call`, for a device that has come as far as `reached` by now.
    pub fn told(&mut self, call: &Call, reached: i64, now: Timestamp) {
        let again = self.told >= call.trigger.head.0;
        self.told = self.told.max(call.trigger.head.0);
        if call.wake_class == call.class {
            self.told_at = Some(now.as_ms());
        }
        self.told_expires_at = self.told_expires_at.max(call.trigger.expires_at.as_ms());
        self.passed = 0;
        // A poll may have been quicker than the provider's answer; then nobody is waited for.
        if call.trigger.head.0 > reached {
            self.wakes_unfetched += 1;
            self.rewakes += i64::from(again);
            self.heads_unfetched.0.told(call.trigger.head, now);
            self.rewake_from = now.as_ms();
        }
    }

    /// The device has come for all that it was woken for.
    pub fn answered(&mut self) {
        (self.wakes_unfetched, self.rewakes) = (0, 0);
    }

    /// A push of this class has gone out.
    pub fn spend(&mut self, budget: Budget, now: Timestamp) {
        self.budget_full_at = self.bucket().spent(budget, now).full_at.as_ms();
    }

    pub fn bucket(&self) -> Bucket {
        Bucket { full_at: Timestamp::from_ms(self.budget_full_at) }
    }
}

/// Holds devices and their levels until the transaction ends: devices first, each kind in the order of its key (decision 8).
pub(super) async fn hold(tx: &mut Tx, devices: impl IntoIterator<Item = (AppId, DeviceId)>) -> Result<()> {
    let devices: Vec<_> = devices.into_iter().collect();
    hold_devices(tx, &devices).await?;
    let sql = "select l.device_id from jsonb_each($1) r cross join levels l
               where l.app_id = r.value->>0 and l.device_id = r.value->>1
               order by l.app_id, l.device_id, l.class for update of l";
    Ok(tx.lock(sql, (rows(&devices)?,)).await?)
}

/// Holds devices only, for who goes on to hold what it reads of their levels.
pub(super) async fn hold_devices(tx: &mut Tx, devices: &[(AppId, DeviceId)]) -> Result<()> {
    let sql = "select d.id from jsonb_each($1) r cross join devices d
               where d.app_id = r.value->>0 and d.id = r.value->>1
               order by d.app_id, d.id for update of d";
    Ok(tx.lock(sql, (rows(devices)?,)).await?)
}

static WRITE: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "update levels set
             told = {told:int}, told_at = {told_at:int}, told_expires_at = {told_expires_at:int}, passed = {passed:int},
             wakes_unfetched = {wakes_unfetched:int}, heads_unfetched = {heads_unfetched}, rewake_from = {rewake_from:int},
             rewakes = {rewakes:int}, budget_full_at = {budget_full_at:int}, due_at = {due_at:int}, waits_for = {waits_for},
             wake_id = {wake_id}, wake_head = {wake_head:int}, wake_feed = {wake_feed}, wake_expires_at = {wake_expires_at:int},
             wake_cancel_on = {wake_cancel_on}, wake_class = {wake_class}, tries = {tries:int}, lease = {lease}
         {rows} where levels.app_id = {app_id} and levels.device_id = {device_id} and levels.class = {class}",
    )
});

/// Writes level rows back, but for what wants the device awake.
pub(super) async fn write(tx: &mut Tx, levels: &[Level]) -> Result<()> {
    Ok(tx.execute_each(&WRITE, levels).await?)
}

/// What waits for devices that can be pushed to again is due; an alert that was given up for a verdict's sake is worth another try.
pub(super) async fn look_again(tx: &mut Tx, app: AppId, devices: &[DeviceId], now: Timestamp) -> Result<()> {
    // What it waited for stays noted, so that a wait that goes on is not told anew.
    let sql = concat!(
        "update levels set due_at = $3, passed = 0
         from jsonb_each($2) r cross join devices d cross join apps a
         where d.app_id = $1 and d.id = r.atom and a.id = d.app_id
           and levels.app_id = d.app_id and levels.device_id = d.id
           and levels.lease is null and levels.expires_at > $3 and (levels.due_at is null or levels.due_at > $3)
           and (levels.head > ",
        reached!(),
        " or levels.told < levels.sticky_head)"
    );
    tx.execute(sql, (Word(app), rows(devices)?, now.as_ms())).await?;
    Ok(())
}
