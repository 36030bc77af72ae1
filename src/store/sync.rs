//! Pages: what a device or a backend has not seen yet, in order, from one snapshot.

use std::fmt::Write;

use super::{
    Error, Result, Store,
    db::{Sql, Tx, Values, Word},
    events::{EventRow, StoredEvent, select_events},
    pollers::{Known, Poller},
};
use crate::{
    domain::{
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
    Event(Box<StoredEvent>),
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
            Self::Event(stored) => stored.event.position,
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
    /// The feeds that it is of.
    pub feeds: Vec<FeedName>,
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

/// As many events as fit on a page, and one more, of the positions and sizes that a query has found. PostgreSQL has to be told: it sends all
/// that a statement finds, and SQLite only what it is asked for.
macro_rules! a_page_of {
    ($positions:literal) => {
        select_events!(
            "(select position, sum(bytes) over (order by position) - bytes as before from ("
            $positions
            ") as next) as n join events e on e.app_id = $1 and e.position = n.position where n.before <= $5 order by n.position"
        )
    };
}

/// The next events of one feed.
const NEXT_OF_ONE: Sql = Sql {
    sqlite: select_events!(
        "events e where e.app_id = $1 and e.feed = $2 and e.position > $3 order by e.position limit $4"
    ),
    postgres: a_page_of!(
        "select position, bytes from events where app_id = $1 and feed = $2 and position > $3 order by position limit $4"
    ),
};

/// The next of all feeds that a device follows: the first few of each, merged.
const NEXT_OF_ALL: Sql = Sql {
    sqlite: select_events!(
        "(select x.position
          from follows f
          cross join events x
          where f.app_id = $1 and f.device_id = $2 and x.app_id = f.app_id and x.position in (
              select y.position from events y
              where y.app_id = f.app_id and y.feed = f.feed and y.position > f.since and y.position > $3
              order by y.position limit $4)
          order by x.position limit $4) n
         cross join events e
         where e.app_id = $1 and e.position = n.position order by n.position"
    ),
    postgres: a_page_of!(
        "select x.position, x.bytes
         from follows f
         cross join lateral (
             select y.position, y.bytes from events y
             where y.app_id = f.app_id and y.feed = f.feed and y.position > f.since and y.position > $3
             order by y.position limit $4) x
         where f.app_id = $1 and f.device_id = $2
         order by x.position limit $4"
    ),
};

/// What a page says of a feed takes so much of it, about.
const FOLLOWED_BYTES: i64 = 200;
const PAGE_BYTES: i64 = limits::PAGE_BYTES as i64;

impl Store {
    /// The next page of everything a device follows.
    pub async fn page(&self, poller: &Poller, request: PageRequest) -> Result<Paged> {
        let read = async |tx: &mut Tx| device_page(tx, poller.app, poller.device, request).await;
        let (mut paged, follows) = self.timed("page", self.db().read(read)).await?;
        if let Paged::Page(page) = &mut paged {
            self.remember(poller, known(&follows), follows.iter().map(|followed| &followed.feed));
            page.feeds = follows.into_iter().map(|followed| followed.feed).collect();
        }
        Ok(paged)
    }

    /// The next page of one feed; `None` if `reader` is a device that does not follow it.
    pub async fn feed_page(
        &self,
        app: AppId,
        feed: &FeedName,
        reader: Feed,
        request: PageRequest,
    ) -> Result<Option<FeedPage>> {
        self.timed("feed_page", self.db().read(async |tx| feed_page(tx, app, feed, reader, request).await)).await
    }

    /// The app's counter: nothing is above it.
    pub async fn counter(&self, app: AppId) -> Result<Position> {
        Ok(self.db().read(async |tx| counter(tx, app).await).await?.unwrap_or_default())
    }
}

/// The next page of everything a device follows, and what it follows.
async fn device_page(
    tx: &mut Tx,
    app: AppId,
    device: DeviceId,
    request: PageRequest,
) -> Result<(Paged, Vec<Followed>)> {
    let Some((counter, follows)) = followed(tx, app, device).await? else {
        return Ok((Paged::Expired, Vec::new()));
    };
    let after = request.after.unwrap_or_default();
    if after > counter {
        return Ok((Paged::Ahead, follows));
    }
    if request.after.is_some() && follows.iter().any(|followed| followed.has_dropped_above(after)) {
        return Ok((Paged::Expired, follows));
    }
    let limit = request.limit as i64 + 1;
    let mut with_news = follows.iter().filter(|followed| followed.newest > followed.since.max(after.0));
    let mut entries = match (with_news.next(), with_news.next()) {
        (None, _) => Vec::new(),
        (Some(Followed { feed, since, .. }), None) => {
            let values = (Word(app), feed.as_str().to_owned(), after.0.max(*since), limit, PAGE_BYTES);
            next(tx, NEXT_OF_ONE, values).await?
        }
        _ => next(tx, NEXT_OF_ALL, (Word(app), Word(device), after.0, limit, PAGE_BYTES)).await?,
    };
    let begun = follows.iter().filter(|followed| followed.since > after.0).map(Followed::entry);
    entries.extend(begun);
    entries.sort_by_key(|(entry, _)| entry.position());
    let page = Page::of(entries, request.limit, counter, known(&follows).state);
    Ok((Paged::Page(page), follows))
}

/// The next page of one feed; `None` if `reader` is a device that does not follow it.
async fn feed_page(
    tx: &mut Tx,
    app: AppId,
    feed: &FeedName,
    reader: Feed,
    request: PageRequest,
) -> Result<Option<FeedPage>> {
    if let Feed::ByDevice(device, _) = reader {
        let sql = "select since from follows where app_id = $1 and device_id = $2 and feed = $3";
        let values = (Word(app), Word(device), feed.as_str().to_owned());
        if tx.fetch_optional::<(i64,)>(sql, values).await?.is_none() {
            return Ok(None);
        }
    }
    let Some(counter) = counter(tx, app).await? else {
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
    let entries = next(tx, NEXT_OF_ONE, (Word(app), name, after.0, request.limit as i64 + 1, PAGE_BYTES)).await?;
    let last = entries.last().map_or(after, |(entry, _)| entry.position());
    let state = secret::short_hash(&format!("{feed} {}", last.0));
    let mut page = Page::of(entries, request.limit, counter, state);
    page.feeds.push(feed.clone());
    let through = page.through;
    let fetched = match reader {
        Feed::ByDevice(device, fetched) if after <= fetched && fetched < through => {
            let nothing = nothing_elsewhere(tx, app, device, feed, fetched, through).await?;
            nothing.then_some(through)
        }
        _ => None,
    };
    Ok(Some(FeedPage { paged: Paged::Page(page), fetched }))
}

async fn counter(tx: &mut Tx, app: AppId) -> Result<Option<Position>> {
    let sql = "select head from apps where id = $1 and deleted_at is null";
    Ok(tx.fetch_optional::<(i64,)>(sql, (Word(app),)).await?.map(|(head,)| Position(head)))
}

/// A feed that a device follows.
struct Followed {
    feed: FeedName,
    since: i64,
    /// The newest position in it, or 0.
    newest: i64,
    /// Up to where retention has dropped its events, or 0.
    dropped: i64,
}

impl Followed {
    fn has_dropped_above(&self, after: Position) -> bool {
        self.dropped > after.0 && self.dropped > self.since
    }

    /// What a page says of it, and how many bytes that takes, about.
    fn entry(&self) -> (PageEntry, i64) {
        (PageEntry::Followed { feed: self.feed.clone(), position: Position(self.since) }, FOLLOWED_BYTES)
    }
}

/// The app's counter and what a device follows; `None` if there is no such app.
async fn followed(tx: &mut Tx, app: AppId, device: DeviceId) -> Result<Option<(Position, Vec<Followed>)>> {
    let sql = "select a.head, f.feed, f.since,
                   coalesce((select max(e.position) from events e where e.app_id = f.app_id and e.feed = f.feed), 0),
                   coalesce((select p.dropped_through from feed_drops p where p.app_id = f.app_id and p.feed = f.feed), 0)
               from apps a left join follows f on f.app_id = a.id and f.device_id = $2
               where a.id = $1 and a.deleted_at is null order by f.feed";
    type Row = (i64, Option<Word<FeedName>>, Option<i64>, i64, i64);
    let rows: Vec<Row> = tx.fetch_all(sql, (Word(app), Word(device))).await?;
    let Some((counter, ..)) = rows.first() else {
        return Ok(None);
    };
    let counter = Position(*counter);
    let followed =
        |(_, feed, since, newest, dropped): Row| Some(Followed { feed: feed?.0, since: since?, newest, dropped });
    Ok(Some((counter, rows.into_iter().filter_map(followed).collect())))
}

fn known(follows: &[Followed]) -> Known {
    let text = follows.iter().fold(String::new(), |mut text, Followed { feed, since, newest, .. }| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{feed} {since} {newest}");
        text
    });
    let newest = follows.iter().map(|followed| followed.newest.max(followed.since)).max();
    Known { state: secret::short_hash(&text), newest: Position(newest.unwrap_or_default()) }
}

/// The next events with their sizes, up to the first that is not on the page any more.
async fn next(tx: &mut Tx, sql: Sql, values: impl Values) -> Result<Vec<(PageEntry, i64)>> {
    let mut bytes = 0;
    let fits = |row: &EventRow| {
        let before = bytes;
        bytes += row.bytes;
        before <= PAGE_BYTES
    };
    let entry = |row: EventRow| {
        let bytes = row.bytes;
        Ok::<_, Error>((PageEntry::Event(Box::new(StoredEvent::try_from(row)?)), bytes))
    };
    tx.fetch_while(sql, values, fits).await?.into_iter().map(entry).collect()
}

impl Page {
    /// A page of as many of the next entries as fit; the first always does.
    fn of(next: Vec<(PageEntry, i64)>, limit: usize, counter: Position, state: u64) -> Self {
        let (all, mut bytes) = (next.len(), 0);
        let fits = next.into_iter().enumerate().take_while(|(index, (_, size))| {
            bytes += size;
            *index == 0 || (*index < limit && bytes <= PAGE_BYTES)
        });
        let entries: Vec<PageEntry> = fits.map(|(_, (entry, _))| entry).collect();
        let has_more = entries.len() < all;
        let last = entries.last().filter(|_| has_more);
        let through = last.map_or(counter, PageEntry::position);
        Self { entries, through, has_more, state, feeds: Vec::new() }
    }
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
