//! Who has a live connection, and at which process: known until a time that is put off while the connection lasts. What a lost process
//! leaves ends by itself, and until then costs no more than the grace of a push.

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use serde::Serialize;

use super::{
    Result, Store,
    db::{Db, Each, Submitted, fields, rows},
    group::Request,
};
use crate::domain::{
    id::{AppId, DeviceId},
    time::Timestamp,
};

/// A device's connection begins, lasts or ends.
#[derive(Debug, Clone, Copy)]
pub struct Presence {
    /// Whose.
    pub app: AppId,
    /// Which.
    pub device: DeviceId,
    /// It is there for so long from now; `None` = its last connection at this process has ended.
    pub lasts: Option<Duration>,
}

impl Request for Presence {}

fields! {
    struct Present {
        app: String,
        device: String,
        node: String,
        until: i64,
    }
}

#[derive(Serialize)]
struct Gone {
    app: AppId,
    device: DeviceId,
}

static STAY: LazyLock<Each> = LazyLock::new(|| {
    Each::of(
        "insert into presence (app_id, device_id, node, until) values ({app}, {device}, {node}, {until:int})
         on conflict (app_id, device_id, node) do update set until = excluded.until",
    )
});

impl Store {
    /// Notes that a device has a live connection, or has none any more.
    pub async fn present(&self, presence: Presence) -> Result<()> {
        self.timed("presence", self.inner.presences.write(presence)).await
    }
}

/// Writes a batch in one transaction; of several for one device the last holds.
pub(super) async fn write(db: &Db, now: Timestamp, node: &str, batch: &[Presence]) -> Result<(Vec<()>, Submitted)> {
    let mut seen = HashSet::new();
    let mut latest: Vec<&Presence> =
        batch.iter().rev().filter(|presence| seen.insert((presence.app, presence.device))).collect();
    // Always in the same order, so that two writers never wait for each other.
    latest.sort_unstable_by_key(|presence| (presence.app.uuid(), presence.device.uuid()));
    let of = |presence: &Presence| Present {
        app: presence.app.to_string(),
        device: presence.device.to_string(),
        node: node.to_owned(),
        until: (now + presence.lasts.unwrap_or_default()).as_ms(),
    };
    let (there, gone): (Vec<&Presence>, Vec<&Presence>) =
        latest.into_iter().partition(|presence| presence.lasts.is_some());
    let mut tx = db.begin().await?;
    tx.execute_each(&STAY, &there.into_iter().map(of).collect::<Vec<_>>()).await?;
    if !gone.is_empty() {
        let sql = "delete from presence where node = $2 and (app_id, device_id) in
                     (select value->>'app', value->>'device' from jsonb_each($1))";
        let keys: Vec<_> = gone.iter().map(|gone| Gone { app: gone.app, device: gone.device }).collect();
        tx.execute(sql, (rows(&keys)?, node.to_owned())).await?;
    }
    Ok((batch.iter().map(|_| ()).collect(), tx.submit().await?))
}
