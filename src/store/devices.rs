//! Devices: reading, changing and removing them.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{
    Result, Store,
    db::{Tx, Word, retry, row, rows},
    erase::{Erasure, Progress},
    levels, live, operations,
};
use crate::domain::{
    device::{DeviceStatus, Environment, Platform, TokenKind, Transport},
    feed::Position,
    id::{self, AppId, DeviceId},
    operation::{Removed, Subject},
    time::Timestamp,
};

/// An app installation that can be woken.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the words of contract §5, Devices")]
pub struct Device {
    pub app: AppId,
    pub id: DeviceId,
    pub installation_id: String,
    pub transport: Transport,
    pub platform: Platform,
    /// `None` once it has moved to another installation.
    pub token: Option<SecretString>,
    pub token_kind: TokenKind,
    /// Goes up whenever the token changes.
    pub token_version: i64,
    pub environment: Environment,
    pub topic: Option<String>,
    pub user: Option<String>,
    pub app_version: Option<String>,
    pub os: Option<String>,
    pub locale: Option<String>,
    pub status: DeviceStatus,
    pub status_reason: Option<String>,
    pub status_at: Timestamp,
    pub registered_at: Timestamp,
    pub created_at: Timestamp,
    pub seen_at: Timestamp,
    pub fetched: Position,
    pub acked: Position,
    /// Heads in a row that were told and not fetched in time.
    pub missed: u32,
}

row! {
    pub(super) struct DeviceRow {
        app_id: Word<AppId>,
        id: Word<DeviceId>,
        installation_id: String,
        transport: Word<Transport>,
        platform: Word<Platform>,
        token: Option<String>,
        token_kind: Word<TokenKind>,
        token_version: i64,
        environment: Word<Environment>,
        topic: Option<String>,
        user_id: Option<String>,
        app_version: Option<String>,
        os: Option<String>,
        locale: Option<String>,
        status: Word<DeviceStatus>,
        status_reason: Option<String>,
        status_at: i64,
        registered_at: i64,
        created_at: i64,
        seen_at: i64,
        fetched: i64,
        acked: i64,
        missed: i64,
    }
}

/// Devices with all their columns, by the clauses that follow.
macro_rules! select_devices {
    ($($clause:literal)*) => {
        concat!(
            "select d.app_id, d.id, d.installation_id, d.transport, d.platform, d.token, d.token_kind, d.token_version, ",
            "d.environment, d.topic, d.user_id, d.app_version, d.os, d.locale, d.status, d.status_reason, d.status_at, ",
            "d.registered_at, d.created_at, d.seen_at, d.fetched, d.acked, d.missed from devices d ",
            $($clause),*
        )
    };
}
pub(super) use select_devices;

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Self {
        Self {
            app: row.app_id.0,
            id: row.id.0,
            installation_id: row.installation_id,
            transport: row.transport.0,
            platform: row.platform.0,
            token: row.token.map(SecretString::from),
            token_kind: row.token_kind.0,
            token_version: row.token_version,
            environment: row.environment.0,
            topic: row.topic,
            user: row.user_id,
            app_version: row.app_version,
            os: row.os,
            locale: row.locale,
            status: row.status.0,
            status_reason: row.status_reason,
            status_at: Timestamp::from_ms(row.status_at),
            registered_at: Timestamp::from_ms(row.registered_at),
            created_at: Timestamp::from_ms(row.created_at),
            seen_at: Timestamp::from_ms(row.seen_at),
            fetched: Position(row.fetched),
            acked: Position(row.acked),
            missed: u32::try_from(row.missed).unwrap_or(u32::MAX),
        }
    }
}

/// The same columns on the way in.
#[derive(Serialize)]
struct DeviceValues<'a> {
    app_id: AppId,
    id: DeviceId,
    installation_id: &'a str,
    transport: Transport,
    platform: Platform,
    token: Option<&'a str>,
    token_kind: TokenKind,
    token_version: i64,
    environment: Environment,
    topic: Option<&'a str>,
    user_id: Option<&'a str>,
    app_version: Option<&'a str>,
    os: Option<&'a str>,
    locale: Option<&'a str>,
    status: DeviceStatus,
    status_reason: Option<&'a str>,
    status_at: i64,
    registered_at: i64,
    created_at: i64,
    seen_at: i64,
    fetched: i64,
    acked: i64,
    missed: u32,
}

