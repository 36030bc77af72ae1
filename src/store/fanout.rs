//! Fan-out: an event raises the levels of its feed's followers; a feed with many is worked off in chunks that can be resumed.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    Result, Store,
    db::{Tx, Word, locking, rows},
    levels::reached,
    tallies::Tallies,
};
use crate::domain::{
    device::Transport,
    event::{CancelOn, Class, Event},
    feed::FeedName,
    id::AppId,
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
}

impl Raise {
    /// The claim of an event; `None` if it wakes nobody.
    pub(super) fn of(app: AppId, event: &Event) -> Option<Self> {
        let class = event.content.wake.class.class()?;
        let insists = event.content.wake.alert.as_ref().is_some_and(|alert| alert.cancel_on == CancelOn::Never);
        Some(Self {
            app,
            feed: event.content.feed.clone(),
            class,
            position: event.position.0,
            expires_at: event.expires_at().as_ms(),
            sticky: if insists { event.position.0 } else { 0 },
        })
    }
}

/// Apps that one look tries, should other processes be at all of the first.
const APPS_TRIED: i64 = 10;

/// How a fan-out goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// A chunk of this app's is done; there may be more.
    Chunk(AppId),
    /// Nothing is left.
    Idle,
}

/// Raises the levels of followers, from a set of raises and of followers. Makes due only where something new is; what waits for a
/// reason that more news does not change goes on waiting.
///
/// Several events for one device become one row; what waited before keeps its longer expiry, and shares its feed only if it is the same.
/// A chunk may come after newer events: it lowers no head, but brings its expiry and its insistence.
macro_rules! raise_levels {
    ($followers:literal) => {
        raise_levels!(
            "select app_id, device_id, class, max(position), max(sticky),
                 case when count(distinct feed) = 1 and (max(waited) = 0 or max(feed) = max(feed_before)) then max(feed) end,
                 case when max(waited) = 1 and max(expires_before) > max(expires_at) then max(expires_before)
                      else max(expires_at) end"
            $followers
            "group by app_id, device_id, class order by app_id, device_id, class"
        )
    };
    // With one raise no device has two of them, and they come in the order of its followers.
    (one $followers:literal) => {
        raise_levels!(
            "select app_id, device_id, class, position, sticky, case when waited = 0 or feed = feed_before then feed end,
                 case when waited = 1 and expires_before > expires_at then expires_before else expires_at end"
            $followers
            "order by device_id"
        )
    };
    ($select:literal $followers:literal $order:literal) => {
        concat!(
            "insert into levels (app_id, device_id, class, head, sticky_head, feed, expires_at, due_at) ",
            $select, ", $2
             from (
                 select f.app_id, f.device_id, r.value->>'class' as class, r.value->>'feed' as feed,
                     cast(r.value->>'position' as bigint) as position, cast(r.value->>'sticky' as bigint) as sticky,
                     cast(r.value->>'expires_at' as bigint) as expires_at, l.feed as feed_before,
                     l.expires_at as expires_before,
                     case when l.head > ", reached!(), " then 1 else 0 end as waited
                 from jsonb_each($1) r
                 cross join follows f
                 join devices d on d.app_id = f.app_id and d.id = f.device_id
                 join apps a on a.id = f.app_id
                 left join levels l on l.app_id = f.app_id and l.device_id = f.device_id and l.class = r.value->>'class'
                 where f.app_id = r.value->>'app' and f.feed = r.value->>'feed'
                   and f.since < cast(r.value->>'position' as bigint) ", $followers, "
                   and (cast(r.value->>'position' as bigint) > ", reached!(), "
                        or cast(r.value->>'sticky' as bigint) > 0)
             ) as raised
             where true ", $order, "
             on conflict (app_id, device_id, class) do update set
                 head = case when excluded.head > levels.head then excluded.head else levels.head end,
                 feed = case when excluded.head > levels.head or excluded.feed = levels.feed then excluded.feed end,
                 expires_at = excluded.expires_at,
                 sticky_head = case when excluded.sticky_head > levels.sticky_head then excluded.sticky_head
                                    else levels.sticky_head end,
                 due_at = case when levels.wake_id is not null or levels.waits_for <> 'rewake' or levels.due_at < excluded.due_at
                               then levels.due_at else excluded.due_at end
             where excluded.head > levels.head or excluded.sticky_head > levels.sticky_head
                or excluded.expires_at > levels.expires_at"
        )
    };
}

/// Events that want devices awake, once per follower.
macro_rules! count_events {
    ($followers:literal) => {
        concat!(
            "select f.app_id, d.transport, r.value->>'class', count(*)
             from jsonb_each($1) r
             cross join follows f
             join devices d on d.app_id = f.app_id and d.id = f.device_id
             where f.app_id = r.value->>'app' and f.feed = r.value->>'feed'
               and f.since < cast(r.value->>'position' as bigint) ",
            $followers,
            "group by f.app_id, d.transport, r.value->>'class'"
        )
    };
}

