//! The check of a stored credential: the provider is asked without reaching any device, and what it said is reported.

use axum::{Json as Body, extract::State};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Caller,
    credentials::{DEFAULT, known},
    extract::Path,
    problem::{Problem, Result},
};
use crate::{
    domain::{device::Transport, key::Scope, push::Meaning},
    transport::LaneKey,
};

/// What a provider says of a credential.
#[derive(Serialize, ToSchema)]
pub struct CredentialCheck {
    transport: Transport,
    name: String,
    /// Whether it is usable.
    ok: bool,
    meaning: Finding,
    /// The provider's HTTP status, if it answered.
    status: Option<u16>,
    /// The provider's own word.
    reason: Option<String>,
    took_ms: u64,
    /// One sentence for people: what it means and what to do.
    says: &'static str,
}

/// Asks the provider about the credential `default`
///
/// No device is reached. At most 12 checks a minute per stored credential, never two within 5 s.
#[utoipa::path(post, path = "/v1/credentials/{transport}/check", operation_id = "checkDefaultCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])),
    params(("transport" = Transport, Path, description = "The provider")),
    responses((status = 200, description = "What it said, also if it cannot be reached", body = CredentialCheck)))]
pub async fn check_default(
    state: State<Api>,
    caller: Caller,
    Path(transport): Path<Transport>,
) -> Result<Body<CredentialCheck>> {
    check(state, caller, Path((transport, DEFAULT.to_owned()))).await
}

/// Asks the provider about a credential
///
/// No device is reached. At most 12 checks a minute per stored credential, never two within 5 s.
#[utoipa::path(post, path = "/v1/credentials/{transport}/{name}/check", operation_id = "checkCredential", tag = "credentials",
    security(("appKey" = ["credentials:write"])),
    params(("transport" = Transport, Path, description = "The provider"),
        ("name" = String, Path, description = "The credential's name")),
    responses((status = 200, description = "What it said, also if it cannot be reached", body = CredentialCheck)))]
pub async fn check(
    State(api): State<Api>,
    caller: Caller,
    Path((transport, name)): Path<(Transport, String)>,
) -> Result<Body<CredentialCheck>> {
    let app = caller.app(&[Scope::CredentialsWrite])?;
    let version = known(&api, app, transport, &name).await?.version;
    let key = LaneKey { app, transport, name, version };
    api.limiters.check(&key)?;
    let credential = api.store.open_credential(app, transport, &key.name, version).await?;
    let credential = credential.ok_or_else(|| Problem::not_found("credential"))?;
    let began = Instant::now();
    let mut reply = api.transports.check(&key, &credential).await;
    if reply.meaning == Meaning::StaleToken {
        // An access token may run out at any time, and says nothing about the credential: the next one does.
        reply = api.transports.check(&key, &credential).await;
    }
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let finding = Finding::of(reply.meaning);
    Ok(Body(CredentialCheck {
        transport,
        name: key.name,
        ok: finding == Finding::Usable,
        meaning: finding,
        status: reply.status,
        reason: reply.reason,
        took_ms,
        says: finding.says(transport),
    }))
}

/// What an answer says about the credential; what it says about the token, which nobody has, is of no interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Usable,
    Refused,
    Stale,
    Throttled,
    Unavailable,
    Unreachable,
    Timeout,
    Unclear,
}

impl Finding {
    const fn of(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Accepted | Meaning::Unregistered { .. } | Meaning::AmbiguousToken | Meaning::DoubtfulToken => {
                Self::Usable
            }
            Meaning::CredentialFault => Self::Refused,
            Meaning::StaleToken => Self::Stale,
            Meaning::Throttled => Self::Throttled,
            Meaning::Unavailable => Self::Unavailable,
            Meaning::Unreachable => Self::Unreachable,
            Meaning::Timeout => Self::Timeout,
            Meaning::OurFault => Self::Unclear,
        }
    }

    /// What it means and what to do.
    const fn says(self, transport: Transport) -> &'static str {
        match (self, transport) {
            (Self::Usable, _) => {
                "The provider accepts the credential; all it could find fault with is the device token, which is nobody's."
            }
            (Self::Refused, Transport::Apns) => {
                "Apple does not accept the credential: compare team id, key id, topic and environment with the key at \
                 developer.apple.com, and see that the key has not been revoked."
            }
            (Self::Refused, Transport::Fcm) => {
                "Google does not accept the credential: see in the Google Cloud console that the service account and its key exist, \
                 that it may send (role Firebase Cloud Messaging API Admin), and that the project's FCM API is enabled."
            }
            (Self::Stale, _) => {
                "The provider takes a fresh token for an expired one: see that this machine's clock is right."
            }
            (Self::Throttled, _) => {
                "The provider wants fewer requests, so it did not say whether the credential is good: check again later."
            }
            (Self::Unavailable, _) => {
                "The provider is in trouble, so it did not say whether the credential is good: check again later."
            }
            (Self::Unreachable, _) => {
                "The provider cannot be reached: see that this machine may connect to it (DNS, firewall, proxy, certificates)."
            }
            (Self::Timeout, _) => {
                "The provider did not answer in time: see that nothing between it and this machine swallows packets, and check again."
            }
            (Self::Unclear, _) => {
                "The provider accepts neither nor refuses the credential, it refuses the question: that is a fault of the relay, please report it."
            }
        }
    }
}
