//! The simulated Google: the OAuth token endpoint and FCM's HTTP v1 `messages:send`, over HTTP/2 with 100 streams and HTTP/1.1.

mod message;
mod oauth;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use self::message::ApiError;
use self::oauth::TokenEndpoint;
use super::SimClock;
use super::certs::Identity;
use super::faults::{Effect, FaultKind, Faults};
use super::inbox::{Inbox, Provider, Push};
use super::wire::{Farewell, Wire};

/// Observed at FCM; one more is a reason for it to close the connection.
const STREAMS: u32 = 100;
/// More than any message may have.
const REQUEST_LIMIT_BYTES: usize = 64 * 1024;
/// An error that carries this h2 reason is what hyper resets the stream with.
const REFUSED: h2::Reason = h2::Reason::REFUSED_STREAM;
const HTML_404: &str =
    "<!DOCTYPE html>\n<html lang=en><title>Error 404 (Not Found)!!1</title><p><b>404.</b> That’s an error.</html>\n";
const HTML_502: &str = "<!DOCTYPE html>\n<html lang=en><title>Error 502 (Server Error)!!1</title><p><b>502.</b> That’s an error. \
                        <p>The server encountered a temporary error. Please try again in 30 seconds.</html>\n";

type Answer = Response<Full<Bytes>>;

/// What all connections share.
pub(super) struct Google {
    pub faults: Arc<Faults>,
    /// Of the token endpoint; device tokens mean nothing there.
    pub oauth_faults: Arc<Faults>,
    inbox: Arc<Inbox>,
    tokens: TokenEndpoint,
    project_id: String,
    clock: SimClock,
}

/// What a [`Google`] is made from.
pub(super) struct GoogleSetup<'a> {
    pub identity: &'a Identity,
    pub project_id: String,
    pub client_email: String,
    pub token_url: String,
    pub token_life: Duration,
    pub inbox: Arc<Inbox>,
    pub clock: SimClock,
}

/// One connection, as its requests see it.
struct Line {
    farewell: Farewell,
    go_away: Notify,
}

impl Google {
    /// # Errors
    /// When the key of the identity does not parse.
    pub fn new(setup: GoogleSetup<'_>) -> anyhow::Result<Self> {
        let GoogleSetup { identity, project_id, client_email, token_url, token_life, inbox, clock } = setup;
        let tokens = TokenEndpoint::new(client_email, token_url, &identity.google_key, token_life, clock.clone())?;
        Ok(Self { faults: Arc::default(), oauth_faults: Arc::default(), inbox, tokens, project_id, clock })
    }

    /// Access tokens issued so far.
    pub fn tokens_issued(&self) -> usize {
        self.tokens.issued()
    }

    /// From now on every access token issued so far is answered 401.
    pub fn expire_tokens(&self) {
        self.tokens.expire_all();
    }

