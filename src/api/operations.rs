//! Operations: erasures, and how far they are.

use axum::{
    Json as Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::Path,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        id::{AppId, OperationId},
        key::Scope,
        operation::{OperationState, Subject},
    },
    store::Operation,
};

pub async fn erase_user(State(api): State<Api>, caller: Caller, Path(user): Path<String>) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    api.erase(app, Subject::user(&user)).await
}

pub async fn erase_feed(State(api): State<Api>, caller: Caller, Path(feed): Path<String>) -> Result<Response> {
    let app = caller.app(&[Scope::DevicesWrite])?;
    api.erase(app, Subject::feed(&feed)).await
}

pub async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<OperationId>) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::DevicesRead, Scope::DevicesWrite])?;
    let operation = api.store.operation(app, id).await?.ok_or_else(|| Problem::not_found("operation"))?;
    Ok(Body(view(&operation)))
}

impl Api {
    async fn erase(&self, app: AppId, subject: std::result::Result<Subject, String>) -> Result<Response> {
        let subject = subject.map_err(|detail| Problem::new(problem::INVALID, detail))?;
        let operation = self.store.erase(app, subject).await?.ok_or_else(|| Problem::not_found("app"))?;
        let mut response = (StatusCode::ACCEPTED, Body(view(&operation))).into_response();
        let headers = response.headers_mut();
        if operation.state == OperationState::Running {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Ok(location) = HeaderValue::from_str(&format!("/v1/operations/{}", operation.id)) {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

fn view(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "kind": operation.kind,
        "state": operation.state,
        "removed": operation.removed,
        "created_at": operation.created_at,
        "finished_at": operation.finished_at,
    })
}
