//! Apps and keys: the operator's routes.

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
    extract::{self, Json, ListQuery, Path, Query},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        Invalid,
        device::Given,
        id::{AppId, KeyId},
        key::Scope,
        limits,
        settings::Settings,
        time::Timestamp,
    },
    secret,
    store::{App, AppKey},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    name: String,
    #[serde(default = "no_overrides")]
    settings: Value,
}

fn no_overrides() -> Value {
    json!({})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppPatch {
    #[serde(default)]
    name: Given<String>,
    #[serde(default)]
    settings: Given<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    name: String,
    scopes: Vec<Scope>,
    expires_at: Option<Timestamp>,
}

pub async fn create(State(api): State<Api>, caller: Caller, Json(new): Json<NewApp>) -> Result<Response> {
    caller.operator()?;
    check_name(&new.name)?;
    let (overrides, settings) = patched(&no_overrides(), &new.settings)?;
    let app = api.store.create_app(&new.name, overrides, settings).await?;
    Ok((StatusCode::CREATED, Body(show_app(&app))).into_response())
}

pub async fn list(State(api): State<Api>, caller: Caller, Query(query): Query<ListQuery>) -> Result<Body<Value>> {
    caller.operator()?;
    let (after, limit) = query.page()?;
    let apps = api.store.apps(&after, limit).await?;
    Ok(extract::list(apps, limit, |app| app.id, show_app))
}

pub async fn show(State(api): State<Api>, caller: Caller, Path(app): Path<AppId>) -> Result<Body<Value>> {
    caller.operator()?;
    Ok(Body(show_app(&known(&api, app).await?)))
}

pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Json(patch): Json<AppPatch>,
) -> Result<Body<Value>> {
    caller.operator()?;
    let mut app = known(&api, app).await?;
    match patch.name {
        Given::Absent => {}
        Given::Null => return Err(Problem::field("/name", "an app has a name")),
        Given::Value(name) => {
            check_name(&name)?;
            app.name = name;
        }
    }
    match patch.settings {
        Given::Absent => {}
        // RFC 7396: null takes all of it back, and what is omitted is the default.
        Given::Null => (app.overrides, app.settings) = (no_overrides(), Settings::default()),
        Given::Value(patch) => (app.overrides, app.settings) = patched(&app.overrides, &patch)?,
    }
    if api.store.update_app(&app).await? { Ok(Body(show_app(&app))) } else { Err(Problem::not_found("app")) }
}

pub async fn remove(State(api): State<Api>, caller: Caller, Path(app): Path<AppId>) -> Result<StatusCode> {
    caller.operator()?;
    if !api.store.delete_app(app).await? {
        return Err(Problem::not_found("app"));
    }
    api.transports.retire_app(app);
    Ok(StatusCode::NO_CONTENT)
}

pub async fn create_key(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Json(new): Json<NewKey>,
) -> Result<Response> {
    caller.operator()?;
    check_name(&new.name)?;
    if new.scopes.is_empty() {
        return Err(Problem::field("/scopes", "must name at least one scope"));
    }
    if new.expires_at.is_some_and(|at| at <= api.clock.now()) {
        return Err(Problem::field("/expires_at", "must be in the future"));
    }
    known(&api, app).await?;
    let secret = secret::generate("rk_");
    let key = api.store.create_key(app, &new.name, new.scopes, new.expires_at, secret.expose_secret()).await?;
    let mut body = show_key(&key);
    body["secret"] = secret.expose_secret().into();
    Ok((StatusCode::CREATED, Body(body)).into_response())
}

pub async fn list_keys(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<Value>> {
    caller.operator()?;
    known(&api, app).await?;
    let (after, limit) = query.page()?;
    let keys = api.store.keys(app, &after, limit).await?;
    Ok(extract::list(keys, limit, |key| key.id, show_key))
}

pub async fn remove_key(
    State(api): State<Api>,
    caller: Caller,
    Path((app, key)): Path<(AppId, KeyId)>,
) -> Result<StatusCode> {
    caller.operator()?;
    if api.store.delete_key(app, key).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("key")) }
}

async fn known(api: &Api, app: AppId) -> Result<App> {
    api.store.app(app).await?.ok_or_else(|| Problem::not_found("app"))
}

fn check_name(name: &str) -> Result<()> {
    let chars = name.chars().count();
    if !(1..=limits::SHORT_TEXT_CHARS).contains(&chars) {
        let limit = limits::SHORT_TEXT_CHARS;
        return Err(Problem::field("/name", format!("must have 1 to {limit} characters, has {chars}")));
    }
    if name.chars().any(char::is_control) {
        return Err(Problem::field("/name", "must not contain control characters"));
    }
    Ok(())
}

fn patched(overrides: &Value, patch: &Value) -> Result<(Value, Settings)> {
    if !patch.is_object() {
        return Err(Problem::field("/settings", "must be an object"));
    }
    let inside = |errors: Vec<Invalid>| errors.into_iter().map(|error| error.within("/settings")).collect::<Vec<_>>();
    Settings::patched(overrides, patch).map_err(|errors| inside(errors).into())
}

fn show_app(app: &App) -> Value {
    json!({"id": app.id, "name": app.name, "settings": app.settings, "created_at": app.created_at})
}

fn show_key(key: &AppKey) -> Value {
    json!({
        "id": key.id, "name": key.name, "scopes": key.scopes, "created_at": key.created_at, "expires_at": key.expires_at,
    })
}
