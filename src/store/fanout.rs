//! Fan-out: an event raises the levels of its feed's followers; a feed with many is worked off in chunks that can be resumed.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, LazyLock},
};

use serde::Serialize;

use super::{
    Result, Store,
    db::{Each, Tx, Word, fields, locking, row, rows},
    tallies::Tallies,
};
use crate::domain::{
    device::Transport,
    event::{CancelOn, Class, Event},
    feed::FeedName,
    id::AppId,
    settings::Confirm,
    tally::Tally,
    time::Timestamp,
};

/// An event's claim on its feed's followers.
#[derive(Debug, Serialize)]
pub(super) struct Raise {
    app: AppId,
    feed: FeedName,
    class: Class,
    position: i64,
    expires_at: i64,
    /// The position again if the alert goes even when fetched, else 0.
    sticky: i64,
    /// What the app counts.
    confirm: Confirm,
}

impl Raise {
    /// The claim of an event; `None` if it wakes nobody.
    pub(super) fn of(app: AppId, confirm: Confirm, event: &Event) -> Option<Self> {
        let class = event.content.wake.class.class()?;
        let insists = event.content.wake.alert.as_ref().is_some_and(|alert| alert.cancel_on == CancelOn::Never);
        Some(Self {
            app,
            feed: event.content.feed.clone(),
            class,
            position: event.position.0,
            expires_at: event.expires_at().as_ms(),
            sticky: if insists { event.position.0 } else { 0 },
            confirm,
        })
    }
}

/// Apps that one look tries, should other processes be at all of the first.
const APPS_TRIED: i64 = 10;

/// Feeds of one transaction whose followers are asked for together; each may have a chunk of them.
const FEEDS_AT_ONCE: usize = 128;

/// How a fan-out goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// A chunk of this app's is done; there may be more.
    Chunk(AppId),
    /// Nothing is left.
    Idle,
}

fields! {
    /// A feed, and which of its followers are asked for: so many, behind one.
    struct Following {
        app: Word<AppId>,
        feed: Word<FeedName>,
        after: String,
        most: i64,
    }
}

row! {
    struct Follower {
        device: String,
        since: i64,
    }
}

static FOLLOWERS: LazyLock<Each> = LazyLock::new(|| {
    Each::reading(
        "select f.device_id, f.since
         {each lateral} (select device_id, since from follows
                         where app_id = {app} and feed = {feed} and device_id > {after}
                         order by device_id limit {most:int}) f
         order by f.device_id",
        "",
    )
});

fields! {
    /// A level that events want raised.
    struct Wanted {
        app: Arc<str>,
        device: String,
        class: Word<Class>,
    }
}

row! {
    /// How it is before.
    struct Before {
        transport: Word<Transport>,
        fetched: i64,
        acked: i64,
        head: Option<i64>,
        feed: Option<Word<FeedName>>,
        expires_at: Option<i64>,
    }
}

static BEFORE: LazyLock<Each> = LazyLock::new(|| {
    Each::reading(
        "select d.transport, d.fetched, d.acked, l.head, l.feed, l.expires_at
         {each} devices d
         left join levels l on l.app_id = d.app_id and l.device_id = d.id and l.class = {class}
         where d.app_id = {app} and d.id = {device}",
        "",
    )
});

fields! {
    /// What it is raised to.
    #[derive(Debug, Clone, PartialEq)]
    struct Raised {
        app: Arc<str>,
        device: String,
        class: Word<Class>,
        position: i64,
        sticky: i64,
        feed: Option<Word<FeedName>>,
        expires_at: i64,
        due_at: i64,
    }
}

