//! Who follows which feed, since when, and what that does to a device's levels (contract §3, Follow).

use serde::Serialize;

use super::{
    Result, Store,
    db::{Tx, Word, locking, retry, rows},
    devices::{self, Device},
    levels::{self, close_wake, reached},
    live,
};
use crate::domain::{
    device::followable,
    feed::{FeedKind, FeedName, Position},
    id::{AppId, DeviceId},
    limits,
    time::Timestamp,
};

/// For how long a phone is woken to look at a feed it has come to follow: as long as for an event that does not say.
const FOLLOW_TTL_MS: i64 = 86_400_000;

/// What came of following or leaving a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is so now.
    Done,
    /// The device follows as many feeds as it may.
    TooMany,
    /// There is no such device.
    NoDevice,
}

impl Store {
    /// Lets a device follow a feed; following twice changes nothing.
    pub async fn follow(&self, app: AppId, device: DeviceId, feed: &FeedName) -> Result<Follow> {
        retry(|| self.try_follow(app, device, feed)).await
    }

    async fn try_follow(&self, app: AppId, device: DeviceId, feed: &FeedName) -> Result<Follow> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        counter(&mut tx, app).await?;
        levels::hold(&mut tx, [(app, device)]).await?;
        let Some(device) = devices::find(&mut tx, app, device).await? else {
            tx.leave().await?;
            return Ok(Follow::NoDevice);
        };
        let present = feeds_of(&mut tx, app, device.id).await?;
        if present.contains(feed) {
            tx.leave().await?;
            return Ok(Follow::Done);
        }
        if present.iter().filter(|feed| followable(feed.as_str()).is_ok()).count() >= limits::EXPLICIT_FEEDS {
            tx.leave().await?;
            return Ok(Follow::TooMany);
        }
        let position = add(&mut tx, &device, std::slice::from_ref(feed)).await?;
        raise_for_follow(&mut tx, &device, position, Some(feed), now).await?;
        live::device_changed(&mut tx, app, device.id, now).await?;
        tx.commit().await?;
        self.ring();
        Ok(Follow::Done)
    }

    /// Lets a device leave a feed, with all that waits for it there.
    pub async fn unfollow(&self, app: AppId, device: DeviceId, feed: &FeedName) -> Result<Follow> {
        retry(|| self.try_unfollow(app, device, feed)).await
    }

    async fn try_unfollow(&self, app: AppId, device: DeviceId, feed: &FeedName) -> Result<Follow> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        counter(&mut tx, app).await?;
        levels::hold(&mut tx, [(app, device)]).await?;
        let Some(device) = devices::find(&mut tx, app, device).await? else {
            tx.leave().await?;
            return Ok(Follow::NoDevice);
        };
        if !feeds_of(&mut tx, app, device.id).await?.contains(feed) {
            tx.leave().await?;
            return Ok(Follow::Done);
        }
        remove(&mut tx, app, &[Word(device.id)], std::slice::from_ref(feed), now).await?;
        live::device_changed(&mut tx, app, device.id, now).await?;
        tx.commit().await?;
        self.ring();
        Ok(Follow::Done)
    }

    /// The feeds a device follows.
    pub async fn feeds_of(&self, app: AppId, device: DeviceId) -> Result<Vec<FeedName>> {
        self.db().read(async |tx| feeds_of(tx, app, device).await).await
    }
}

/// The app's counter, to be held until the end of the transaction; `None` if the app is gone.
pub(super) async fn counter(tx: &mut Tx, app: AppId) -> Result<Option<Position>> {
    let sql = locking!("select head from apps where id = $1 and deleted_at is null", "for update");
    Ok(tx.fetch_optional::<(i64,)>(sql, (Word(app),)).await?.map(|(head,)| Position(head)))
}

/// The feeds a device follows, in the order it came to follow them: its own last.
pub(super) async fn feeds_of(tx: &mut Tx, app: AppId, device: DeviceId) -> Result<Vec<FeedName>> {
    let sql = "select feed from follows where app_id = $1 and device_id = $2 order by since";
    let mut feeds: Vec<FeedName> = tx
        .fetch_all::<(Word<FeedName>,)>(sql, (Word(app), Word(device)))
        .await?
        .into_iter()
        .map(|(feed,)| feed.0)
        .collect();
    feeds.sort_by_key(|feed| match feed.kind() {
        FeedKind::Own if feed.as_str().starts_with("device:") => 2,
        FeedKind::Own => 1,
        FeedKind::Plain | FeedKind::Relay => 0,
    });
    Ok(feeds)
}

/// Follows feeds, each at a position of its own; answers the counter.
pub(super) async fn add(tx: &mut Tx, device: &Device, feeds: &[FeedName]) -> Result<Position> {
    #[derive(Serialize)]
    struct New<'a> {
        feed: &'a FeedName,
        since: i64,
    }
    let sql = "update apps set head = head + $2 where id = $1 returning head";
    let (counter,): (i64,) = tx.fetch_one(sql, (Word(device.app), feeds.len() as i64)).await?;
    let first = counter - feeds.len() as i64 + 1;
    let new: Vec<_> = feeds.iter().zip(first..).map(|(feed, since)| New { feed, since }).collect();
    let sql = "insert into follows (app_id, device_id, feed, since)
               select $1, $2, value->>'feed', cast(value->>'since' as bigint) from jsonb_each($3) where true
               on conflict (app_id, device_id, feed) do nothing";
    tx.execute(sql, (Word(device.app), Word(device.id), rows(&new)?)).await?;
    Ok(Position(counter))
}

