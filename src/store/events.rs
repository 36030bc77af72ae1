//! Events: accepted in sets, with their idempotency record and the intent to wake, in one transaction.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Error, Result, Store,
    db::{Db, Each, Json, Mark, Submitted, Tx, Word, fields, locking, row, rows},
    fanout::{self, Raise},
    group::Request,
};
use crate::domain::{
    event::{CancelOn, Event, NewEvent, Op, WakeClass, WakeSpec},
    feed::{FeedName, Position},
    id::{self, AppId, EventId},
    limits,
    settings::Confirm,
    time::Timestamp,
};
use crate::{fault, metrics::Metrics};

/// For how long a request is recognised by its key.
pub(super) const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(86_400);

/// What makes a repeated request recognisable.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// As the client gave it.
    pub key: String,
    /// Over method, path and raw body.
    pub fingerprint: String,
}

/// A request to append events to feeds, all or nothing.
#[derive(Debug)]
pub struct Accept {
    /// Whose.
    pub app: AppId,
    /// How a repetition is told.
    pub idempotency: Option<Idempotency>,
    /// In this order.
    pub events: Vec<NewEvent>,
    /// W3C Trace Context of the request.
    pub traceparent: Option<String>,
}

impl Request for Accept {
    fn work(&self) -> usize {
        self.events.len()
    }
}

/// What came of a request to append events.
#[derive(Debug)]
pub enum Accepted {
    /// They have a place in the order.
    New(Vec<Event>),
    /// They had one already: the same key with the same body.
    Replayed(Vec<Event>),
    /// The key was used for another body.
    KeyReused,
    /// The app is gone.
    NoApp,
}

/// An event with what else is stored about it.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The event.
    pub event: Event,
    /// W3C Trace Context of the request that brought it.
    pub traceparent: Option<String>,
}

row! {
    /// The columns of an event, as `select_events!` names them.
    pub(super) struct EventRow {
        position: i64,
        id: Word<EventId>,
        feed: Word<FeedName>,
        kind: String,
        key: Option<String>,
        op: Option<Word<Op>>,
        href: Option<String>,
        data: Option<String>,
        occurred_at: i64,
        accepted_at: i64,
        wake: Json<WakeSpec>,
        traceparent: Option<String>,
        /// What it takes on a page, about.
        pub(super) bytes: i64,
    }
}

/// Events with all their columns, by the clauses that follow.
macro_rules! select_events {
    ($($clause:literal)*) => {
        concat!(
            "select e.position, e.id, e.feed, e.kind, e.key, e.op, e.href, e.data, e.occurred_at, e.accepted_at, e.wake, ",
            "e.traceparent, e.bytes from ",
            $($clause),*
        )
    };
}
pub(super) use select_events;

impl TryFrom<EventRow> for StoredEvent {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self> {
        let data = row.data.map(RawValue::from_string).transpose();
        let content = NewEvent {
            feed: row.feed.0,
            kind: row.kind,
            key: row.key,
            op: row.op.map(|op| op.0),
            href: row.href,
            data: data.map_err(|error| Error::Corrupt(format!("data of {}: {error}", row.id.0)))?,
            occurred_at: Some(Timestamp::from_ms(row.occurred_at)),
            wake: row.wake.0,
        };
        let event = Event {
            id: row.id.0,
            position: Position(row.position),
            accepted_at: Timestamp::from_ms(row.accepted_at),
            occurred_at: Timestamp::from_ms(row.occurred_at),
            content,
        };
        Ok(Self { event, traceparent: row.traceparent })
    }
}

impl Store {
    /// Appends events to feeds and makes their followers due. When this returns, all of it is durable.
    pub async fn accept(&self, accept: Accept) -> Result<Accepted> {
        let accepted = self.timed("accept", self.inner.accepts.write(accept)).await;
        if let Err(error) = &accepted {
            self.inner.metrics.accept_request(if error.passes() { "busy" } else { "failed" });
        }
        accepted
    }

    /// One event.
    pub async fn event(&self, app: AppId, id: EventId) -> Result<Option<StoredEvent>> {
        let sql = select_events!("events e where e.app_id = $1 and e.id = $2");
        self.db().fetch_optional::<EventRow>(sql, (Word(app), Word(id))).await?.map(StoredEvent::try_from).transpose()
    }

