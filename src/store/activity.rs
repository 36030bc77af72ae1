//! Activity: what happens in an app, whichever device it befalls.

use std::collections::{HashMap, HashSet};

use super::{
    Result, Store,
    db::{Json, Word, rows},
    timeline::{Entry, Heard, HeardRow},
};
use crate::domain::{
    feed::Position,
    id::{AppId, DeviceId, MomentId},
    merge::{self, End, Source},
    time::Timestamp,
    timeline::{ActivityPlace, Moment},
};

/// Something that happened, and to whom.
#[derive(Debug)]
pub struct Happening {
    /// What.
    pub entry: Entry,
    /// To which device; an event is for all that follow its feed.
    pub device: Option<DeviceId>,
    /// How its app calls it, if it is still there.
    pub installation_id: Option<String>,
}

/// A page of what happened.
#[derive(Debug)]
pub struct Activity {
    /// Newest first.
    pub happenings: Vec<Happening>,
    /// Where the next page begins, if there may be one.
    pub next: Option<ActivityPlace>,
}

impl Store {
    /// What happened in an app since a moment, newest first, from the place named on.
    pub async fn activity(
        &self,
        app: AppId,
        from: Option<ActivityPlace>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Activity> {
        self.timed("activity", self.activity_since(app, from, since.unwrap_or_default(), limit)).await
    }

    async fn activity_since(
        &self,
        app: AppId,
        from: Option<ActivityPlace>,
        since: Timestamp,
        limit: usize,
    ) -> Result<Activity> {
        let place = from.unwrap_or_else(ActivityPlace::newest);
        let attempts = self.newest_attempts(app, place.last.attempt, since, limit).await?;
        let sources = vec![
            Source::read(self.moments(app, place, since, limit).await?, limit),
            Source::read(attempts, limit).map(|attempt| (Some(attempt.device), Entry::Attempt(attempt))),
            Source::read(self.heard(app, place.last.event, since, limit).await?, limit)
                .map(|event| (None, Entry::Event(event))),
        ];
        let merged = merge::merge(sources, limit, |(_, entry)| entry.age(), |_| true);
        let behind = |place: ActivityPlace, (_, entry): &(Option<DeviceId>, Entry)| ActivityPlace {
            at: if let Entry::Moment { at, .. } = entry { *at } else { place.at },
            last: Entry::behind(place.last, entry),
        };
        let next = (merged.end == End::Open).then(|| merged.rows.iter().fold(place, behind));
        let devices: HashSet<DeviceId> = merged.rows.iter().filter_map(|(device, _)| *device).collect();
        let names = self.names(app, devices).await?;
        let happening = |(device, entry): (Option<DeviceId>, Entry)| Happening {
            installation_id: device.and_then(|device| names.get(&device).cloned()),
            entry,
            device,
        };
        Ok(Activity { happenings: merged.rows.into_iter().map(happening).collect(), next })
    }

    async fn moments(
        &self,
        app: AppId,
        before: ActivityPlace,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Option<DeviceId>, Entry)>> {
        type Row = (Word<MomentId>, i64, Json<Moment>, Word<DeviceId>);
        let sql = "select id, at, what, device_id from timeline
                   where app_id = $1 and at >= $2 and at <= $3 and (at < $3 or id < $4) order by at desc, id desc limit $5";
        let values = (Word(app), since.as_ms(), before.at.as_ms(), Word(before.last.moment), limit as i64);
        let found: Vec<Row> = self.db().survey(sql, values).await?;
        let entry = |(id, at, moment, device): Row| {
            (Some(device.0), Entry::Moment { id: id.0, at: Timestamp::from_ms(at), moment: moment.0 })
        };
        Ok(found.into_iter().map(entry).collect())
    }

    /// Events by their positions, which are in the order of time: those above the newest one that is older than asked for.
    async fn heard(&self, app: AppId, before: Position, since: Timestamp, limit: usize) -> Result<Vec<Heard>> {
        let sql = "select id, position, feed, kind, wake_class, accepted_at from events
                   where app_id = $1 and position < $2 and position > coalesce(
                       (select position from events where app_id = $1 and accepted_at < $3 order by accepted_at desc limit 1), 0)
                   order by position desc limit $4";
        let values = (Word(app), before.0, since.as_ms(), limit as i64);
        let found: Vec<HeardRow> = self.db().survey(sql, values).await?;
        Ok(found.into_iter().map(Heard::from).collect())
    }

    /// How apps call their devices.
    async fn names(&self, app: AppId, devices: HashSet<DeviceId>) -> Result<HashMap<DeviceId, String>> {
        let sql =
            "select id, installation_id from devices where app_id = $1 and id in (select atom from jsonb_each($2))";
        let devices: Vec<_> = devices.into_iter().map(Word).collect();
        let found: Vec<(Word<DeviceId>, String)> = self.db().survey(sql, (Word(app), rows(&devices)?)).await?;
        Ok(found.into_iter().map(|(device, name)| (device.0, name)).collect())
    }
}
