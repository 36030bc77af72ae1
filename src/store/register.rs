//! Registration: upsert by installation, the move of a push token, the change of a user, and the feeds that follow from it.

use secrecy::{ExposeSecret, SecretString};

use super::{
    Result, Store,
    db::{Tx, Word, retry},
    devices::{self, Device, DeviceRow, select_devices},
    follows, levels, live,
    timeline::{self, NewMoment},
    tokens,
};
use crate::{
    domain::{
        device::{DevicePatch, DeviceStatus, Given, Registration},
        feed::{FeedKind, FeedName, Position},
        id::{self, AppId, DeviceId},
        time::Timestamp,
        timeline::{Moment, Registered as Change},
    },
    secret,
};

/// Why a device is gone whose push token another installation has registered.
const TOKEN_MOVED: &str = "token moved to another installation";

/// What came of a registration.
#[derive(Debug)]
pub struct Registered {
    /// The device as it is now.
    pub device: Device,
    /// The feeds it follows.
    pub feeds: Vec<FeedName>,
    /// A fresh device token, if one was asked for.
    pub secret: Option<SecretString>,
    /// Whether the installation was unknown before.
    pub created: bool,
    /// Whether the client must forget its cursor and begin at `cursor`.
    pub reset: bool,
    /// Where the client begins: the present, or what it last acknowledged.
    pub cursor: Position,
}

/// What came of changing a device.
#[derive(Debug)]
pub enum Patched {
    /// It is changed.
    Done(Box<Registered>),
    /// There is no such device.
    NoDevice,
}

impl Store {
    /// Registers an installation; `None` if the app is gone.
    pub async fn register(&self, app: AppId, registration: Registration) -> Result<Option<Registered>> {
        self.timed("register", retry(|| self.try_register(app, registration.clone()))).await
    }

    async fn try_register(&self, app: AppId, registration: Registration) -> Result<Option<Registered>> {
        let now = self.inner.clock.now();
        let mut tx = self.db().begin().await?;
        if follows::counter(&mut tx, app).await?.is_none() {
            tx.leave().await?;
            return Ok(None);
        }
        hold(&mut tx, app, &registration.installation_id, registration.token.as_ref()).await?;
        let sql = select_devices!("where d.app_id = $1 and d.installation_id = $2");
        let known: Option<DeviceRow> =
            tx.fetch_optional(sql, (Word(app), registration.installation_id.clone())).await?;
        let secret = secret::generate("dt_");
        let registered = apply(&mut tx, app, known.map(Device::from), registration, now, Some(secret)).await?;
        tx.commit().await?;
        self.ring();
        Ok(Some(registered))
    }

    /// Changes what `patch` gives; a new push token counts as a registration of it.
    pub async fn patch_device(
        &self,
        app: AppId,
        id: DeviceId,
        patch: DevicePatch,
        feeds: Option<Vec<FeedName>>,
    ) -> Result<Patched> {
        retry(|| self.try_patch_device(app, id, patch.clone(), feeds.clone())).await
    }

    async fn try_patch_device(
        &self,
        app: AppId,
        id: DeviceId,
        patch: DevicePatch,
        feeds: Option<Vec<FeedName>>,
    ) -> Result<Patched> {
        let mut tx = self.db().begin().await?;
        follows::counter(&mut tx, app).await?;
        hold(&mut tx, app, &id.to_string(), patch.token.as_ref()).await?;
        let Some(mut device) = devices::find(&mut tx, app, id).await? else {
            tx.leave().await?;
            return Ok(Patched::NoDevice);
        };
        let registration = Registration {
            installation_id: device.installation_id.clone(),
            transport: device.transport,
            platform: device.platform,
            token: patch.token,
            token_kind: patch.token_kind.unwrap_or(device.token_kind),
            environment: patch.environment.unwrap_or(device.environment),
            topic: given(patch.topic, device.topic.clone()),
            user: patch.user,
            feeds,
            // Taken out of the device, so that what is null here does not come back from there.
            app_version: given(patch.app_version, device.app_version.take()),
            os: given(patch.os, device.os.take()),
            locale: given(patch.locale, device.locale.take()),
        };
        let now = self.inner.clock.now();
        let registered = apply(&mut tx, app, Some(device), registration, now, None).await?;
        tx.commit().await?;
        self.ring();
        Ok(Patched::Done(Box::new(registered)))
    }
}