/// Lets devices leave feeds and takes what waits there out of their levels.
pub(super) async fn remove(
    tx: &mut Tx,
    app: AppId,
    devices: &[Word<DeviceId>],
    feeds: &[FeedName],
    now: Timestamp,
) -> Result<()> {
    if feeds.is_empty() {
        return Ok(());
    }
    let sql = "delete from follows where app_id = $1 and device_id in (select atom from jsonb_each($2))
                 and feed in (select atom from jsonb_each($3))";
    if tx.execute(sql, (Word(app), rows(devices)?, rows(feeds)?)).await? == 0 {
        return Ok(());
    }
    find_levels_anew(tx, app, devices, feeds, now).await
}

/// What still wants devices awake is found anew from the feeds they follow, for something in `feeds` does no more. A call under way keeps
/// its lease.
pub(super) async fn find_levels_anew(
    tx: &mut Tx,
    app: AppId,
    devices: &[Word<DeviceId>],
    feeds: &[FeedName],
    now: Timestamp,
) -> Result<()> {
    let (app, devices, feeds) = (Word(app), rows(devices)?, rows(feeds)?);
    let sql = concat!(
        "update levels set
            head = coalesce((
                select max(position) from (
                    select max(e.position) as position
                    from follows f join events e on e.app_id = f.app_id and e.feed = f.feed
                    where f.app_id = levels.app_id and f.device_id = levels.device_id and e.position > f.since
                      and e.wake_class = levels.class and e.position <= levels.head
                      and (e.position > ",
        reached!("levels"),
        " or (e.cancel_on = 'never' and e.position > levels.told))
                    union all
                    select max(f.since) from follows f
                    where f.app_id = levels.app_id and f.device_id = levels.device_id and levels.class = 'background'
                      and f.since <= levels.head and f.since > ",
        reached!("levels"),
        "
                ) as wanted
            ), 0),
            sticky_head = coalesce((
                select max(e.position) from follows f join events e on e.app_id = f.app_id and e.feed = f.feed
                where f.app_id = levels.app_id and f.device_id = levels.device_id and e.position > f.since
                  and e.wake_class = levels.class and e.cancel_on = 'never'
                  and e.position > levels.told and e.position <= levels.sticky_head
            ), 0),
            feed = case when levels.feed in (select atom from jsonb_each($3)) then null else levels.feed end
         where app_id = $1 and device_id in (select atom from jsonb_each($2))"
    );
    tx.execute(sql, (app, devices.clone(), feeds.clone())).await?;
    // An open wake about a feed that was left makes room; one that nothing is left for ends.
    let sql = concat!(
        "update levels set due_at = $4, ",
        close_wake!(),
        " where app_id = $1 and device_id in (select atom from jsonb_each($2)) and lease is null and wake_id is not null
            and wake_feed in (select atom from jsonb_each($3))"
    );
    tx.execute(sql, (app, devices.clone(), feeds, now.as_ms())).await?;
    let sql = concat!(
        "update levels set due_at = null, ",
        close_wake!(),
        " where app_id = $1 and device_id in (select atom from jsonb_each($2)) and lease is null
           and sticky_head <= told and head <= ",
        reached!("levels"),
        ""
    );
    tx.execute(sql, (app, devices)).await?;
    Ok(())
}

/// A follow made after registration: the phone is to come and look.
pub(super) async fn raise_for_follow(
    tx: &mut Tx,
    device: &Device,
    position: Position,
    feed: Option<&FeedName>,
    now: Timestamp,
) -> Result<()> {
    let sql = concat!(
        "insert into levels (app_id, device_id, class, head, sticky_head, feed, expires_at, due_at)
         values ($1, $2, 'background', $3, 0, $4, $5, $6)
         on conflict (app_id, device_id, class) do update set
            head = excluded.head,
            feed = case when levels.head > ",
        reached!("levels"),
        " and levels.feed is distinct from excluded.feed
                   then null else excluded.feed end,
            expires_at = case when levels.head > ",
        reached!("levels"),
        " and levels.expires_at > excluded.expires_at
                   then levels.expires_at else excluded.expires_at end,
            due_at = case when levels.wake_id is not null or levels.waits_for <> 'rewake' or levels.due_at < excluded.due_at
                          then levels.due_at else excluded.due_at end
         where excluded.head > levels.head"
    );
    let feed = feed.map(|feed| Word(feed.clone()));
    let values = (Word(device.app), Word(device.id), position.0, feed, now.as_ms() + FOLLOW_TTL_MS, now.as_ms());
    tx.execute(sql, values).await?;
    Ok(())
}

/// All levels at the present, all open wakes ended: for a changed user.
pub(super) async fn set_levels_to(tx: &mut Tx, device: &Device, present: Position) -> Result<()> {
    // The budget stays: it is about the phone, whoever holds it.
    let sql = concat!(
        "update levels set head = $3, sticky_head = 0, told = $3, told_expires_at = 0, due_at = null, wakes_unfetched = 0,
             rewakes = 0, heads_unfetched = '[]', ",
        close_wake!(),
        " where app_id = $1 and device_id = $2"
    );
    tx.execute(sql, (Word(device.app), Word(device.id), present.0)).await?;
    Ok(())
}
