//! Erasure: all that there is of a user, a feed or a deleted device, a chunk of rows at a time. What is left says how far it has come.

use serde::Serialize;

use super::{
    Result,
    db::{Tx, Values, Word, rows},
    follows, levels, live,
};
use crate::domain::{
    feed::{FeedName, Position},
    id::{AppId, DeviceId, EventId},
    operation::{Removed, Subject},
    time::Timestamp,
};

/// Devices whose rows are looked for at once.
const DEVICES: i64 = 50;
/// An event is a row, and may have a fan-out and an idempotency record; a follower has a follow and two levels.
const ROWS_EACH: i64 = 3;

/// What is to be erased, and up to when: what comes after the request stays.
#[derive(Debug)]
pub(super) struct Erasure {
    pub app: AppId,
    pub subject: Subject,
    /// A position of its own, taken when it was asked for.
    pub through: Position,
    pub asked_at: Timestamp,
}

/// How far one chunk has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more.
    More,
    /// No row is left.
    Erased,
    /// There was none.
    Nothing,
}

impl Erasure {
    /// Takes away at most `limit` rows in a transaction that holds the app's counter row.
    pub async fn chunk(&self, tx: &mut Tx, limit: u32, removed: &mut Removed, now: Timestamp) -> Result<Progress> {
        let limit = i64::from(limit);
        let mut chunk = Chunk { tx, app: self.app, left: limit, removed, now };
        match &self.subject {
            Subject::User(feed) => chunk.user(self, feed).await?,
            Subject::Feed(feed) => {
                chunk.followers(feed, self.through).await?;
                chunk.events(std::slice::from_ref(feed), self.through).await?;
            }
            Subject::Device(device) => {
                chunk.timeline(&[Word(*device)], None).await?;
                chunk.events(&[FeedName::of_device(*device)], self.through).await?;
            }
        }
        Ok(match chunk.left {
            left if left <= 0 => Progress::More,
            left if left < limit => Progress::Erased,
            _ => Progress::Nothing,
        })
    }
}

/// One transaction's share of an erasure.
struct Chunk<'a> {
    tx: &'a mut Tx,
    app: AppId,
    /// Rows that it may still take.
    left: i64,
    removed: &'a mut Removed,
    now: Timestamp,
}