/// What [`count_events!`] finds.
type Counted = (Word<AppId>, Word<Transport>, Word<Class>, i64);

/// Adds counted events to those of the quarter in which they were accepted.
async fn tally(tx: &mut Tx, counted: Vec<Counted>, accepted_at: Timestamp) -> Result<()> {
    let mut tallies = Tallies::default();
    for (app, transport, class, n) in counted {
        tallies.count(app.0, transport.0, class.0, accepted_at, Tally::Events, n);
    }
    tallies.write(tx).await
}

/// Begins the fan-out of accepted events: at once where few follow, else by a row for the dispatcher. One transaction takes at most
/// one chunk of followers.
pub(super) async fn begin(tx: &mut Tx, raises: Vec<Raise>, chunk: u32, now: Timestamp) -> Result<()> {
    #[derive(Serialize, PartialEq, Eq, Hash, Clone)]
    struct Feed {
        app: AppId,
        feed: FeedName,
    }
    if raises.is_empty() {
        return Ok(());
    }
    let feed_of = |raise: &Raise| Feed { app: raise.app, feed: raise.feed.clone() };
    let mut feeds: Vec<Feed> = raises.iter().map(feed_of).collect();
    feeds.sort_by(|a, b| a.feed.cmp(&b.feed).then(a.app.uuid().cmp(&b.app.uuid())));
    feeds.dedup();
    let sql = "select r.value->>'app', r.value->>'feed',
                   (select count(*) from (select 1 from follows f where f.app_id = r.value->>'app' and f.feed = r.value->>'feed'
                                          limit $2) as counted)
               from jsonb_each($1) r";
    let counts: Vec<(Word<AppId>, Word<FeedName>, i64)> =
        tx.fetch_all(sql, (rows(&feeds)?, i64::from(chunk) + 1)).await?;
    let followers: HashMap<Feed, i64> =
        counts.into_iter().map(|(app, feed, count)| (Feed { app: app.0, feed: feed.0 }, count)).collect();
    let (mut at_once, mut later, mut left) = (Vec::new(), Vec::new(), i64::from(chunk));
    for raise in raises {
        let count = followers.get(&feed_of(&raise)).copied().unwrap_or(0);
        if count <= left {
            left -= count;
            at_once.push(raise);
        } else {
            later.push(raise);
        }
    }
    if !at_once.is_empty() {
        let at_once = rows(&at_once)?;
        tx.execute(raise_levels!(""), (at_once.clone(), now.as_ms())).await?;
        let counted: Vec<Counted> = tx.fetch_all(count_events!(""), (at_once,)).await?;
        tally(tx, counted, now).await?;
    }
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
            if self.fan_out_of(app, chunk).await? {
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
            "select o.position, o.after_device, e.feed, e.wake_class, e.accepted_at, e.expires_at, e.cancel_on
             from fanouts o join events e on e.app_id = o.app_id and e.position = o.position
             where o.app_id = $1 order by o.position limit 1",
            "for update of o skip locked"
        );
        type Oldest = (i64, String, Word<FeedName>, Word<Class>, i64, i64, String);
        let Some(oldest) = tx.fetch_optional::<Oldest>(sql, (app,)).await? else {
            return Ok(false);
        };
        let (position, after, feed, class, accepted_at, expires_at, cancel_on) = oldest;
        let sql = "select max(device_id), count(*) from (
                     select device_id from follows where app_id = $1 and feed = $2 and device_id > $3
                     order by device_id limit $4) as chunk";
        let (last, count): (Option<String>, i64) = tx.fetch_one(sql, (app, feed.clone(), after.clone(), chunk)).await?;
        if let Some(last) = &last {
            let sticky = if cancel_on == "never" { position } else { 0 };
            let raise = Raise { app: app.0, feed: feed.0, class: class.0, position, expires_at, sticky };
            let raise = rows(&[raise])?;
            let sql = raise_levels!(one "and f.device_id > $3 and f.device_id <= $4");
            tx.execute(sql, (raise.clone(), now.as_ms(), after.clone(), last.clone())).await?;
            let sql = count_events!("and f.device_id > $2 and f.device_id <= $3 ");
            let counted: Vec<Counted> = tx.fetch_all(sql, (raise, after, last.clone())).await?;
            tally(&mut tx, counted, Timestamp::from_ms(accepted_at)).await?;
        }
        if count < chunk {
            tx.execute("delete from fanouts where app_id = $1 and position = $2", (app, position)).await?;
        } else {
            let sql = "update fanouts set after_device = $3 where app_id = $1 and position = $2";
            tx.execute(sql, (app, position, last)).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}
