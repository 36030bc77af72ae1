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
    line::{Line, TOO_SLOW, Told},
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
/// A client that has not been heard of for so long is gone.
const SILENT: Duration = Duration::from_secs(75);
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
        if let Some((code, reason)) = self.talk().await {
            Box::pin(self.close(code, reason)).await;
        }
    }

    async fn close(mut self, code: u16, reason: &'static str) {
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if self.send(frame).await.is_continue() {
            // The client's own close frame; then both sides know that nothing was lost.
            let closed = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            timeout(SENDING, closed).await.ok();
        }
    }

    async fn talk(&mut self) -> Over {
        let begin_by = Instant::now() + BEGIN;
        let (mut heard_at, mut ping_at) = (Instant::now(), Instant::now() + PING_EVERY);
        loop {
            let wakes_at = if self.line.has_begun() { ping_at } else { begin_by };
            let step = tokio::select! {
                // What has been said is heard first: who had to wait to be told has not been silent.
                biased;
                said = self.socket.recv() => {
                    heard_at = Instant::now();
                    Box::pin(self.hear(said)).await
                }
                // Aside, as all that is rare: so who only listens need not carry it.
                told = self.line.next() => Box::pin(self.tell(told)).await,
                () = tokio::time::sleep_until(wakes_at) => {
                    if !self.line.has_begun() || heard_at.elapsed() > SILENT {
                        ControlFlow::Break(Some((close::TIMED_OUT, "timed out")))
                    } else {
                        ping_at = Instant::now() + PING_EVERY;
                        Box::pin(self.send(Message::Ping(Default::default()))).await
                    }
                }
            };
            if let ControlFlow::Break(over) = step {
                return over;
            }
        }
    }

    async fn hear(&mut self, said: Option<std::result::Result<Message, axum::Error>>) -> ControlFlow<Over> {
        let not_understood = |reason| ControlFlow::Break(Some((close::NOT_UNDERSTOOD, reason)));
        let text = match said {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return ControlFlow::Continue(()),
            Some(Ok(Message::Binary(_))) => return not_understood("frames are JSON text"),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return ControlFlow::Break(None),
        };
        match serde_json::from_str(&text) {
            Err(_) => not_understood("this is no frame of reveille.v1"),
            Ok(Said::Subscribe { .. }) if self.line.has_begun() => not_understood("subscribe comes once"),
            Ok(Said::Ack { .. }) if !self.line.has_begun() => not_understood("subscribe comes first"),
            Ok(Said::Subscribe { after, thin }) => match after.map(|after| self.line.open_cursor(&after)).transpose() {
                Ok(after) => {
                    self.line.begin(after, thin);
                    ControlFlow::Continue(())
                }
                Err(error) => self.refuse(error).await,
            },
            Ok(Said::Ack { cursor }) => match self.line.open_cursor(&cursor) {
                Ok(acked) => {
                    self.line.acknowledge(acked);
                    ControlFlow::Continue(())
                }
                Err(error) => self.refuse(error).await,
            },
        }
    }

    /// A cursor leads nowhere.
    async fn refuse(&mut self, error: CursorError) -> ControlFlow<Over> {
        match error {
            CursorError::Invalid => ControlFlow::Break(Some((close::NOT_UNDERSTOOD, problem::CURSOR_INVALID.slug))),
            CursorError::EpochChanged => self.tell(Told::Resync(problem::EPOCH_CHANGED.slug)).await,
        }
    }

    async fn tell(&mut self, told: Told) -> ControlFlow<Over> {
        let over = |code, reason| ControlFlow::Break(Some((code, reason)));
        match told {
            Told::Entries(entries) => {
                for entry in entries {
                    // The cursor has no character that JSON would escape.
                    let frame =
                        format!(r#"{{"type":"event","id":"{}","event":{}}}"#, entry.cursor, entry.text.as_str());
                    self.send(Message::text(frame)).await?;
                }
                ControlFlow::Continue(())
            }
            Told::Head(head) => self.send_json(&json!({"type": "head", "head": head})).await,
            Told::CaughtUp { cursor, after_s, push } => {
                self.send_json(&json!({"type": "poll", "id": cursor, "after_s": after_s, "push": push})).await
            }
            Told::Resync(TOO_SLOW) => over(close::TOO_SLOW, TOO_SLOW),
            Told::Resync(reason) => {
                self.send_json(&json!({"type": "resync", "reason": reason, "snapshot": SNAPSHOT})).await?;
                over(close::RESYNC, reason)
            }
            Told::End(End::Revoked) => over(close::REVOKED, "the token has ended"),
            Told::End(End::Replaced) => over(close::REPLACED, "newer connections have taken its place"),
            Told::End(_) => over(close::AWAY, "the relay ends: connect again"),
            Told::Failed => over(close::FAILED, "the relay failed: connect again"),
        }
    }

    async fn send_json(&mut self, frame: &Value) -> ControlFlow<Over> {
        self.send(Message::text(frame.to_string())).await
    }

    /// One that takes nothing for long is let go: nothing could be said to it either.
    async fn send(&mut self, message: Message) -> ControlFlow<Over> {
        match timeout(SENDING, self.socket.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(None),
        }
    }
}
