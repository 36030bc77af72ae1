//! The janitor's work: what is past its time goes, a chunk at a time.

use std::time::Duration;

use super::{
    Result, Store, brake,
    db::{Task, Tx, Word, rows},
    events::IDEMPOTENCY_KEPT,
    history::{self, Lost},
};
use crate::domain::{id::AppId, settings::Retention, time::Timestamp};

/// Rows that one transaction takes away.
const CHUNK: i64 = 500;
/// Attempts that one chunk looks at.
const LOOKED_AT: i64 = 20_000;
const DAY: Duration = Duration::from_secs(86_400);
/// How long a finished operation is shown.
const OPERATIONS_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Deletes outlive retention, so that a phone which comes late still learns of them (contract §5, Polling).
const DELETES_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl Store {
    /// Takes one chunk of each kind away; answers whether there may be more. While another process is at it there is nothing to do.
    pub async fn tidy(&self) -> Result<bool> {
        let Some(turn) = self.db().turn(Task::Tidy).await? else {
            return Ok(false);
        };
        let tidied = self.tidy_chunk().await;
        turn.end().await?;
        tidied
    }

    async fn tidy_chunk(&self) -> Result<bool> {
        let now = self.inner.clock.now();
        let mut most = self.forget_requests(now).await?;
        most = most.max(self.age_devices().await?);
        most = most.max(self.drop_tallies(now, CHUNK).await?);
        self.watch_wake_rates(now).await?;
        self.announce().await?;
        let sql = "select id, overrides from apps where deleted_at is null";
        let apps: Vec<(Word<AppId>, String)> = self.db().fetch_all(sql, ()).await?;
        let apps: Vec<(AppId, Retention)> = (apps.into_iter())
            .map(|(app, overrides)| (app.0, self.inner.settings.get(app.0, &overrides).retention))
            .collect();
        let longest = apps.iter().map(|(_, retention)| retention.attempts_days).max().unwrap_or_default();
        let by_the_day = self.db().keep_days(now, now - DAY * longest).await;
        for (app, retention) in apps {
            most = most.max(self.give_up_attempts(app, now).await?);
            most = most.max(self.drop_events(app, now, DAY * retention.events_days).await?);
            // What goes with its day need not be taken out of it row by row.
            let grace = if by_the_day && retention.attempts_days == longest { DAY } else { Duration::ZERO };
            most = most.max(self.drop_history(app, now - DAY * retention.attempts_days - grace).await?);
        }
        most = most.max(self.purge_deleted_apps().await?);
        Ok(most >= CHUNK as u64)
    }

    async fn forget_requests(&self, now: Timestamp) -> Result<u64> {
        let sql = "delete from idempotency where accepted_at < $1 and (app_id, key) in
                     (select app_id, key from idempotency where accepted_at < $1 limit $2)";
        let keys = self.db().execute(sql, ((now - IDEMPOTENCY_KEPT).as_ms(), CHUNK)).await?;
        let sql = "delete from device_tokens where secret_hash in
                     (select secret_hash from device_tokens where expires_at is not null and expires_at < $1 limit $2)";
        let tokens = self.db().execute(sql, (now.as_ms(), CHUNK)).await?;
        let sql = "delete from operations where (app_id, id) in
                     (select app_id, id from operations where finished_at < $1 limit $2)";
        let operations = self.db().execute(sql, ((now - OPERATIONS_KEPT).as_ms(), CHUNK)).await?;
        // What the mass brakes have counted before their window.
        let sql = "delete from verdicts where (app_id, transport, environment, minute) in
                     (select app_id, transport, environment, minute from verdicts where minute < $1 limit $2)";
        let verdicts = self.db().execute(sql, (brake::window_from(now).as_ms(), CHUNK)).await?;
        let seen = self.forget_connections(now, CHUNK).await?;
        Ok(keys.max(tokens).max(operations).max(verdicts).max(seen))
    }

    /// Attempts whose device or lease is gone, so that no claim comes by to mark them. Each attempt is looked at once, when its lease has
    /// long ended.
    async fn give_up_attempts(&self, app: AppId, now: Timestamp) -> Result<u64> {
        let sql = "select through from settled where app_id = $1";
        let settled = self.db().fetch_optional::<String>(sql, (Word(app),)).await?.unwrap_or_default();
        // Ids are in the order of time, but for a clock that was put back. If the first is too young, the others need no look.
        let sql = "select max(id), count(*) from (
                     select id, started_at from attempts
                     where app_id = $1 and id > $2
                         and (select started_at from attempts where app_id = $1 and id > $2 order by id limit 1) < $3
                     order by id limit $4) as next
                   where started_at < $3";
        let values = (Word(app), settled.clone(), (now - self.inner.options.lease * 2).as_ms(), LOOKED_AT);
        let next: Option<(Option<String>, i64)> = self.db().fetch_optional(sql, values).await?;
        let Some((Some(through), count)) = next else {
            return Ok(0);
        };
        let sql = "select id from attempts where app_id = $1 and outcome is null and id > $2 and id <= $3";
        let found: Vec<(String,)> = self.db().fetch_all(sql, (Word(app), settled, through.clone())).await?;
        let lost: Vec<Lost<'_>> = found.iter().map(|(attempt,)| Lost { app, attempt }).collect();
        let mut tx = self.db().begin_unhurried().await?;
        let ways = history::give_up(&mut tx, &lost).await?;
        let sql = "insert into settled (app_id, through) values ($1, $2)
                   on conflict (app_id) do update set through = excluded.through";
        tx.execute(sql, (Word(app), through)).await?;
        tx.commit().await?;
        ways.into_iter().for_each(|transport| self.inner.metrics.lost(transport));
        Ok(if count < LOOKED_AT { 0 } else { CHUNK as u64 })
    }

    /// Drops events past retention, but not the newest of a key, nor a delete before its time, nor one that may still wake.
    async fn drop_events(&self, app: AppId, now: Timestamp, kept: Duration) -> Result<u64> {
        let sql = "select e.position, e.feed from events e
                   where e.app_id = $1 and e.accepted_at < $2 and e.expires_at < $3
                     and not exists (select 1 from fanouts o where o.app_id = e.app_id and o.position = e.position)
                     and (e.key is null
                          or (e.op = 'delete' and e.accepted_at < $4)
                          or exists (select 1 from events n where n.app_id = e.app_id and n.feed = e.feed and n.key = e.key
                                     and n.position > e.position))
                   order by e.accepted_at limit $5";
        let (before, deletes_before) = ((now - kept).as_ms(), (now - DELETES_KEPT.max(kept)).as_ms());
        let values = (Word(app), before, now.as_ms(), deletes_before, CHUNK);
        // What is doomed stays so: the search need not hold up the writer.
        let doomed: Vec<(i64, String)> = self.db().fetch_all(sql, values).await?;
        if doomed.is_empty() {
            return Ok(0);
        }
        let doomed = rows(&doomed)?;
        let mut tx = self.db().begin_unhurried().await?;
        let sql = "insert into feed_drops (app_id, feed, dropped_through)
                   select $1, value->>1, max(cast(value->>0 as bigint)) from jsonb_each($2) where true group by value->>1
                   on conflict (app_id, feed) do update set dropped_through = excluded.dropped_through
                   where excluded.dropped_through > feed_drops.dropped_through";
        tx.execute(sql, (Word(app), doomed.clone())).await?;
        let sql = "delete from events where app_id = $1 and position in
                     (select cast(value->>0 as bigint) from jsonb_each($2))";
        let dropped = tx.execute(sql, (Word(app), doomed)).await?;
        tx.commit().await?;
        Ok(dropped)
    }

    /// Attempts, and what else has happened to devices. The search need not hold up the writer.
    async fn drop_history(&self, app: AppId, before: Timestamp) -> Result<u64> {
        let values = (Word(app), before.as_ms(), CHUNK);
        let sql =
            "select id from (select id, started_at from attempts where app_id = $1 order by id limit $3) as oldest
                   where started_at < $2";
        let attempts: Vec<(String,)> = self.db().fetch_all(sql, values).await?;
        if !attempts.is_empty() {
            let sql = "delete from attempts where app_id = $1 and id in (select value->>0 from jsonb_each($2))";
            self.db().execute(sql, (Word(app), rows(&attempts)?)).await?;
        }
        let sql = "select device_id, id from timeline where app_id = $1 and at < $2 order by at limit $3";
        let moments: Vec<(String, String)> = self.db().fetch_all(sql, values).await?;
        if !moments.is_empty() {
            let sql = "delete from timeline where app_id = $1 and (device_id, id) in
                         (select value->>0, value->>1 from jsonb_each($2))";
            self.db().execute(sql, (Word(app), rows(&moments)?)).await?;
        }
        Ok(attempts.len().max(moments.len()) as u64)
    }

    /// What belonged to a deleted app, and at last its row.
    async fn purge_deleted_apps(&self) -> Result<u64> {
        let sql = "select id from apps where deleted_at is not null limit 1";
        let Some((app,)) = self.db().fetch_optional::<(Word<AppId>,)>(sql, ()).await? else {
            return Ok(0);
        };
        let mut tx = self.db().begin_unhurried().await?;
        let purged = purge_chunk(&mut tx, app).await?;
        if purged == 0 {
            tx.execute("delete from apps where id = $1", (app,)).await?;
        }
        tx.commit().await?;
        Ok(purged)
    }
}

