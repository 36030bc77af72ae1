//! APNs: the request, and what its answer means (Apple: "Sending notification requests to APNs", "Handling notification responses
//! from APNs").

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{
    dial::Endpoint,
    payload::{ApnsHeaders, Payload},
};
use crate::domain::{
    device::Environment,
    push::{Meaning, Target, Trigger},
    time::Timestamp,
};

const APNS_ID: HeaderName = HeaderName::from_static("apns-id");

/// Where Apple listens.
pub(super) const fn host_url(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "https://api.push.apple.com",
        Environment::Sandbox => "https://api.sandbox.push.apple.com",
    }
}

/// `POST /3/device/<token>`; an error names the part that no header or path can carry.
pub(super) fn request(
    endpoint: &Endpoint,
    target: &Target,
    trigger: &Trigger,
    payload: Payload,
    bearer: HeaderValue,
) -> Result<Request<Full<Bytes>>, String> {
    let path = format!("/3/device/{}", target.token.expose_secret());
    let uri = endpoint.uri(&path).map_err(|_| "the token cannot be part of a path".to_owned())?;
    let headers = ApnsHeaders::of(trigger);
    let mut request = Request::new(Full::new(Bytes::from(payload.json)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let map = request.headers_mut();
    map.reserve(8);
    map.insert(hyper::header::AUTHORIZATION, bearer);
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    map.insert("apns-push-type", HeaderValue::from_static(headers.push_type));
    map.insert("apns-priority", HeaderValue::from_static(headers.priority));
    map.insert("apns-topic", text("the topic", &target.topic)?);
    map.insert(APNS_ID, passing("the wake's id", &trigger.wake.uuid().to_string())?);
    map.insert("apns-expiration", passing("the expiration", &headers.expiration)?);
    if let Some(collapse_id) = &headers.collapse_id {
        map.insert("apns-collapse-id", passing("the collapse id", collapse_id)?);
    }
    Ok(request)
}

fn text(what: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("{what} cannot be a header"))
}

/// A value that does not come again: kept out of the small HPACK table, as Apple asks.
fn passing(what: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = text(what, value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// What Apple said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) meaning: Meaning,
    pub(super) reason: Option<String>,
    pub(super) provider_id: Option<String>,
}

#[derive(Deserialize)]
struct ErrorBody {
    reason: Option<String>,
    /// Milliseconds since the epoch; with 410 only.
    timestamp: Option<i64>,
}

/// Reads an answer, whatever its body is.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let provider_id = headers.get(APNS_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let error: Option<ErrorBody> = if status == StatusCode::OK { None } else { serde_json::from_slice(body).ok() };
    let (reason, timestamp) = error.map_or((None, None), |error| (error.reason, error.timestamp));
    let meaning = match reason.as_deref().and_then(documented) {
        Some(Meaning::Unregistered { .. }) => Meaning::Unregistered { since: timestamp.map(Timestamp::from_ms) },
        Some(meaning) => meaning,
        None => by_status(status),
    };
    Verdict { meaning, reason, provider_id }
}

/// Whether the connection itself is used up and the next call needs another.
pub(super) fn ends_connection(status: StatusCode, body: &[u8]) -> bool {
    if status == StatusCode::OK {
        return false;
    }
    let reason = serde_json::from_slice::<ErrorBody>(body).ok().and_then(|error| error.reason);
    matches!(
        reason.as_deref(),
        Some("Shutdown" | "IdleTimeout" | "UnrelatedKeyIdInToken" | "TooManyProviderTokenUpdates")
    )
}

/// The documented reasons; `BadEnvironmentKeyInToken` is how the real service has been seen to spell one of them.
pub(super) fn documented(reason: &str) -> Option<Meaning> {
    Some(match reason {
        "BadCollapseId" | "BadExpirationDate" | "BadMessageId" | "BadPriority" | "InvalidPushType"
        | "DuplicateHeaders" | "PayloadEmpty" | "MissingDeviceToken" | "BadPath" | "MethodNotAllowed"
        | "PayloadTooLarge" => Meaning::OurFault,
        "BadDeviceToken" | "DeviceTokenNotForTopic" => Meaning::AmbiguousToken,
        "BadTopic"
        | "MissingTopic"
        | "TopicDisallowed"
        | "InvalidProviderToken"
        | "MissingProviderToken"
        | "BadCertificate"
        | "BadCertificateEnvironment"
        | "Forbidden"
        | "UnrelatedKeyIdInToken"
        | "BadEnvironmentKeyIdInToken"
        | "BadEnvironmentKeyInToken" => Meaning::CredentialFault,
        "ExpiredProviderToken" => Meaning::StaleToken,
        "Unregistered" | "ExpiredToken" => Meaning::Unregistered { since: None },
        "TooManyRequests" | "TooManyProviderTokenUpdates" => Meaning::Throttled,
        "IdleTimeout" => Meaning::Unreachable,
        "InternalServerError" | "ServiceUnavailable" | "Shutdown" => Meaning::Unavailable,
        _ => return None,
    })
}

/// For reasons that nobody has documented yet: a token is never called dead for one.
fn by_status(status: StatusCode) -> Meaning {
    match status.as_u16() {
        200 => Meaning::Accepted,
        401 | 403 => Meaning::CredentialFault,
        410 => Meaning::DoubtfulToken,
        429 => Meaning::Throttled,
        400..=499 => Meaning::OurFault,
        _ => Meaning::Unavailable,
    }
}
