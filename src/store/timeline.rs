//! The timeline: what happened to a device and why, for who asks later.

use std::sync::LazyLock;

use uuid::Uuid;

use super::{
    Result, Store,
    db::{Each, Json, Tx, Word, fields, row},
    devices::{self, Device},
    history::{self, Attempt},
};
use crate::domain::{
    event::{Class, WakeClass},
    feed::{FeedName, Position},
    id::{self, AppId, DeviceId, EventId, MomentId, WakeId},
    lag::{Lag, OpenWake},
    merge::{self, End, Source},
    policy::DeferReason,
    time::Timestamp,
    timeline::{Moment, Place},
};

/// The least that is read of each source, so that the present can be explained however short the page is.
const LEAST_READ: usize = 20;

/// A page of a device's timeline.
#[derive(Debug)]
pub struct Timeline {
    /// The device as it is now.
    pub device: Device,
    /// What it has not fetched, on the first page.
    pub lags: Vec<Lagging>,
    /// Newest first.
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Place>,
}

/// News that a device has not fetched, and the newest call that was made for it.
#[derive(Debug)]
pub struct Lagging {
    /// The news.
    pub lag: Lag,
    /// The call.
    pub attempt: Option<Attempt>,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Entry {
    /// Something that has a row in the timeline.
    Moment {
        /// Its place in the order.
        id: MomentId,
        /// When.
        at: Timestamp,
        /// What.
        moment: Moment,
    },
    /// A call to the provider.
    Attempt(Attempt),
    /// An event in a feed that the device follows.
    Event(Heard),
}

/// An event as its follower meets it.
#[derive(Debug)]
pub struct Heard {
    /// Its id.
    pub id: EventId,
    /// Its place in the app's order.
    pub position: Position,
    /// The feed.
    pub feed: FeedName,
    /// The app's own word for what happened.
    pub kind: String,
    /// The class of the wake it asks for.
    pub class: WakeClass,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The wake that announced it, and up to where that went.
    pub wake: Option<(WakeId, Position)>,
}

fields! {
    /// A line that is to be kept.
    #[derive(Debug)]
    pub(super) struct NewMoment {
        app: Word<AppId>,
        device: Word<DeviceId>,
        id: Word<MomentId>,
        at: i64,
        what: String,
    }
}

static ADD: LazyLock<Each> = LazyLock::new(|| {
    Each::of("insert into timeline (app_id, device_id, id, at, what) values ({app}, {device}, {id}, {at:int}, {what})")
});

impl NewMoment {
    /// It happened now.
    pub fn new(app: AppId, device: DeviceId, now: Timestamp, what: &Moment) -> Self {
        // A moment is made of words and numbers, which can always be written.
        let what = serde_json::to_string(what).unwrap_or_default();
        Self { app: Word(app), device: Word(device), id: Word(id::new(now)), at: now.as_ms(), what }
    }
}

/// Keeps lines.
pub(super) async fn add(tx: &mut Tx, moments: &[NewMoment]) -> Result<()> {
    Ok(tx.execute_each(&ADD, moments).await?)
}

impl Store {
    /// What happened to a device, newest first, from the place named on; `None` if there is no such device. The present belongs to the
    /// page that names none.
    pub async fn timeline(
        &self,
        app: AppId,
        device: DeviceId,
        from: Option<Place>,
        limit: usize,
    ) -> Result<Option<Timeline>> {
        self.timed("timeline", self.db().read(async |tx| timeline_within(tx, app, device, from, limit).await)).await
    }
}

async fn timeline_within(
    tx: &mut Tx,
    app: AppId,
    device: DeviceId,
    from: Option<Place>,
    limit: usize,
) -> Result<Option<Timeline>> {
    let Some(device) = devices::find(tx, app, device).await? else {
        return Ok(None);
    };
    let read = limit.max(LEAST_READ);
    let place = from.unwrap_or_else(Place::newest);
    let moments = moments(tx, &device, place.moment, read).await?;
    let attempts = history::of_device(tx, &device, place.attempt, read).await?;
    let mut events = heard(tx, &device, place.event, read).await?;
    // A wake comes after what it announces, and may stand on the page before.
    let mut wakes = match from {
        Some(place) => history::of_device_from(tx, &device, place.attempt, read).await?,
        None => Vec::new(),
    };
    wakes.extend(attempts.iter().cloned());
    wakes.sort_by_key(|attempt| attempt.id.uuid());
    for event in &mut events {
        event.wake = wakes.iter().find(|wake| event.is_announced_by(wake)).map(|wake| (wake.wake, wake.head));
    }
    let lags = match from {
        Some(_) => Vec::new(),
        None => lags(tx, &device, &moments, &wakes).await?,
    };
    let sources = vec![
        Source::read(moments, read).map(|(id, at, moment)| Entry::Moment { id, at, moment }),
        Source::read(attempts, read).map(Entry::Attempt),
        Source::read(events, read).map(Entry::Event),
    ];
    let merged = merge::merge(sources, limit, Entry::age, Entry::shows);
    let next = (merged.end == End::Open).then(|| merged.rows.iter().fold(place, Entry::behind));
    let entries = merged.rows.into_iter().filter(Entry::shows).collect();
    Ok(Some(Timeline { device, lags, entries, next }))
}

impl Entry {
    /// Ids are made in the order in which things happen, whatever they belong to.
    pub(super) fn age(&self) -> Uuid {
        match self {
            Self::Moment { id, .. } => id.uuid(),
            Self::Attempt(attempt) => attempt.id.uuid(),
            Self::Event(event) => event.id.uuid(),
        }
    }

