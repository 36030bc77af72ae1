//! Who polls: a device as its polls need it, and what is remembered of it, so that a poll that brings nothing costs no statement.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Result, Store,
    db::{Mark, Marks, Word, row},
    devices::Device,
};
use crate::{
    domain::{
        device::DeviceStatus,
        feed::{FeedName, Position},
        id::{AppId, DeviceId},
        settings::Settings,
        time::Timestamp,
    },
    secret,
};

/// Devices that are remembered, in shards; one that is full forgets all of its own. A device takes some 200 bytes.
const SHARDS: usize = 64;
const SHARD: usize = 1_600;
/// A device that follows more feeds is read anew each time.
const FEEDS: usize = 16;

/// A device that polls.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the words of contract §5, Devices")]
pub struct Poller {
    pub app: AppId,
    pub device: DeviceId,
    pub status: DeviceStatus,
    pub fetched: Position,
    pub acked: Position,
    /// Heads in a row that were told and not fetched in time.
    pub missed: u32,
    pub seen_at: Timestamp,
    /// Of its app.
    pub settings: Arc<Settings>,
    /// What it follows, if that is as it was when it was last read.
    pub known: Option<Known>,
    token: Option<Token>,
}

/// What a device follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Changes with the follows and the newest position in them.
    pub state: u64,
    /// Nothing that it follows is above this.
    pub newest: Position,
}

/// How it has proved who it is.
#[derive(Debug, Clone)]
struct Token {
    key: u128,
    ends_at: Option<Timestamp>,
    /// What has been read knows of every commit up to this one.
    as_of: u64,
}

/// Devices by their tokens, and what they follow, as far as nothing about either has changed.
#[derive(Debug)]
pub(super) struct Memory {
    marks: Marks,
    shards: Vec<Mutex<HashMap<u128, Remembered>>>,
}

#[derive(Debug)]
struct Remembered {
    app: AppId,
    device: DeviceId,
    fetched: Position,
    acked: Position,
    missed: u32,
    seen_at: Timestamp,
    settings: Arc<Settings>,
    known: Known,
    ends_at: Option<Timestamp>,
    as_of: u64,
    /// Of its app and of itself.
    own: [Mark; 2],
    /// Of what it follows.
    feeds: Box<[Mark]>,
}

row! {
    struct PollerRow {
        used_at: Option<i64>,
        issued_at: i64,
        ends_at: Option<i64>,
        app: Word<AppId>,
        device: Word<DeviceId>,
        status: Word<DeviceStatus>,
        fetched: i64,
        acked: i64,
        missed: i64,
        seen_at: i64,
        overrides: String,
    }
}

impl Poller {
    /// A device that has been read already.
    pub fn of(device: &Device, settings: Arc<Settings>) -> Self {
        Self {
            app: device.app,
            device: device.id,
            status: device.status,
            fetched: device.fetched,
            acked: device.acked,
            missed: device.missed,
            seen_at: device.seen_at,
            settings,
            known: None,
            token: None,
        }
    }
}

impl Memory {
    pub fn new(marks: Marks) -> Self {
        Self { marks, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, key: u128) -> Option<std::sync::MutexGuard<'_, HashMap<u128, Remembered>>> {
        let shard = self.shards.get((key % SHARDS as u128) as usize)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn recall(&self, key: u128, now: Timestamp) -> Option<Poller> {
        let as_of = self.marks.now();
        let shard = self.shard(key)?;
        let found = shard.get(&key)?;
        if found.ends_at.is_some_and(|at| at <= now) || !self.marks.hold(&found.own, found.as_of) {
            return None;
        }
        Some(Poller {
            app: found.app,
            device: found.device,
            status: DeviceStatus::Active,
            fetched: found.fetched,
            acked: found.acked,
            missed: found.missed,
            seen_at: found.seen_at,
            settings: Arc::clone(&found.settings),
            known: self.marks.hold(&found.feeds, found.as_of).then_some(found.known),
            token: Some(Token { key, ends_at: found.ends_at, as_of }),
        })
    }
}

impl Store {
    /// Whose device token this is; `None` if nobody's, or it has ended. The first use of a token begins the end of older ones.
    pub async fn poller(&self, secret: &str) -> Result<Option<Poller>> {
        self.poller_of(&secret::hash(secret)).await
    }

    /// The same for a token that is known by its hash only.
    pub async fn poller_of(&self, hash: &str) -> Result<Option<Poller>> {
        let (now, key) = (self.inner.clock.now(), secret::start_of(hash));
        if let Some(poller) = self.inner.memory.as_ref().and_then(|memory| memory.recall(key, now)) {
            return Ok(Some(poller));
        }
        // Aside, so that who is known need not carry what asking takes.
        Box::pin(self.read_poller(hash, key, now)).await
    }

    async fn read_poller(&self, hash: &str, key: u128, now: Timestamp) -> Result<Option<Poller>> {
        let memory = self.inner.memory.as_ref();
        let as_of = memory.map_or(0, |memory| memory.marks.now());
        let sql = "select t.used_at, t.created_at, t.expires_at, d.app_id, d.id, d.status, d.fetched, d.acked, d.missed, d.seen_at,
                       a.overrides
                   from device_tokens t
                   join devices d on d.app_id = t.app_id and d.id = t.device_id
                   join apps a on a.id = t.app_id
                   where t.secret_hash = $1 and a.deleted_at is null and (t.expires_at is null or t.expires_at > $2)";
        // What a poll is answered with is read or written after this.
        let found: Option<PollerRow> = self.db().peek_optional(sql, (hash.to_owned(), now.as_ms())).await?;
        let Some(row) = found else {
            self.db().until_on_disk().await?;
            return Ok(None);
        };
        let (app, device) = (row.app.0, row.device.0);
        if row.used_at.is_none() {
            self.first_use(app, device, hash, row.issued_at, now).await?;
        }
        Ok(Some(Poller {
            app,
            device,
            status: row.status.0,
            fetched: Position(row.fetched),
            acked: Position(row.acked),
            missed: u32::try_from(row.missed).unwrap_or(u32::MAX),
            seen_at: Timestamp::from_ms(row.seen_at),
            settings: self.inner.settings.get(app, &row.overrides),
            known: None,
            token: Some(Token { key, ends_at: row.ends_at.map(Timestamp::from_ms), as_of }),
        }))
    }

    /// Keeps in mind what has been read for a poller.
    pub(super) fn remember<'f>(
        &self,
        poller: &Poller,
        known: Known,
        feeds: impl ExactSizeIterator<Item = &'f FeedName>,
    ) {
        let (Some(memory), Some(token)) = (&self.inner.memory, &poller.token) else {
            return;
        };
        if poller.status != DeviceStatus::Active || feeds.len() > FEEDS || poller.known == Some(known) {
            return;
        }
        let (app, device) = (poller.app.to_string(), poller.device.to_string());
        let own = [Mark::of_app(&app), Mark::of_device(&app, &device)];
        let feeds = feeds.map(|feed| Mark::of_feed(&app, feed.as_str())).collect();
        let remembered = Remembered {
            app: poller.app,
            device: poller.device,
            fetched: poller.fetched,
            acked: poller.acked,
            missed: poller.missed,
            seen_at: poller.seen_at,
            settings: Arc::clone(&poller.settings),
            known,
            ends_at: token.ends_at,
            as_of: token.as_of,
            own,
            feeds,
        };
        if let Some(mut shard) = memory.shard(token.key) {
            if shard.len() >= SHARD {
                shard.clear();
            }
            shard.insert(token.key, remembered);
        }
    }
}
