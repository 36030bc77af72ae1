//! Devices that have shown no sign of life for long: a sweep over all of them, a chunk at a time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

use super::{
    Result, Store,
    db::{Word, row, rows},
    levels,
    timeline::{self, NewMoment},
};
use crate::domain::{
    device::{DeviceStatus, Platform, Transport},
    id::{AppId, DeviceId},
    time::Timestamp,
    timeline::Moment,
};

/// Devices that one look takes.
const CHUNK: i64 = 500;
/// Looks in one round of the janitor, so that a million devices do not take a thousand rounds of everything else.
const CHUNKS: usize = 10;
/// Between the beginnings of two sweeps. What they look for happens after weeks.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// How far the sweep has come. A restart begins anew, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Sweep(Mutex<Progress>);

#[derive(Debug, Clone, Default)]
struct Progress {
    /// The device that was looked at last; `None` between two sweeps.
    after: Option<(AppId, DeviceId)>,
    /// When the next sweep may begin.
    next_at: Timestamp,
}

row! {
    struct Row {
        app_id: Word<AppId>,
        id: Word<DeviceId>,
        transport: Word<Transport>,
        platform: Word<Platform>,
        status: Word<DeviceStatus>,
        seen_at: i64,
    }
}

#[derive(Serialize)]
struct Change {
    app: AppId,
    device: DeviceId,
    seen_at: i64,
    before: DeviceStatus,
    status: DeviceStatus,
    reason: &'static str,
}

impl Store {
    /// Looks at the next devices for such as have been silent for too long. Answers how many rows the last look took: a whole chunk means that there may be more.
    pub(super) async fn age_devices(&self) -> Result<u64> {
        let now = self.inner.clock.now();
        for _ in 0..CHUNKS {
            if !self.sweep_chunk(now).await? {
                return Ok(0);
            }
        }
        Ok(CHUNK.unsigned_abs())
    }

    /// One look; answers whether the sweep goes on.
    async fn sweep_chunk(&self, now: Timestamp) -> Result<bool> {
        let Some((after, next_at)) = self.inner.sweep.begin(now) else {
            return Ok(false);
        };
        let (app, device) = after.map_or_else(Default::default, |(app, id)| (app.to_string(), id.to_string()));
        let sql = "select app_id, id, transport, platform, status, seen_at from devices
                   where (app_id, id) > ($1, $2) order by app_id, id limit $3";
        let found: Vec<Row> = self.db().fetch_all(sql, (app, device, CHUNK)).await?;
        let silent: Vec<Change> = found.iter().filter_map(|row| row.change(now)).collect();
        self.change_silent(&silent, now).await?;
        let goes_on = found.len() as i64 == CHUNK;
        let last = found.last().map(|row| (row.app_id.0, row.id.0)).filter(|_| goes_on);
        self.inner.sweep.put(Progress { after: last, next_at });
        Ok(goes_on)
    }

    /// Changes the status of devices that have shown no sign of life since they were looked at, either.
    async fn change_silent(&self, changes: &[Change], now: Timestamp) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut tx = self.db().begin_unhurried().await?;
        levels::hold(&mut tx, changes.iter().map(|change| (change.app, change.device))).await?;
        let sql = "update devices set status = r.value->>'status', status_reason = r.value->>'reason', status_at = $2, verdict = null
                   from jsonb_each($1) r
                   where devices.app_id = r.value->>'app' and devices.id = r.value->>'device'
                     and devices.status = r.value->>'before' and devices.seen_at = cast(r.value->>'seen_at' as bigint)
                   returning devices.app_id, devices.id, devices.status, devices.status_reason";
        type Changed = (Word<AppId>, Word<DeviceId>, Word<DeviceStatus>, Option<String>);
        let changed: Vec<Changed> = tx.fetch_all(sql, (rows(changes)?, now.as_ms())).await?;
        let moments: Vec<NewMoment> = (changed.into_iter())
            .map(|(app, device, status, reason)| {
                NewMoment::new(app.0, device.0, now, &Moment::Status { status: status.0, reason })
            })
            .collect();
        timeline::add(&mut tx, &moments).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Row {
    fn change(&self, now: Timestamp) -> Option<Change> {
        let silence = now.since(Timestamp::from_ms(self.seen_at));
        let (status, reason) = self.status.0.after_silence(self.transport.0, self.platform.0, silence)?;
        let (app, device) = (self.app_id.0, self.id.0);
        Some(Change { app, device, seen_at: self.seen_at, before: self.status.0, status, reason })
    }
}

impl Sweep {
    /// Where the next look begins, and when the sweep after this one may; `None` if it is not time yet.
    fn begin(&self, now: Timestamp) -> Option<(Option<(AppId, DeviceId)>, Timestamp)> {
        let Progress { after, next_at } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match after {
            None if now < next_at => None,
            None => Some((None, now + SWEEP_EVERY)),
            after => Some((after, next_at)),
        }
    }

    fn put(&self, progress: Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}
