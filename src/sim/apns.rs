//! The simulated Apple Push Notification service: TLS, HTTP/2 only, one stream until the first good provider token and 1000 after.
//!
//! The server is h2 itself, over [`super::wire`], which makes the live change of SETTINGS_MAX_CONCURRENT_STREAMS and the JSON in
//! GOAWAY real on the wire. A second stream opened before the first one has authenticated is refused with REFUSED_STREAM.

mod auth;
mod rules;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::{Request, Response, request::Parts};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::auth::{KeyRing, Session};
use self::rules::Refusal;
use super::SimClock;
use super::certs::{Identity, TEAM_ID};
use super::faults::{Effect, FaultKind, Faults};
use super::inbox::{Inbox, Provider, Push};
use super::wire::{Farewell, StreamLimits, Wire};

/// What Apple is seen to announce once a connection has authenticated.
const STREAMS: u32 = 1000;
/// What Apple announces before.
const STREAMS_BEFORE_AUTHENTICATION: u32 = 1;
/// The HTTP/2 default. Setting it again is what makes h2 send SETTINGS.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// Room for a thousand payloads at once.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const HEADER_LIST_LIMIT_BYTES: u32 = 16 * 1024;
const HTML_502: &str =
    "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n";

/// What all connections share.
pub(super) struct Apns {
    pub faults: Arc<Faults>,
    inbox: Arc<Inbox>,
    keys: KeyRing,
    bundle_ids: Vec<String>,
    clock: SimClock,
}

impl Apns {
    /// # Errors
    /// When the key of `identity` does not parse.
    pub fn new(
        identity: &Identity,
        bundle_ids: Vec<String>,
        faults: Arc<Faults>,
        inbox: Arc<Inbox>,
        clock: SimClock,
    ) -> anyhow::Result<Self> {
        let keys = KeyRing::new(TEAM_ID, &identity.apns_key)?;
        Ok(Self { faults, inbox, keys, bundle_ids, clock })
    }

    /// Serves one connection until it ends.
    pub async fn serve(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        self.faults.count_connection();
        let farewell = Farewell::default();
        let limits = StreamLimits { first: STREAMS_BEFORE_AUTHENTICATION, later: STREAMS };
        let wire = Wire::new(stream, Some(limits), farewell.clone());
        let handshake = Builder::new()
            .max_concurrent_streams(STREAMS)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADER_LIST_LIMIT_BYTES)
            .handshake(wire)
            .await;
        let connection = match handshake {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "no HTTP/2 on a connection to the APNs simulator"),
        };
        let mut line = Line {
            apns: self,
            connection,
            farewell,
            session: Arc::default(),
            running: FuturesUnordered::new(),
            streams: StreamState::One,
        };
        poll_fn(|cx| line.poll(cx)).await;
    }
}

/// One connection: takes all requests that are there, finishes all answers that are ready, and flushes once.
struct Line {
    apns: Arc<Apns>,
    connection: Connection<Wire<TlsStream<TcpStream>>, Bytes>,
    farewell: Farewell,
    session: Arc<Session>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Aftermath> + Send>>>,
    streams: StreamState,
}

#[derive(PartialEq)]
enum StreamState {
    One,
    /// Authenticated; the client's acknowledgement of earlier SETTINGS may still be awaited.
    Raising,
    Many,
}

/// What an answer means for its connection.
enum Aftermath {
    Unauthenticated,
    Authenticated,
    GoAway(Option<String>),
}

impl Line {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            loop {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                    Poll::Ready(Some(Err(error))) => {
                        tracing::debug!(%error, "a connection to the APNs simulator failed");
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            let mut finished = false;
            while let Poll::Ready(Some(aftermath)) = self.running.poll_next_unpin(cx) {
                finished = true;
                self.after(aftermath);
            }
            if !finished {
                return Poll::Pending;
            }
        }
    }

    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if self.streams == StreamState::One && !self.running.is_empty() {
            self.apns.faults.count_refused_stream();
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (apns, session) = (Arc::clone(&self.apns), Arc::clone(&self.session));
        self.running.push(Box::pin(answer(apns, session, request, respond)));
    }

