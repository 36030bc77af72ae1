//! Provider credentials: put, shown without their key, removed.

use axum::{Json as Body, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    extract::{self, List, Path, Raw},
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        credential::{ApnsDraft, Credential, CredentialError, CredentialScope, FcmCredential},
        device::Transport,
        id::AppId,
        key::Scope,
        limits,
        time::Timestamp,
    },
    store::{CredentialInfo, PutCredential},
    transport,
};

/// The name of a credential whose path gives none.
pub(super) const DEFAULT: &str = "default";

/// What a credential may be called; not `check`.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^(?!check$)[A-Za-z0-9._-]{1,64}$", examples("default"))]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct CredentialName(String);

/// A credential, as its provider gives it out.
#[derive(ToSchema)]
#[schema(as = Credential)]
#[serde(untagged)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub enum CredentialBody {
    /// For `apns`: an authentication token signing key.
    Apns(ApnsDraft),
    /// For `fcm`: the service-account JSON file, as it is.
    Fcm(FcmCredential),
}

/// What may be shown of a stored credential.
#[derive(Serialize, ToSchema)]
pub struct StoredCredential {
    transport: Transport,
    name: String,
    /// Of the private key: the same key has the same one.
    fingerprint: String,
    created_at: Timestamp,
    /// When it was last replaced.
    updated_at: Timestamp,
    #[serde(flatten)]
    scope: CredentialScope,
}

impl From<CredentialInfo> for StoredCredential {
    fn from(info: CredentialInfo) -> Self {
        Self {
            transport: info.transport,
            name: info.name,
            fingerprint: info.fingerprint,
            created_at: info.created_at,
            updated_at: info.updated_at,
            scope: info.scope,
        }
    }
}

/// Stores or replaces the credential `default`
///
/// As with a name.
#[utoipa::path(put, path = "/v1/credentials/{transport}", operation_id = "putDefaultCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider")), request_body = CredentialBody,
    responses((status = 201, description = "Stored", body = StoredCredential),
        (status = 200, description = "Replaced", body = StoredCredential)))]
pub async fn put_default(
    state: State<Api>,
    caller: Caller,
    Path(transport): Path<Transport>,
    body: Raw,
) -> Result<(StatusCode, Body<StoredCredential>)> {
    put(state, caller, Path((transport, DEFAULT.to_owned())), body).await
}

/// Stores or replaces a credential
///
/// It is parsed and its key proven usable before it is stored, encrypted. What is in flight with the old one finishes; nothing is
/// dropped. The body belongs to the transport: Apple's key for `apns`, Google's service-account file for `fcm`.
#[utoipa::path(put, path = "/v1/credentials/{transport}/{name}", operation_id = "putCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider"),
        ("name" = CredentialName, Path, description = "The credential's name")), request_body = CredentialBody,
    responses((status = 201, description = "Stored", body = StoredCredential),
        (status = 200, description = "Replaced", body = StoredCredential)))]
pub async fn put(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
    Raw(json): Raw,
) -> Result<(StatusCode, Body<StoredCredential>)> {
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
            Ok((status, Body(info.into())))
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

/// Lists the app's credentials
#[utoipa::path(get, path = "/v1/credentials", operation_id = "listCredentials", tag = "credentials", security(("appKey" = ["credentials:write"])),
    responses((status = 200, description = "All of them, without their keys", body = List<StoredCredential>)))]
pub async fn list(State(api): State<Api>, caller: Caller) -> Result<Body<List<StoredCredential>>> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    Ok(extract::whole(api.store.credentials(app).await?.into_iter().map(StoredCredential::from)))
}

/// Shows the credential `default`
#[utoipa::path(get, path = "/v1/credentials/{transport}", operation_id = "getDefaultCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider")),
    responses((status = 200, description = "What may be shown of it", body = StoredCredential)))]
pub async fn show_default(
    state: State<Api>,
    caller: Caller,
    Path(transport): Path<Transport>,
) -> Result<Body<StoredCredential>> {
    show(state, caller, Path((transport, DEFAULT.to_owned()))).await
}

/// Shows a credential
#[utoipa::path(get, path = "/v1/credentials/{transport}/{name}", operation_id = "getCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider"),
        ("name" = CredentialName, Path, description = "The credential's name")),
    responses((status = 200, description = "What may be shown of it", body = StoredCredential)))]
pub async fn show(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
) -> Result<Body<StoredCredential>> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    Ok(Body(known(&api, app, transport, &name).await?.into()))
}

/// Removes the credential `default`
#[utoipa::path(delete, path = "/v1/credentials/{transport}", operation_id = "deleteDefaultCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider")),
    responses((status = 204, description = "It is gone; calls in flight finish")))]
pub async fn remove_default(state: State<Api>, caller: Caller, Path(transport): Path<Transport>) -> Result<StatusCode> {
    remove(state, caller, Path((transport, DEFAULT.to_owned()))).await
}

/// Removes a credential
#[utoipa::path(delete, path = "/v1/credentials/{transport}/{name}", operation_id = "deleteCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])), params(("transport" = Transport, Path, description = "The provider"),
        ("name" = CredentialName, Path, description = "The credential's name")),
    responses((status = 204, description = "It is gone; calls in flight finish")))]
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