    /// Serves one connection until it ends.
    pub async fn serve(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        self.faults.count_connection();
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let line = Arc::new(Line { farewell: Farewell::default(), go_away: Notify::new() });
        let service = {
            let line = Arc::clone(&line);
            service_fn(move |request| Arc::clone(&self).answer(Arc::clone(&line), request))
        };
        macro_rules! drive {
            ($connection:expr) => {{
                let mut connection = std::pin::pin!($connection);
                loop {
                    tokio::select! {
                        ended = connection.as_mut() => break ended,
                        () = line.go_away.notified() => connection.as_mut().graceful_shutdown(),
                    }
                }
            }};
        }
        let ended = if http2 {
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(STREAMS).timer(TokioTimer::new());
            drive!(server.serve_connection(TokioIo::new(Wire::new(stream, None, line.farewell.clone())), service))
        } else {
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new());
            drive!(server.serve_connection(TokioIo::new(stream), service))
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the Google simulator failed");
        }
    }

    async fn answer(self: Arc<Self>, line: Arc<Line>, request: Request<Incoming>) -> Result<Answer, h2::Error> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let oauth = path == "/token";
        let project = path.strip_prefix("/v1/projects/").and_then(|rest| rest.strip_suffix("/messages:send"));
        if parts.method != Method::POST || (project.is_none() && !oauth) {
            return Ok(html(404, HTML_404));
        }
        let body = match Limited::new(body, REQUEST_LIMIT_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => {
                return Ok(api(&ApiError::plain(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.")));
            }
        };
        if oauth {
            return self.token(&line, &body).await;
        }
        self.faults.count_request();
        let bearer = parts.headers.get(AUTHORIZATION).and_then(bearer);
        self.send(&line, project.unwrap_or_default(), bearer, &body).await
    }

    async fn token(&self, line: &Line, form: &[u8]) -> Result<Answer, h2::Error> {
        self.oauth_faults.count_request();
        let verdict = self.oauth_faults.decide("");
        self.oauth_faults.hold(verdict.delay).await;
        match verdict.effect {
            Effect::Fault(FaultKind::Status { status, reason, retry_after }) => {
                let reason = reason.as_deref().unwrap_or("internal_failure");
                Ok(with_retry_after(json_answer(status, &json!({ "error": reason })), retry_after))
            }
            Effect::Fault(fault) => line.misbehave(fault).await,
            Effect::Deliver | Effect::Lose | Effect::Dead { .. } => {
                let (status, body) = self.tokens.answer(form);
                Ok(json_answer(status, &body))
            }
        }
    }

    async fn send(&self, line: &Line, project: &str, bearer: Option<&str>, body: &[u8]) -> Result<Answer, h2::Error> {
        let accepted = match self.check(project, bearer, body) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.record(&Outcome { status: error.status, ..Outcome::default() }, || message_of(body));
                self.faults.hold(None).await;
                return Ok(api(&error));
            }
        };
        let verdict = self.faults.decide(&accepted.target);
        let name = if accepted.validate_only { "fake_message_id".to_owned() } else { self.message_id() };
        let name = format!("projects/{}/messages/{name}", self.project_id);
        let answer = match &verdict.effect {
            Effect::Deliver | Effect::Lose => Some(json_answer(200, &json!({ "name": name }))),
            Effect::Dead { .. } => Some(api(&ApiError::fcm(404, "UNREGISTERED"))),
            Effect::Fault(FaultKind::Status { status, reason, retry_after }) => {
                Some(with_retry_after(api(&fault_error(*status, reason.as_deref())), retry_after.clone()))
            }
            Effect::Fault(FaultKind::Html502) => Some(html(502, HTML_502)),
            Effect::Fault(FaultKind::Empty { status }) => Some(empty(*status)),
            Effect::Fault(_) => None,
        };
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        let delivered = matches!(verdict.effect, Effect::Deliver) && !accepted.validate_only;
        let id = if status == 200 { name } else { String::new() };
        self.record(&Outcome { status, delivered, id, token: accepted.target }, || accepted.message);
        self.faults.hold(verdict.delay).await;
        match (answer, verdict.effect) {
            (Some(answer), _) => Ok(answer),
            (None, Effect::Fault(fault)) => line.misbehave(fault).await,
            (None, _) => Ok(empty(500)),
        }
    }

    fn check(&self, project: &str, bearer: Option<&str>, body: &[u8]) -> Result<message::Accepted, ApiError> {
        if !bearer.is_some_and(|token| self.tokens.holds(token)) {
            let words = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
                         valid authentication credential.";
            return Err(ApiError::plain(401, "UNAUTHENTICATED", words));
        }
        if project != self.project_id {
            return Err(ApiError::plain(404, "NOT_FOUND", "Requested entity was not found."));
        }
        message::check(body)
    }

    fn record(&self, outcome: &Outcome, message: impl FnOnce() -> Value) {
        self.inbox.take(&outcome.token, outcome.delivered, || Push {
            provider: Provider::Fcm,
            token: outcome.token.clone(),
            id: outcome.id.clone(),
            headers: std::collections::BTreeMap::new(),
            body: message(),
            at_ms: self.clock.now_ms(),
            status: outcome.status,
            delivered: outcome.delivered,
        });
    }

    /// In Google's form: microseconds and 16 hex digits.
    fn message_id(&self) -> String {
        let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
        format!("0:{}%{random:016x}", self.clock.now_ms().saturating_mul(1000))
    }
}

#[derive(Default)]
struct Outcome {
    status: u16,
    delivered: bool,
    id: String,
    token: String,
}

impl Line {
    /// The faults that are no JSON answer.
    async fn misbehave(&self, fault: FaultKind) -> Result<Answer, h2::Error> {
        match fault {
            FaultKind::GoAway { reason } => {
                self.farewell.say(reason.unwrap_or_default());
                self.go_away.notify_one();
                Err(REFUSED.into())
            }
            FaultKind::BlackHole => {
                let never: Infallible = std::future::pending().await;
                match never {}
            }
            FaultKind::Html502 => Ok(html(502, HTML_502)),
            FaultKind::Empty { status } => Ok(empty(status)),
            _ => Err(h2::Reason::INTERNAL_ERROR.into()),
        }
    }
}

fn fault_error(status: u16, reason: Option<&str>) -> ApiError {
    match reason {
        Some(reason) => ApiError::fcm(status, reason),
        None => ApiError::plain(status, message::canonical(status, ""), "Simulated error."),
    }
}

fn message_of(body: &[u8]) -> Value {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    request.get("message").cloned().unwrap_or_default()
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn api(error: &ApiError) -> Answer {
    json_answer(error.status, &error.body)
}

/// Pretty-printed, as Google does.
fn json_answer(status: u16, body: &Value) -> Answer {
    answer(status, "application/json; charset=UTF-8", format!("{body:#}\n").into())
}

fn html(status: u16, page: &'static str) -> Answer {
    answer(status, "text/html; charset=UTF-8", page.into())
}

fn empty(status: u16) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status_code(status);
    answer
}

fn answer(status: u16, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status_code(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn with_retry_after(mut answer: Answer, retry_after: Option<String>) -> Answer {
    if let Some(value) = retry_after.and_then(|value| HeaderValue::from_str(&value).ok()) {
        answer.headers_mut().insert(RETRY_AFTER, value);
    }
    answer
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
