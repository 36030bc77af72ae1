//! Visits: what a poll or an acknowledgement does to a device's levels. Nothing goes backwards.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::{
    Result, Store,
    db::{Db, Submitted, Tx, Word, row, rows},
    group::Request,
    levels::{self, Level, level_columns},
    tallies::Tallies,
    timeline::{self, NewMoment},
};
use crate::domain::{
    device::{DeviceStatus, Transport},
    event::Class,
    feed::Position,
    id::{AppId, DeviceId, WakeId},
    policy::{DeferReason, DropReason},
    settings::Confirm,
    tally::Tally,
    time::Timestamp,
    timeline::Moment,
};
use crate::{fault, metrics::Metrics};

/// A device that has read a part only is given this long before it is looked at again: it is likely to read on.
const READING_ON_MS: i64 = 60_000;

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
    /// The push that it says has brought it; one that it was never sent is ignored.
    pub wake: Option<WakeId>,
    /// Whether it came by a live connection.
    pub live: bool,
}

impl Request for Visit {}

/// A device's own record by now: how many heads in a row it has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visited {
    /// See [`record`](crate::domain::record).
    pub missed: u32,
}

row! {
    /// A device as it was before its visit.
    struct Before {
        id: Word<DeviceId>,
        transport: Word<Transport>,
        confirm: Word<Confirm>,
        status: Word<DeviceStatus>,
        fetched: i64,
        acked: i64,
        missed: i64,
    }
}

/// A device as it is after.
#[derive(Serialize)]
struct After {
    app: AppId,
    device: DeviceId,
    fetched: i64,
    acked: i64,
    missed: u32,
}

/// All that a batch changes.
#[derive(Default)]
struct Outbox {
    devices: Vec<After>,
    levels: Vec<Level>,
    moments: Vec<NewMoment>,
    tallies: Tallies,
    /// How long after their pushes news were fetched.
    fetches: Vec<(Transport, Class, Duration)>,
    /// Why devices came.
    came: Vec<(Transport, Class, Tally)>,
}

impl Store {
    /// Records a visit: moves the levels and takes back what is no longer due.
    pub async fn visit(&self, visit: Visit) -> Result<Visited> {
        let visited = self.timed("visit", self.inner.visits.write(visit.clone())).await?;
        self.inner.under_way.visited(&visit);
        Ok(visited)
    }

    /// The head of a wake of this device; `None` if it never had one of that id.
    pub async fn wake_head(&self, app: AppId, device: DeviceId, wake: WakeId) -> Result<Option<Position>> {
        let sql = "select head from attempts where app_id = $1 and wake_id = $2 and device_id = $3
                     and id >= 'att_' || substr($2, 6, 5) limit 1";
        let row: Option<(i64,)> = self.db().fetch_optional(sql, (Word(app), Word(wake), Word(device))).await?;
        Ok(row.map(|(head,)| Position(head)))
    }
}

/// Writes a batch of visits in one transaction.
pub(super) async fn write(
    db: &Db,
    now: Timestamp,
    batch: &[Visit],
    metrics: &Metrics,
) -> Result<(Vec<Visited>, Submitted)> {
    let callers: Vec<DeviceId> = batch.iter().map(|visit| visit.device).collect();
    let visits = merged(batch);
    let mut tx = db.begin().await?;
    levels::hold(&mut tx, visits.iter().map(|visit| (visit.app, visit.device))).await?;
    let keys = keys(&visits)?;
    let wakes =
        if visits.iter().any(|visit| visit.wake.is_some()) { wakes(&mut tx, &keys).await? } else { HashMap::new() };
    let befores = befores(&mut tx, &keys).await?;
    let mut levels = levels_of(&mut tx, &keys).await?;
    let mut outbox = Outbox::default();
    for visit in &visits {
        if let Some(before) = befores.get(&visit.device) {
            let of_device = levels.remove(&visit.device).unwrap_or_default();
            let wake = visit.wake.and_then(|wake| Some((wake, *wakes.get(&(visit.device, wake))?)));
            outbox.visit(visit, before, of_device, wake, now);
        }
    }
    let Outbox { devices, levels, moments, tallies, fetches, came } = outbox;
    // What this revives is active by now.
    let sql = "update devices set
                   fetched = cast(v.value->>'fetched' as bigint), acked = cast(v.value->>'acked' as bigint),
                   missed = cast(v.value->>'missed' as bigint), seen_at = $2,
                   status_at = case when devices.status in ('quarantined', 'stale') then $2 else devices.status_at end,
                   status_reason = case when devices.status in ('quarantined', 'stale') then null else devices.status_reason end,
                   verdict = case when devices.status in ('quarantined', 'stale') then null else devices.verdict end,
                   status = case when devices.status in ('quarantined', 'stale') then 'active' else devices.status end
               from jsonb_each($1) v
               where devices.app_id = v.value->>'app' and devices.id = v.value->>'device'";
    tx.execute(sql, (rows(&devices)?, now.as_ms())).await?;
    levels::write(&mut tx, &levels).await?;
    timeline::add(&mut tx, &moments).await?;
    tallies.write(&mut tx).await?;
    fault::point("fetch: before the commit");
    let submitted = tx.submit().await?;
    fetches.into_iter().for_each(|(transport, class, latency)| metrics.fetched(transport, class, latency));
    came.into_iter().for_each(|(transport, class, why)| metrics.came(transport, class, why));
    let missed: HashMap<DeviceId, u32> = devices.iter().map(|after| (after.device, after.missed)).collect();
    let visited = callers.iter().map(|device| Visited { missed: missed.get(device).copied().unwrap_or(0) });
    Ok((visited.collect(), submitted))
}

