//! Fan-out: an event raises the levels of its feed's followers; a feed with many is worked off in chunks that can be resumed.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    Result, Store,
    db::{Tx, Word, rows},
};
use crate::domain::{
    event::{CancelOn, Class, Event},
    feed::FeedName,
    id::AppId,
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

/// How a fan-out goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FanOut {
    /// A chunk is done; there may be more.
    Chunk,
    /// Nothing is left.
    Idle,
}

/// Raises the levels of followers, from a set of raises and of followers. Makes due only where something new is.
///
/// Several events for one device become one row; what waited before keeps its longer expiry, and shares its feed only if it is the same.
/// A chunk may come after newer events: it lowers no head, but brings its expiry and its insistence.
macro_rules! raise_levels {
    ($followers:literal) => {
        concat!(
            "insert into levels (app_id, device_id, class, head, sticky_head, feed, expires_at, due_at)
             select app_id, device_id, class, max(position), max(sticky),
                 case when count(distinct feed) = 1 and (max(waited) = 0 or max(feed) = max(feed_before)) then max(feed) end,
                 case when max(waited) = 1 and max(expires_before) > max(expires_at) then max(expires_before)
                      else max(expires_at) end,
                 $2
             from (
                 select f.app_id, f.device_id, r.value->>'class' as class, r.value->>'feed' as feed,
                     cast(r.value->>'position' as bigint) as position, cast(r.value->>'sticky' as bigint) as sticky,
                     cast(r.value->>'expires_at' as bigint) as expires_at, l.feed as feed_before,
                     l.expires_at as expires_before,
                     case when l.head > case a.confirm when 'ack' then d.acked else d.fetched end then 1 else 0 end as waited
                 from json_each($1) r
                 cross join follows f
                 join devices d on d.app_id = f.app_id and d.id = f.device_id
                 join apps a on a.id = f.app_id
                 left join levels l on l.app_id = f.app_id and l.device_id = f.device_id and l.class = r.value->>'class'
                 where f.app_id = r.value->>'app' and f.feed = r.value->>'feed'
                   and f.since < cast(r.value->>'position' as bigint) ", $followers, "
                   and (cast(r.value->>'position' as bigint) > case a.confirm when 'ack' then d.acked else d.fetched end
                        or cast(r.value->>'sticky' as bigint) > 0)
             ) as raised
             where true group by app_id, device_id, class
             on conflict (app_id, device_id, class) do update set
                 head = case when excluded.head > levels.head then excluded.head else levels.head end,
                 feed = case when excluded.head > levels.head or excluded.feed = levels.feed then excluded.feed end,
                 expires_at = excluded.expires_at,
                 sticky_head = case when excluded.sticky_head > levels.sticky_head then excluded.sticky_head
                                    else levels.sticky_head end,
                 due_at = case when levels.wake_id is null then excluded.due_at else levels.due_at end
             where excluded.head > levels.head or excluded.sticky_head > levels.sticky_head
                or excluded.expires_at > levels.expires_at"
        )
    };
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
                                          limit $2))
               from json_each($1) r";
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
    tx.execute(raise_levels!(""), (rows(&at_once)?, now.as_ms())).await?;
    if !later.is_empty() {
        let sql = "insert into fanouts (app_id, position, after_device)
                   select value->>'app', cast(value->>'position' as bigint), '' from json_each($1)";
        tx.execute(sql, (rows(&later)?,)).await?;
    }
    Ok(())
}

impl Store {
    /// Works off one chunk of the fan-out that has waited longest. Each chunk is one transaction, so a crash resumes after the last.
    pub async fn fan_out(&self) -> Result<FanOut> {
        let (now, chunk) = (self.inner.clock.now(), i64::from(self.inner.options.fanout_chunk));
        let waiting = "select app_id from fanouts limit 1";
        if self.db().fetch_all::<(String,)>(waiting, ()).await?.is_empty() {
            return Ok(FanOut::Idle);
        }
        let mut tx = self.db().begin().await?;
        type Row = (Word<AppId>, i64, String, Word<FeedName>, Word<Class>, i64, String);
        let sql = "select o.app_id, o.position, o.after_device, e.feed, e.wake_class, e.expires_at, e.cancel_on
                   from fanouts o join events e on e.app_id = o.app_id and e.position = o.position
                   order by e.accepted_at, o.position limit 1";
        let Some((app, position, after, feed, class, expires_at, cancel_on)) =
            tx.fetch_optional::<Row>(sql, ()).await?
        else {
            return Ok(FanOut::Idle);
        };
        let sql = "select max(device_id), count(*) from (
                     select device_id from follows where app_id = $1 and feed = $2 and device_id > $3
                     order by device_id limit $4) as chunk";
        let (last, count): (Option<String>, i64) = tx.fetch_one(sql, (app, feed.clone(), after.clone(), chunk)).await?;
        if let Some(last) = &last {
            let sticky = if cancel_on == "never" { position } else { 0 };
            let raise = Raise { app: app.0, feed: feed.0, class: class.0, position, expires_at, sticky };
            let sql = raise_levels!("and f.device_id > $3 and f.device_id <= $4");
            tx.execute(sql, (rows(&[raise])?, now.as_ms(), after, last.clone())).await?;
        }
        if count < chunk {
            tx.execute("delete from fanouts where app_id = $1 and position = $2", (app, position)).await?;
        } else {
            let sql = "update fanouts set after_device = $3 where app_id = $1 and position = $2";
            tx.execute(sql, (app, position, last)).await?;
        }
        tx.commit().await?;
        Ok(FanOut::Chunk)
    }
}
