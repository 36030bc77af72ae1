//! What FCM demands of a message, and the words of its errors.

use serde_json::{Map, Value, json};

/// Keys and values of `data` together; to a topic half of it.
const DATA_LIMIT_BYTES: usize = 4096;
const TOPIC_DATA_LIMIT_BYTES: usize = 2048;
/// Four weeks.
const TTL_LIMIT_S: f64 = 2_419_200.0;
/// The token FCM is asked to find malformed.
const INVALID_TOKEN: &str = "invalid";

const REQUEST_FIELDS: [&str; 2] = ["message", "validate_only"];
const MESSAGE_FIELDS: [&str; 12] = [
    "name",
    "data",
    "notification",
    "android",
    "android_v2",
    "webpush",
    "apns",
    "fcm_options",
    "token",
    "fid",
    "topic",
    "condition",
];
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];
const ANDROID_FIELDS: [&str; 10] = [
    "collapse_key",
    "priority",
    "ttl",
    "restricted_package_name",
    "data",
    "notification",
    "fcm_options",
    "direct_boot_ok",
    "bandwidth_constrained_ok",
    "restricted_satellite_ok",
];
const APNS_FIELDS: [&str; 4] = ["headers", "payload", "fcm_options", "live_activity_token"];

/// An error answer of the API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    pub status: u16,
    pub body: Value,
}

/// A right request.
#[derive(Debug)]
pub(super) struct Accepted {
    pub target: String,
    pub message: Value,
    pub validate_only: bool,
}

impl ApiError {
    /// An error without details.
    pub fn plain(status: u16, canonical: &str, message: &str) -> Self {
        Self { status, body: json!({ "error": { "code": status, "message": message, "status": canonical } }) }
    }

    /// An error with the `FcmError` code `reason`, which may name the field at fault after a colon.
    pub fn fcm(status: u16, reason: &str) -> Self {
        let (code, field) = reason.split_once(':').map_or((reason, None), |(code, field)| (code, Some(field)));
        let message = match code {
            "UNREGISTERED" => "Requested entity was not found.",
            "INVALID_ARGUMENT" => "The registration token is not a valid FCM registration token",
            "SENDER_ID_MISMATCH" => "SenderId mismatch",
            "QUOTA_EXCEEDED" => "Quota exceeded.",
            "UNAVAILABLE" => "The service is currently unavailable.",
            "THIRD_PARTY_AUTH_ERROR" => "Auth error from APNS or Web Push Service",
            _ => "Internal error encountered.",
        };
        let error = Self::plain(status, canonical(status, code), message);
        let mut details =
            vec![json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code })];
        if let Some(field) = field {
            details.push(violation(field, "Invalid registration token"));
        }
        if code == "QUOTA_EXCEEDED" {
            details.push(json!({ "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{ "subject": "simulated", "description": "Message rate exceeded." }] }));
        }
        error.with_details(details)
    }

    /// `INVALID_ARGUMENT` for a field of the request itself: no `FcmError`, because the API's front refuses before FCM looks.
    fn field(field: &str, description: &str) -> Self {
        Self::plain(400, "INVALID_ARGUMENT", description).with_details(vec![violation(field, description)])
    }

    fn unknown(parent: &str, name: &str) -> Self {
        Self::field(
            parent,
            &format!("Invalid JSON payload received. Unknown name \"{name}\" at '{parent}': Cannot find field."),
        )
    }

    fn with_details(mut self, details: Vec<Value>) -> Self {
        if let Some(error) = self.body.get_mut("error").and_then(Value::as_object_mut) {
            error.insert("details".to_owned(), Value::Array(details));
        }
        self
    }
}

fn violation(field: &str, description: &str) -> Value {
    json!({ "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{ "field": field, "description": description }] })
}

/// The `google.rpc.Code` FCM is seen to send with a status.
pub(super) fn canonical(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, "THIRD_PARTY_AUTH_ERROR") | (401, _) => "UNAUTHENTICATED",
        (400, _) => "INVALID_ARGUMENT",
        (403, _) => "PERMISSION_DENIED",
        (404, _) => "NOT_FOUND",
        (429, _) => "RESOURCE_EXHAUSTED",
        (503, _) => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

/// Reads and checks the body of a send request, in either spelling of proto3 JSON.
///
/// # Errors
/// The 400 Google would answer.
pub(super) fn check(body: &[u8]) -> Result<Accepted, ApiError> {
    let malformed = || ApiError::plain(400, "INVALID_ARGUMENT", "Invalid JSON payload received. Unexpected token.");
    let request: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
    let request = fields(request.as_object().ok_or_else(malformed)?, "", &REQUEST_FIELDS)?;
    let message = request.iter().find(|(name, _)| name == "message").map(|(_, value)| *value);
    let message = message.ok_or_else(|| ApiError::field("message", "Message must be set."))?;
    let object = message.as_object().ok_or_else(malformed)?;
    let message_fields = fields(object, "message", &MESSAGE_FIELDS)?;
    let get = |wanted: &str| message_fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);

    let (kind, target) = target(&message_fields)?;
    if let Some(data) = get("data") {
        check_data(data, if kind == "topic" { TOPIC_DATA_LIMIT_BYTES } else { DATA_LIMIT_BYTES })?;
    }
    if let Some(android) = get("android") {
        check_android(android)?;
    }
    if let Some(apns) = get("apns") {
        check_apns(apns)?;
    }
    if kind == "token" && target == INVALID_TOKEN {
        return Err(ApiError::fcm(400, "INVALID_ARGUMENT:message.token"));
    }
    let validate_only = request.iter().any(|(name, value)| name == "validate_only" && value.as_bool() == Some(true));
    let target = if kind == "topic" { format!("/topics/{target}") } else { target.to_owned() };
    Ok(Accepted { target, message: message.clone(), validate_only })
}

/// The one target, by kind.
fn target<'a>(message: &[(String, &'a Value)]) -> Result<(&'static str, &'a str), ApiError> {
    let set: Vec<_> = TARGETS
        .into_iter()
        .filter_map(|kind| message.iter().find(|(name, _)| name == kind).map(|(_, value)| (kind, *value)))
        .collect();
    let [(kind, value)] = set.as_slice() else {
        let words =
            "Recipient of the message is not set, or more than one is: exactly one of token, fid, topic, condition";
        return Err(ApiError::field("message", words));
    };
    match value.as_str() {
        Some(target) if !target.is_empty() => Ok((*kind, target)),
        _ => Err(ApiError::field(&format!("message.{kind}"), "Recipient of the message is not set.")),
    }
}