// Makes due only where something new is; what waits for a reason that more news does not change goes on waiting. A chunk may come after
// newer events: it lowers no head, but brings its expiry and its insistence, which no grace holds up.
static RAISE: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "insert into levels (app_id, device_id, class, head, sticky_head, feed, expires_at, due_at)
         values ({app}, {device}, {class}, {position:int}, {sticky:int}, {feed}, {expires_at:int}, {due_at:int})
         on conflict (app_id, device_id, class) do update set
             head = case when excluded.head > levels.head then excluded.head else levels.head end,
             feed = case when excluded.head > levels.head or excluded.feed = levels.feed then excluded.feed end,
             expires_at = excluded.expires_at,
             sticky_head = case when excluded.sticky_head > levels.sticky_head then excluded.sticky_head
                                else levels.sticky_head end,
             due_at = case when levels.wake_id is not null or levels.due_at < excluded.due_at
                             or (levels.waits_for <> 'rewake'
                                 and (levels.waits_for <> 'online' or excluded.sticky_head <= levels.sticky_head))
                           then levels.due_at else excluded.due_at end
         where excluded.head > levels.head or excluded.sticky_head > levels.sticky_head
            or excluded.expires_at > levels.expires_at",
    )
});

impl Raised {
    /// The level of `wanted`, if the device has not come for the event already. What waits for it keeps its longer expiry, and shares its
    /// feed only if it is the same.
    fn by(raise: &Raise, wanted: &Wanted, before: &Before, now: Timestamp) -> Option<Self> {
        let reached = raise.confirm.reached(before.fetched, before.acked);
        if raise.position <= reached && raise.sticky == 0 {
            return None;
        }
        let waits = before.head.is_some_and(|head| head > reached);
        let is_alone = !waits || before.feed.as_ref().is_some_and(|feed| feed.0 == raise.feed);
        let longest_before = before.expires_at.filter(|_| waits).unwrap_or(raise.expires_at);
        Some(Self {
            app: Arc::clone(&wanted.app),
            device: wanted.device.clone(),
            class: wanted.class,
            position: raise.position,
            sticky: raise.sticky,
            feed: is_alone.then(|| Word(raise.feed.clone())),
            expires_at: raise.expires_at.max(longest_before),
            due_at: now.as_ms(),
        })
    }

    /// Several events for one device raise its level once.
    fn and(&mut self, other: Self) {
        self.position = self.position.max(other.position);
        self.sticky = self.sticky.max(other.sticky);
        self.feed = self.feed.take().filter(|feed| other.feed.as_ref() == Some(feed));
        self.expires_at = self.expires_at.max(other.expires_at);
    }
}

/// Raises the levels of followers, each for the events of its feed that came after it began to follow, and counts those.
async fn raise(
    tx: &mut Tx,
    heard: impl Iterator<Item = (&Raise, &Follower)>,
    now: Timestamp,
    accepted_at: Timestamp,
) -> Result<()> {
    let (mut names, mut places) = (HashMap::<AppId, Arc<str>>::new(), HashMap::new());
    let (mut wanted, mut heard_by) = (Vec::<Wanted>::new(), Vec::new());
    for (raise, follower) in heard.filter(|(raise, follower)| follower.since < raise.position) {
        let place = *places.entry((raise.app, follower.device.as_str(), raise.class)).or_insert_with(|| {
            let app = Arc::clone(names.entry(raise.app).or_insert_with(|| raise.app.to_string().into()));
            wanted.push(Wanted { app, device: follower.device.clone(), class: Word(raise.class) });
            wanted.len() - 1
        });
        heard_by.push((raise, place));
    }
    let before: Vec<Vec<Before>> = tx.fetch_each(&BEFORE, &wanted).await?;
    let (mut raised, mut tallies) = (HashMap::<usize, Raised>::new(), Tallies::default());
    for (raise, place) in heard_by {
        // The device may just have been erased.
        let (Some(wanted), Some(before)) = (wanted.get(place), before.get(place).and_then(|found| found.first()))
        else {
            continue;
        };
        tallies.count(raise.app, before.transport.0, raise.class, accepted_at, Tally::Events, 1);
        let Some(by_this) = Raised::by(raise, wanted, before, now) else { continue };
        match raised.entry(place) {
            Entry::Occupied(mut by_others) => by_others.get_mut().and(by_this),
            Entry::Vacant(nothing) => drop(nothing.insert(by_this)),
        }
    }
    // Always in the same order, so that two writers never wait for each other.
    let mut raised: Vec<Raised> = raised.into_values().collect();
    raised.sort_unstable_by(|a, b| (&a.app, &a.device, a.class.0).cmp(&(&b.app, &b.device, b.class.0)));
    tx.execute_each(&RAISE, &raised).await?;
    tallies.write(tx).await
}

