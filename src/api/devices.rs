//! Devices: registration by the backend, what the phone may do itself, and follows.

use std::sync::Arc;

use axum::{Json as Body, extract::State, http::StatusCode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, List, Path, Query},
    problem::{self, Problem, ProblemDocument, Result},
};
use crate::{
    domain::{
        cursor::{self, Scope as CursorScope},
        device::{
            DevicePatch, DeviceStatus, Environment, FollowableFeed, Given, Platform, RegistrationDraft, TokenKind,
            Transport, followable,
        },
        feed::{FeedName, Position},
        id::{AppId, DeviceId, kind},
        key::Scope,
        limits, record,
        settings::Settings,
        time::Timestamp,
    },
    secret,
    store::{Device, DeviceFilter, Follow, Patched},
};

/// A device: an app installation that can be woken.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
pub struct DeviceView {
    #[schema(value_type = kind::Device)]
    id: DeviceId,
    installation_id: String,
    status: DeviceStatus,
    /// Why it is not active, in the provider's or the relay's words.
    status_reason: Option<String>,
    transport: Transport,
    platform: Platform,
    environment: Environment,
    /// The APNs topic, or the Firebase project's id; null is whichever credential fits.
    topic: Option<String>,
    /// Who is signed in.
    user: Option<String>,
    token_kind: TokenKind,
    /// Of the push token, which is never shown.
    token_fingerprint: Option<String>,
    /// All that it follows.
    feeds: Vec<FeedName>,
    app_version: Option<String>,
    os: Option<String>,
    locale: Option<String>,
    /// Up to where polls have given it everything.
    fetched: Position,
    /// Up to where it has come back with everything.
    acked: Position,
    registered_at: Timestamp,
    created_at: Timestamp,
    /// Its last sign of life.
    seen_at: Timestamp,
    /// What pushes carry, so that the app can drop those that are not for its user: 8 hex digits; absent without a user.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    for_user: Option<String>,
}

/// A registered device, with what its phone needs.
#[derive(Serialize, ToSchema)]
pub struct RegisteredDevice {
    #[serde(flatten)]
    device: DeviceView,
    /// For the phone: its key to sync and ack; only its hash is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^dt_")]
    device_token: Option<String>,
    poll: FirstPoll,
}

/// Where and from where the phone polls.
#[derive(Serialize, ToSchema)]
pub struct FirstPoll {
    /// The canonical polling endpoint.
    #[schema(format = "uri")]
    url: String,
    /// To begin with, if `reset`; else the one that the relay knows of, and the client keeps its own.
    cursor: String,
    /// In how many seconds to poll even if no push comes.
    after_s: u32,
    /// Whether what the client holds belongs to somebody else, or to nobody.
    reset: bool,
}

/// Registers a device
///
/// The backend registers the device of its signed-in user and hands the `device_token` to the phone. The same installation again is
/// the same device; the same push token under another installation moves there.
#[utoipa::path(post, path = "/v1/devices", operation_id = "registerDevice", tag = "devices", security(("appKey" = ["devices:write"])),
    request_body(content = RegistrationDraft, example = json!({"installation_id": "b7e6f0", "transport": "fcm", "token": "the-push-token",
        "user": "17", "feeds": ["order:42"], "app_version": "4.2.0", "os": "Android 17", "locale": "de-DE"})),
    responses((status = 201, description = "A new installation", body = RegisteredDevice),
        (status = 200, description = "A known installation", body = RegisteredDevice)))]
pub async fn register(
    State(api): State<Api>,
    caller: Caller,
    Json(draft): Json<RegistrationDraft>,
) -> Result<(StatusCode, Body<RegisteredDevice>)> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let registration = draft.check()?;
    let registered = api.store.register(app, registration).await?.ok_or_else(|| Problem::not_found("app"))?;
    let settings = api.settings(app).await?;
    let device = &registered.device;
    let poll = FirstPoll {
        url: Api::poll_url(&api.public_url),
        cursor: api.sync_cursor(device, registered.cursor),
        after_s: api.poll_after_s(&settings, device.status, device.missed),
        reset: registered.reset,
    };
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    let device_token = registered.secret.as_ref().map(|secret| secret.expose_secret().to_owned());
    let device = api.show_device(registered.device, registered.feeds);
    Ok((status, Body(RegisteredDevice { device, device_token, poll })))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DevicesQuery {
    /// The one with this installation id.
    installation_id: Option<String>,
    /// Of this user.
    user: Option<String>,
    /// That follow this feed.
    feed: Option<String>,
    /// Of this status.
    status: Option<DeviceStatus>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many devices the page has at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Lists devices
#[utoipa::path(get, path = "/v1/devices", operation_id = "listDevices", tag = "devices", security(("appKey" = ["devices:read"])), params(DevicesQuery),
    responses((status = 200, description = "Devices, oldest first", body = List<DeviceView>)))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<DevicesQuery>,
) -> Result<Body<List<DeviceView>>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let limit = extract::limit(query.limit, extract::LIST_DEFAULT)?;
    let DevicesQuery { installation_id, user, feed, status, .. } = query;
    let filter = DeviceFilter { installation_id, user, feed, status };
    let devices = api.store.devices(app, filter, &query.cursor.unwrap_or_default(), limit).await?;
    let mut shown = Vec::with_capacity(devices.len());
    for device in devices {
        let feeds = api.store.feeds_of(app, device.id).await?;
        shown.push(api.show_device(device, feeds));
    }
    Ok(extract::list(shown, limit, |device| device.id, |device| device))
}

