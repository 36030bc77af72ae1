//! Wake rates, watched: an app and transport whose pushes no longer bring phones to poll raises an alarm (contract §7).

use std::{
    collections::HashSet,
    sync::atomic::{AtomicI64, Ordering},
};

use serde::Serialize;

use super::{
    Result, Store, alarms,
    db::{Word, row, rows},
};
use crate::domain::{
    alarm::{wake_rate, wake_rate_data},
    device::Transport,
    id::AppId,
    tally::{Tally, quarter},
    time::Timestamp,
    wake_rate::{Finding, LEAST_WAKES, Rate, Windows, compare},
};

/// The quarter of an hour in which this process last looked: the windows are the same for all of it.
pub(super) type LastLook = AtomicI64;

/// Apps and transports that one statement looks at.
const CHUNK: usize = 500;

/// An app's transport that is looked at closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
struct Suspect {
    app: AppId,
    transport: Transport,
}

row! {
    struct RateRow {
        app_id: Word<AppId>,
        transport: Word<Transport>,
        hour_wakes: i64,
        hour_fetched: i64,
        week_wakes: i64,
        week_fetched: i64,
    }
}

impl Store {
    /// Raises and ends alarms by the wake rates of the latest hour. Once in a quarter of an hour is enough, so it does nothing in between.
    pub(super) async fn watch_wake_rates(&self, now: Timestamp) -> Result<()> {
        let this_quarter = quarter(now).as_ms();
        if self.inner.wake_rates.load(Ordering::Relaxed) == this_quarter {
            return Ok(());
        }
        let windows = Windows::at(now);
        let standing = self.standing().await?;
        let mut suspects = self.busy(windows).await?;
        suspects.extend(&standing);
        for suspects in suspects.into_iter().collect::<Vec<_>>().chunks(CHUNK) {
            self.look_at(suspects, &standing, windows, now).await?;
        }
        self.inner.wake_rates.store(this_quarter, Ordering::Relaxed);
        Ok(())
    }

    /// Those with enough pushes in the hour to say anything.
    async fn busy(&self, windows: Windows) -> Result<HashSet<Suspect>> {
        let sql = "select app_id, transport from tallies where what = $1 and at >= $2 and at < $3
                   group by app_id, transport having sum(n) >= $4";
        let values = (Word(Tally::Wakes), windows.hour_from.as_ms(), windows.until.as_ms(), LEAST_WAKES);
        let found: Vec<(Word<AppId>, Word<Transport>)> = self.db().fetch_all(sql, values).await?;
        Ok(found.into_iter().map(|(app, transport)| Suspect { app: app.0, transport: transport.0 }).collect())
    }

    /// Those whose alarm stands.
    async fn standing(&self) -> Result<HashSet<Suspect>> {
        let mut suspects = HashSet::new();
        for transport in Transport::ALL {
            let sql = "select app_id from alarms where name = $1 and ended_at is null";
            let found: Vec<(Word<AppId>,)> = self.db().fetch_all(sql, (wake_rate(transport),)).await?;
            suspects.extend(found.into_iter().map(|(app,)| Suspect { app: app.0, transport }));
        }
        Ok(suspects)
    }

    async fn look_at(
        &self,
        suspects: &[Suspect],
        standing: &HashSet<Suspect>,
        windows: Windows,
        now: Timestamp,
    ) -> Result<()> {
        let sql = "select r.value->>'app' as app_id, r.value->>'transport' as transport,
                       coalesce(cast(sum(case when t.what = $2 and t.at >= $5 then t.n end) as bigint), 0) as hour_wakes,
                       coalesce(cast(sum(case when t.what = $3 and t.at >= $5 then t.n end) as bigint), 0) as hour_fetched,
                       coalesce(cast(sum(case when t.what = $2 and t.at < $5 then t.n end) as bigint), 0) as week_wakes,
                       coalesce(cast(sum(case when t.what = $3 and t.at < $5 then t.n end) as bigint), 0) as week_fetched
                   from jsonb_each($1) r
                   left join tallies t on t.app_id = r.value->>'app' and t.what in ($2, $3) and t.at >= $4 and t.at < $6
                     and t.transport = r.value->>'transport'
                   group by r.value->>'app', r.value->>'transport'";
        let Windows { week_from, hour_from, until } = windows;
        let (wakes, fetched) = (Word(Tally::Wakes), Word(Tally::Within15min));
        let values = (rows(suspects)?, wakes, fetched, week_from.as_ms(), hour_from.as_ms(), until.as_ms());
        let rates: Vec<RateRow> = self.db().fetch_all(sql, values).await?;
        let mut tx = self.db().begin_unhurried().await?;
        for row in rates {
            let suspect = Suspect { app: row.app_id.0, transport: row.transport.0 };
            let hour = Rate { wakes: row.hour_wakes, fetched: row.hour_fetched };
            let week = Rate { wakes: row.week_wakes, fetched: row.week_fetched };
            let name = wake_rate(suspect.transport);
            match (compare(hour, week), standing.contains(&suspect)) {
                (Finding::Fallen, false) => {
                    let data = wake_rate_data(suspect.transport, windows, hour, week);
                    alarms::raise(&mut tx, suspect.app, &name, data, now).await?;
                }
                (Finding::Usual, true) => alarms::end(&mut tx, suspect.app, &name, now).await?,
                _ => {}
            }
        }
        tx.commit().await?;
        Ok(())
    }
}