    fn after(&mut self, aftermath: Aftermath) {
        match aftermath {
            Aftermath::Authenticated if self.streams == StreamState::One => self.streams = StreamState::Raising,
            Aftermath::Authenticated | Aftermath::Unauthenticated => {}
            Aftermath::GoAway(reason) => {
                if let Some(reason) = reason {
                    self.farewell.say(json!({ "reason": reason }).to_string());
                }
                self.connection.graceful_shutdown();
            }
        }
        if self.streams == StreamState::Raising && self.connection.set_initial_window_size(STREAM_WINDOW_BYTES).is_ok()
        {
            self.streams = StreamState::Many;
        }
    }
}

/// A request that was read, and what it deserves.
struct Judged {
    id: String,
    token: String,
    body: Value,
    authenticated: bool,
    delay: Option<std::time::Duration>,
    delivered: bool,
    answer: Answer,
}

enum Answer {
    Reply { status: u16, retry_after: Option<String>, body: Body },
    Reset,
    GoAway(Option<String>),
    BlackHole,
}

enum Body {
    None,
    Json(Value),
    Html,
}

async fn answer(
    apns: Arc<Apns>,
    session: Arc<Session>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Aftermath {
    apns.faults.count_request();
    let (parts, body) = request.into_parts();
    let Some(body) = read(body).await else {
        return Aftermath::Unauthenticated;
    };
    let mut judged = apns.judge(&parts, &session, &body);
    let payload = std::mem::take(&mut judged.body);
    apns.inbox.take(&judged.token, judged.delivered, || Push {
        provider: Provider::Apns,
        token: judged.token.clone(),
        id: judged.id.clone(),
        headers: apns_headers(&parts.headers),
        body: payload,
        at_ms: apns.clock.now_ms(),
        status: if let Answer::Reply { status, .. } = judged.answer { status } else { 0 },
        delivered: judged.delivered,
    });
    let aftermath = if judged.authenticated { Aftermath::Authenticated } else { Aftermath::Unauthenticated };
    if apns.faults.holds(judged.delay) {
        tokio::select! {
            () = apns.faults.hold(judged.delay) => {}
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return aftermath,
        }
    }
    match judged.answer {
        Answer::Reply { status, retry_after, body } => reply(&mut respond, status, &judged.id, retry_after, &body),
        Answer::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Answer::GoAway(reason) => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Aftermath::GoAway(reason);
        }
        // Only the client can end this; the connection forgets it then.
        Answer::BlackHole => drop(poll_fn(|cx| respond.poll_reset(cx)).await),
    }
    aftermath
}

/// The whole body, or as much as shows that it is too large; `None` if the client gave up.
async fn read(mut body: RecvStream) -> Option<Bytes> {
    let mut whole = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        body.flow_control().release_capacity(chunk.len()).ok()?;
        whole = if whole.is_empty() { chunk } else { [whole, chunk].concat().into() };
        if whole.len() > rules::ANY_PAYLOAD_LIMIT_BYTES {
            break;
        }
    }
    Some(whole)
}

