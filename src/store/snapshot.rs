//! Snapshots: the newest event per key, for who has no cursor or an expired one.

use serde_json::value::RawValue;

use super::{Error, Result, Store, db::Word};
use crate::domain::{
    feed::{FeedName, Position},
    id::{AppId, DeviceId},
    limits,
};

/// The state of one key.
#[derive(Debug, Clone)]
pub struct SnapshotItem {
    /// The feed.
    pub feed: FeedName,
    /// The key.
    pub key: String,
    /// Of the newest event.
    pub position: Position,
    /// Its type.
    pub kind: String,
    /// Its data.
    pub data: Option<Box<RawValue>>,
    /// Its link.
    pub href: Option<String>,
}

/// One page of a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotPage {
    /// By feed and key.
    pub items: Vec<SnapshotItem>,
    /// Whether another page follows.
    pub has_more: bool,
}

type Row = (Word<FeedName>, String, i64, String, Option<String>, Option<String>, i64);

impl Store {
    /// The newest event per key in all feeds a device follows, after the feed and key named.
    pub async fn snapshot(&self, app: AppId, device: DeviceId, after: (&str, &str)) -> Result<SnapshotPage> {
        let sql = "select e.feed, e.key, e.position, e.kind, e.data, e.href, e.bytes
                   from follows f cross join events e
                   where f.app_id = $1 and f.device_id = $2 and e.app_id = f.app_id and e.feed = f.feed and e.key is not null
                     and e.op = 'upsert' and (e.feed > $3 or (e.feed = $3 and e.key > $4))
                     and not exists (select 1 from events n where n.app_id = e.app_id and n.feed = e.feed and n.key = e.key
                                     and n.position > e.position)
                   order by e.feed, e.key limit $5";
        let values = (Word(app), Word(device), after.0.to_owned(), after.1.to_owned(), limits::PAGE_EVENTS as i64 + 1);
        page(self.db().survey(sql, values).await?)
    }

    /// The newest event per key in one feed, after the key named.
    pub async fn feed_snapshot(&self, app: AppId, feed: &FeedName, after: &str) -> Result<SnapshotPage> {
        let sql = "select e.feed, e.key, e.position, e.kind, e.data, e.href, e.bytes
                   from events e
                   where e.app_id = $1 and e.feed = $2 and e.key is not null and e.op = 'upsert' and e.key > $3
                     and not exists (select 1 from events n where n.app_id = e.app_id and n.feed = e.feed and n.key = e.key
                                     and n.position > e.position)
                   order by e.key limit $4";
        let values = (Word(app), feed.as_str().to_owned(), after.to_owned(), limits::PAGE_EVENTS as i64 + 1);
        page(self.db().survey(sql, values).await?)
    }

    /// Whether a device follows a feed.
    pub async fn follows(&self, app: AppId, device: DeviceId, feed: &FeedName) -> Result<bool> {
        let sql = "select since from follows where app_id = $1 and device_id = $2 and feed = $3";
        let values = (Word(app), Word(device), feed.as_str().to_owned());
        Ok(self.db().fetch_optional::<(i64,)>(sql, values).await?.is_some())
    }
}

fn page(rows: Vec<Row>) -> Result<SnapshotPage> {
    let found = rows.len();
    let (mut items, mut bytes) = (Vec::new(), 0);
    for (feed, key, position, kind, data, href, size) in rows {
        bytes += size;
        if !items.is_empty() && (items.len() >= limits::PAGE_EVENTS || bytes > limits::PAGE_BYTES as i64) {
            break;
        }
        let data = data.map(RawValue::from_string).transpose();
        let data = data.map_err(|error| Error::Corrupt(format!("data at {position}: {error}")))?;
        items.push(SnapshotItem { feed: feed.0, key, position: Position(position), kind, data, href });
    }
    let has_more = items.len() < found;
    Ok(SnapshotPage { items, has_more })
}
