//! Finish: attempts are completed in batches, and draw their consequences only if the wake is still the caller's.

use std::collections::HashMap;

use rand::RngExt;
use serde::Serialize;

use super::{
    Result, Store,
    call::{Call, Finished},
    db::{Db, Tx, Word, rows},
    history::{self, Answer},
    levels::{self, LevelValues},
};
use crate::domain::{
    device::DeviceStatus,
    event::Class,
    id::{AppId, DeviceId},
    policy::{self, PROBE_EVERY, Verdict},
    push::{Meaning, Reply},
    time::Timestamp,
};

/// Whether a finished call leaves its device due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Something newer waits, or the same wake goes again.
    Now,
    /// Not before a later time, if at all.
    Later,
}

/// What device and level are by now.
#[derive(sqlx::FromRow)]
struct PresentRow {
    app_id: Word<AppId>,
    device_id: Word<DeviceId>,
    class: Word<Class>,
    head: i64,
    sticky_head: i64,
    told: i64,
    lease: Option<String>,
    reached: i64,
    token_version: i64,
    registered_at: i64,
    status: Word<DeviceStatus>,
}

#[derive(Clone, Serialize)]
struct StatusChange<'a> {
    app: AppId,
    device: DeviceId,
    status: DeviceStatus,
    reason: Option<&'a str>,
}

impl Store {
    /// Completes an attempt and draws the consequences, if the wake is still ours.
    pub async fn finish(&self, finished: Finished) -> Result<()> {
        if self.inner.finishes.write(finished).await? == Due::Now {
            self.ring();
        }
        Ok(())
    }
}

/// Finishes a batch of calls in one transaction.
pub(super) async fn write(db: Db, now: Timestamp, batch: Vec<Finished>) -> Result<Vec<Due>> {
    let mut tx = db.begin().await?;
    let present = present(&mut tx, &batch).await?;
    let (mut answers, mut changed) = (Vec::new(), Vec::new());
    let mut statuses: HashMap<(AppId, DeviceId), StatusChange<'_>> = HashMap::new();
    for finished in &batch {
        let call = &finished.call;
        let Some(row) = present.get(&(call.app, call.device, call.class)) else {
            // The device is gone: there is nothing left to draw consequences for.
            answers.push(Answer::new(finished, None));
            continue;
        };
        let verdict = policy::judge(&finished.reply, &row.call(call), now);
        let retry_at = if let Verdict::RetryAt(at) = verdict { Some(at) } else { None };
        answers.push(Answer::new(finished, retry_at));
        if row.lease.as_deref() == Some(call.attempt.to_string().as_str()) {
            changed.push(row.after(call, verdict, now));
        }
        let reason = finished.reply.reason.as_deref();
        if let Some(status) = row.status_after(call, &finished.reply, verdict) {
            // Both classes may say something of one device: that it is gone outweighs all else.
            let change = StatusChange { app: call.app, device: call.device, status, reason };
            let known = statuses.entry((call.app, call.device)).or_insert_with(|| change.clone());
            if status == DeviceStatus::Gone {
                *known = change;
            }
        }
    }
    history::complete(&mut tx, &answers).await?;
    levels::write(&mut tx, &changed).await?;
    tell_background(&mut tx, &changed).await?;
    change_statuses(&mut tx, &statuses.into_values().collect::<Vec<_>>(), now).await?;
    tx.commit().await?;
    let due_now = changed.iter().any(|level| level.due_at.is_some_and(|due_at| due_at <= now.as_ms()));
    Ok(vec![if due_now { Due::Now } else { Due::Later }; batch.len()])
}

