//! Alarms: what the app's people should know. One stands until it ends; both are told in the feed `reveille:alarms`.

use serde_json::Value;

use super::{
    Result, Store,
    db::{Json, Tx, Word},
    events::{self, Accept},
    follows,
};
use crate::domain::{alarm, id::AppId, time::Timestamp};

/// Alarms that are told of in one go; what is left is told of in the next.
const AT_ONCE: i64 = 100;
/// Standing alarms that are shown of one app.
const SHOWN: i64 = 100;

/// An alarm that stands.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// Its key in the feed.
    pub name: String,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// What is known about it.
    pub data: Value,
}

/// Raises an alarm, unless it stands already. `name` is its key in the feed; `data` is an object, whose member `says` tells people
/// what it means and what to do. [`Store::announce`] tells of it.
pub(super) async fn raise(tx: &mut Tx, app: AppId, name: &str, data: Value, now: Timestamp) -> Result<()> {
    let sql = "insert into alarms (app_id, name, data, raised_at) values ($1, $2, $3, $4)
               on conflict (app_id, name) do update set data = excluded.data, raised_at = excluded.raised_at, announced_at = null,
                   ended_at = null
               where alarms.ended_at is not null";
    tx.execute(sql, (Word(app), name.to_owned(), Json(data), now.as_ms())).await?;
    Ok(())
}

/// Ends an alarm, if it stands.
pub(super) async fn end(tx: &mut Tx, app: AppId, name: &str, now: Timestamp) -> Result<()> {
    let sql = "update alarms set ended_at = $3 where app_id = $1 and name = $2 and ended_at is null";
    tx.execute(sql, (Word(app), name.to_owned(), now.as_ms())).await?;
    Ok(())
}

impl Store {
    /// Tells of alarms that have been raised or have ended. Each is told of in the transaction that notes it, so a crash repeats
    /// nothing and forgets nothing.
    pub async fn announce(&self) -> Result<()> {
        let sql = "select l.app_id, l.name from alarms l join apps a on a.id = l.app_id
                   where (l.announced_at is null or l.ended_at is not null) and a.deleted_at is null
                   order by l.raised_at limit $1";
        let waiting: Vec<(Word<AppId>, String)> = self.db().peek_all(sql, (AT_ONCE,)).await?;
        for (app, name) in &waiting {
            self.announce_one(app.0, name).await?;
        }
        if !waiting.is_empty() {
            // Whoever follows the feed is to be woken.
            self.ring();
        }
        Ok(())
    }

    async fn announce_one(&self, app: AppId, name: &str) -> Result<()> {
        type Row = (Json<Value>, i64, Option<i64>, Option<i64>);
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        follows::counter(&mut tx, app).await?;
        // Under the counter nobody else tells of it.
        let sql = "select data, raised_at, announced_at, ended_at from alarms where app_id = $1 and name = $2";
        let found: Option<Row> = tx.fetch_optional(sql, (Word(app), name.to_owned())).await?;
        let Some((Json(data), raised_at, announced_at, ended_at)) = found else {
            return Ok(());
        };
        let raised = announced_at.is_none().then(|| alarm::raised(name, data, Timestamp::from_ms(raised_at)));
        let ended = ended_at.map(|at| alarm::ended(name, Timestamp::from_ms(at)));
        let told: Vec<_> = raised.into_iter().chain(ended).collect();
        if told.is_empty() {
            return Ok(());
        }
        let accept = Accept { app, idempotency: None, events: told, traceparent: None };
        events::append(&mut tx, now, self.inner.options.fanout_chunk, &[accept]).await?;
        let noted = if let Some(ended_at) = ended_at {
            let sql = "delete from alarms where app_id = $1 and name = $2 and ended_at = $3";
            tx.execute(sql, (Word(app), name.to_owned(), ended_at)).await?
        } else {
            let sql = "update alarms set announced_at = $3 where app_id = $1 and name = $2 and ended_at is null";
            tx.execute(sql, (Word(app), name.to_owned(), now.as_ms())).await?
        };
        if noted > 0 {
            tx.commit().await?;
        }
        // Else it was ended or raised again just now: nothing has been told, and the next look tells how it stands then.
        Ok(())
    }
}

impl Store {
    /// An app's standing alarms, oldest first.
    pub(super) async fn standing_alarms(&self, app: AppId) -> Result<Vec<Alarm>> {
        let sql = "select name, raised_at, data from alarms where app_id = $1 and ended_at is null order by raised_at, name limit $2";
        let found: Vec<(String, i64, Json<Value>)> = self.db().fetch_all(sql, (Word(app), SHOWN)).await?;
        let alarm = |(name, raised_at, data): (String, i64, Json<Value>)| Alarm {
            name,
            raised_at: Timestamp::from_ms(raised_at),
            data: data.0,
        };
        Ok(found.into_iter().map(alarm).collect())
    }
}
