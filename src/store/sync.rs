//! Pages: what a device or a backend has not seen yet, in order, from one snapshot.

use std::fmt::Write;

use super::{
    Error, Result, Store,
    db::{Tx, Word, row},
    events::{EventRow, StoredEvent, select_events},
    pollers::{Known, Poller},
};
use crate::{
    domain::{
        event::Event,
        feed::{FeedName, Position},
        id::{AppId, DeviceId},
        limits,
    },
    secret,
};

/// Which page is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Everything above this; `None` = from the oldest retained event.
    pub after: Option<Position>,
    /// At most so many entries.
    pub limit: usize,
}

/// One line of a page.
#[derive(Debug, Clone)]
pub enum PageEntry {
    /// An event.
    Event(Box<Event>),
    /// The device has come to follow a feed; what is older is in its snapshot.
    Followed {
        /// The feed.
        feed: FeedName,
        /// Since when.
        position: Position,
    },
}

impl PageEntry {
    /// Its place in the order.
    pub fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Followed { position, .. } => *position,
        }
    }
}

/// Entries in order, and how far the reader is with them.
#[derive(Debug, Clone)]
pub struct Page {
    /// In order.
    pub entries: Vec<PageEntry>,
    /// The last entry's position if there is more, else the app's counter.
    pub through: Position,
    /// Whether another page follows.
    pub has_more: bool,
    /// What an ETag depends on: it changes with the follows and the newest position in followed feeds.
    pub state: u64,
}

/// What came of asking for a page.
#[derive(Debug, Clone)]
pub enum Paged {
    /// A page.
    Page(Page),
    /// A followed feed has dropped an event above the cursor.
    Expired,
    /// The cursor is ahead of all that there is.
    Ahead,
}

/// One feed's page.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// The page.
    pub paged: Paged,
    /// How far this brings a device that read it: the page's `through`, if its other feeds have nothing in between.
    pub fetched: Option<Position>,
}

/// Who reads one feed.
#[derive(Debug, Clone, Copy)]
pub enum Feed {
    /// A backend.
    ByKey,
    /// A device that follows it, and how far it is.
    ByDevice(DeviceId, Position),
}

/// The next entries of all feeds a device follows, by position and size: the first few of each, merged.
const NEXT_OF_ALL: &str = "
    select position, bytes from (
        select e.position, e.bytes
        from follows f
        cross join events e
        where f.app_id = $1 and f.device_id = $2 and e.app_id = f.app_id and e.position in (
            select x.position from events x
            where x.app_id = f.app_id and x.feed = f.feed and x.position > f.since and x.position > $3
            order by x.position limit $4)
        union all
        select since, 200 from follows where app_id = $1 and device_id = $2 and since > $3
    ) as entries order by position limit $4";

impl Store {
    /// The next page of everything a device follows.
    pub async fn page(&self, poller: &Poller, request: PageRequest) -> Result<Paged> {
        let (app, device) = (poller.app, poller.device);
        let mut tx = self.db().snapshot().await?;
        let Some(counter) = counter(&mut tx, app).await? else {
            return Ok(Paged::Expired);
        };
        let after = request.after.unwrap_or_default();
        if after > counter {
            return Ok(Paged::Ahead);
        }
        let follows = followed(&mut tx, app, device).await?;
        if request.after.is_some() && follows.iter().any(|followed| followed.has_dropped_above(after)) {
            return Ok(Paged::Expired);
        }
        let known = known(&follows);
        let (mut events, mut last, mut has_more) = (Vec::new(), after.0, false);
        if known.newest > after {
            let values = (Word(app), Word(device), after.0, request.limit as i64 + 1);
            let next: Vec<(i64, i64)> = tx.fetch_all(NEXT_OF_ALL, values).await?;
            (last, has_more) = fit(&next, request.limit);
            let sql = select_events!(
                "follows f cross join events e
                 where f.app_id = $1 and f.device_id = $2 and e.app_id = f.app_id and e.feed = f.feed
                   and e.position > f.since and e.position > $3 and e.position <= $4"
            );
            events = tx.fetch_all::<EventRow>(sql, (Word(app), Word(device), after.0, last)).await?;
        }
        drop(tx);
        let begun = follows.iter().filter(|followed| after.0 < followed.since && followed.since <= last);
        let begun = begun
            .map(|followed| PageEntry::Followed { feed: followed.feed.0.clone(), position: Position(followed.since) });
        let mut entries = entries(events)?;
        entries.extend(begun);
        entries.sort_by_key(PageEntry::position);
        let through = if has_more { Position(last) } else { counter };
        self.remember(poller, known, follows.into_iter().map(|followed| followed.feed.0));
        Ok(Paged::Page(Page { entries, through, has_more, state: known.state }))
    }

