//! Problems: every error answer is an RFC 9457 document whose type the server explains.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::{
    domain::{Invalid, InvalidKind},
    store,
};

/// A kind of problem: its slug, status, title, and what a developer is told about it at `/problems/<slug>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The last part of `type`.
    pub slug: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// A short summary.
    pub title: &'static str,
    /// What it means and what to do.
    pub help: &'static str,
}

macro_rules! kinds {
    ($($name:ident $slug:literal $status:ident $title:literal $help:literal;)*) => {
        $(
            #[doc = concat!("`", $slug, "`: ", $title)]
            pub const $name: Kind = Kind { slug: $slug, status: StatusCode::$status, title: $title, help: $help };
        )*
        /// All kinds, for the pages that explain them.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    UNAUTHORIZED "unauthorized" UNAUTHORIZED "Authentication is needed"
        "Send `Authorization: Bearer …` with an operator key, an app key (rk_…) or a device token (dt_…), whichever the route takes. The key may have been deleted or have expired; a device token ends when its user changes or it logs out: register again.";
    FORBIDDEN "forbidden" FORBIDDEN "This caller may not do that"
        "The key is good, but not for this route: app routes take app keys, operator routes the operator key, /v1/sync and /v1/devices/me a device token.";
    MISSING_SCOPE "missing-scope" FORBIDDEN "The app key lacks a scope"
        "Make a key with the scope that `detail` names: POST /v1/apps/{app}/keys.";
    NOT_FOUND "not-found" NOT_FOUND "There is no such thing"
        "The route or object does not exist, or belongs to another app.";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED "The route does not take this method"
        "See the contract for the methods of each route.";
    MALFORMED "malformed-json" BAD_REQUEST "The body is not JSON"
        "The body must be one JSON document in UTF-8; `detail` says where it breaks.";
    INVALID "invalid" UNPROCESSABLE_ENTITY "A value is not allowed"
        "`errors` lists each wrong field with a JSON pointer. Unknown fields are refused, so that a typing error does not pass silently.";
    TOO_LARGE "too-large" PAYLOAD_TOO_LARGE "The request is too large"
        "GET /v1/limits lists all limits. Keep big state in your own API and let the event carry its `href`.";
    TRIGGER_TOO_LARGE "trigger-too-large" UNPROCESSABLE_ENTITY "The push would be too large for its provider"
        "APNs and FCM take 4096 bytes. `limit` and `actual` are in bytes, `field` is the largest one: shorten the alert or the href.";
    KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "The Idempotency-Key belongs to another request"
        "A key stands for one request for 24 hours; a repetition must have the same method, path and body, byte for byte.";
    OVERLAP "credential-overlap" UNPROCESSABLE_ENTITY "Another credential serves the same devices"
        "A device's topic and environment, or its Firebase project, must lead to one credential. Delete or replace the one that `detail` names.";
    CURSOR_INVALID "cursor-invalid" BAD_REQUEST "The cursor is not one of ours"
        "Cursors are opaque and belong to one device or feed. Start from the snapshot.";
    CURSOR_EXPIRED "cursor-expired" GONE "Events after the cursor have been dropped"
        "Retention has dropped events that you have not seen. Read the snapshot, then poll after its `as_of`.";
    CURSOR_AHEAD "cursor-ahead" GONE "The cursor is ahead of the feed"
        "The relay has lost the future that this cursor comes from. Read the snapshot, then poll after its `as_of`.";
    EPOCH_CHANGED "epoch-changed" GONE "The relay was restored from a backup"
        "Positions after the backup are no longer what they were. Read the snapshot, then poll after its `as_of`.";
    RATE_LIMITED "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "Wait as long as Retry-After says.";
    CONNECTIONS_FULL "connections-full" SERVICE_UNAVAILABLE "There are too many live connections"
        "This process has as many as it may. Poll meanwhile, and try again when Retry-After says; another process may have room.";
    WEBSOCKET_EXPECTED "websocket-expected" UPGRADE_REQUIRED "The route takes a WebSocket"
        "Connect with the subprotocol reveille.v1: Sec-WebSocket-Protocol: reveille.v1.";
    BUSY "busy" SERVICE_UNAVAILABLE "The relay is busy"
        "Nothing was done. Wait as long as Retry-After says and repeat the request, with the same Idempotency-Key if it had one.";
    INTERNAL "internal" INTERNAL_SERVER_ERROR "The relay failed"
        "The fault is ours. It may or may not have been done: repeat with the same Idempotency-Key. The log has the X-Request-Id.";
}

/// One answer that says no.
#[derive(Debug)]
pub struct Problem(Box<Document>);

#[derive(Debug)]
struct Document {
    kind: Kind,
    detail: String,
    errors: Vec<Invalid>,
    extra: Map<String, Value>,
    retry_after: Option<Duration>,
}

/// An error answer (RFC 9457). Some kinds have members of their own.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct ProblemDocument {
    /// `/problems/<slug>`, a page that explains it.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/")]
    kind: String,
    /// A short summary, the same for all of this type.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong here.
    detail: String,
    /// Each field that is wrong.
    errors: Option<Vec<FieldError>>,
}

/// A field that is wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the request; empty for the whole of it.
    pointer: String,
    /// What is wrong, with the limit and what was found.
    detail: String,
}

/// What handlers answer.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem of this kind, with what is special about it here.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Document { kind, detail, errors: Vec::new(), extra: Map::new(), retry_after: None }))
    }

    /// There is no such thing, or it is another app's.
    pub fn not_found(what: &str) -> Self {
        Self::new(NOT_FOUND, format!("there is no such {what}"))
    }

    /// One field is wrong.
    pub fn field(pointer: &str, detail: impl Into<String>) -> Self {
        vec![Invalid::new(pointer, detail)].into()
    }

    /// Adds a member of its own.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// When to try again.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }
}

impl From<Vec<Invalid>> for Problem {
    fn from(errors: Vec<Invalid>) -> Self {
        let too_large = errors.iter().any(|error| error.kind == InvalidKind::TooLarge);
        let kind = if too_large { TOO_LARGE } else { INVALID };
        let detail = errors.iter().map(|error| match error.pointer.as_str() {
            "" => error.detail.clone(),
            pointer => format!("{pointer}: {}", error.detail),
        });
        let detail = detail.collect::<Vec<_>>().join("; ");
        let mut problem = Self::new(kind, detail);
        problem.0.errors = errors;
        problem
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        if error.passes() {
            tracing::debug!(%error, "the store turned a request away");
            return Self::new(BUSY, "the store is busy or cannot be reached").retry_after(Duration::from_secs(1));
        }
        tracing::error!(%error, "the store failed a request");
        Self::new(INTERNAL, "the store failed")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = *self.0;
        let mut body = json!({
            "type": format!("/problems/{}", document.kind.slug),
            "title": document.kind.title,
            "status": document.kind.status.as_u16(),
            "detail": document.detail,
        });
        if !document.errors.is_empty() {
            let errors = document.errors.iter().map(|error| json!({"pointer": error.pointer, "detail": error.detail}));
            body["errors"] = errors.collect();
        }
        for (name, value) in document.extra {
            body[name] = value;
        }
        let mut response = (document.kind.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if document.kind == UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(pause) = document.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs_f64().ceil().max(1.0) as u64));
        }
        response
    }
}