    /// Events of an app or of one feed, newest first, before the position named: as many as fit on a page, and whether there are more.
    pub async fn newest_events(
        &self,
        app: AppId,
        feed: Option<&FeedName>,
        before: Position,
        limit: usize,
    ) -> Result<(Vec<StoredEvent>, bool)> {
        let sizes = if feed.is_some() {
            "select position, bytes from events where app_id = $1 and position < $2 and feed = $3 order by position desc limit $4"
        } else {
            "select position, bytes from events where app_id = $1 and position < $2 and $3 is null order by position desc limit $4"
        };
        let feed = feed.map(|feed| feed.as_str().to_owned());
        let next: Vec<(i64, i64)> = self.db().survey(sizes, (Word(app), before.0, feed, limit as i64 + 1)).await?;
        let mut bytes = 0;
        let fits = next.iter().enumerate().take_while(|(index, (_, size))| {
            bytes += size;
            *index == 0 || (*index < limit && bytes <= limits::PAGE_BYTES as i64)
        });
        let page: Vec<i64> = fits.map(|(_, (position, _))| *position).collect();
        let sql = select_events!(
            "jsonb_each($2) n cross join events e where e.app_id = $1 and e.position = cast(n.atom as bigint)"
            " order by e.position desc"
        );
        let found = self.db().survey::<EventRow>(sql, (Word(app), rows(&page)?)).await?;
        let events = found.into_iter().map(StoredEvent::try_from).collect::<Result<Vec<_>>>()?;
        Ok((events, page.len() < next.len()))
    }
}

/// An idempotency record, as it is stored.
#[derive(Clone)]
struct Record {
    fingerprint: String,
    event_ids: Vec<EventId>,
    first_position: i64,
    accepted_at: Timestamp,
}

/// Accepts a batch of requests in one transaction.
pub(super) async fn accept(
    db: &Db,
    now: Timestamp,
    chunk: u32,
    batch: &[Accept],
    metrics: &Metrics,
) -> Result<(Vec<Accepted>, Submitted)> {
    let mut tx = db.begin().await?;
    let answers = append(&mut tx, now, chunk, batch).await?;
    fault::point("accept: before the commit");
    let submitted = tx.submit().await?;
    for (request, answer) in batch.iter().zip(&answers) {
        metrics.accept_request(match answer {
            Accepted::New(events) => {
                metrics.events_accepted(request.app, events.len());
                "new"
            }
            Accepted::Replayed(_) => "replayed",
            Accepted::KeyReused => "key_reused",
            Accepted::NoApp => "no_app",
        });
    }
    Ok((answers, submitted))
}

/// Appends the events of a batch of requests in a few statements, however many there are.
pub(super) async fn append(tx: &mut Tx, now: Timestamp, chunk: u32, batch: &[Accept]) -> Result<Vec<Accepted>> {
    let mut counters = counters(tx, batch).await?;
    let mut records = recorded(tx, now, batch).await?;
    // A twin in the same batch meets the record of the first one: its place is kept by an entry that is filled below.
    let mut first_of: HashMap<(AppId, String), usize> = HashMap::new();
    let is_new: Vec<bool> = (batch.iter().enumerate())
        .map(|(index, request)| match &request.idempotency {
            None => true,
            Some(i) if records.contains_key(&(request.app, i.key.clone())) => false,
            Some(i) => *first_of.entry((request.app, i.key.clone())).or_insert(index) == index,
        })
        .collect();
    let mut answers = Vec::with_capacity(batch.len());
    let mut raises = Vec::new();
    let mut fresh_records = Vec::new();
    let mut event_rows = Vec::new();
    for (request, is_new) in batch.iter().zip(is_new) {
        let record = request.idempotency.as_ref().and_then(|i| records.get(&(request.app, i.key.clone())));
        if !is_new {
            answers.push(record.map_or(Accepted::NoApp, |record| replay(record, request)));
            continue;
        }
        let Some((counter, confirm)) = counters.get_mut(&request.app) else {
            answers.push(Accepted::NoApp);
            continue;
        };
        let first_position = *counter + 1;
        let events: Vec<Event> =
            request.events.iter().map(|event| placed(event.clone(), id::new(now), counter, now)).collect();
        if let Some(Idempotency { key, fingerprint }) = request.idempotency.clone() {
            let event_ids = events.iter().map(|event| event.id).collect();
            let record = Record { fingerprint, event_ids, first_position, accepted_at: now };
            fresh_records.push(RecordValues::new(request.app, &key, &record));
            records.insert((request.app, key), record);
        }
        let app = request.app.to_string();
        events.iter().try_for_each(|event| tx.touch(Mark::of_feed(&app, event.content.feed.as_str())))?;
        raises.extend(events.iter().filter_map(|event| Raise::of(request.app, *confirm, event)));
        let values = |event| EventValues::new(request.app, event, request.traceparent.as_deref());
        event_rows.extend(events.iter().map(values));
        answers.push(Accepted::New(events));
    }
    advance(tx, counters).await?;
    tx.execute_each(&INSERT, &event_rows).await?;
    tx.execute_each(&RECORD, &fresh_records).await?;
    fanout::begin(tx, raises, chunk, now).await?;
    Ok(answers)
}