/// A chunk of one table's rows of an app, of the first table that has any.
async fn purge_chunk(tx: &mut Tx, app: Word<AppId>) -> Result<u64> {
    macro_rules! purge {
        ($($table:literal $key:literal)*) => {
            [$(concat!("delete from ", $table, " where app_id = $1 and (", $key, ") in (select ", $key, " from ", $table,
                       " where app_id = $1 limit $2)")),*]
        };
    }
    // What raises levels goes before the levels, and these before their devices: no level is ever due without its device.
    let statements = purge!(
        "fanouts" "position" "follows" "device_id, feed" "levels" "device_id, class" "device_tokens" "secret_hash"
        "attempts" "id" "timeline" "device_id, id" "events" "position" "feed_drops" "feed" "idempotency" "key"
        "credentials" "transport, name" "app_keys" "id" "tallies" "what, at, transport, class"
        "presence" "device_id, node" "tickets" "ticket_hash" "view_changes" "position, subject" "verdicts" "transport, environment, minute" "brakes" "transport, environment" "settled" "app_id" "alarms" "name" "operations" "id"
        "devices" "id"
    );
    for sql in statements {
        let purged = tx.execute(sql, (app, CHUNK)).await?;
        if purged > 0 {
            return Ok(purged);
        }
    }
    Ok(0)
}