/// Begins the fan-out of accepted events: at once where few follow, else by a row for the dispatcher. One transaction takes at most
/// one chunk of followers.
pub(super) async fn begin(tx: &mut Tx, raises: Vec<Raise>, chunk: u32, now: Timestamp) -> Result<()> {
    let (mut feeds, mut places) = (Vec::new(), HashMap::new());
    for by in &raises {
        places.entry((by.app, by.feed.as_str())).or_insert_with(|| {
            let (app, feed) = (Word(by.app), Word(by.feed.clone()));
            feeds.push(Following { app, feed, after: String::new(), most: i64::from(chunk) + 1 });
            feeds.len() - 1
        });
    }
    let mut followers: Vec<Vec<Follower>> = Vec::with_capacity(feeds.len());
    for feeds in feeds.chunks(FEEDS_AT_ONCE) {
        // Whose turn it is not any more are not read.
        if followers.iter().map(Vec::len).sum::<usize>() <= chunk as usize {
            followers.extend(tx.fetch_each(&FOLLOWERS, feeds).await?);
        }
    }
    let (mut heard, mut later, mut left) = (Vec::new(), Vec::new(), chunk as usize);
    for by in &raises {
        let place = places.get(&(by.app, by.feed.as_str()));
        match place.and_then(|place| followers.get(*place)) {
            Some(followers) if followers.len() <= left => {
                left -= followers.len();
                heard.extend(followers.iter().map(|follower| (by, follower)));
            }
            _ => later.push(by),
        }
    }
    raise(tx, heard.into_iter(), now, now).await?;
    if !later.is_empty() {
        let sql = "insert into fanouts (app_id, position, after_device)
                   select value->>'app', cast(value->>'position' as bigint), '' from jsonb_each($1)";
        tx.execute(sql, (rows(&later)?,)).await?;
    }
    Ok(())
}

impl Store {
    /// Works off one chunk of the oldest fan-out of the app that follows `last`, so that apps take turns. Each chunk is one transaction, so
    /// a crash resumes after the last; it takes `most` followers, or as few as the store's options say.
    pub async fn fan_out(&self, last: Option<AppId>, most: u32) -> Result<FanOut> {
        let chunk = i64::from(self.inner.options.fanout_chunk.min(most));
        let last = last.map(|app| app.to_string()).unwrap_or_default();
        let sql = "select app_id from fanouts group by app_id
                   order by case when app_id > $1 then 0 else 1 end, app_id limit $2";
        let waiting: Vec<(Word<AppId>,)> = self.db().peek_all(sql, (last, APPS_TRIED)).await?;
        for (app,) in waiting {
            if self.timed("fan_out", self.fan_out_of(app, chunk)).await? {
                self.ring();
                return Ok(FanOut::Chunk(app.0));
            }
        }
        Ok(FanOut::Idle)
    }