    /// The next page of one feed; `None` if `reader` is a device that does not follow it.
    pub async fn feed_page(
        &self,
        app: AppId,
        feed: &FeedName,
        reader: Feed,
        request: PageRequest,
    ) -> Result<Option<FeedPage>> {
        let mut tx = self.db().snapshot().await?;
        if let Feed::ByDevice(device, _) = reader {
            let sql = "select since from follows where app_id = $1 and device_id = $2 and feed = $3";
            let values = (Word(app), Word(device), feed.as_str().to_owned());
            if tx.fetch_optional::<(i64,)>(sql, values).await?.is_none() {
                return Ok(None);
            }
        }
        let Some(counter) = counter(&mut tx, app).await? else {
            return Ok(None);
        };
        let after = request.after.unwrap_or_default();
        let refused = |paged| Ok(Some(FeedPage { paged, fetched: None }));
        if after > counter {
            return refused(Paged::Ahead);
        }
        let name = feed.as_str().to_owned();
        let sql = "select dropped_through from feed_drops where app_id = $1 and feed = $2";
        let dropped: Option<(i64,)> = tx.fetch_optional(sql, (Word(app), name.clone())).await?;
        if request.after.is_some() && dropped.is_some_and(|(through,)| through > after.0) {
            return refused(Paged::Expired);
        }
        let sql = "select position, bytes from events where app_id = $1 and feed = $2 and position > $3 order by position limit $4";
        let values = (Word(app), name.clone(), after.0, request.limit as i64 + 1);
        let next: Vec<(i64, i64)> = tx.fetch_all(sql, values).await?;
        let (last, has_more) = fit(&next, request.limit);
        let sql = select_events!(
            "events e where e.app_id = $1 and e.feed = $2 and e.position > $3 and e.position <= $4 order by e.position"
        );
        let events: Vec<EventRow> = tx.fetch_all(sql, (Word(app), name, after.0, last)).await?;
        let through = if has_more { Position(last) } else { counter };
        let fetched = match reader {
            Feed::ByDevice(device, fetched) if after <= fetched && fetched < through => {
                let nothing = nothing_elsewhere(&mut tx, app, device, feed, fetched, through).await?;
                nothing.then_some(through)
            }
            _ => None,
        };
        let state = secret::short_hash(&format!("{feed} {}", next.last().map_or(after.0, |(position, _)| *position)));
        let page = Page { entries: entries(events)?, through, has_more, state };
        Ok(Some(FeedPage { paged: Paged::Page(page), fetched }))
    }

    /// The app's counter: nothing is above it.
    pub async fn counter(&self, app: AppId) -> Result<Position> {
        Ok(counter(&mut self.db().snapshot().await?, app).await?.unwrap_or_default())
    }
}

async fn counter(tx: &mut Tx, app: AppId) -> Result<Option<Position>> {
    let sql = "select head from apps where id = $1 and deleted_at is null";
    Ok(tx.fetch_optional::<(i64,)>(sql, (Word(app),)).await?.map(|(head,)| Position(head)))
}

row! {
    /// A feed that a device follows.
    struct Followed {
        feed: Word<FeedName>,
        since: i64,
        /// The newest position in it, or 0.
        newest: i64,
        /// Up to where retention has dropped its events, or 0.
        dropped: i64,
    }
}

impl Followed {
    fn has_dropped_above(&self, after: Position) -> bool {
        self.dropped > after.0 && self.dropped > self.since
    }
}

async fn followed(tx: &mut Tx, app: AppId, device: DeviceId) -> Result<Vec<Followed>> {
    let sql = "select f.feed, f.since,
                   coalesce((select max(e.position) from events e where e.app_id = f.app_id and e.feed = f.feed), 0),
                   coalesce((select p.dropped_through from feed_drops p where p.app_id = f.app_id and p.feed = f.feed), 0)
               from follows f where f.app_id = $1 and f.device_id = $2 order by f.feed";
    Ok(tx.fetch_all(sql, (Word(app), Word(device))).await?)
}

fn known(follows: &[Followed]) -> Known {
    let text = follows.iter().fold(String::new(), |mut text, Followed { feed, since, newest, .. }| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{} {since} {newest}", feed.0);
        text
    });
    let newest = follows.iter().map(|followed| followed.newest.max(followed.since)).max();
    Known { state: secret::short_hash(&text), newest: Position(newest.unwrap_or_default()) }
}

/// How many of the next entries fit on a page; answers the last one's position and whether more follow. The first always fits.
fn fit(next: &[(i64, i64)], limit: usize) -> (i64, bool) {
    let mut bytes = 0;
    let mut last = 0;
    for (index, (position, size)) in next.iter().enumerate() {
        bytes += size;
        if index > 0 && (index >= limit || bytes > limits::PAGE_BYTES as i64) {
            return (last, true);
        }
        last = *position;
    }
    (last, false)
}

fn entries(rows: Vec<EventRow>) -> Result<Vec<PageEntry>> {
    let event = |row| Ok::<_, Error>(PageEntry::Event(Box::new(StoredEvent::try_from(row)?.event)));
    rows.into_iter().map(event).collect()
}

/// Whether a device's other feeds have nothing in `(from, to]`.
async fn nothing_elsewhere(
    tx: &mut Tx,
    app: AppId,
    device: DeviceId,
    feed: &FeedName,
    from: Position,
    to: Position,
) -> Result<bool> {
    let sql = "select (select count(*) from (
                   select 1 from follows f cross join events e
                   where f.app_id = $1 and f.device_id = $2 and f.feed <> $3 and e.app_id = f.app_id and e.feed = f.feed
                     and e.position > f.since and e.position > $4 and e.position <= $5 limit 1) as others)
               + (select count(*) from follows
                  where app_id = $1 and device_id = $2 and since > $4 and since <= $5)";
    let values = (Word(app), Word(device), feed.as_str().to_owned(), from.0, to.0);
    let (others,): (i64,) = tx.fetch_one(sql, values).await?;
    Ok(others == 0)
}