/// Shows a device
#[utoipa::path(get, path = "/v1/devices/{device}", operation_id = "getDevice", tag = "devices", security(("appKey" = ["devices:read"])), params(("device" = kind::Device, Path, description = "The device")),
    responses((status = 200, description = "The device", body = DeviceView)))]
pub async fn show(State(api): State<Api>, caller: Caller, Path(device): Path<DeviceId>) -> Result<Body<DeviceView>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let device = api.store.device(app, device).await?.ok_or_else(no_device)?;
    let feeds = api.store.feeds_of(app, device.id).await?;
    Ok(Body(api.show_device(device, feeds)))
}

/// Changes a device
#[utoipa::path(patch, path = "/v1/devices/{device}", operation_id = "updateDevice", tag = "devices", security(("appKey" = ["devices:write"])), params(("device" = kind::Device, Path, description = "The device")),
    request_body(content = DevicePatch, example = json!({"app_version": "4.3.0"})),
    responses((status = 200, description = "The device as it is now", body = DeviceView)))]
pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(device): Path<DeviceId>,
    Json(patch): Json<DevicePatch>,
) -> Result<Body<DeviceView>> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let device = api.store.device(app, device).await?.ok_or_else(no_device)?;
    api.patch(device, patch).await
}

/// Deletes a device
///
/// With its follows, levels, tokens, timeline and feed; its attempts stay until their retention ends.
#[utoipa::path(delete, path = "/v1/devices/{device}", operation_id = "deleteDevice", tag = "devices", security(("appKey" = ["devices:write"])), params(("device" = kind::Device, Path, description = "The device")),
    responses((status = 204, description = "It is gone")))]
pub async fn remove(State(api): State<Api>, caller: Caller, Path(device): Path<DeviceId>) -> Result<StatusCode> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    if api.store.delete_device(app, device).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_device()) }
}

/// Shows nothing
///
/// A device does not read itself, and no app has a device of the id `me`: whoever asks is refused.
#[utoipa::path(get, path = "/v1/devices/me", operation_id = "getOwnDevice", tag = "devices", security(("deviceToken" = [])),
    responses((status = 404, description = "There is no such device", body = ProblemDocument,
        content_type = "application/problem+json")))]
pub async fn show_none(caller: Caller) -> Result<()> {
    caller.app(&[Scope::DevicesRead])?;
    Err(no_device())
}

/// Changes the device that asks
///
/// Its token, token_kind, environment, topic, app_version, os and locale only.
#[utoipa::path(patch, path = "/v1/devices/me", operation_id = "updateOwnDevice", tag = "devices", security(("deviceToken" = [])),
    request_body(content = DevicePatch, example = json!({"token": "the-new-push-token"})),
    responses((status = 200, description = "The device as it is now", body = DeviceView)))]
pub async fn update_me(
    State(api): State<Api>,
    caller: Caller,
    Json(patch): Json<DevicePatch>,
) -> Result<Body<DeviceView>> {
    let device = caller.device()?;
    if patch.user != Given::Absent || patch.feeds.is_some() {
        let detail = "a device may change token, token_kind, environment, topic, app_version, os and locale of itself";
        return Err(Problem::new(problem::FORBIDDEN, detail));
    }
    api.patch(device, patch).await
}

/// Deletes the device that asks
///
/// For signing out.
#[utoipa::path(delete, path = "/v1/devices/me", operation_id = "deleteOwnDevice", tag = "devices", security(("deviceToken" = [])),
    responses((status = 204, description = "It is gone, and its tokens with it")))]