    /// Works off a chunk of an app's oldest fan-out that no other process is at; answers whether there was one.
    async fn fan_out_of(&self, app: Word<AppId>, chunk: i64) -> Result<bool> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin_unhurried().await?;
        // Until the transaction ends nobody leaves a feed of the app, so that no level is raised for who has just left.
        tx.lock("select id from apps where id = $1 for key share", (app,)).await?;
        let sql = locking!(
            "select o.position, o.after_device, e.feed, e.wake_class, e.accepted_at, e.expires_at, e.cancel_on, a.confirm
             from fanouts o join events e on e.app_id = o.app_id and e.position = o.position join apps a on a.id = o.app_id
             where o.app_id = $1 order by o.position limit 1",
            "for update of o skip locked"
        );
        type Oldest = (i64, String, Word<FeedName>, Word<Class>, i64, i64, String, Word<Confirm>);
        let Some(oldest) = tx.fetch_optional::<Oldest>(sql, (app,)).await? else {
            return Ok(false);
        };
        let (position, after, feed, class, accepted_at, expires_at, cancel_on, confirm) = oldest;
        let following = Following { app, feed: feed.clone(), after, most: chunk };
        let followers: Vec<Follower> = tx.fetch_each(&FOLLOWERS, &[following]).await?.into_iter().flatten().collect();
        let sticky = if cancel_on == "never" { position } else { 0 };
        let by = Raise { app: app.0, feed: feed.0, class: class.0, position, expires_at, sticky, confirm: confirm.0 };
        let heard = followers.iter().map(|follower| (&by, follower));
        raise(&mut tx, heard, now, Timestamp::from_ms(accepted_at)).await?;
        match followers.last() {
            Some(last) if followers.len() as i64 == chunk => {
                let sql = "update fanouts set after_device = $3 where app_id = $1 and position = $2";
                tx.execute(sql, (app, position, last.device.clone())).await?;
            }
            _ => {
                let sql = "delete from fanouts where app_id = $1 and position = $2";
                tx.execute(sql, (app, position)).await?;
            }
        }
        tx.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::id;

    const NOW: Timestamp = Timestamp::from_ms(1_000);

    fn wanted() -> Wanted {
        Wanted { app: "app".into(), device: "device".to_owned(), class: Word(Class::Background) }
    }

    fn event(position: i64, feed: &str, expires_at: i64, sticky: bool) -> Raise {
        let (app, feed) = (id::new(NOW), FeedName::parse(feed).unwrap());
        let sticky = if sticky { position } else { 0 };
        Raise { app, feed, class: Class::Background, position, expires_at, sticky, confirm: Confirm::Fetch }
    }

    fn before(fetched: i64, level: Option<(i64, &str, i64)>) -> Before {
        let (head, feed, expires_at) = level.map_or((None, None, None), |(head, feed, expires_at)| {
            (Some(head), Some(Word(FeedName::parse(feed).unwrap())), Some(expires_at))
        });
        Before { transport: Word(Transport::Fcm), fetched, acked: 0, head, feed, expires_at }
    }

    #[test]
    fn what_waits_keeps_its_longer_expiry_and_shares_its_feed_only_if_it_is_the_same() {
        let raised = |before: Before| {
            let raised = Raised::by(&event(7, "news", 50, false), &wanted(), &before, NOW)?;
            Some((raised.feed.map(|feed| feed.0.to_string()), raised.expires_at))
        };
        let news = || Some("news".to_owned());
        assert_eq!(raised(before(0, None)), Some((news(), 50)));
        assert_eq!(raised(before(5, Some((5, "sport", 90)))), Some((news(), 50)), "it has come for that");
        assert_eq!(raised(before(4, Some((5, "sport", 90)))), Some((None, 90)));
        assert_eq!(raised(before(4, Some((5, "news", 20)))), Some((news(), 50)));
        assert_eq!(raised(before(7, None)), None, "it has come for this one too");
        let insists = Raised::by(&event(7, "news", 50, true), &wanted(), &before(7, None), NOW).unwrap();
        assert_eq!((insists.position, insists.sticky), (7, 7));
    }

    proptest! {
        #[test]
        fn in_which_order_several_events_come_makes_no_difference(
            events in prop::collection::vec((1..9_i64, "[ab]", 1..9_i64, any::<bool>()), 1..5),
            level in prop::option::of((1..9_i64, "[ab]", 1..9_i64)),
            fetched in 0..9_i64,
        ) {
            let before = before(fetched, level.as_ref().map(|(head, feed, at)| (*head, feed.as_str(), *at)));
            let merged = |events: &mut dyn Iterator<Item = &(i64, String, i64, bool)>| {
                let each = events.filter_map(|(position, feed, expires_at, sticky)| {
                    Raised::by(&event(*position, feed, *expires_at, *sticky), &wanted(), &before, NOW)
                });
                each.reduce(|mut first, other| {
                    first.and(other);
                    first
                })
            };
            prop_assert_eq!(merged(&mut events.iter()), merged(&mut events.iter().rev()));
        }
    }
}