fn check_data(data: &Value, limit_bytes: usize) -> Result<(), ApiError> {
    let data = data.as_object().ok_or_else(|| ApiError::field("message.data", "Invalid value (Map), not an object"))?;
    let mut size_bytes = 0;
    for (key, value) in data {
        let value = value.as_str().ok_or_else(|| {
            ApiError::field("message.data[0].value", &format!("Invalid value at '{key}' (TYPE_STRING), {value}"))
        })?;
        let forbidden = ["from", "message_type", "gcm"].contains(&key.as_str())
            || ["google.", "gcm."].iter().any(|prefix| key.starts_with(prefix));
        if forbidden {
            return Err(ApiError::field("message.data", &format!("Invalid data payload key: {key}")));
        }
        size_bytes += key.len() + value.len();
    }
    if size_bytes > limit_bytes {
        // The one 400 that is seen without any details.
        return Err(ApiError::plain(400, "INVALID_ARGUMENT", "Android message is too big"));
    }
    Ok(())
}

fn check_android(android: &Value) -> Result<(), ApiError> {
    let bad = |field: &str, value: &Value| {
        ApiError::field(
            &format!("message.android.{field}"),
            &format!("Invalid value at 'message.android.{field}', {value}"),
        )
    };
    let android =
        android.as_object().ok_or_else(|| ApiError::field("message.android", "Invalid value, not an object"))?;
    for (name, value) in fields(android, "message.android", &ANDROID_FIELDS)? {
        let right = match name.as_str() {
            "priority" => {
                value.as_str().is_some_and(|p| ["NORMAL", "HIGH"].iter().any(|known| known.eq_ignore_ascii_case(p)))
            }
            "ttl" => value.as_str().and_then(seconds).is_some_and(|ttl_s| (0.0..=TTL_LIMIT_S).contains(&ttl_s)),
            "collapse_key" | "restricted_package_name" => value.is_string(),
            "direct_boot_ok" | "bandwidth_constrained_ok" | "restricted_satellite_ok" => value.is_boolean(),
            "data" => {
                check_data(value, DATA_LIMIT_BYTES)?;
                true
            }
            _ => value.is_object(),
        };
        if !right {
            return Err(bad(&name, value));
        }
    }
    Ok(())
}

/// A proto3 JSON duration: `3600s`, `0.5s`.
fn seconds(text: &str) -> Option<f64> {
    text.strip_suffix('s')?.parse().ok()
}

fn check_apns(apns: &Value) -> Result<(), ApiError> {
    let apns = apns.as_object().ok_or_else(|| ApiError::field("message.apns", "Invalid value, not an object"))?;
    fields(apns, "message.apns", &APNS_FIELDS)?;
    let no_headers = Map::new();
    let headers = apns.get("headers").map_or(Some(&no_headers), Value::as_object);
    let headers = headers.filter(|headers| headers.values().all(Value::is_string));
    let headers = headers.ok_or_else(|| ApiError::field("message.apns.headers", "Invalid value (Map of strings)"))?;
    let aps = apns.get("payload").and_then(|payload| payload.get("aps"));
    if apns.contains_key("payload") && !apns.get("payload").is_some_and(Value::is_object) {
        return Err(ApiError::field("message.apns.payload", "Invalid value, not an object"));
    }
    let silent = aps.and_then(Value::as_object).is_some_and(|aps| {
        aps.contains_key("content-available") && !["alert", "sound", "badge"].iter().any(|key| aps.contains_key(*key))
    });
    let priority = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("apns-priority")).map(|(_, value)| value);
    if silent && priority.is_some_and(|priority| priority != "5") {
        let words = "Only priority 5 is allowed for a message without notification.";
        return Err(ApiError::field("message.apns.headers", words));
    }
    Ok(())
}

/// The fields of an object by their snake_case names.
///
/// # Errors
/// If there is one outside `known`.
fn fields<'a>(
    object: &'a Map<String, Value>,
    parent: &str,
    known: &[&str],
) -> Result<Vec<(String, &'a Value)>, ApiError> {
    let named = |(name, value): (&str, &'a Value)| {
        let snake = snake_case(name);
        if known.contains(&snake.as_str()) { Ok((snake, value)) } else { Err(ApiError::unknown(parent, name)) }
    };
    object.iter().map(|(name, value)| named((name, value))).collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
