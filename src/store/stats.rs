//! Statistics: what has been counted of an app since a moment, its devices by status, and the alarms that stand.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::{
    Result, Store,
    alarms::Alarm,
    db::{Word, rows},
};
use crate::domain::{
    device::{DeviceStatus, Transport},
    event::Class,
    id::AppId,
    stats::{Counted, Figures, figures},
    tally::{Tally, quarter},
    time::Timestamp,
    wake_rate::settled_before,
};

/// Devices are counted again after this long: an app may have a million of them, and dashboards ask often.
const COUNTED_FOR: Duration = Duration::from_secs(10);
/// Apps whose counts are kept before all are forgotten.
const KEPT: usize = 1_000;

/// An app's statistics.
#[derive(Debug, Clone)]
pub struct Stats {
    /// From here on; the beginning of a quarter of an hour.
    pub since: Timestamp,
    /// Up to here.
    pub until: Timestamp,
    /// Per transport and class, where there is anything to tell.
    pub transports: Vec<Figures>,
    /// The same, step by step, if asked for.
    pub series: Option<Vec<Step>>,
    /// All devices by status.
    pub devices: DeviceCounts,
    /// What stands.
    pub alarms: Vec<Alarm>,
}

/// The figures of a part of the time.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Step {
    /// Its beginning.
    pub at: Timestamp,
    /// Per transport and class, where there is anything to tell.
    pub transports: Vec<Figures>,
}

/// Devices by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the statuses of contract §5")]
pub struct DeviceCounts {
    pub active: i64,
    pub quarantined: i64,
    pub stale: i64,
    pub gone: i64,
}

/// Device counts that are still fresh enough. Its lock is held while statistics are read, so that dashboards never take more than one
/// of the connections that polls are read with.
pub(super) type KeptCounts = Mutex<HashMap<AppId, (Timestamp, DeviceCounts)>>;

impl Store {
    /// An app's statistics since the quarter of an hour that `since` lies in; with a `step`, that is some quarters long, also by steps.
    pub async fn stats(&self, app: AppId, since: Timestamp, step: Option<Duration>) -> Result<Stats> {
        let (since, until) = (quarter(since), self.inner.clock.now());
        let mut kept = self.inner.device_counts.lock().await;
        let transports = figures(&self.counted(app, since, until).await?);
        let series = match step {
            Some(step) => Some(self.series(app, since, until, step).await?),
            None => None,
        };
        let devices = match kept.get(&app) {
            Some((counted_at, counts)) if until.since(*counted_at) < COUNTED_FOR => *counts,
            _ => {
                let counts = self.count_devices(app).await?;
                if kept.len() >= KEPT {
                    kept.clear();
                }
                kept.insert(app, (until, counts));
                counts
            }
        };
        let alarms = self.standing_alarms(app).await?;
        Ok(Stats { since, until, transports, series, devices, alarms })
    }

    async fn counted(&self, app: AppId, since: Timestamp, now: Timestamp) -> Result<Vec<Counted>> {
        type Row = (Word<Tally>, Word<Transport>, Word<Class>, i64, i64);
        // All counters by name: only then does the key lead straight to the quarters that are asked for.
        let sql = "select what, transport, class, cast(sum(n) as bigint),
                       cast(sum(case when at < $4 then n else 0 end) as bigint)
                   from tallies
                   where app_id = $1 and what in (select atom from jsonb_each($2)) and at >= $3
                   group by what, transport, class";
        let all: Vec<Tally> = Tally::all().collect();
        let values = (Word(app), rows(&all)?, since.as_ms(), settled_before(now).as_ms());
        let counted = |(what, transport, class, n, n_settled): Row| Counted {
            transport: transport.0,
            class: class.0,
            what: what.0,
            n,
            n_settled,
        };
        Ok(self.db().survey::<Row>(sql, values).await?.into_iter().map(counted).collect())
    }

    async fn series(&self, app: AppId, since: Timestamp, now: Timestamp, step: Duration) -> Result<Vec<Step>> {
        type Row = (i64, Word<Tally>, Word<Transport>, Word<Class>, i64, i64);
        let sql = "select (at - $3) / $5 as step, what, transport, class, cast(sum(n) as bigint),
                       cast(sum(case when at < $4 then n else 0 end) as bigint)
                   from tallies
                   where app_id = $1 and what in (select atom from jsonb_each($2)) and at >= $3
                   group by 1, what, transport, class order by 1";
        let all: Vec<Tally> = Tally::all().collect();
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let values = (Word(app), rows(&all)?, since.as_ms(), settled_before(now).as_ms(), step_ms);
        let found = self.db().survey::<Row>(sql, values).await?;
        let steps = found.chunk_by(|one, next| one.0 == next.0).map(|rows| {
            let counted = |(_, what, transport, class, n, n_settled): &Row| Counted {
                transport: transport.0,
                class: class.0,
                what: what.0,
                n: *n,
                n_settled: *n_settled,
            };
            let at = Timestamp::from_ms(since.as_ms() + rows.first().map_or(0, |row| row.0) * step_ms);
            Step { at, transports: figures(&rows.iter().map(counted).collect::<Vec<_>>()) }
        });
        Ok(steps.collect())
    }

    async fn count_devices(&self, app: AppId) -> Result<DeviceCounts> {
        let sql = "select status, count(*) from devices where app_id = $1 group by status";
        let mut counts = DeviceCounts::default();
        for (status, n) in self.db().survey::<(Word<DeviceStatus>, i64)>(sql, (Word(app),)).await? {
            match status.0 {
                DeviceStatus::Active => counts.active = n,
                DeviceStatus::Quarantined => counts.quarantined = n,
                DeviceStatus::Stale => counts.stale = n,
                DeviceStatus::Gone => counts.gone = n,
            }
        }
        Ok(counts)
    }
}