async fn present(tx: &mut Tx, batch: &[Finished]) -> Result<HashMap<(AppId, DeviceId, Class), PresentRow>> {
    #[derive(Serialize)]
    struct Key {
        app: AppId,
        device: DeviceId,
        class: Class,
    }
    let keys: Vec<Key> = (batch.iter())
        .map(|finished| Key { app: finished.call.app, device: finished.call.device, class: finished.call.class })
        .collect();
    let sql = "select l.app_id, l.device_id, l.class, l.head, l.sticky_head, l.told, l.lease,
                   case a.confirm when 'ack' then d.acked else d.fetched end as reached,
                   d.token_version, d.registered_at, d.status
               from json_each($1) r
               cross join levels l
               join devices d on d.app_id = l.app_id and d.id = l.device_id
               join apps a on a.id = l.app_id
               where l.app_id = r.value->>'app' and l.device_id = r.value->>'device' and l.class = r.value->>'class'";
    let found: Vec<PresentRow> = tx.fetch_all(sql, (rows(&keys)?,)).await?;
    Ok(found.into_iter().map(|row| ((row.app_id.0, row.device_id.0, row.class.0), row)).collect())
}

impl PresentRow {
    fn call(&self, call: &Call) -> policy::Call {
        policy::Call {
            transport: call.target.transport,
            started_at: call.started_at,
            token_version: call.token_version,
            tries: call.tries,
            expires_at: call.trigger.expires_at,
            current_token_version: self.token_version,
            registered_at: Timestamp::from_ms(self.registered_at),
            jitter: rand::rng().random_range(0.0..1.0),
        }
    }

    /// The level after a verdict.
    fn after(&self, call: &Call, verdict: Verdict, now: Timestamp) -> LevelValues {
        let mut level = LevelValues::idle(call.app, call.device, call.class, self.told);
        let again_at = match verdict {
            Verdict::Told => {
                level.told = self.told.max(call.trigger.head.0);
                level.told_at = Some(now.as_ms());
                None
            }
            Verdict::RetryAt(at) => Some(at),
            Verdict::Quarantine => Some(now + PROBE_EVERY),
            Verdict::Gone | Verdict::GiveUp(_) => None,
        };
        if let Some(at) = again_at.filter(|at| *at < call.trigger.expires_at) {
            level.claim(call);
            level.lease = None;
            level.due_at = Some(at.as_ms());
        } else if verdict != Verdict::Gone {
            // What came while the call was under way makes the next wake, unless a poll has already brought it.
            let newer = self.head > call.trigger.head.0 && self.head > level.told;
            let wanted = self.reached < self.head || level.told < self.sticky_head;
            let from = if let Verdict::GiveUp(from) = verdict { from } else { now };
            level.due_at = (newer && wanted).then_some(from.as_ms());
            level.passed = if verdict == Verdict::Told { 0 } else { call.trigger.head.0 };
        }
        level
    }

    /// The device's status after a verdict, if it changes.
    fn status_after(&self, call: &Call, reply: &Reply, verdict: Verdict) -> Option<DeviceStatus> {
        let current = call.token_version == self.token_version;
        match verdict {
            Verdict::Gone => Some(DeviceStatus::Gone),
            Verdict::Quarantine if self.status.0 != DeviceStatus::Gone => Some(DeviceStatus::Quarantined),
            Verdict::Told if current && self.status.0 == DeviceStatus::Quarantined => {
                (reply.meaning == Meaning::Accepted).then_some(DeviceStatus::Active)
            }
            _ => None,
        }
    }
}

/// An accepted alert tells the background class too: the phone comes for either.
async fn tell_background(tx: &mut Tx, changed: &[LevelValues]) -> Result<()> {
    let alerts: Vec<_> =
        changed.iter().filter(|level| level.class == Class::Alert && level.told_at.is_some()).collect();
    if alerts.is_empty() {
        return Ok(());
    }
    let sql = "update levels set told = cast(r.value->>'told' as bigint) from json_each($1) r
               where levels.app_id = r.value->>'app' and levels.device_id = r.value->>'device'
                 and levels.class = 'background' and levels.told < cast(r.value->>'told' as bigint)";
    tx.execute(sql, (rows(&alerts)?,)).await?;
    Ok(())
}

async fn change_statuses(tx: &mut Tx, changes: &[StatusChange<'_>], now: Timestamp) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let sql = "update devices set status = r.value->>'status', status_reason = r.value->>'reason', status_at = $2
               from json_each($1) r where devices.app_id = r.value->>'app' and devices.id = r.value->>'device'";
    tx.execute(sql, (rows(changes)?, now.as_ms())).await?;
    Ok(())
}
