//! Operations: erasures, and how far they are.

use axum::{
    Json as Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    extract::Path,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        id::{AppId, OperationId, kind},
        key::Scope,
        operation::{OperationKind, OperationState, Removed, Subject},
        time::Timestamp,
    },
    store::Operation,
};

/// What goes on after its request.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub struct OperationView {
    #[schema(value_type = kind::Operation)]
    id: OperationId,
    kind: OperationKind,
    state: OperationState,
    /// What it has taken away so far.
    removed: Removed,
    created_at: Timestamp,
    /// Null while it is running.
    finished_at: Option<Timestamp>,
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id,
            kind: operation.kind,
            state: operation.state,
            removed: operation.removed,
            created_at: operation.created_at,
            finished_at: operation.finished_at,
        }
    }
}

/// Erases a user
///
/// Everything up to the request goes: devices with their timelines and attempts, and their feeds. Also over restarts.
#[utoipa::path(delete, path = "/v1/users/{user}", operation_id = "eraseUser", tag = "devices", security(("appKey" = ["devices:write"])),
    params(("user" = UserName, Path, description = "The user")),
    responses((status = 202, description = "It has begun; what is small is done already", body = OperationView,
        headers(("Location" = String, description = "The operation"),
            ("Retry-After" = Option<u32>, description = "While it is running: when to look, in seconds")))))]
pub async fn erase_user(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    api.erase(app, Subject::user(&user)).await
}

/// Erases a feed
///
/// Its events, its follows and what waits for them.
#[utoipa::path(delete, path = "/v1/feeds/{feed}", operation_id = "eraseFeed", tag = "devices", security(("appKey" = ["devices:write"])),
    params(("feed" = ErasableFeed, Path, description = "The feed; not `user:*`, `device:*` or `reveille:*`")),
    responses((status = 202, description = "It has begun; what is small is done already", body = OperationView,
        headers(("Location" = String, description = "The operation"),
            ("Retry-After" = Option<u32>, description = "While it is running: when to look, in seconds")))))]
pub async fn erase_feed(State(api): State<Api>, caller: Caller, Path(feed): Path<String>) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    api.erase(app, Subject::feed(&feed)).await
}

/// Shows an operation
///
/// For 30 days after it is done. Whom it was about is forgotten with the last chunk.
#[utoipa::path(get, path = "/v1/operations/{operation}", operation_id = "getOperation", tag = "devices",
    security(("appKey" = ["devices:read"]), ("appKey" = ["devices:write"])),
    params(("operation" = kind::Operation, Path, description = "The operation")),
    responses((status = 200, description = "How far it is", body = OperationView)))]
pub async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<OperationId>) -> Result<Body<OperationView>> {
    let app = caller.app(&[Scope::DevicesRead, Scope::DevicesWrite])?;
    let operation = api.store.operation(app, id).await?.ok_or_else(|| Problem::not_found("operation"))?;
    Ok(Body(operation.into()))
}

impl Api {
    async fn erase(&self, app: AppId, subject: std::result::Result<Subject, String>) -> Result<Response> {
        let subject = subject.map_err(|detail| Problem::new(problem::INVALID, detail))?;
        let operation = self.store.erase(app, subject).await?.ok_or_else(|| Problem::not_found("app"))?;
        let (state, location) = (operation.state, HeaderValue::from_str(&format!("/v1/operations/{}", operation.id)));
        let mut response = (StatusCode::ACCEPTED, Body(OperationView::from(operation))).into_response();
        let headers = response.headers_mut();
        if state == OperationState::Running {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Ok(location) = location {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

/// A user's name, as it can be part of a feed's.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^[A-Za-z0-9._:~@|+=-]{1,120}$", examples("17"))]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct UserName(String);

/// A feed that does not belong to somebody.
#[derive(ToSchema)]
#[schema(value_type = String, examples("order:42"), pattern = "^(?!(user|device|reveille):)[A-Za-z0-9][A-Za-z0-9._:~@|+=-]{0,127}$")]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct ErasableFeed(String);