impl Apns {
    fn judge(&self, parts: &Parts, session: &Session, body: &[u8]) -> Judged {
        let now_ms = self.clock.now_ms();
        let id = rules::message_id(&parts.headers)
            .ok()
            .flatten()
            .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let mut judged = Judged {
            id,
            token: parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned(),
            body: Value::Null,
            authenticated: false,
            delay: None,
            delivered: false,
            answer: Answer::BlackHole,
        };
        if let Err(refusal) = self.check(parts, session, body, now_ms, &mut judged) {
            judged.answer = refusal.into();
            return judged;
        }
        let verdict = self.faults.decide(&judged.token);
        judged.delay = verdict.delay;
        let nobodys = rules::is_nobodys(&judged.token);
        judged.delivered = matches!(verdict.effect, Effect::Deliver) && !nobodys;
        judged.answer = match verdict.effect {
            Effect::Deliver | Effect::Lose if nobodys => rules::BAD_TOKEN.into(),
            Effect::Deliver | Effect::Lose => Answer::Reply { status: 200, retry_after: None, body: Body::None },
            Effect::Dead { since_ms } => unregistered("Unregistered", since_ms.unwrap_or(now_ms)),
            Effect::Fault(fault) => fault_answer(fault, now_ms),
        };
        judged
    }

    fn check(
        &self,
        parts: &Parts,
        session: &Session,
        body: &[u8],
        now_ms: i64,
        judged: &mut Judged,
    ) -> Result<(), Refusal> {
        let addressed = rules::address(parts)?;
        self.keys.check(parts.headers.get("authorization"), session, now_ms)?;
        judged.authenticated = true;
        rules::check_topic(&addressed, &self.bundle_ids)?;
        judged.body = rules::payload(body, addressed.push_type)?;
        Ok(())
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Reply { status: refusal.status, retry_after: None, body: Body::Json(json!({ "reason": refusal.reason })) }
    }
}

fn unregistered(reason: &str, since_ms: i64) -> Answer {
    Answer::Reply {
        status: 410,
        retry_after: None,
        body: Body::Json(json!({ "reason": reason, "timestamp": since_ms })),
    }
}

fn fault_answer(fault: FaultKind, now_ms: i64) -> Answer {
    match fault {
        FaultKind::Status { status: 410, reason, retry_after: None } => {
            unregistered(reason.as_deref().unwrap_or("Unregistered"), now_ms)
        }
        FaultKind::Status { status, reason, retry_after } => {
            let reason = reason.unwrap_or_else(|| usual_reason(status).to_owned());
            Answer::Reply { status, retry_after, body: Body::Json(json!({ "reason": reason })) }
        }
        FaultKind::Reset => Answer::Reset,
        FaultKind::GoAway { reason } => Answer::GoAway(reason),
        FaultKind::Html502 => Answer::Reply { status: 502, retry_after: None, body: Body::Html },
        FaultKind::Empty { status } => Answer::Reply { status, retry_after: None, body: Body::None },
        FaultKind::BlackHole => Answer::BlackHole,
        // `Faults::decide` has resolved these two.
        FaultKind::Lost | FaultKind::Delay(_) => Answer::Reply { status: 200, retry_after: None, body: Body::None },
    }
}

fn usual_reason(status: u16) -> &'static str {
    match status {
        400 => "BadDeviceToken",
        403 => "InvalidProviderToken",
        404 => "BadPath",
        405 => "MethodNotAllowed",
        413 => "PayloadTooLarge",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    }
}

fn apns_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let apns = headers.iter().filter(|(name, _)| name.as_str().starts_with("apns-"));
    apns.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

fn reply(respond: &mut SendResponse<Bytes>, status: u16, id: &str, retry_after: Option<String>, body: &Body) {
    let mut response = Response::new(());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("apns-id"), id);
    }
    if let Some(value) = retry_after.and_then(|value| HeaderValue::from_str(&value).ok()) {
        headers.insert(RETRY_AFTER, value);
    }
    let bytes = match body {
        Body::None => Bytes::new(),
        Body::Json(value) => value.to_string().into(),
        Body::Html => HTML_502.into(),
    };
    if let Body::Html = body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    }
    let sent = respond
        .send_response(response, bytes.is_empty())
        .and_then(|mut stream| if bytes.is_empty() { Ok(()) } else { stream.send_data(bytes, true) });
    if let Err(error) = sent {
        tracing::debug!(%error, "the client of the APNs simulator did not wait for the answer");
    }
}