/// Gives an event its place, one above the counter.
fn placed(content: NewEvent, id: EventId, counter: &mut i64, now: Timestamp) -> Event {
    *counter += 1;
    let position = Position(*counter);
    Event { id, position, accepted_at: now, occurred_at: content.occurred_at.unwrap_or(now), content }
}

/// The same answer again: the body is the same, so only ids, positions and time come from the record.
fn replay(record: &Record, request: &Accept) -> Accepted {
    if request.idempotency.as_ref().is_none_or(|i| i.fingerprint != record.fingerprint) {
        return Accepted::KeyReused;
    }
    let mut counter = record.first_position - 1;
    let events = request.events.iter().zip(&record.event_ids);
    Accepted::Replayed(events.map(|(event, id)| placed(event.clone(), *id, &mut counter, record.accepted_at)).collect())
}

/// The counters of all apps in the batch, and what they count, held until the transaction ends: whoever comes next finds these events in
/// front of it, and the record of a request that is repeated.
async fn counters(tx: &mut Tx, batch: &[Accept]) -> Result<HashMap<AppId, (i64, Confirm)>> {
    let mut apps: Vec<AppId> = batch.iter().map(|request| request.app).collect();
    apps.sort_by_key(|app| app.uuid());
    apps.dedup();
    let sql = locking!(
        "select id, head, confirm from apps where id in (select atom from jsonb_each($1)) and deleted_at is null order by id",
        "for no key update"
    );
    let found: Vec<(Word<AppId>, i64, Word<Confirm>)> = tx.fetch_all(sql, (rows(&apps)?,)).await?;
    Ok(found.into_iter().map(|(app, head, confirm)| (app.0, (head, confirm.0))).collect())
}

/// Moves the counters on.
async fn advance(tx: &mut Tx, counters: HashMap<AppId, (i64, Confirm)>) -> Result<()> {
    let heads: Vec<(AppId, i64)> = counters.into_iter().map(|(app, (head, _))| (app, head)).collect();
    let sql = "update apps set head = cast(r.value->>1 as bigint) from jsonb_each($1) r where apps.id = r.value->>0";
    tx.execute(sql, (rows(&heads)?,)).await?;
    Ok(())
}

fields! {
    struct RecordValues {
        app: Word<AppId>,
        key: String,
        fingerprint: String,
        event_ids: Json<Vec<EventId>>,
        first_position: i64,
        accepted_at: i64,
    }
}

static RECORD: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "insert into idempotency (app_id, key, fingerprint, event_ids, first_position, accepted_at)
         values ({app}, {key}, {fingerprint}, {event_ids}, {first_position:int}, {accepted_at:int})
         on conflict (app_id, key) do update set fingerprint = excluded.fingerprint, event_ids = excluded.event_ids,
             first_position = excluded.first_position, accepted_at = excluded.accepted_at",
    )
});

impl RecordValues {
    fn new(app: AppId, key: &str, record: &Record) -> Self {
        Self {
            app: Word(app),
            key: key.to_owned(),
            fingerprint: record.fingerprint.clone(),
            event_ids: Json(record.event_ids.clone()),
            first_position: record.first_position,
            accepted_at: record.accepted_at.as_ms(),
        }
    }
}

