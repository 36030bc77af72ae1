//! Devices: registration by the backend, what the phone may do itself, and follows.

use std::sync::Arc;

use axum::{
    Json as Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, Path, Query},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        cursor::{self, Scope as CursorScope},
        device::{DevicePatch, DeviceStatus, Given, RegistrationDraft, followable},
        feed::{FeedName, Position},
        id::{AppId, DeviceId},
        key::Scope,
        limits, record,
        settings::Settings,
    },
    secret,
    store::{Device, DeviceFilter, Follow, Patched},
};

pub async fn register(
    State(api): State<Api>,
    caller: Caller,
    Json(draft): Json<RegistrationDraft>,
) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let registration = draft.check()?;
    let registered = api.store.register(app, registration).await?.ok_or_else(|| Problem::not_found("app"))?;
    let settings = api.settings(app).await?;
    let mut body = api.show_device(&registered.device, &registered.feeds);
    body["poll"] = json!({
        "url": Api::poll_url(&api.public_url),
        "cursor": api.sync_cursor(&registered.device, registered.cursor),
        "after_s": api.poll_after_s(&settings, registered.device.status, registered.device.missed),
        "reset": registered.reset,
    });
    if let Some(secret) = &registered.secret {
        body["device_token"] = secret.expose_secret().into();
    }
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Body(body)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesQuery {
    installation_id: Option<String>,
    user: Option<String>,
    feed: Option<String>,
    status: Option<DeviceStatus>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub async fn list(State(api): State<Api>, caller: Caller, Query(query): Query<DevicesQuery>) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let limit = extract::limit(query.limit, extract::LIST_DEFAULT)?;
    let DevicesQuery { installation_id, user, feed, status, .. } = query;
    let filter = DeviceFilter { installation_id, user, feed, status };
    let devices = api.store.devices(app, filter, &query.cursor.unwrap_or_default(), limit).await?;
    let mut shown = Vec::with_capacity(devices.len());
    for device in devices {
        let feeds = api.store.feeds_of(app, device.id).await?;
        shown.push((device.id, api.show_device(&device, &feeds)));
    }
    Ok(extract::list(shown, limit, |(id, _)| *id, |(_, device)| device.clone()))
}

pub async fn show(State(api): State<Api>, caller: Caller, Path(device): Path<DeviceId>) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::DevicesRead])?;
    let device = api.store.device(app, device).await?.ok_or_else(no_device)?;
    let feeds = api.store.feeds_of(app, device.id).await?;
    Ok(Body(api.show_device(&device, &feeds)))
}

pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(device): Path<DeviceId>,
    Json(patch): Json<DevicePatch>,
) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    let device = api.store.device(app, device).await?.ok_or_else(no_device)?;
    api.patch(device, patch).await
}

pub async fn remove(State(api): State<Api>, caller: Caller, Path(device): Path<DeviceId>) -> Result<StatusCode> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    if api.store.delete_device(app, device).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_device()) }
}

/// A device does not read itself (contract §4), and no app has a device of the id "me".
pub async fn show_none(caller: Caller) -> Result<()> {
    caller.app(&[Scope::DevicesRead])?;
    Err(no_device())
}

pub async fn update_me(State(api): State<Api>, caller: Caller, Json(patch): Json<DevicePatch>) -> Result<Body<Value>> {
    let device = caller.device()?;
    if patch.user != Given::Absent || patch.feeds.is_some() {
        let detail = "a device may change token, token_kind, environment, topic, app_version, os and locale of itself";
        return Err(Problem::new(problem::FORBIDDEN, detail));
    }
    api.patch(device, patch).await
}

pub async fn remove_me(State(api): State<Api>, caller: Caller) -> Result<StatusCode> {
    let device = caller.device()?;
    api.store.delete_device(device.app, device.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn follow(
    State(api): State<Api>,
    caller: Caller,
    Path((device, feed)): Path<(DeviceId, String)>,
) -> Result<Body<Value>> {
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
    Ok(Body(api.show_device(&device, &feeds)))
}

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
    async fn patch(&self, device: Device, patch: DevicePatch) -> Result<Body<Value>> {
        let feeds = patch.check(device.transport)?;
        match self.store.patch_device(device.app, device.id, patch, feeds).await? {
            Patched::Done(registered) => Ok(Body(self.show_device(&registered.device, &registered.feeds))),
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

    fn show_device(&self, device: &Device, feeds: &[FeedName]) -> Value {
        let mut shown = json!({
            "id": device.id,
            "installation_id": device.installation_id,
            "status": device.status,
            "status_reason": device.status_reason,
            "transport": device.transport,
            "platform": device.platform,
            "environment": device.environment,
            "topic": device.topic,
            "user": device.user,
            "token_kind": device.token_kind,
            "token_fingerprint": device.token.as_ref().map(|token| secret::fingerprint(token.expose_secret())),
            "feeds": feeds,
            "app_version": device.app_version,
            "os": device.os,
            "locale": device.locale,
            "fetched": device.fetched,
            "acked": device.acked,
            "registered_at": device.registered_at,
            "created_at": device.created_at,
            "seen_at": device.seen_at,
        });
        if let Some(user) = &device.user {
            shown["for"] = self.secrets.user_tag(&device.app.to_string(), user).into();
        }
        shown
    }
}
