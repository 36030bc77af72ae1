//! Tallies: what happened, counted per app, transport, class and quarter of an hour. Cheap to keep, and enough for statistics and alarms.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;

use super::{
    Result, Store,
    db::{Tx, rows},
};
use crate::domain::{
    device::Transport,
    event::Class,
    id::AppId,
    tally::{Tally, quarter},
    time::Timestamp,
};

/// A day longer than statistics look back (contract §7), so that their first quarter is whole.
const KEPT: Duration = Duration::from_secs(31 * 86_400);

/// Counts of one transaction, summed up before they are written.
#[derive(Debug, Default)]
pub(super) struct Tallies(HashMap<(AppId, Tally, Timestamp, Transport, Class), i64>);

impl Tallies {
    /// Counts `n` more; `at` is when it happened, or when the push that it is about was accepted.
    pub fn count(&mut self, app: AppId, transport: Transport, class: Class, at: Timestamp, what: Tally, n: i64) {
        *self.0.entry((app, what, quarter(at), transport, class)).or_default() += n;
    }

    /// Adds them to what is kept.
    pub async fn write(self, tx: &mut Tx) -> Result<()> {
        #[derive(Serialize)]
        struct Row {
            app: AppId,
            what: Tally,
            at: i64,
            transport: Transport,
            class: Class,
            n: i64,
        }
        if self.0.is_empty() {
            return Ok(());
        }
        let row = |((app, what, at, transport, class), n): ((AppId, Tally, Timestamp, Transport, Class), i64)| Row {
            app,
            what,
            at: at.as_ms(),
            transport,
            class,
            n,
        };
        let mut counts: Vec<_> = self.0.into_iter().map(row).collect();
        // Always in the same order, so that two writers never wait for each other.
        counts.sort_by_cached_key(|row| (row.app.uuid(), row.what.to_string(), row.at, row.transport, row.class));
        let sql = "insert into tallies (app_id, what, at, transport, class, n)
                   select value->>'app', value->>'what', cast(value->>'at' as bigint), value->>'transport', value->>'class',
                       cast(value->>'n' as bigint)
                   from jsonb_each($1) where true
                   on conflict (app_id, what, at, transport, class) do update set n = tallies.n + excluded.n";
        tx.execute(sql, (rows(&counts)?,)).await?;
        Ok(())
    }
}

impl Store {
    /// Drops a chunk of counters that nobody can ask for any more; answers how many went.
    pub(super) async fn drop_tallies(&self, now: Timestamp, chunk: i64) -> Result<u64> {
        let sql = "delete from tallies where (app_id, what, at, transport, class) in
                     (select app_id, what, at, transport, class from tallies
                      where what in (select atom from jsonb_each($1)) and at < $2 limit $3)";
        let all: Vec<Tally> = Tally::all().collect();
        Ok(self.db().execute(sql, (rows(&all)?, (now - KEPT).as_ms(), chunk)).await?)
    }
}
