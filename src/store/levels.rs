//! A level row as it is written back by claim and finish.

use serde::Serialize;

use super::{
    Result,
    call::Call,
    db::{Tx, rows},
};
use crate::domain::{
    event::{CancelOn, Class},
    feed::FeedName,
    id::{AppId, AttemptId, DeviceId, WakeId},
};

/// A level row as it is to be; the attempt's id is the lease.
#[derive(Debug, Serialize)]
pub(super) struct LevelValues {
    pub app: AppId,
    pub device: DeviceId,
    pub class: Class,
    pub told: i64,
    /// Up to where this very wake has been given up; 0 if it has not.
    pub passed: i64,
    pub told_at: Option<i64>,
    pub due_at: Option<i64>,
    pub wake_id: Option<WakeId>,
    pub wake_head: Option<i64>,
    pub wake_feed: Option<FeedName>,
    pub wake_expires_at: Option<i64>,
    pub wake_cancel_on: Option<CancelOn>,
    pub tries: u32,
    pub lease: Option<AttemptId>,
    pub lease_before: Option<String>,
}

impl LevelValues {
    /// Nothing open, nothing due.
    pub fn idle(app: AppId, device: DeviceId, class: Class, told: i64) -> Self {
        Self {
            app,
            device,
            class,
            told,
            passed: 0,
            told_at: None,
            due_at: None,
            wake_id: None,
            wake_head: None,
            wake_feed: None,
            wake_expires_at: None,
            wake_cancel_on: None,
            tries: 0,
            lease: None,
            lease_before: None,
        }
    }

    /// The wake of `call` is open and ours.
    pub fn claim(&mut self, call: &Call) {
        self.due_at = Some(call.lease_ends_at.as_ms());
        self.wake_id = Some(call.trigger.wake);
        self.wake_head = Some(call.trigger.head.0);
        self.wake_feed.clone_from(&call.trigger.feed);
        self.wake_expires_at = Some(call.trigger.expires_at.as_ms());
        self.wake_cancel_on = Some(call.cancel_on);
        self.tries = call.tries;
        self.lease = Some(call.attempt);
    }
}

/// Writes level rows; one with `told_at` counts a wake more.
pub(super) async fn write(tx: &mut Tx, levels: &[LevelValues]) -> Result<()> {
    let sql = "update levels set
                   told = cast(r.value->>'told' as bigint),
                   passed = case when cast(r.value->>'passed' as bigint) > levels.passed
                            then cast(r.value->>'passed' as bigint) else levels.passed end,
                   told_at = coalesce(cast(r.value->>'told_at' as bigint), levels.told_at),
                   wakes_unfetched = levels.wakes_unfetched + case when r.value->>'told_at' is null then 0 else 1 end,
                   due_at = cast(r.value->>'due_at' as bigint), wake_id = r.value->>'wake_id',
                   wake_head = cast(r.value->>'wake_head' as bigint), wake_feed = r.value->>'wake_feed',
                   wake_expires_at = cast(r.value->>'wake_expires_at' as bigint),
                   wake_cancel_on = r.value->>'wake_cancel_on', tries = cast(r.value->>'tries' as bigint),
                   lease = r.value->>'lease'
               from json_each($1) r
               where levels.app_id = r.value->>'app' and levels.device_id = r.value->>'device'
                 and levels.class = r.value->>'class'";
    tx.execute(sql, (rows(levels)?,)).await?;
    Ok(())
}
