//! WebSockets (RFC 6455), subprotocol `reveille.v1`: JSON frames over one connection. docs/live.md has the state machine and the close codes.

use std::{ops::ControlFlow, time::Duration};

use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use utoipa::IntoParams;

use super::{
    Caller,
    line::{Hand, Line, TOO_SLOW, Told},
};
use crate::{
    api::{
        Api,
        extract::Query,
        page::SNAPSHOT,
        problem::{self, Problem, Result},
    },
    domain::cursor::CursorError,
    live::End,
    metrics::Channel,
};

const PROTOCOL: &str = "reveille.v1";
/// How long a client may take to say where it is.
const BEGIN: Duration = Duration::from_secs(10);
/// How often the client is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client that has not answered for so long is gone.
const SILENT: Duration = Duration::from_secs(45);
/// How long its close frame is waited for.
const CLOSING: Duration = Duration::from_secs(2);
/// What a frame may take to be taken.
const SENDING: Duration = Duration::from_secs(10);
/// The longest frame of a client, in bytes: a cursor and a few words.
const FRAME_BYTES: usize = 4096;
/// What is read and written at a time, in bytes; every connection has as much.
const BUFFER_BYTES: usize = 1024;

/// Close codes of our own (RFC 6455 §7.4.2); docs/live.md says what to do about each.
mod close {
    pub const AWAY: u16 = 1001;
    pub const FAILED: u16 = 1011;
    pub const NOT_UNDERSTOOD: u16 = 4400;
    pub const REVOKED: u16 = 4401;
    pub const TIMED_OUT: u16 = 4408;
    pub const REPLACED: u16 = 4409;
    pub const RESYNC: u16 = 4410;
    pub const TOO_SLOW: u16 = 4429;
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SocketQuery {
    #[serde(rename = "ticket")]
    #[param(ignore)]
    _ticket: Option<String>,
}

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// Where it is; first, and once.
    Subscribe {
        #[serde(default)]
        after: Option<String>,
        #[serde(default)]
        thin: bool,
    },
    /// What it has seen.
    Ack { cursor: String },
}

/// Opens a WebSocket for all feeds that the device follows
///
/// Subprotocol `reveille.v1`; docs/live.md has its frames, states and close codes.
#[utoipa::path(get, path = "/v1/sync/ws", operation_id = "webSocket", tag = "polling",
    security(("deviceToken" = []), ("ticket" = [])), params(SocketQuery),
    responses((status = 101, description = "The connection goes on as a WebSocket"),
        (status = 426, description = "`websocket-expected`", body = crate::api::problem::ProblemDocument,
            content_type = "application/problem+json")))]
pub async fn open(
    State(api): State<Api>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    caller: Caller,
    Query(_): Query<SocketQuery>,
) -> Result<Response> {
    api.limiters.poll(caller.poller.device)?;
    let upgrade = upgrade.ok().map(|upgrade| upgrade.protocols([PROTOCOL]));
    let Some(upgrade) = upgrade.filter(|upgrade| upgrade.selected_protocol().is_some()) else {
        let detail = format!("this route takes a WebSocket with Sec-WebSocket-Protocol: {PROTOCOL}");
        let mut response = Problem::new(problem::WEBSOCKET_EXPECTED, detail).into_response();
        // RFC 9110 §15.5.22
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(response);
    };
    let live = api.live.clone();
    let line = Line::open(api, Channel::WebSocket, caller).await?;
    let upgrade = upgrade.max_message_size(FRAME_BYTES).max_frame_size(FRAME_BYTES);
    let upgrade = upgrade.read_buffer_size(BUFFER_BYTES).write_buffer_size(0);
    Ok(upgrade.on_upgrade(async move |socket| live.serve(Connection { socket, line }.serve()).await))
}

struct Connection {
    socket: WebSocket,
    line: Line,
}