/// Which devices to list.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// With this installation id.
    pub installation_id: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// That follow this feed.
    pub feed: Option<String>,
    /// In this status.
    pub status: Option<DeviceStatus>,
}

impl Store {
    /// One device.
    pub async fn device(&self, app: AppId, id: DeviceId) -> Result<Option<Device>> {
        let sql = select_devices!("where d.app_id = $1 and d.id = $2");
        let row: Option<DeviceRow> = self.db().fetch_optional(sql, (Word(app), Word(id))).await?;
        Ok(row.map(Device::from))
    }

    /// Devices in the order they first registered, after the one named.
    pub async fn devices(&self, app: AppId, filter: DeviceFilter, after: &str, limit: usize) -> Result<Vec<Device>> {
        // The narrowest index that serves: an installation, a user's devices, a feed's followers, those of a status, else all of the app.
        let sql = if filter.installation_id.is_some() {
            select_devices!(
                "where d.app_id = $1 and d.installation_id = $7 and d.id > $2 and ($3 is null or d.user_id = $3)"
                " and ($4 is null or d.status = $4)"
                " and ($5 is null or exists (select 1 from follows f where f.app_id = d.app_id and f.device_id = d.id and f.feed = $5))"
                " order by d.id limit $6"
            )
        } else if filter.user.is_some() {
            select_devices!(
                "where d.app_id = $1 and d.user_id = $3 and d.id > $2 and ($4 is null or d.status = $4)"
                " and ($7 is null or d.installation_id = $7)"
                " and ($5 is null or exists (select 1 from follows f where f.app_id = d.app_id and f.device_id = d.id and f.feed = $5))"
                " order by d.id limit $6"
            )
        } else if filter.feed.is_some() {
            select_devices!(
                "join follows f on f.app_id = d.app_id and f.device_id = d.id"
                " where f.app_id = $1 and f.feed = $5 and f.device_id > $2 and ($3 is null or d.user_id = $3)"
                " and ($4 is null or d.status = $4) and ($7 is null or d.installation_id = $7) order by d.id limit $6"
            )
        } else if filter.status.is_some() {
            select_devices!(
                "where d.app_id = $1 and d.status = $4 and d.id > $2 and ($3 is null or d.user_id = $3)"
                " and ($5 is null or d.id <> $5) and ($7 is null or d.installation_id = $7) order by d.id limit $6"
            )
        } else {
            select_devices!(
                "where d.app_id = $1 and d.id > $2 and ($3 is null or d.user_id = $3) and ($4 is null or d.status = $4)"
                " and ($5 is null or d.id <> $5) and ($7 is null or d.installation_id = $7) order by d.id limit $6"
            )
        };
        let DeviceFilter { installation_id, user, feed, status } = filter;
        let values = (Word(app), after.to_owned(), user, status.map(Word), feed, limit as i64, installation_id);
        let rows: Vec<DeviceRow> = self.db().survey(sql, values).await?;
        Ok(rows.into_iter().map(Device::from).collect())
    }

    /// Removes a device with its follows, levels, tokens, timeline and own feed; its attempts stay until their retention ends.
    pub async fn delete_device(&self, app: AppId, device: DeviceId) -> Result<bool> {
        retry(|| self.try_delete_device(app, device)).await
    }

