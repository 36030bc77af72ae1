//! Pages: what a device or a backend has not seen yet, in order, from one snapshot.

use super::{
    Error, Result, Store,
    db::{Tx, Word},
    events::{EventRow, StoredEvent, select_events},
};
use crate::domain::{
    event::Event,
    feed::{FeedName, Position},
    id::{AppId, DeviceId},
    limits,
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
    /// What an ETag depends on: the follows and the newest position in followed feeds.
    pub state: String,
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
    pub async fn page(&self, app: AppId, device: DeviceId, request: PageRequest) -> Result<Paged> {
        let mut tx = self.db().snapshot().await?;
        let Some(counter) = counter(&mut tx, app).await? else {
            return Ok(Paged::Expired);
        };
        let after = request.after.unwrap_or_default();
        if after > counter {
            return Ok(Paged::Ahead);
        }
        let follows = state(&mut tx, app, device).await?;
        let sql = "select count(*) from follows f join feed_drops p on p.app_id = f.app_id and p.feed = f.feed
                   where f.app_id = $1 and f.device_id = $2 and p.dropped_through > $3 and p.dropped_through > f.since";
        let dropped: (i64,) = tx.fetch_one(sql, (Word(app), Word(device), after.0)).await?;
        if request.after.is_some() && dropped.0 > 0 {
            return Ok(Paged::Expired);
        }
        let values = (Word(app), Word(device), after.0, request.limit as i64 + 1);
        let next: Vec<(i64, i64)> = tx.fetch_all(NEXT_OF_ALL, values).await?;
        let (last, has_more) = fit(&next, request.limit);
        let sql = select_events!(
            "follows f cross join events e
             where f.app_id = $1 and f.device_id = $2 and e.app_id = f.app_id and e.feed = f.feed
               and e.position > f.since and e.position > $3 and e.position <= $4"
        );
        let events: Vec<EventRow> = tx.fetch_all(sql, (Word(app), Word(device), after.0, last)).await?;
        let sql = "select feed, since from follows where app_id = $1 and device_id = $2 and since > $3 and since <= $4";
        let followed: Vec<(Word<FeedName>, i64)> = tx.fetch_all(sql, (Word(app), Word(device), after.0, last)).await?;
        let mut entries = entries(events)?;
        entries.extend(
            (followed.into_iter()).map(|(feed, since)| PageEntry::Followed { feed: feed.0, position: Position(since) }),
        );
        entries.sort_by_key(PageEntry::position);
        let through = if has_more { Position(last) } else { counter };
        Ok(Paged::Page(Page { entries, through, has_more, state: follows }))
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
        let state = format!("{feed} {}", next.last().map_or(after.0, |(position, _)| *position));
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

/// The follows and the newest position in followed feeds, as a text that changes when they do.
async fn state(tx: &mut Tx, app: AppId, device: DeviceId) -> Result<String> {
    let sql = "select f.feed, f.since, coalesce((select max(e.position) from events e
                   where e.app_id = f.app_id and e.feed = f.feed), 0)
               from follows f where f.app_id = $1 and f.device_id = $2 order by f.feed";
    let follows: Vec<(String, i64, i64)> = tx.fetch_all(sql, (Word(app), Word(device))).await?;
    Ok(follows.iter().fold(String::new(), |text, (feed, since, newest)| format!("{text}{feed} {since} {newest}\n")))
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
