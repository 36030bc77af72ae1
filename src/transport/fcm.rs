//! FCM HTTP v1: the request, and what its answer means (Firebase: "ErrorCode" reference, and answers seen on the wire).

use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use serde_json::Value;

use super::payload::Payload;
use crate::domain::push::Meaning;

/// Where Google listens.
pub(super) const HOST_URL: &str = "https://fcm.googleapis.com";

/// The sentence that Google uses for a string that is no token at all.
const NO_TOKEN: &str = "The registration token is not a valid FCM registration token";

/// `POST /v1/projects/{project}/messages:send`.
pub(super) fn request(uri: &Uri, payload: Payload, bearer: HeaderValue) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(payload.json)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let map = request.headers_mut();
    map.insert(hyper::header::AUTHORIZATION, bearer);
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

/// What Google said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) meaning: Meaning,
    pub(super) reason: Option<String>,
    pub(super) provider_id: Option<String>,
}

#[derive(Deserialize)]
struct Sent {
    name: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    status: Option<String>,
    message: Option<String>,
    #[serde(default)]
    details: Value,
}

/// Reads an answer, whatever its body is: a gateway's HTML, nothing, half an object.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Verdict {
    if status == StatusCode::OK {
        let sent: Option<Sent> = serde_json::from_slice(body).ok();
        return Verdict { meaning: Meaning::Accepted, reason: None, provider_id: sent.map(|sent| sent.name) };
    }
    let error = serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error);
    let code = error.as_ref().and_then(error_code).map(str::to_owned);
    let word = error.as_ref().and_then(|error| error.status.clone());
    let doubtful = error.as_ref().is_some_and(blames_token);
    let meaning = code.as_deref().and_then(|code| by_code(code, doubtful));
    let meaning = meaning.or_else(|| word.as_deref().and_then(|word| by_word(word, doubtful)));
    Verdict { meaning: meaning.unwrap_or_else(|| by_status(status)), reason: code.or(word), provider_id: None }
}

fn details(error: &ErrorObject) -> impl Iterator<Item = &Value> {
    error.details.as_array().into_iter().flatten()
}

fn error_code(error: &ErrorObject) -> Option<&str> {
    let mut errors = details(error).filter(|detail| {
        let kind = detail["@type"].as_str();
        kind.is_some_and(|kind| kind.ends_with("google.firebase.fcm.v1.FcmError"))
    });
    errors.next()?["errorCode"].as_str()
}

/// Whether an `INVALID_ARGUMENT` is about the token, and not about what we wrote.
fn blames_token(error: &ErrorObject) -> bool {
    let violations = details(error).filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
    let mut fields = violations.filter_map(|violation| violation["field"].as_str());
    fields.any(|field| matches!(field, "message.token" | "message.fid"))
        || error.message.as_deref().is_some_and(|message| message.contains(NO_TOKEN))
}

fn invalid_argument(doubtful: bool) -> Meaning {
    if doubtful { Meaning::AmbiguousToken } else { Meaning::OurFault }
}

/// FCM's own code, from `details`.
fn by_code(code: &str, doubtful: bool) -> Option<Meaning> {
    Some(match code {
        "INVALID_ARGUMENT" => invalid_argument(doubtful),
        "UNREGISTERED" => Meaning::Unregistered { since: None },
        "SENDER_ID_MISMATCH" => Meaning::AmbiguousToken,
        "THIRD_PARTY_AUTH_ERROR" => Meaning::CredentialFault,
        "QUOTA_EXCEEDED" => Meaning::Throttled,
        "UNAVAILABLE" | "INTERNAL" => Meaning::Unavailable,
        _ => return None,
    })
}

/// The canonical word in `error.status`.
fn by_word(word: &str, doubtful: bool) -> Option<Meaning> {
    Some(match word {
        "INVALID_ARGUMENT" => invalid_argument(doubtful),
        "UNAUTHENTICATED" => Meaning::StaleToken,
        "PERMISSION_DENIED" | "NOT_FOUND" => Meaning::CredentialFault,
        "RESOURCE_EXHAUSTED" => Meaning::Throttled,
        "INTERNAL" | "UNAVAILABLE" | "DEADLINE_EXCEEDED" => Meaning::Unavailable,
        _ => return None,
    })
}

fn by_status(status: StatusCode) -> Meaning {
    match status.as_u16() {
        401 => Meaning::StaleToken,
        403 | 404 => Meaning::CredentialFault,
        429 => Meaning::Throttled,
        400..=499 => Meaning::OurFault,
        _ => Meaning::Unavailable,
    }
}
