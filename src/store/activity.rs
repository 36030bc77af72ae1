//! Activity: what happens in an app, whichever device it befalls.

use std::collections::{HashMap, HashSet};

use super::{
    Result, Store,
    db::{Json, Tx, Word, rows},
    history,
    timeline::{Entry, Heard, HeardRow},
};
use crate::domain::{
    feed::Position,
    id::{self, AppId, DeviceId, MomentId},
    merge::{self, End, Source},
    time::Timestamp,
    timeline::{Moment, Place},
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
    pub next: Option<Place>,
}

impl Store {
    /// What happened in an app since a moment, newest first, from the place named on.
    pub async fn activity(
        &self,
        app: AppId,
        from: Option<Place>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Activity> {
        self.timed("activity", self.db().read(async |tx| activity_within(tx, app, from, since, limit).await)).await
    }
}

async fn activity_within(
    tx: &mut Tx,
    app: AppId,
    from: Option<Place>,
    since: Option<Timestamp>,
    limit: usize,
) -> Result<Activity> {
    let place = from.unwrap_or_else(Place::newest);
    let sources = vec![
        Source::read(moments(tx, app, place.moment, limit).await?, limit),
        Source::read(history::of_app(tx, app, place.attempt, limit).await?, limit)
            .map(|attempt| (Some(attempt.device), Entry::Attempt(attempt))),
        Source::read(events(tx, app, place.event, limit).await?, limit).map(|event| (None, Entry::Event(event))),
    ];
    let mut merged = merge::merge(sources, limit, |(_, entry)| entry.age(), |_| true);
    let read = merged.rows.len();
    merged.rows.retain(|(_, entry)| since.is_none_or(|since| entry.at() >= since));
    let is_last = merged.end == End::Reached || merged.rows.len() < read;
    let next = (!is_last).then(|| merged.rows.iter().map(|(_, entry)| entry).fold(place, Entry::behind));
    let devices: HashSet<DeviceId> = merged.rows.iter().filter_map(|(device, _)| *device).collect();
    let names = names(tx, app, devices).await?;
    let happening = |(device, entry): (Option<DeviceId>, Entry)| Happening {
        installation_id: device.and_then(|device| names.get(&device).cloned()),
        entry,
        device,
    };
    Ok(Activity { happenings: merged.rows.into_iter().map(happening).collect(), next })
}

async fn moments(tx: &mut Tx, app: AppId, before: MomentId, limit: usize) -> Result<Vec<(Option<DeviceId>, Entry)>> {
    type Row = (Word<MomentId>, i64, Json<Moment>, Word<DeviceId>);
    // The index is by time, and so are the ids.
    let sql = "select id, at, what, device_id from timeline
               where app_id = $1 and at <= $2 and id < $3 order by at desc, id desc limit $4";
    let values = (Word(app), id::time_of(before).as_ms(), Word(before), limit as i64);
    let found: Vec<Row> = tx.fetch_all(sql, values).await?;
    let entry = |(id, at, moment, device): Row| {
        (Some(device.0), Entry::Moment { id: id.0, at: Timestamp::from_ms(at), moment: moment.0 })
    };
    Ok(found.into_iter().map(entry).collect())
}

async fn events(tx: &mut Tx, app: AppId, before: Position, limit: usize) -> Result<Vec<Heard>> {
    let sql = "select id, position, feed, kind, wake_class, accepted_at from events
               where app_id = $1 and position < $2 order by position desc limit $3";
    let found: Vec<HeardRow> = tx.fetch_all(sql, (Word(app), before.0, limit as i64)).await?;
    Ok(found.into_iter().map(Heard::from).collect())
}

/// How apps call their devices.
async fn names(tx: &mut Tx, app: AppId, devices: HashSet<DeviceId>) -> Result<HashMap<DeviceId, String>> {
    let sql = "select id, installation_id from devices where app_id = $1 and id in (select atom from jsonb_each($2))";
    let devices: Vec<_> = devices.into_iter().map(Word).collect();
    let found: Vec<(Word<DeviceId>, String)> = tx.fetch_all(sql, (Word(app), rows(&devices)?)).await?;
    Ok(found.into_iter().map(|(device, name)| (device.0, name)).collect())
}
