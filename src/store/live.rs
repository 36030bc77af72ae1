//! What live connections need: what has come into an app since a position, and whose view of it has changed.
//!
//! All of it hangs on the app's counter: whoever has read up to a position, and then everything above it, has missed nothing.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    Result, Store,
    db::{Sql, Tx, Word, rows},
    events::{EventRow, StoredEvent, select_events},
    operations,
};
use crate::{
    domain::{
        feed::Position,
        id::{AppId, DeviceId},
        limits,
        time::Timestamp,
    },
    secret,
};

/// Events that are read at once …
const EVENTS: i64 = 500;
/// … and changes of views.
const CHANGES: i64 = 1_000;

/// A connection that is further behind reads everything anew, and so does without them.
pub const CHANGES_KEPT: Duration = Duration::from_secs(3600);

/// What has come into an app.
#[derive(Debug)]
pub struct News {
    /// Everything up to here is in it.
    pub through: Position,
    /// Whether there is more by now.
    pub has_more: bool,
    /// In order.
    pub events: Vec<StoredEvent>,
    /// Whose connections look anew: devices and keys, by their [`subject`].
    pub changed: Vec<i64>,
}

/// As many of the next events as fit on a page.
const NEXT: Sql = Sql {
    sqlite: select_events!("events e where e.app_id = $1 and e.position > $2 order by e.position limit $3"),
    postgres: select_events!(
        "(select position, sum(bytes) over (order by position) - bytes as before from (
              select position, bytes from events where app_id = $1 and position > $2 order by position limit $3) as next) as n
         join events e on e.app_id = $1 and e.position = n.position where n.before <= $4 order by n.position"
    ),
};

impl Store {
    /// The counters of some apps. Those that are gone have none.
    pub async fn counters(&self, apps: &[AppId]) -> Result<HashMap<AppId, Position>> {
        let sql =
            "select a.id, a.head from jsonb_each($1) r cross join apps a where a.id = r.atom and a.deleted_at is null";
        let found: Vec<(Word<AppId>, i64)> = self.db().peek_all(sql, (rows(apps)?,)).await?;
        Ok(found.into_iter().map(|(app, head)| (app.0, Position(head))).collect())
    }

    /// What has come into an app above a position; `None` if the app is gone.
    pub async fn news(&self, app: AppId, after: Position) -> Result<Option<News>> {
        self.timed("news", self.db().read(async |tx| news(tx, app, after).await)).await
    }

    /// Which of some device tokens, by their hashes, are good.
    pub async fn tokens(&self, hashes: &[&str]) -> Result<HashSet<String>> {
        let sql = "select t.secret_hash from jsonb_each($1) r cross join device_tokens t
                   where t.secret_hash = r.atom and (t.expires_at is null or t.expires_at > $2)";
        let values = (rows(hashes)?, self.inner.clock.now().as_ms());
        let found: Vec<(String,)> = self.db().fetch_all(sql, values).await?;
        Ok(found.into_iter().map(|(hash,)| hash).collect())
    }
}

impl Store {
    /// Takes away what no connection needs any more, of each kind `most` rows.
    pub(super) async fn forget_connections(&self, now: Timestamp, most: i64) -> Result<u64> {
        let sql = "delete from view_changes where (app_id, position, subject) in
                     (select app_id, position, subject from view_changes where at < $1 limit $2)";
        let changes = self.db().execute(sql, ((now - CHANGES_KEPT).as_ms(), most)).await?;
        let sql = "delete from presence where (app_id, device_id, node) in
                     (select app_id, device_id, node from presence where until < $1 limit $2)";
        let presences = self.db().execute(sql, (now.as_ms(), most)).await?;
        let sql =
            "delete from tickets where ticket_hash in (select ticket_hash from tickets where expires_at < $1 limit $2)";
        let tickets = self.db().execute(sql, (now.as_ms(), most)).await?;
        Ok(changes.max(presences).max(tickets))
    }
}

async fn news(tx: &mut Tx, app: AppId, after: Position) -> Result<Option<News>> {
    let sql = "select head from apps where id = $1 and deleted_at is null";
    let Some((counter,)) = tx.fetch_optional::<(i64,)>(sql, (Word(app),)).await? else {
        return Ok(None);
    };
    let (mut bytes, most) = (0, limits::PAGE_BYTES as i64);
    let fits = |row: &EventRow| {
        bytes += row.bytes;
        bytes <= most
    };
    let events: Vec<EventRow> = tx.fetch_while(NEXT, (Word(app), after.0, EVENTS, most), fits).await?;
    let is_cut = events.len() as i64 == EVENTS || events.iter().map(|event| event.bytes).sum::<i64>() > most;
    let events = events.into_iter().map(StoredEvent::try_from).collect::<Result<Vec<_>>>()?;
    let sql =
        "select position, subject from view_changes where app_id = $1 and position > $2 order by position limit $3";
    let mut changes: Vec<(i64, i64)> = tx.fetch_all(sql, (Word(app), after.0, CHANGES)).await?;

    // Where one of the two ends early, so does all of it.
    let events_end = events.last().filter(|_| is_cut).map(|last| last.event.position.0);
    // Several changes may share a position; the last one may not be whole.
    let changes_end = changes.last().filter(|_| changes.len() as i64 == CHANGES).map(|(at, _)| at - 1);
    let through = events_end.into_iter().chain(changes_end).min().unwrap_or(counter);
    changes.retain(|(at, _)| *at <= through);
    let events = events.into_iter().filter(|stored| stored.event.position.0 <= through).collect();
    let changed = changes.into_iter().map(|(_, subject)| subject).collect();
    Ok(Some(News { through: Position(through), has_more: through < counter, events, changed }))
}

/// By what a device or a key is told from others: a hash, from which nobody finds it.
pub fn subject(id: &str) -> i64 {
    secret::short_hash(id).cast_signed()
}

/// Notes that connections of these have to look anew, at a position that is taken for it.
pub(super) async fn changed(tx: &mut Tx, app: AppId, ids: &[String], now: Timestamp) -> Result<()> {
    let mut subjects: Vec<i64> = ids.iter().map(|id| subject(id)).collect();
    subjects.sort_unstable();
    subjects.dedup();
    if subjects.is_empty() {
        return Ok(());
    }
    let Some(position) = operations::next_position(tx, app).await? else {
        return Ok(());
    };
    let sql = "insert into view_changes (app_id, position, subject, at)
               select $1, $2, cast(atom as bigint), $4 from jsonb_each($3) where true";
    tx.execute(sql, (Word(app), position.0, rows(&subjects)?, now.as_ms())).await?;
    Ok(())
}

/// The same for one device.
pub(super) async fn device_changed(tx: &mut Tx, app: AppId, device: DeviceId, now: Timestamp) -> Result<()> {
    changed(tx, app, &[device.to_string()], now).await
}
