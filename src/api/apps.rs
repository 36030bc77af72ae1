//! Apps and keys: the operator's routes.

use axum::{Json as Body, extract::State, http::StatusCode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    extract::{self, Json, List, ListQuery, Path, Query},
    problem::{Problem, Result},
};
use crate::{
    domain::{
        Invalid,
        device::Given,
        id::{AppId, KeyId, kind},
        key::Scope,
        limits,
        settings::Settings,
        time::Timestamp,
    },
    secret,
    store::{App, AppKey},
};

/// An app to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"name": "shop"})))]
pub struct NewApp {
    /// For people.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: String,
    /// What differs from the defaults of the policy.
    #[serde(default = "no_overrides")]
    #[schema(value_type = SettingsPatch)]
    settings: Value,
}

fn no_overrides() -> Value {
    json!({})
}

/// Changes of an app.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppPatch {
    /// For people.
    #[serde(default)]
    #[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: Given<String>,
    /// Merged into what differs from the defaults (RFC 7396): null takes a setting back to its default.
    #[serde(default)]
    #[schema(value_type = Option<SettingsPatch>)]
    settings: Given<Value>,
}

/// A part of [`Settings`], as a merge patch (RFC 7396); a wrong name or value is refused by its pointer.
#[derive(ToSchema)]
#[schema(value_type = Object, examples(json!({"wake": {"android": {"background": {"gap_s": 30}}}})))]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct SettingsPatch(Value);

/// An app key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"name": "backend", "scopes": ["events:write", "devices:write"]})))]
pub struct NewKey {
    /// For people.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    name: String,
    /// What it may do.
    #[schema(min_items = 1)]
    scopes: Vec<Scope>,
    /// When it ends; never if absent.
    expires_at: Option<Timestamp>,
}

/// An app: a tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = App)]
pub struct AppView {
    #[schema(value_type = kind::App)]
    id: AppId,
    /// For people.
    name: String,
    /// All of the policy, with the defaults filled in.
    settings: Settings,
    created_at: Timestamp,
}

impl From<App> for AppView {
    fn from(app: App) -> Self {
        Self { id: app.id, name: app.name, settings: app.settings, created_at: app.created_at }
    }
}

/// An app key, without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    #[schema(value_type = kind::Key)]
    id: KeyId,
    /// For people.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    created_at: Timestamp,
    /// When it ends; null is never.
    expires_at: Option<Timestamp>,
}

impl From<AppKey> for KeyView {
    fn from(key: AppKey) -> Self {
        Self { id: key.id, name: key.name, scopes: key.scopes, created_at: key.created_at, expires_at: key.expires_at }
    }
}

/// A new app key, with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedKey)]
pub struct CreatedKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// The key itself; only its hash is kept.
    #[schema(pattern = "^rk_")]
    secret: String,
}

/// Makes an app
#[utoipa::path(post, path = "/v1/apps", operation_id = "createApp", tag = "operator", security(("operatorKey" = [])), request_body = NewApp,
    responses((status = 201, description = "The new app", body = AppView)))]
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewApp>,
) -> Result<(StatusCode, Body<AppView>)> {
    caller.operator()?;
    check_name(&new.name)?;
    let (overrides, settings) = patched(&no_overrides(), &new.settings)?;
    let app = api.store.create_app(&new.name, overrides, settings).await?;
    Ok((StatusCode::CREATED, Body(app.into())))
}

/// Lists the apps
#[utoipa::path(get, path = "/v1/apps", operation_id = "listApps", tag = "operator", security(("operatorKey" = [])), params(ListQuery),
    responses((status = 200, description = "Apps, oldest first", body = List<AppView>)))]
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Body<List<AppView>>> {
    caller.operator()?;
    let (after, limit) = query.page()?;
    let apps = api.store.apps(&after, limit).await?;
    Ok(extract::list(apps, limit, |app| app.id, AppView::from))
}

/// Shows an app
#[utoipa::path(get, path = "/v1/apps/{app}", operation_id = "getApp", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app")),
    responses((status = 200, description = "The app", body = AppView)))]
pub async fn show(State(api): State<Api>, caller: Caller, Path(app): Path<AppId>) -> Result<Body<AppView>> {
    caller.operator()?;
    Ok(Body(known(&api, app).await?.into()))
}

/// Changes an app
#[utoipa::path(patch, path = "/v1/apps/{app}", operation_id = "updateApp", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app")),
    request_body(content = AppPatch, example = json!({"settings": {"poll_after_s": {"healthy": 600}}})),
    responses((status = 200, description = "The app as it is now", body = AppView)))]
pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Json(patch): Json<AppPatch>,
) -> Result<Body<AppView>> {
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
    if api.store.update_app(&app).await? { Ok(Body(app.into())) } else { Err(Problem::not_found("app")) }
}

/// Deletes an app with all that belongs to it
#[utoipa::path(delete, path = "/v1/apps/{app}", operation_id = "deleteApp", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app")),
    responses((status = 204, description = "It is gone")))]
pub async fn remove(State(api): State<Api>, caller: Caller, Path(app): Path<AppId>) -> Result<StatusCode> {
    caller.operator()?;
    if !api.store.delete_app(app).await? {
        return Err(Problem::not_found("app"));
    }
    api.transports.retire_app(app);
    api.store.metrics().forget(app);
    Ok(StatusCode::NO_CONTENT)
}

/// Makes an app key
///
/// The secret is shown this once.
#[utoipa::path(post, path = "/v1/apps/{app}/keys", operation_id = "createKey", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app")), request_body = NewKey,
    responses((status = 201, description = "The key, with its secret", body = CreatedKeyView)))]
pub async fn create_key(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Json(new): Json<NewKey>,
) -> Result<(StatusCode, Body<CreatedKeyView>)> {
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
    let created = CreatedKeyView { key: key.into(), secret: secret.expose_secret().to_owned() };
    Ok((StatusCode::CREATED, Body(created)))
}

/// Lists an app's keys
#[utoipa::path(get, path = "/v1/apps/{app}/keys", operation_id = "listKeys", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app"), ListQuery),
    responses((status = 200, description = "Keys, oldest first, without their secrets", body = List<KeyView>)))]
pub async fn list_keys(
    State(api): State<Api>,
    caller: Caller,
    Path(app): Path<AppId>,
    Query(query): Query<ListQuery>,
) -> Result<Body<List<KeyView>>> {
    caller.operator()?;
    known(&api, app).await?;
    let (after, limit) = query.page()?;
    let keys = api.store.keys(app, &after, limit).await?;
    Ok(extract::list(keys, limit, |key| key.id, KeyView::from))
}

/// Revokes an app key
#[utoipa::path(delete, path = "/v1/apps/{app}/keys/{key}", operation_id = "revokeKey", tag = "operator", security(("operatorKey" = [])),
    params(("app" = kind::App, Path, description = "The app"), ("key" = kind::Key, Path, description = "The key")),
    responses((status = 204, description = "It is worth nothing any more")))]
pub async fn remove_key(
    State(api): State<Api>,
    caller: Caller,
    Path((app, key)): Path<(AppId, KeyId)>,
) -> Result<StatusCode> {
    caller.operator()?;
    if api.store.delete_key(app, key).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("key")) }
}

/// An app that exists, or 404.
pub(super) async fn known(api: &Api, app: AppId) -> Result<App> {
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
