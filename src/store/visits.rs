//! Visits: what a poll or an acknowledgement does to a device's levels. Nothing goes backwards.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    Result, Store,
    db::{Db, Word, rows},
    follows::reached,
};
use crate::domain::{
    feed::Position,
    id::{AppId, DeviceId, WakeId},
    time::Timestamp,
};

/// One sign of life of a device, and how far it has come.
#[derive(Debug, Clone, Serialize)]
pub struct Visit {
    /// Whose.
    pub app: AppId,
    /// Which.
    pub device: DeviceId,
    /// It has been given everything up to here.
    pub fetched: Position,
    /// It came back with everything up to here.
    pub acked: Position,
}

impl Store {
    /// Records a visit: moves the levels and takes back what is no longer due.
    pub async fn visit(&self, visit: Visit) -> Result<()> {
        self.inner.visits.write(visit).await
    }

    /// The head of a wake of this device; `None` if it never had one of that id.
    pub async fn wake_head(&self, app: AppId, device: DeviceId, wake: WakeId) -> Result<Option<Position>> {
        let sql = "select head from attempts where app_id = $1 and wake_id = $2 and device_id = $3 limit 1";
        let row: Option<(i64,)> = self.db().fetch_optional(sql, (Word(app), Word(wake), Word(device))).await?;
        Ok(row.map(|(head,)| Position(head)))
    }
}

/// Writes a batch of visits in one transaction.
pub(super) async fn write(db: Db, now: Timestamp, batch: Vec<Visit>) -> Result<Vec<()>> {
    let answers = vec![(); batch.len()];
    // Several visits of one device are one: an update takes each row once.
    let mut visits: HashMap<DeviceId, Visit> = HashMap::new();
    for visit in batch {
        let known = visits.entry(visit.device).or_insert_with(|| visit.clone());
        known.fetched = known.fetched.max(visit.fetched);
        known.acked = known.acked.max(visit.acked);
    }
    let mut visits: Vec<Visit> = visits.into_values().collect();
    visits.sort_by_key(|visit| visit.device.uuid());
    let visits = rows(&visits)?;
    let mut tx = db.begin().await?;
    // A device that this revives need not wait for its probe.
    let sql = "update levels set due_at = $2
               from json_each($1) v
               join devices d on d.app_id = v.value->>'app' and d.id = v.value->>'device'
               where levels.app_id = d.app_id and levels.device_id = d.id and d.status in ('quarantined', 'stale')
                 and levels.lease is null and levels.due_at > $2";
    tx.execute(sql, (visits.clone(), now.as_ms())).await?;
    let sql = "update devices set
                   fetched = case when cast(v.value->>'fetched' as bigint) > devices.fetched
                             then cast(v.value->>'fetched' as bigint) else devices.fetched end,
                   acked = case when cast(v.value->>'acked' as bigint) > devices.acked
                           then cast(v.value->>'acked' as bigint) else devices.acked end,
                   seen_at = $2,
                   status_at = case when devices.status in ('quarantined', 'stale') then $2 else devices.status_at end,
                   status_reason = case when devices.status in ('quarantined', 'stale') then null else devices.status_reason end,
                   status = case when devices.status in ('quarantined', 'stale') then 'active' else devices.status end
               from json_each($1) v
               where devices.app_id = v.value->>'app' and devices.id = v.value->>'device'";
    tx.execute(sql, (visits.clone(), now.as_ms())).await?;
    // Only what has been reached is taken back; a call under way keeps its lease and ends by itself.
    let sql = concat!(
        "update levels set due_at = null, wake_id = null, tries = 0, wakes_unfetched = 0
         from json_each($1) v
         where levels.app_id = v.value->>'app' and levels.device_id = v.value->>'device' and levels.lease is null
           and (levels.due_at is not null or levels.wakes_unfetched > 0)
           and levels.sticky_head <= levels.told and levels.head <= ",
        reached!("levels"),
        ""
    );
    tx.execute(sql, (visits,)).await?;
    tx.commit().await?;
    Ok(answers)
}