pub async fn remove_me(State(api): State<Api>, caller: Caller) -> Result<StatusCode> {
    let device = caller.device()?;
    api.store.delete_device(device.app, device.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has a device follow a feed
///
/// It sees the feed's events from now on, preceded by `reveille.followed`; older ones are read from the feed's snapshot. The phone is
/// woken to come and look.
#[utoipa::path(put, path = "/v1/devices/{device}/feeds/{feed}", operation_id = "followFeed", tag = "devices", security(("appKey" = ["devices:write"])),
    params(("device" = kind::Device, Path, description = "The device"),
        ("feed" = FollowableFeed, Path, description = "The feed; not `user:*` or `device:*`")), responses((status = 200, description = "The device, following it", body = DeviceView)))]
pub async fn follow(
    State(api): State<Api>,
    caller: Caller,
    Path((device, feed)): Path<(DeviceId, String)>,
) -> Result<Body<DeviceView>> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let feed = feed_by_request(&feed)?;
    match api.store.follow(app, device, &feed).await? {
        Follow::Done => {}
        Follow::NoDevice => return Err(no_device()),
        Follow::TooMany => {
            let detail = format!("a device follows at most {} feeds explicitly", limits::EXPLICIT_FEEDS);
            return Err(Problem::new(problem::INVALID, detail).with("limit", limits::EXPLICIT_FEEDS));
        }
    }
    let device = api.store.device(app, device).await?.ok_or_else(no_device)?;
    let feeds = api.store.feeds_of(app, device.id).await?;
    Ok(Body(api.show_device(device, feeds)))
}

/// Has a device follow a feed no longer
#[utoipa::path(delete, path = "/v1/devices/{device}/feeds/{feed}", operation_id = "unfollowFeed", tag = "devices", security(("appKey" = ["devices:write"])),
    params(("device" = kind::Device, Path, description = "The device"),
        ("feed" = FollowableFeed, Path, description = "The feed; not `user:*` or `device:*`")), responses((status = 204, description = "What waited for the feed went with it")))]
pub async fn unfollow(
    State(api): State<Api>,
    caller: Caller,
    Path((device, feed)): Path<(DeviceId, String)>,
) -> Result<StatusCode> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let feed = feed_by_request(&feed)?;
    match api.store.unfollow(app, device, &feed).await? {
        Follow::NoDevice => Err(no_device()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

fn feed_by_request(name: &str) -> Result<FeedName> {
    followable(name).map_err(|detail| Problem::new(problem::INVALID, detail))
}

fn no_device() -> Problem {
    Problem::not_found("device")
}

impl Api {
    async fn patch(&self, device: Device, patch: DevicePatch) -> Result<Body<DeviceView>> {
        let feeds = patch.check(device.transport)?;
        match self.store.patch_device(device.app, device.id, patch, feeds).await? {
            Patched::Done(registered) => Ok(Body(self.show_device(registered.device, registered.feeds))),
            Patched::NoDevice => Err(no_device()),
        }
    }

    /// The settings of an app, or 404.
    pub async fn settings(&self, app: AppId) -> Result<Arc<Settings>> {
        self.store.settings(app).await?.ok_or_else(|| Problem::not_found("app"))
    }

    /// A cursor for a device's sync.
    pub fn sync_cursor(&self, device: &Device, position: Position) -> String {
        let id = device.id.to_string();
        cursor::seal(&self.secrets, &CursorScope::Sync { device: &id }, self.store.epoch(), position)
    }

    /// In how many seconds a device is to poll by itself, having missed so many heads in a row.
    pub fn poll_after_s(&self, settings: &Settings, status: DeviceStatus, missed: u32) -> u32 {
        record::poll_after_s(settings.poll_after_s, status, missed, self.store.load())
    }

    fn show_device(&self, device: Device, feeds: Vec<FeedName>) -> DeviceView {
        let for_user = device.user.as_ref().map(|user| self.secrets.user_tag(&device.app.to_string(), user));
        DeviceView {
            id: device.id,
            installation_id: device.installation_id,
            status: device.status,
            status_reason: device.status_reason,
            transport: device.transport,
            platform: device.platform,
            environment: device.environment,
            topic: device.topic,
            user: device.user,
            token_kind: device.token_kind,
            token_fingerprint: device.token.as_ref().map(|token| secret::fingerprint(token.expose_secret())),
            feeds,
            app_version: device.app_version,
            os: device.os,
            locale: device.locale,
            fetched: device.fetched,
            acked: device.acked,
            registered_at: device.registered_at,
            created_at: device.created_at,
            seen_at: device.seen_at,
            for_user,
        }
    }
}