/// Why a connection is over: the code to close it with, and the reason; nothing if the client has closed it.
type Over = Option<(u16, &'static str)>;

impl Connection {
    async fn serve(mut self) {
        let over = match self.begin().await {
            ControlFlow::Continue(()) => self.talk().await,
            ControlFlow::Break(over) => over,
        };
        let Self { mut socket, line } = self;
        // From here on it has no seat.
        drop(line);
        Box::pin(async move {
            if let Some((code, reason)) = over {
                let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
                if send(&mut socket, frame).await.is_break() {
                    return;
                }
            }
            // The client's close frame, or the answer to it: then both sides know that nothing was lost.
            let closed = async { while let Some(Ok(_)) = socket.recv().await {} };
            timeout(CLOSING, closed).await.ok();
        })
        .await;
    }

    /// Waits until the client says where it is.
    async fn begin(&mut self) -> ControlFlow<Over> {
        let by = Instant::now() + BEGIN;
        let hand = self.line.hand();
        loop {
            let said = tokio::select! {
                said = self.socket.recv() => said,
                // Only that it is over.
                told = self.line.next() => return Box::pin(tell(&mut self.socket, told)).await,
                () = tokio::time::sleep_until(by) => return over(close::TIMED_OUT, "timed out"),
            };
            match understood(said)? {
                None => {}
                Some(Said::Ack { .. }) => return over(close::NOT_UNDERSTOOD, "subscribe comes first"),
                Some(Said::Subscribe { after, thin }) => {
                    match after.map(|after| hand.open_cursor(&after)).transpose() {
                        Ok(after) => self.line.begin(after, thin),
                        Err(error) => Box::pin(refuse(&mut self.socket, error)).await?,
                    }
                    return ControlFlow::Continue(());
                }
            }
        }
    }

    async fn talk(&mut self) -> Over {
        let Self { socket, line } = self;
        let hand = line.hand();
        let (mut ping_at, mut unanswered) = (Instant::now() + PING_EVERY, None::<Instant>);
        loop {
            // What the client says meanwhile breaks off nothing that the line is at.
            let next = line.next();
            tokio::pin!(next);
            let told = loop {
                let step = tokio::select! {
                    said = socket.recv() => {
                        unanswered = None;
                        Box::pin(hear(socket, &hand, said)).await
                    }
                    told = &mut next => break told,
                    () = tokio::time::sleep_until(ping_at) => {
                        ping_at = Instant::now() + PING_EVERY;
                        if unanswered.is_some_and(|since| since.elapsed() > SILENT) {
                            over(close::TIMED_OUT, "timed out")
                        } else {
                            unanswered.get_or_insert_with(Instant::now);
                            Box::pin(send(socket, Message::Ping(Default::default()))).await
                        }
                    }
                };
                if let ControlFlow::Break(over) = step {
                    return over;
                }
            };
            // Aside, as all that is rare: so who only listens need not carry it.
            if let ControlFlow::Break(over) = Box::pin(tell(socket, told)).await {
                return over;
            }
        }
    }
}

fn over<T>(code: u16, reason: &'static str) -> ControlFlow<Over, T> {
    ControlFlow::Break(Some((code, reason)))
}

/// What a client says, if it says anything.
fn understood(said: Option<std::result::Result<Message, axum::Error>>) -> ControlFlow<Over, Option<Said>> {
    match said {
        Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
            Ok(said) => ControlFlow::Continue(Some(said)),
            Err(_) => over(close::NOT_UNDERSTOOD, "this is no frame of reveille.v1"),
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => ControlFlow::Continue(None),
        Some(Ok(Message::Binary(_))) => over(close::NOT_UNDERSTOOD, "frames are JSON text"),
        Some(Ok(Message::Close(_)) | Err(_)) | None => ControlFlow::Break(None),
    }
}

async fn hear(
    socket: &mut WebSocket,
    hand: &Hand,
    said: Option<std::result::Result<Message, axum::Error>>,
) -> ControlFlow<Over> {
    match understood(said)? {
        None => ControlFlow::Continue(()),
        Some(Said::Subscribe { .. }) => over(close::NOT_UNDERSTOOD, "subscribe comes once"),
        Some(Said::Ack { cursor }) => match hand.open_cursor(&cursor) {
            Ok(acked) if hand.acknowledge(acked).await => ControlFlow::Continue(()),
            Ok(_) => tell(socket, Told::Resync(problem::CURSOR_AHEAD.slug)).await,
            Err(error) => refuse(socket, error).await,
        },
    }
}

/// A cursor leads nowhere.
async fn refuse(socket: &mut WebSocket, error: CursorError) -> ControlFlow<Over> {
    match error {
        CursorError::Invalid => ControlFlow::Break(Some((close::NOT_UNDERSTOOD, problem::CURSOR_INVALID.slug))),
        CursorError::EpochChanged => tell(socket, Told::Resync(problem::EPOCH_CHANGED.slug)).await,
    }
}

async fn tell(socket: &mut WebSocket, told: Told) -> ControlFlow<Over> {
    match told {
        Told::Entries(entries) => {
            for entry in entries {
                // The cursor has no character that JSON would escape.
                let frame = format!(r#"{{"type":"event","id":"{}","event":{}}}"#, entry.cursor, entry.text.as_str());
                send(socket, Message::text(frame)).await?;
            }
            ControlFlow::Continue(())
        }
        Told::Head(head) => send_json(socket, &json!({"type": "head", "head": head})).await,
        Told::CaughtUp { cursor, after_s, push } => {
            send_json(socket, &json!({"type": "poll", "id": cursor, "after_s": after_s, "push": push})).await
        }
        Told::Resync(TOO_SLOW) => over(close::TOO_SLOW, TOO_SLOW),
        Told::Resync(reason) => {
            send_json(socket, &json!({"type": "resync", "reason": reason, "snapshot": SNAPSHOT})).await?;
            over(close::RESYNC, reason)
        }
        Told::End(End::Revoked) => over(close::REVOKED, "the token has ended"),
        Told::End(End::Replaced) => over(close::REPLACED, "newer connections have taken its place"),
        Told::End(_) => over(close::AWAY, "the relay ends: connect again"),
        Told::Failed => over(close::FAILED, "the relay failed: connect again"),
    }
}

async fn send_json(socket: &mut WebSocket, frame: &Value) -> ControlFlow<Over> {
    send(socket, Message::text(frame.to_string())).await
}

/// One that takes nothing for long is let go: nothing could be said to it either.
async fn send(socket: &mut WebSocket, message: Message) -> ControlFlow<Over> {
    match timeout(SENDING, socket.send(message)).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(_)) | Err(_) => ControlFlow::Break(None),
    }
}