/// The idempotency records that exist already for a batch.
async fn recorded(tx: &mut Tx, now: Timestamp, batch: &[Accept]) -> Result<HashMap<(AppId, String), Record>> {
    #[derive(Serialize)]
    struct Key<'a> {
        app: AppId,
        key: &'a str,
    }
    let keys: Vec<_> = (batch.iter())
        .filter_map(|request| Some(Key { app: request.app, key: &request.idempotency.as_ref()?.key }))
        .collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    type Row = (Word<AppId>, String, String, Json<Vec<EventId>>, i64, i64);
    let sql = "select i.app_id, i.key, i.fingerprint, i.event_ids, i.first_position, i.accepted_at
               from jsonb_each($1) r cross join idempotency i where i.app_id = r.value->>'app' and i.key = r.value->>'key'
                 and i.accepted_at > $2";
    let found: Vec<Row> = tx.fetch_all(sql, (rows(&keys)?, (now - IDEMPOTENCY_KEPT).as_ms())).await?;
    let record = |(app, key, fingerprint, event_ids, first_position, accepted_at): Row| {
        let accepted_at = Timestamp::from_ms(accepted_at);
        ((app.0, key), Record { fingerprint, event_ids: event_ids.0, first_position, accepted_at })
    };
    Ok(found.into_iter().map(record).collect())
}

fields! {
    /// The columns of an event on the way in.
    struct EventValues {
        app: Word<AppId>,
        position: i64,
        id: Word<EventId>,
        feed: Word<FeedName>,
        kind: String,
        key: Option<String>,
        op: Option<Word<Op>>,
        href: Option<String>,
        data: Option<String>,
        occurred_at: i64,
        accepted_at: i64,
        expires_at: i64,
        wake: String,
        wake_class: Word<WakeClass>,
        cancel_on: Word<CancelOn>,
        bytes: i64,
        traceparent: Option<String>,
    }
}

// The one statement that writes events; whoever uses it tells of their feeds by [`Tx::touch`].
static INSERT: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "insert into events (app_id, position, id, feed, kind, key, op, href, data, occurred_at, accepted_at, expires_at, wake,
             wake_class, cancel_on, bytes, traceparent)
         values ({app}, {position:int}, {id}, {feed}, {kind}, {key}, {op}, {href}, {data}, {occurred_at:int}, {accepted_at:int},
             {expires_at:int}, {wake}, {wake_class}, {cancel_on}, {bytes:int}, {traceparent})",
    )
});

impl EventValues {
    fn new(app: AppId, event: &Event, traceparent: Option<&str>) -> Self {
        let content = &event.content;
        let data = content.data.as_deref().map(RawValue::get);
        let texts =
            [Some(content.feed.as_str()), Some(&content.kind), content.key.as_deref(), content.href.as_deref(), data];
        let alert_bytes =
            content.wake.alert.as_ref().and_then(|alert| serde_json::to_string(alert).ok()).map_or(0, |t| t.len());
        /// What the JSON around the texts takes on a page: ids, times, names.
        const FRAME_BYTES: usize = 300;
        let bytes = FRAME_BYTES + alert_bytes + texts.into_iter().flatten().map(str::len).sum::<usize>();
        Self {
            app: Word(app),
            position: event.position.0,
            id: Word(event.id),
            feed: Word(content.feed.clone()),
            kind: content.kind.clone(),
            key: content.key.clone(),
            op: content.op.map(Word),
            href: content.href.clone(),
            data: data.map(str::to_owned),
            occurred_at: event.occurred_at.as_ms(),
            accepted_at: event.accepted_at.as_ms(),
            expires_at: event.expires_at().as_ms(),
            // It is made of words, numbers and texts, which can always be written.
            wake: serde_json::to_string(&content.wake).unwrap_or_default(),
            wake_class: Word(content.wake.class),
            cancel_on: Word(content.wake.alert.as_ref().map_or(CancelOn::Fetch, |alert| alert.cancel_on)),
            bytes: bytes as i64,
            traceparent: traceparent.map(str::to_owned),
        }
    }
}
