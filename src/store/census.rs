//! The census: what metrics tell of the database, counted without looking at more than they must.

use std::{sync::Mutex, time::Duration};

use super::{
    Result, Store,
    db::{Word, rows},
};
use crate::{
    domain::{
        device::{DeviceStatus, Transport},
        id::AppId,
        stats::ratio,
        tally::Tally,
        time::Timestamp,
        wake_rate::{LEAST_WAKES, Windows},
    },
    metrics::Census,
};

/// More levels than these are not looked at: that it is too many is clear by then.
const COUNTED: i64 = 10_000;
/// How long a count of all devices holds.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// What is counted once a minute, and when that was.
pub(super) type Counted = Mutex<Option<(Timestamp, Census)>>;

impl Store {
    /// How it stands with all apps.
    pub async fn census(&self) -> Result<Census> {
        let now = self.inner.clock.now();
        let lock = || self.inner.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = lock().clone().filter(|(at, _)| now.since(*at) < COUNTED_FOR);
        let census = match kept {
            Some((_, census)) => census,
            None => {
                let census = self.count_slowly(now).await?;
                *lock() = Some((now, census.clone()));
                census
            }
        };
        let due = self.due().await?;
        let oldest = due.iter().map(|(_, at)| *at).min();
        let apps: Vec<AppId> = due.into_iter().filter(|(_, at)| *at <= now).map(|(app, _)| app).collect();
        let (due, leased) = self.count_due(&apps, now).await?;
        let oldest_due_age = oldest.map(|at| now.since(at)).unwrap_or_default();
        Ok(Census { oldest_due_age, due, leased, ..census })
    }

    /// Levels that are due in these apps, and of those that are due later the ones under a lease, for a lease is due when it ends.
    async fn count_due(&self, apps: &[AppId], now: Timestamp) -> Result<(i64, i64)> {
        let sql = "select count(*) from (select 1 as one from jsonb_each($1) a cross join levels l
                       where l.app_id = a.atom and l.due_at is not null and l.due_at <= $2 limit $3) as due";
        let apps: Vec<_> = apps.iter().copied().map(Word).collect();
        let due: Vec<(i64,)> = self.db().survey(sql, (rows(&apps)?, now.as_ms(), COUNTED)).await?;
        // Most of them wait for something else; so many are looked at.
        let sql = "select count(*) from (select l.lease from apps a cross join levels l
                       where l.app_id = a.id and l.due_at is not null and l.due_at > $1 and l.due_at <= $2
                       limit $3) as soon where lease is not null";
        let soon = now + self.inner.options.lease;
        let leased: Vec<(i64,)> = self.db().survey(sql, (now.as_ms(), soon.as_ms(), COUNTED)).await?;
        let only = |found: Vec<(i64,)>| found.first().map_or(0, |(n,)| *n);
        Ok((only(due), only(leased)))
    }

    async fn count_slowly(&self, now: Timestamp) -> Result<Census> {
        type Devices = (Word<AppId>, Word<DeviceStatus>, i64);
        let sql = "select app_id, status, count(*) from devices group by app_id, status";
        let devices = self.db().survey::<Devices>(sql, ()).await?;
        let sql = "select app_id, count(*) from alarms where ended_at is null group by app_id";
        let alarms: Vec<(Word<AppId>, i64)> = self.db().survey(sql, ()).await?;
        let sql = "select app_id, transport, cast(sum(case when what = $1 then n else 0 end) as bigint),
                       cast(sum(case when what = $2 then n else 0 end) as bigint)
                   from tallies where what in ($1, $2) and at >= $3 and at < $4
                   group by app_id, transport";
        let Windows { hour_from, until, .. } = Windows::at(now);
        let values = (Word(Tally::Wakes), Word(Tally::Within15min), hour_from.as_ms(), until.as_ms());
        let rates: Vec<(Word<AppId>, Word<Transport>, i64, i64)> = self.db().survey(sql, values).await?;
        let rate = |(app, transport, wakes, fetched): (Word<AppId>, Word<Transport>, i64, i64)| {
            let rate = ratio(fetched, wakes).filter(|_| wakes >= LEAST_WAKES)?;
            Some((app.0, transport.0, rate))
        };
        Ok(Census {
            devices: devices.into_iter().map(|(app, status, n)| (app.0, status.0, n)).collect(),
            alarms: alarms.into_iter().map(|(app, n)| (app.0, n)).collect(),
            wake_rates: rates.into_iter().filter_map(rate).collect(),
            ..Census::default()
        })
    }
}