/// Holds a device, named by its id or its installation's, and whoever has the push token that it brings.
async fn hold(tx: &mut Tx, app: AppId, device: &str, token: Option<&SecretString>) -> Result<()> {
    let sql = "select d.id from devices d
               where d.app_id = $1 and (d.id = $2 or d.installation_id = $2 or (d.transport in ('apns', 'fcm') and d.token = $3))
               order by d.id for update";
    let token = token.map(|token| token.expose_secret().to_owned());
    Ok(tx.lock(sql, (Word(app), device.to_owned(), token)).await?)
}

fn given<T>(given: Given<T>, present: Option<T>) -> Option<T> {
    match given {
        Given::Absent => present,
        Given::Null => None,
        Given::Value(value) => Some(value),
    }
}

/// Makes a device what `wanted` says: the one path of registrations and patches. `secret` is the device token to issue, if any.
pub(super) async fn apply(
    tx: &mut Tx,
    app: AppId,
    known: Option<Device>,
    wanted: Registration,
    now: Timestamp,
    secret: Option<SecretString>,
) -> Result<Registered> {
    let created = known.is_none();
    let user_before = known.as_ref().and_then(|device| device.user.clone());
    let mut device = known.unwrap_or_else(|| unknown(app, &wanted, now));
    let (token_before, status_before) = (device.token_version, device.status);
    take_token_from_others(tx, &device, &wanted, now).await?;
    let renewed = renew(&mut device, &wanted, now, created);
    match wanted.user {
        Given::Absent => {}
        Given::Null => device.user = None,
        Given::Value(user) => device.user = Some(user),
    }
    let reset = created || device.user != user_before;
    devices::put(tx, &device).await?;
    let change = match (created, reset, device.token_version == token_before) {
        (true, ..) => Change::Created,
        (false, true, _) => Change::UserChanged,
        (false, false, false) => Change::TokenChanged,
        (false, false, true) => Change::Same,
    };
    // A patch of nothing that matters is no registration.
    if secret.is_some() || change != Change::Same {
        tell(tx, &device, change, status_before, now).await?;
    }

    let FeedsSet { newest: newest_follow, counter, changed: feeds_changed } =
        set_feeds(tx, &device, wanted.feeds, reset, now).await?;
    if reset {
        (device.fetched, device.acked, device.missed) = (counter, counter, 0);
        devices::put(tx, &device).await?;
        follows::set_levels_to(tx, &device, counter).await?;
    } else {
        if let Some((position, feed)) = newest_follow {
            follows::raise_for_follow(tx, &device, position, feed.as_ref(), now).await?;
        }
        if renewed == Renewed::Yes {
            levels::look_again(tx, app, &[device.id], now).await?;
        }
    }
    let mut tokens_ended = false;
    if let Some(secret) = &secret {
        tokens_ended = tokens::issue(tx, &device, secret, now).await?;
    }
    if reset && !created {
        tokens::end_all_but(tx, &device, secret.as_ref()).await?;
    }
    if !created && (reset || feeds_changed || tokens_ended) {
        live::device_changed(tx, app, device.id, now).await?;
    }
    let feeds = follows::feeds_of(tx, app, device.id).await?;
    let cursor = if reset { counter } else { device.acked };
    Ok(Registered { device, feeds, secret, created, reset, cursor })
}

/// Keeps for the timeline what a registration has changed.
async fn tell(tx: &mut Tx, device: &Device, change: Change, status_before: DeviceStatus, now: Timestamp) -> Result<()> {
    let moment = |what: &Moment| NewMoment::new(device.app, device.id, now, what);
    let mut moments = vec![moment(&Moment::Registered { change })];
    if device.status != status_before {
        moments.push(moment(&Moment::Status { status: device.status, reason: Some("registered again".to_owned()) }));
    }
    timeline::add(tx, &moments).await
}

fn unknown(app: AppId, wanted: &Registration, now: Timestamp) -> Device {
    Device {
        app,
        id: id::new(now),
        installation_id: wanted.installation_id.clone(),
        transport: wanted.transport,
        platform: wanted.platform,
        token: None,
        token_kind: wanted.token_kind,
        token_version: 0,
        environment: wanted.environment,
        topic: None,
        user: None,
        app_version: None,
        os: None,
        locale: None,
        status: DeviceStatus::Active,
        status_reason: None,
        status_at: now,
        registered_at: now,
        created_at: now,
        seen_at: now,
        fetched: Position(0),
        acked: Position(0),
        missed: 0,
    }
}

/// Whether a registration makes a difference to who can be pushed to, so that what waits is looked at again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renewed {
    Yes,
    No,
}