    async fn try_delete_device(&self, app: AppId, device: DeviceId) -> Result<bool> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        let Some(through) = operations::next_position(&mut tx, app).await? else {
            tx.leave().await?;
            return Ok(false);
        };
        levels::hold(&mut tx, [(app, device)]).await?;
        for sql in [
            "delete from device_tokens where app_id = $1 and device_id = $2",
            "delete from follows where app_id = $1 and device_id = $2",
            "delete from levels where app_id = $1 and device_id = $2",
            "delete from presence where app_id = $1 and device_id = $2",
            "delete from tickets where app_id = $1 and device_id = $2",
        ] {
            tx.execute(sql, (Word(app), Word(device))).await?;
        }
        if tx.execute("delete from devices where app_id = $1 and id = $2", (Word(app), Word(device))).await? == 0 {
            tx.leave().await?;
            return Ok(false);
        }
        live::device_changed(&mut tx, app, device, now).await?;
        // Timeline and feed may be long: one chunk now, and the rest goes on by itself.
        let erasure = Erasure { app, subject: Subject::Device(device), through, asked_at: now };
        let mut removed = Removed::default();
        let progress = erasure.chunk(&mut tx, self.rows_per_chunk(), &mut removed, now).await?;
        if progress == Progress::More {
            operations::keep(&mut tx, id::new(now), &erasure, removed, progress).await?;
        }
        tx.commit().await?;
        self.ring();
        if progress == Progress::More {
            self.inner.erasing.notify_one();
        }
        Ok(true)
    }
}

pub(super) async fn find(tx: &mut Tx, app: AppId, id: DeviceId) -> Result<Option<Device>> {
    let sql = select_devices!("where d.app_id = $1 and d.id = $2");
    let row: Option<DeviceRow> = tx.fetch_optional(sql, (Word(app), Word(id))).await?;
    Ok(row.map(Device::from))
}

/// Writes all columns of a device.
pub(super) async fn put(tx: &mut Tx, device: &Device) -> Result<()> {
    let values = DeviceValues {
        app_id: device.app,
        id: device.id,
        installation_id: &device.installation_id,
        transport: device.transport,
        platform: device.platform,
        token: device.token.as_ref().map(ExposeSecret::expose_secret),
        token_kind: device.token_kind,
        token_version: device.token_version,
        environment: device.environment,
        topic: device.topic.as_deref(),
        user_id: device.user.as_deref(),
        app_version: device.app_version.as_deref(),
        os: device.os.as_deref(),
        locale: device.locale.as_deref(),
        status: device.status,
        status_reason: device.status_reason.as_deref(),
        status_at: device.status_at.as_ms(),
        registered_at: device.registered_at.as_ms(),
        created_at: device.created_at.as_ms(),
        seen_at: device.seen_at.as_ms(),
        fetched: device.fetched.0,
        acked: device.acked.0,
        missed: device.missed,
    };
    let sql = "
        insert into devices (app_id, id, installation_id, transport, platform, token, token_kind, token_version, environment,
            topic, user_id, app_version, os, locale, status, status_reason, status_at, registered_at, created_at, seen_at,
            fetched, acked, missed)
        select value->>'app_id', value->>'id', value->>'installation_id', value->>'transport', value->>'platform',
            value->>'token', value->>'token_kind', cast(value->>'token_version' as bigint), value->>'environment',
            value->>'topic', value->>'user_id', value->>'app_version', value->>'os', value->>'locale', value->>'status',
            value->>'status_reason', cast(value->>'status_at' as bigint), cast(value->>'registered_at' as bigint),
            cast(value->>'created_at' as bigint), cast(value->>'seen_at' as bigint), cast(value->>'fetched' as bigint),
            cast(value->>'acked' as bigint), cast(value->>'missed' as bigint)
        from jsonb_each($1) where true
        on conflict (app_id, id) do update set
            transport = excluded.transport, platform = excluded.platform, token = excluded.token,
            token_kind = excluded.token_kind, token_version = excluded.token_version, environment = excluded.environment,
            topic = excluded.topic, user_id = excluded.user_id, app_version = excluded.app_version, os = excluded.os,
            locale = excluded.locale, status = excluded.status, status_reason = excluded.status_reason,
            status_at = excluded.status_at, registered_at = excluded.registered_at, seen_at = excluded.seen_at,
            fetched = excluded.fetched, acked = excluded.acked, missed = excluded.missed,
            verdict = case when excluded.status = 'active' then null else devices.verdict end";
    tx.execute(sql, (rows(&[values])?,)).await?;
    Ok(())
}
