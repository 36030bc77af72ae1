//! What APNs demands of a request: headers, path and payload, in roughly the order in which Apple is known to look at them.

use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use serde_json::Value;

/// An APNs error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub reason: &'static str,
}

impl Refusal {
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

/// A request whose headers and path are right.
#[derive(Debug)]
pub(super) struct Addressed<'a> {
    pub topic: &'a str,
    pub push_type: &'a str,
}

/// For a token that is none, or is not known here.
pub(super) const BAD_TOKEN: Refusal = Refusal::new(400, "BadDeviceToken");
/// The path before the token.
const PATH_PREFIX: &str = "/3/device/";
const COLLAPSE_ID_LIMIT_BYTES: usize = 64;
/// Apple asks not to assume a length; nobody has seen a token shorter than 32 bytes (64 hex digits), nor longer than 100.
const TOKEN_HEX_DIGITS: std::ops::RangeInclusive<usize> = 64..=200;
const PAYLOAD_LIMIT_BYTES: usize = 4096;
const VOIP_PAYLOAD_LIMIT_BYTES: usize = 5120;

/// Every documented push type and the suffix its topic carries after the bundle id.
const PUSH_TYPES: [(&str, &str); 10] = [
    ("alert", ""),
    ("background", ""),
    ("voip", ".voip"),
    ("complication", ".complication"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("location", ".location-query"),
    ("liveactivity", ".push-type.liveactivity"),
    ("pushtotalk", ".voip-ptt"),
    ("widgets", ".push-type.widgets"),
    ("controls", ".push-type.controls"),
];

/// The most a payload of any type may have.
pub(super) const ANY_PAYLOAD_LIMIT_BYTES: usize = VOIP_PAYLOAD_LIMIT_BYTES;

/// The `apns-id` of the request, if it has a canonical one.
///
/// # Errors
/// `BadMessageId` if it is anything but a lower-case UUID of the form 8-4-4-4-12.
pub(super) fn message_id(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    const BAD: Refusal = Refusal::new(400, "BadMessageId");
    let Some(id) = headers.get("apns-id") else {
        return Ok(None);
    };
    let id = id.to_str().map_err(|_| BAD)?;
    let canonical =
        id.len() == 36 && uuid::Uuid::try_parse(id).is_ok() && !id.contains(|c: char| c.is_ascii_uppercase());
    if canonical { Ok(Some(id)) } else { Err(BAD) }
}

/// Checks method, headers and path.
///
/// # Errors
/// What APNs answers to the first thing that is wrong.
pub(super) fn address(parts: &Parts) -> Result<Addressed<'_>, Refusal> {
    let bad = |reason| Refusal::new(400, reason);
    let headers = &parts.headers;
    message_id(headers)?;
    if parts.method != Method::POST {
        return Err(Refusal::new(405, "MethodNotAllowed"));
    }
    if headers.keys().any(|name| name.as_str().starts_with("apns-") && headers.get_all(name).iter().count() > 1) {
        return Err(bad("DuplicateHeaders"));
    }
    let text = |name: &str, reason| headers.get(name).map(|v| v.to_str().map_err(|_| bad(reason))).transpose();
    let topic = text("apns-topic", "BadTopic")?.filter(|topic| !topic.is_empty()).ok_or(bad("MissingTopic"))?;
    if headers.get("apns-collapse-id").is_some_and(|id| id.len() > COLLAPSE_ID_LIMIT_BYTES) {
        return Err(bad("BadCollapseId"));
    }
    let push_type = text("apns-push-type", "InvalidPushType")?.unwrap_or("alert");
    let priority = text("apns-priority", "BadPriority")?.unwrap_or("10");
    if !["10", "5", "1"].contains(&priority) || (push_type == "background" && priority != "5") {
        return Err(bad("BadPriority"));
    }
    if !PUSH_TYPES.iter().any(|(known, _)| *known == push_type) && push_type != "mdm" {
        return Err(bad("InvalidPushType"));
    }
    if text("apns-expiration", "BadExpirationDate")?.is_some_and(|at| at.parse::<u32>().is_err()) {
        return Err(bad("BadExpirationDate"));
    }
    let token = parts.uri.path().strip_prefix(PATH_PREFIX).ok_or(Refusal::new(404, "BadPath"))?;
    check_token(token)?;
    Ok(Addressed { topic, push_type })
}

fn check_token(token: &str) -> Result<(), Refusal> {
    if token.is_empty() {
        return Err(Refusal::new(400, "MissingDeviceToken"));
    }
    let hex = token.bytes().all(|digit| digit.is_ascii_hexdigit());
    if hex && TOKEN_HEX_DIGITS.contains(&token.len()) { Ok(()) } else { Err(BAD_TOKEN) }
}

/// Whether a well-formed token is one that Apple has never given out. It can tell so only to those whose credential is good: who
/// checks one with such a token is told first if the credential is bad.
pub(super) fn is_nobodys(token: &str) -> bool {
    token.bytes().all(|digit| digit == b'0')
}

/// Whether a key that may push to `bundle_ids` may use `topic` for a push of this type.
///
/// # Errors
/// `TopicDisallowed` if not.
pub(super) fn check_topic(addressed: &Addressed<'_>, bundle_ids: &[String]) -> Result<(), Refusal> {
    let suffix = PUSH_TYPES.iter().find(|(known, _)| *known == addressed.push_type).map_or("", |(_, suffix)| suffix);
    let bundle_id = addressed.topic.strip_suffix(suffix);
    if bundle_id.is_some_and(|id| bundle_ids.iter().any(|own| own == id)) {
        Ok(())
    } else {
        Err(Refusal::new(400, "TopicDisallowed"))
    }
}

/// Checks and parses the payload.
///
/// # Errors
/// What APNs answers. Apple has no word for a payload that is no JSON object with an `aps` object, and drops it silently; the
/// simulator says `BadPayload`, because whoever sends that wants to know.
pub(super) fn payload(body: &[u8], push_type: &str) -> Result<Value, Refusal> {
    let limit = if push_type == "voip" { VOIP_PAYLOAD_LIMIT_BYTES } else { PAYLOAD_LIMIT_BYTES };
    if body.is_empty() {
        return Err(Refusal::new(400, "PayloadEmpty"));
    }
    if body.len() > limit {
        return Err(Refusal::new(413, "PayloadTooLarge"));
    }
    const BAD: Refusal = Refusal::new(400, "BadPayload");
    let payload: Value = serde_json::from_slice(body).map_err(|_| BAD)?;
    if push_type == "mdm" {
        return Ok(payload);
    }
    let aps = payload.get("aps").and_then(Value::as_object).ok_or(BAD)?;
    let silent = aps.len() == 1 && aps.get("content-available").and_then(Value::as_i64) == Some(1);
    if push_type == "background" && !silent {
        return Err(Refusal::new(400, "InvalidPushType"));
    }
    Ok(payload)
}