/// Takes over what the registration says of the installation itself.
fn renew(device: &mut Device, wanted: &Registration, now: Timestamp, created: bool) -> Renewed {
    let token = wanted.token.clone().or_else(|| device.token.clone());
    let same_target = device.token.as_ref().map(ExposeSecret::expose_secret)
        == token.as_ref().map(ExposeSecret::expose_secret)
        && (device.transport, device.environment, device.token_kind, &device.topic)
            == (wanted.transport, wanted.environment, wanted.token_kind, &wanted.topic);
    let mut renewed = Renewed::No;
    if created || !same_target {
        device.token_version += 1;
        renewed = Renewed::Yes;
        // What another token has missed says nothing of this one.
        device.missed = 0;
    }
    // Only who shows a token, or says where it belongs, registers; a patch of anything else leaves the verdicts on it as they are.
    if token.is_some() && (wanted.token.is_some() || !same_target) {
        device.registered_at = now;
        if device.status != DeviceStatus::Active {
            (device.status, device.status_reason, device.status_at) = (DeviceStatus::Active, None, now);
            renewed = Renewed::Yes;
        }
    }
    device.token = token;
    device.transport = wanted.transport;
    device.platform = wanted.platform;
    device.environment = wanted.environment;
    device.token_kind = wanted.token_kind;
    device.topic.clone_from(&wanted.topic);
    device.app_version = wanted.app_version.clone().or_else(|| device.app_version.take());
    device.os = wanted.os.clone().or_else(|| device.os.take());
    device.locale = wanted.locale.clone().or_else(|| device.locale.take());
    device.seen_at = now;
    renewed
}

/// A push token belongs to one installation; the one that had it before cannot be pushed to any more.
async fn take_token_from_others(tx: &mut Tx, device: &Device, wanted: &Registration, now: Timestamp) -> Result<()> {
    let sql = "update devices set token = null, token_version = token_version + 1, status = 'gone', status_reason = $6,
                 status_at = $5, verdict = null
               where app_id = $1 and transport = $2 and token = $3 and id <> $4 returning id";
    let Some(token) = wanted.token.as_ref().map(|token| token.expose_secret().to_owned()) else {
        return Ok(());
    };
    let values =
        (Word(device.app), Word(wanted.transport), token, Word(device.id), now.as_ms(), TOKEN_MOVED.to_owned());
    let others: Vec<(Word<DeviceId>,)> = tx.fetch_all(sql, values).await?;
    let moved = Moment::Status { status: DeviceStatus::Gone, reason: Some(TOKEN_MOVED.to_owned()) };
    let moments: Vec<_> = others.iter().map(|(other,)| NewMoment::new(device.app, other.0, now, &moved)).collect();
    timeline::add(tx, &moments).await
}

/// What a registration has made of a device's follows.
struct FeedsSet {
    /// The newest follow taken, with its feed if it is the only one.
    newest: Option<(Position, Option<FeedName>)>,
    /// The app's counter.
    counter: Position,
    /// Whether the device has come to follow or left any.
    changed: bool,
}

/// Makes the follows what they should be.
async fn set_feeds(
    tx: &mut Tx,
    device: &Device,
    explicit: Option<Vec<FeedName>>,
    reset: bool,
    now: Timestamp,
) -> Result<FeedsSet> {
    let present = follows::feeds_of(tx, device.app, device.id).await?;
    let mut wanted = match explicit {
        Some(feeds) => feeds,
        // A changed user takes nothing over but what this request names.
        None if reset => Vec::new(),
        None => present.iter().filter(|feed| feed.kind() != FeedKind::Own).cloned().collect(),
    };
    // A name that cannot be a feed was refused at the edge.
    wanted.extend(device.user.as_deref().and_then(|user| FeedName::of_user(user).ok()));
    wanted.push(FeedName::of_device(device.id));
    let leaving: Vec<_> = present.iter().filter(|feed| reset || !wanted.contains(feed)).cloned().collect();
    let entering: Vec<_> = wanted.into_iter().filter(|feed| reset || !present.contains(feed)).collect();
    follows::remove(tx, device.app, &[Word(device.id)], &leaving, now).await?;
    let counter = follows::add(tx, device, &entering).await?;
    let newest = entering.last().map(|_| {
        let only = if let [feed] = entering.as_slice() { Some(feed.clone()) } else { None };
        (counter, only)
    });
    Ok(FeedsSet { newest, counter, changed: !(leaving.is_empty() && entering.is_empty()) })
}
