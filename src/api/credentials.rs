//! Provider credentials: put, shown without their key, removed.

use axum::{
    Json as Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Api,
    auth::Caller,
    extract::{self, Path, Raw},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        credential::{Credential, CredentialError},
        device::Transport,
        id::AppId,
        key::Scope,
        limits,
    },
    store::{CredentialInfo, PutCredential},
    transport,
};

/// The name of a credential whose path gives none.
pub(super) const DEFAULT: &str = "default";

pub async fn put_default(
    state: State<Api>,
    caller: Caller,
    Path(transport): Path<Transport>,
    body: Raw,
) -> Result<Response> {
    put(state, caller, Path((transport, DEFAULT.to_owned())), body).await
}

pub async fn put(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
    Raw(json): Raw,
) -> Result<Response> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let detail = format!("a credential's name is 1 to 64 of A-Z a-z 0-9 - _ ., not {name:?}");
        return Err(Problem::new(problem::INVALID, detail));
    }
    // The file is kept as it came: it must be one JSON document and nothing after it.
    extract::parse::<serde::de::IgnoredAny>(&json)?;
    let credential = Credential::parse(transport, &json, api.any_token_uri).map_err(|error| match error {
        CredentialError::Json(error) => extract::json_problem(&error),
        CredentialError::Values(errors) => errors.into(),
    })?;
    transport::prove(&credential).map_err(|error| Problem::field("/private_key", error))?;
    match api.store.put_credential(app, &name, &credential, &json).await? {
        PutCredential::Stored { info, created } => {
            api.transports.renewed(app, transport, &name);
            let status = if created { StatusCode::CREATED } else { StatusCode::OK };
            Ok((status, Body(show_info(&info))).into_response())
        }
        PutCredential::Overlaps { name, what } => {
            Err(Problem::new(problem::OVERLAP, format!("the credential {name:?} already serves {what}")))
        }
        PutCredential::TooMany => {
            let detail = format!("an app has at most {} credentials", limits::CREDENTIALS);
            Err(Problem::new(problem::INVALID, detail))
        }
    }
}

pub async fn list(State(api): State<Api>, caller: Caller) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    let items: Vec<_> = api.store.credentials(app).await?.iter().map(show_info).collect();
    Ok(Body(json!({"items": items, "next": null})))
}

pub async fn show_default(state: State<Api>, caller: Caller, Path(transport): Path<Transport>) -> Result<Body<Value>> {
    show(state, caller, Path((transport, DEFAULT.to_owned()))).await
}

pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
) -> Result<Body<Value>> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    Ok(Body(show_info(&known(&api, app, transport, &name).await?)))
}

pub async fn remove_default(state: State<Api>, caller: Caller, Path(transport): Path<Transport>) -> Result<StatusCode> {
    remove(state, caller, Path((transport, DEFAULT.to_owned()))).await
}

pub async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
) -> Result<StatusCode> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    if !api.store.delete_credential(app, transport, &name).await? {
        return Err(Problem::not_found("credential"));
    }
    api.transports.retire(app, transport, &name);
    Ok(StatusCode::NO_CONTENT)
}

/// What may be shown of a stored credential, or 404.
pub(super) async fn known(api: &Api, app: AppId, transport: Transport, name: &str) -> Result<CredentialInfo> {
    let all = api.store.credentials(app).await?;
    let found = all.into_iter().find(|info| info.transport == transport && info.name == name);
    found.ok_or_else(|| Problem::not_found("credential"))
}

fn show_info(info: &CredentialInfo) -> Value {
    let mut shown = json!({
        "transport": info.transport, "name": info.name, "fingerprint": info.fingerprint,
        "created_at": info.created_at, "updated_at": info.updated_at,
    });
    json_patch::merge(&mut shown, &json!(info.scope));
    shown
}