impl Chunk<'_> {
    async fn user(&mut self, erasure: &Erasure, feed: &FeedName) -> Result<()> {
        let (user, asked_at) = (erasure.subject.name(), erasure.asked_at.as_ms());
        let sql =
            "select id from devices where app_id = $1 and user_id = $2 and registered_at <= $3 order by id limit $4";
        while self.left > 0 {
            let devices = self.ids(sql, (Word(self.app), user.clone(), asked_at, DEVICES)).await?;
            if devices.is_empty() {
                break;
            }
            self.devices(&devices).await?;
        }
        self.returned(feed, erasure).await?;
        self.events(std::slice::from_ref(feed), erasure.through).await
    }

    /// Devices with all that is theirs: first what raises levels, then the levels, and the devices last, so that no level is ever due
    /// without its device, and who is left can be found again.
    async fn devices(&mut self, devices: &[Word<DeviceId>]) -> Result<()> {
        self.hold(devices).await?;
        self.tell_connections(devices).await?;
        self.removed.follows += self
            .delete(
                "delete from follows where app_id = $1 and (device_id, feed) in (
                   select f.device_id, f.feed from jsonb_each($2) r cross join follows f
                   where f.app_id = $1 and f.device_id = r.atom limit $3)",
                devices,
            )
            .await?;
        self.delete(
            "delete from levels where app_id = $1 and (device_id, class) in (
               select l.device_id, l.class from jsonb_each($2) r cross join levels l
               where l.app_id = $1 and l.device_id = r.atom limit $3)",
            devices,
        )
        .await?;
        self.removed.device_tokens += self
            .delete(
                "delete from device_tokens where secret_hash in (
                   select t.secret_hash from jsonb_each($2) r cross join device_tokens t
                   where t.app_id = $1 and t.device_id = r.atom limit $3)",
                devices,
            )
            .await?;
        for sql in [
            "delete from presence where app_id = $1 and device_id in (select atom from jsonb_each($2))",
            "delete from tickets where app_id = $1 and device_id in (select atom from jsonb_each($2))",
        ] {
            self.tx.execute(sql, (Word(self.app), rows(devices)?)).await?;
        }
        self.history(devices, None).await?;
        self.removed.devices += self
            .delete(
                "delete from devices where app_id = $1 and id in (select atom from jsonb_each($2) limit $3)",
                devices,
            )
            .await?;
        Ok(())
    }

    /// Devices of the user that have registered again since: they stay, without their past.
    async fn returned(&mut self, feed: &FeedName, erasure: &Erasure) -> Result<()> {
        let (user, asked_at) = (erasure.subject.name(), erasure.asked_at.as_ms());
        let sql = "select id from devices where app_id = $1 and user_id = $2 and created_at <= $3 and id > $4
                   order by id limit $5";
        let mut after = String::new();
        while self.left > 0 {
            let values = (Word(self.app), user.clone(), asked_at, after, DEVICES);
            let devices = self.ids(sql, values).await?;
            let Some(last) = devices.last() else {
                break;
            };
            after = last.0.to_string();
            self.hold(&devices).await?;
            self.history(&devices, Some(erasure)).await?;
        }
        // They follow their user's feed anew, so that nothing waits for them in it that is gone.
        let sql =
            "select device_id from follows where app_id = $1 and feed = $2 and since < $3 order by device_id limit $4";
        while self.left > 0 {
            let (app, limit) = (Word(self.app), (self.left / ROWS_EACH).max(1));
            let devices = self.ids(sql, (app, Word(feed.clone()), erasure.through.0, limit)).await?;
            if devices.is_empty() {
                break;
            }
            self.hold(&devices).await?;
            self.tell_connections(&devices).await?;
            let sql = "update follows set since = $3
                       where app_id = $1 and feed = $2 and device_id in (select atom from jsonb_each($4))";
            self.tx.execute(sql, (app, Word(feed.clone()), erasure.through.0, rows(&devices)?)).await?;
            follows::find_levels_anew(self.tx, self.app, &devices, std::slice::from_ref(feed), self.now).await?;
            self.left -= devices.len() as i64 * ROWS_EACH;
        }
        Ok(())
    }

    /// What has happened to devices and what was said to them, all of it or up to the request.
    async fn history(&mut self, devices: &[Word<DeviceId>], until: Option<&Erasure>) -> Result<()> {
        self.attempts(devices, until).await?;
        self.timeline(devices, until).await?;
        let feeds: Vec<_> = devices.iter().map(|device| FeedName::of_device(device.0)).collect();
        self.events(&feeds, until.map_or(Position(i64::MAX), |erasure| erasure.through)).await
    }

    async fn attempts(&mut self, devices: &[Word<DeviceId>], until: Option<&Erasure>) -> Result<()> {
        let sql = "delete from attempts where app_id = $1 and id in (
                     select t.id from jsonb_each($2) r cross join attempts t
                     where t.app_id = $1 and t.device_id = r.atom and t.started_at <= $4 limit $3)";
        self.removed.attempts += self.delete_until(sql, devices, until).await?;
        Ok(())
    }

    async fn timeline(&mut self, devices: &[Word<DeviceId>], until: Option<&Erasure>) -> Result<()> {
        let sql = "delete from timeline where app_id = $1 and (device_id, id) in (
                     select t.device_id, t.id from jsonb_each($2) r cross join timeline t
                     where t.app_id = $1 and t.device_id = r.atom and t.at <= $4 limit $3)";
        self.removed.timeline += self.delete_until(sql, devices, until).await?;
        Ok(())
    }

    /// Events of feeds up to a position, with their fan-outs and idempotency records, and what retention remembers of the feeds.
    async fn events(&mut self, feeds: &[FeedName], through: Position) -> Result<()> {
        #[derive(Serialize)]
        struct Doomed {
            position: i64,
            id: EventId,
            accepted_at: i64,
        }
        let (app, feeds) = (Word(self.app), rows(feeds)?);
        let sql = "select e.position, e.id, e.accepted_at from jsonb_each($2) r cross join events e
                   where e.app_id = $1 and e.feed = r.atom and e.position <= $3 limit $4";
        while self.left > 0 {
            let limit = (self.left / ROWS_EACH).max(1);
            let found: Vec<(i64, Word<EventId>, i64)> =
                self.tx.fetch_all(sql, (app, feeds.clone(), through.0, limit)).await?;
            if found.is_empty() {
                break;
            }
            let doomed = found.into_iter();
            let doomed: Vec<_> =
                doomed.map(|(position, id, accepted_at)| Doomed { position, id: id.0, accepted_at }).collect();
            let doomed = rows(&doomed)?;
            let sql = "delete from fanouts where app_id = $1 and position in (
                         select cast(value->>'position' as bigint) from jsonb_each($2))";
            let fanouts = self.tx.execute(sql, (app, doomed.clone())).await?;
            // A record bears the time of its events, and has an index by it.
            let sql = "delete from idempotency where app_id = $1 and key in (
                         select i.key from jsonb_each($2) r cross join idempotency i
                         where i.accepted_at = cast(r.value->>'accepted_at' as bigint) and i.app_id = $1
                           and i.event_ids like '%\"' || (r.value->>'id') || '\"%')";
            let keys = self.tx.execute(sql, (app, doomed.clone())).await?;
            let sql = "delete from events where app_id = $1 and position in (
                         select cast(value->>'position' as bigint) from jsonb_each($2))";
            let events = self.tx.execute(sql, (app, doomed)).await?;
            self.removed.events += events;
            self.removed.idempotency_keys += keys;
            self.left -= (fanouts + keys + events) as i64;
        }
        if self.left > 0 {
            let sql = "delete from feed_drops where app_id = $1 and feed in (select atom from jsonb_each($2))
                         and dropped_through <= $3";
            self.left -= self.tx.execute(sql, (app, feeds, through.0)).await? as i64;
        }
        Ok(())
    }

    /// Lets followers leave a feed, with all that waits for them there.
    async fn followers(&mut self, feed: &FeedName, through: Position) -> Result<()> {
        let sql =
            "select device_id from follows where app_id = $1 and feed = $2 and since < $3 order by device_id limit $4";
        while self.left > 0 {
            let limit = (self.left / ROWS_EACH).max(1);
            let devices = self.ids(sql, (Word(self.app), Word(feed.clone()), through.0, limit)).await?;
            if devices.is_empty() {
                break;
            }
            self.hold(&devices).await?;
            follows::remove(self.tx, self.app, &devices, std::slice::from_ref(feed), self.now).await?;
            self.tell_connections(&devices).await?;
            // A call under way keeps its lease, but not the name; should it have to be repeated, its time is over.
            let sql = "update levels set wake_feed = null, wake_expires_at = $4
                       where app_id = $1 and device_id in (select atom from jsonb_each($2)) and wake_feed = $3";
            let values = (Word(self.app), rows(&devices)?, Word(feed.clone()), self.now.as_ms());
            self.tx.execute(sql, values).await?;
            self.removed.follows += devices.len() as u64;
            self.left -= devices.len() as i64 * ROWS_EACH;
        }
        Ok(())
    }

    async fn tell_connections(&mut self, devices: &[Word<DeviceId>]) -> Result<()> {
        let devices: Vec<String> = devices.iter().map(|device| device.0.to_string()).collect();
        live::changed(self.tx, self.app, &devices, self.now).await
    }

    async fn hold(&mut self, devices: &[Word<DeviceId>]) -> Result<()> {
        levels::hold(self.tx, devices.iter().map(|device| (self.app, device.0))).await
    }

    async fn ids(&mut self, sql: &'static str, values: impl Values) -> Result<Vec<Word<DeviceId>>> {
        let ids: Vec<(Word<DeviceId>,)> = self.tx.fetch_all(sql, values).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }

    /// Deletes rows of devices, by a statement that takes app, devices and limit.
    async fn delete(&mut self, sql: &'static str, devices: &[Word<DeviceId>]) -> Result<u64> {
        if self.left <= 0 {
            return Ok(0);
        }
        let deleted = self.tx.execute(sql, (Word(self.app), rows(devices)?, self.left)).await?;
        self.left -= deleted as i64;
        Ok(deleted)
    }

    /// The same, by a statement that takes a last moment beside them.
    async fn delete_until(
        &mut self,
        sql: &'static str,
        devices: &[Word<DeviceId>],
        until: Option<&Erasure>,
    ) -> Result<u64> {
        if self.left <= 0 {
            return Ok(0);
        }
        let until_ms = until.map_or(i64::MAX, |erasure| erasure.asked_at.as_ms());
        let deleted = self.tx.execute(sql, (Word(self.app), rows(devices)?, self.left, until_ms)).await?;
        self.left -= deleted as i64;
        Ok(deleted)
    }
}