/// Several visits of one device are one: an update takes each row once.
fn merged(batch: &[Visit]) -> Vec<Visit> {
    let mut visits: HashMap<DeviceId, Visit> = HashMap::new();
    for visit in batch {
        let known = visits.entry(visit.device).or_insert_with(|| visit.clone());
        known.fetched = known.fetched.max(visit.fetched);
        known.acked = known.acked.max(visit.acked);
        known.wake = visit.wake.or(known.wake);
        known.live |= visit.live;
    }
    let mut visits: Vec<Visit> = visits.into_values().collect();
    visits.sort_by_key(|visit| visit.device.uuid());
    visits
}

impl Outbox {
    fn visit(
        &mut self,
        visit: &Visit,
        before: &Before,
        levels: Vec<Level>,
        wake: Option<(WakeId, Class)>,
        now: Timestamp,
    ) {
        let (fetched, acked) = (before.fetched.max(visit.fetched.0), before.acked.max(visit.acked.0));
        let confirm = before.confirm.0;
        let (reached_before, reached) =
            (confirm.reached(before.fetched, before.acked), confirm.reached(fetched, acked));
        let revived = matches!(before.status.0, DeviceStatus::Quarantined | DeviceStatus::Stale);
        let mut missed = u32::try_from(before.missed).unwrap_or(u32::MAX);
        let mut came_for = None;
        for unvisited in levels {
            let mut level = unvisited.clone();
            missed = level.heads_unfetched.0.reached(Position(reached), now, missed);
            if level.head > reached_before && level.head <= reached {
                came_for = Some(came_for.map_or(level.class.0, |class: Class| class.min(level.class.0)));
            }
            // The newest push of this class, unless the device has come since.
            let told_at = level.told_at.filter(|at| level.wakes_unfetched > 0 && *at == level.rewake_from);
            if let Some(told_at) = told_at.filter(|_| reached > reached_before).map(Timestamp::from_ms) {
                let latency = now.since(told_at);
                for tally in Tally::of_fetch(latency) {
                    self.tallies.count(visit.app, before.transport.0, level.class.0, told_at, tally, 1);
                }
                self.fetches.push((before.transport.0, level.class.0, latency));
            }
            let waited_for = level.waits_for;
            if take_back(&mut level, reached, revived, now) == NewsWaited::Yes {
                let online = visit.live || waited_for == Some(Word(DeferReason::Online));
                let reason = if online { DropReason::Online } else { DropReason::AlreadyFetched };
                let (class, head) = (level.class.0, Position(level.head));
                self.tell(visit, now, &Moment::Dropped { class, head, reason });
            }
            if level != unvisited {
                self.levels.push(level);
            }
        }
        let came = match (wake, came_for) {
            (Some((_, class)), Some(_)) => Some((class, Tally::WokeByPush)),
            (None, Some(class)) => Some((class, Tally::CameByItself)),
            (_, None) => None,
        };
        if let Some((class, tally)) = came {
            self.tallies.count(visit.app, before.transport.0, class, now, tally, 1);
            self.came.push((before.transport.0, class, tally));
        }
        if revived {
            let reason = Some("it polled".to_owned());
            self.tell(visit, now, &Moment::Status { status: DeviceStatus::Active, reason });
        }
        let wake = wake.map(|(wake, _)| wake);
        self.tell(visit, now, &Moment::Polled { fetched: Position(fetched), acked: Position(acked), wake });
        self.devices.push(After { app: visit.app, device: visit.device, fetched, acked, missed });
    }