    /// An event that wakes nobody moves no head.
    fn shows(&self) -> bool {
        !matches!(self, Self::Event(Heard { class: WakeClass::None, .. }))
    }

    /// Where the next page begins behind this.
    pub(super) fn behind(place: Place, entry: &Self) -> Place {
        match entry {
            Self::Moment { id, .. } => Place { moment: *id, ..place },
            Self::Attempt(attempt) => Place { attempt: attempt.id, ..place },
            Self::Event(event) => Place { event: event.position, ..place },
        }
    }
}

impl Heard {
    /// Whether a call is for this event, or for a newer one that takes it along. An alert tells of what waits in the background too.
    fn is_announced_by(&self, attempt: &Attempt) -> bool {
        let takes_along = attempt.after < self.position
            && self.position < attempt.head
            && (self.class.class() == Some(attempt.class) || attempt.class == Class::Alert);
        attempt.head == self.position || takes_along
    }
}

async fn moments(
    tx: &mut Tx,
    device: &Device,
    before: MomentId,
    limit: usize,
) -> Result<Vec<(MomentId, Timestamp, Moment)>> {
    let sql =
        "select id, at, what from timeline where app_id = $1 and device_id = $2 and id < $3 order by id desc limit $4";
    let values = (Word(device.app), Word(device.id), Word(before), limit as i64);
    let found: Vec<(Word<MomentId>, i64, Json<Moment>)> = tx.fetch_all(sql, values).await?;
    Ok(found.into_iter().map(|(id, at, moment)| (id.0, Timestamp::from_ms(at), moment.0)).collect())
}

row! {
    /// An event of which no wake is known.
    pub(super) struct HeardRow {
        id: Word<EventId>,
        position: i64,
        feed: Word<FeedName>,
        kind: String,
        class: Word<WakeClass>,
        accepted_at: i64,
    }
}

impl From<HeardRow> for Heard {
    fn from(row: HeardRow) -> Self {
        Self {
            id: row.id.0,
            position: Position(row.position),
            feed: row.feed.0,
            kind: row.kind,
            class: row.class.0,
            accepted_at: Timestamp::from_ms(row.accepted_at),
            wake: None,
        }
    }
}

/// The newest events of all feeds that a device follows, those that wake nobody included: the first few of each, merged.
async fn heard(tx: &mut Tx, device: &Device, before: Position, limit: usize) -> Result<Vec<Heard>> {
    let sql = "select e.id, e.position, e.feed, e.kind, e.wake_class, e.accepted_at
               from follows f cross join events e
               where f.app_id = $1 and f.device_id = $2 and e.app_id = f.app_id and e.position in (
                   select x.position from events x
                   where x.app_id = f.app_id and x.feed = f.feed and x.position > f.since and x.position < $3
                   order by x.position desc limit $4)
               order by e.position desc limit $4";
    let values = (Word(device.app), Word(device.id), before.0, limit as i64);
    let found: Vec<HeardRow> = tx.fetch_all(sql, values).await?;
    Ok(found.into_iter().map(Heard::from).collect())
}

row! {
    struct LagRow {
        class: Word<Class>,
        head: i64,
        told: i64,
        told_at: Option<i64>,
        wakes_unfetched: i64,
        expires_at: i64,
        due_at: Option<i64>,
        waits_for: Option<Word<DeferReason>>,
        wake_id: Option<Word<WakeId>>,
        called: bool,
    }
}

/// What a device has not fetched, per class: alerts first, for people see those. `wakes` are oldest first.
async fn lags(
    tx: &mut Tx,
    device: &Device,
    moments: &[(MomentId, Timestamp, Moment)],
    wakes: &[Attempt],
) -> Result<Vec<Lagging>> {
    let sql = "select l.class, case when l.sticky_head > l.head then l.sticky_head else l.head end as head, l.told, l.told_at,
                   l.wakes_unfetched, l.expires_at, l.due_at, l.waits_for, l.wake_id, l.lease is not null as called
               from levels l join apps a on a.id = l.app_id
               where l.app_id = $1 and l.device_id = $2 and (
                   l.head > case a.confirm when 'ack' then $4 else $3 end or (l.sticky_head > l.told and l.due_at is not null))
               order by l.class";
    let values = (Word(device.app), Word(device.id), device.fetched.0, device.acked.0);
    let found: Vec<LagRow> = tx.fetch_all(sql, values).await?;
    let lagging = |row: LagRow| {
        let class = row.class.0;
        let dropped = moments.iter().find_map(|(_, _, moment)| match moment {
            Moment::Dropped { class: of, head, reason } if *of == class && head.0 >= row.head => Some(*reason),
            _ => None,
        });
        let lag = Lag {
            class,
            head: Position(row.head),
            told: Position(row.told),
            told_at: row.told_at.map(Timestamp::from_ms),
            wakes: u32::try_from(row.wakes_unfetched).unwrap_or(u32::MAX),
            expires_at: Timestamp::from_ms(row.expires_at),
            due_at: row.due_at.map(Timestamp::from_ms),
            waits_for: row.waits_for.map(|word| word.0),
            wake: row.wake_id.map(|id| OpenWake { id: id.0, called: row.called }),
            dropped,
        };
        let of_lag = |attempt: &&Attempt| match lag.wake {
            Some(open) => attempt.wake == open.id,
            None => attempt.head >= lag.head,
        };
        let attempt = wakes.iter().rev().find(of_lag).cloned();
        Lagging { lag, attempt }
    };
    Ok(found.into_iter().map(lagging).collect())
}