    fn tell(&mut self, visit: &Visit, now: Timestamp, what: &Moment) {
        self.moments.push(NewMoment::new(visit.app, visit.device, now, what));
    }
}

/// Whether somebody waited to be told of news that has been taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewsWaited {
    Yes,
    No,
}

/// Takes back what has been reached; a call under way keeps its lease and ends by itself.
fn take_back(level: &mut Level, reached: i64, revived: bool, now: Timestamp) -> NewsWaited {
    if level.wanted(reached) {
        // The list of re-wakes starts again after a poll.
        if level.wakes_unfetched > 0 {
            (level.wakes_unfetched, level.rewakes, level.rewake_from) = (1, 0, now.as_ms());
        }
        let alert_stored = level.waits_for == Some(Word(DeferReason::AlertStored));
        if level.lease.is_none() && (revived || alert_stored || level.head <= level.told) {
            let from_ms = if revived || alert_stored { now.as_ms() } else { now.as_ms() + READING_ON_MS };
            level.due_at = Some(from_ms.min(level.due_at.unwrap_or(from_ms)));
        }
        return NewsWaited::No;
    }
    level.answered();
    if level.lease.is_some() {
        return NewsWaited::No;
    }
    let news_waited = level.due_at.is_some() && level.head > level.told;
    level.close(None);
    if news_waited { NewsWaited::Yes } else { NewsWaited::No }
}

#[derive(Serialize)]
struct Key {
    app: AppId,
    device: DeviceId,
    wake: Option<WakeId>,
}

fn keys(visits: &[Visit]) -> Result<String> {
    let keys: Vec<_> =
        visits.iter().map(|visit| Key { app: visit.app, device: visit.device, wake: visit.wake }).collect();
    Ok(rows(&keys)?)
}

/// The classes of the wakes that visits name, as far as these devices have been sent them. A wake's calls are made after it: the first five
/// digits of an id are its time to nine hours, and lead to the days that they may be kept in.
async fn wakes(tx: &mut Tx, keys: &str) -> Result<HashMap<(DeviceId, WakeId), Class>> {
    let sql = "select t.device_id, t.wake_id, t.class from jsonb_each($1) v cross join attempts t
               where t.app_id = v.value->>'app' and t.wake_id = v.value->>'wake' and t.device_id = v.value->>'device'
                 and t.id >= 'att_' || substr(v.value->>'wake', 6, 5)";
    let found: Vec<(Word<DeviceId>, Word<WakeId>, Word<Class>)> = tx.fetch_all(sql, (keys.to_owned(),)).await?;
    Ok(found.into_iter().map(|(device, wake, class)| ((device.0, wake.0), class.0)).collect())
}

async fn befores(tx: &mut Tx, keys: &str) -> Result<HashMap<DeviceId, Before>> {
    let sql = "select d.id, d.transport, a.confirm, d.status, d.fetched, d.acked, d.missed
               from jsonb_each($1) v cross join devices d join apps a on a.id = d.app_id
               where d.app_id = v.value->>'app' and d.id = v.value->>'device'";
    let found: Vec<Before> = tx.fetch_all(sql, (keys.to_owned(),)).await?;
    Ok(found.into_iter().map(|before| (before.id.0, before)).collect())
}

async fn levels_of(tx: &mut Tx, keys: &str) -> Result<HashMap<DeviceId, Vec<Level>>> {
    let sql = concat!(
        "select ",
        level_columns!(),
        " from jsonb_each($1) v cross join levels l
         where l.app_id = v.value->>'app' and l.device_id = v.value->>'device' order by l.class"
    );
    let mut of_devices: HashMap<DeviceId, Vec<Level>> = HashMap::new();
    for level in tx.fetch_all::<Level>(sql, (keys.to_owned(),)).await? {
        of_devices.entry(level.device_id.0).or_default().push(level);
    }
    Ok(of_devices)
}
