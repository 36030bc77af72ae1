//! Clients of live channels: a reader of server-sent events, and a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::CloseFrame},
};

use super::phone::Phone;

/// Longer than anything here may take.
const SOON: Duration = Duration::from_secs(20);

/// A stream of server-sent events that is being read.
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub id: Option<String>,
    pub event: String,
    pub data: Value,
}

impl Stream {
    /// Begins to read an answer.
    pub fn of(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: Vec::new() }
    }

    /// The next message that says something; `None` if the stream has ended.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            let block = tokio::time::timeout(SOON, self.block()).await.expect("the stream goes on")?;
            if let Some(sent) = parse(&block) {
                return Some(sent);
            }
        }
    }

    /// The next event, past what else is said.
    pub async fn event(&mut self) -> Sent {
        loop {
            let sent = self.next().await.expect("the stream goes on");
            if sent.event == "event" {
                return sent;
            }
        }
    }

    /// What comes up to the next empty line.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(block).unwrap());
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.extend(&chunk);
        }
    }
}

/// A block, unless it is a comment or only a field that is for the client itself.
pub fn parse(block: &str) -> Option<Sent> {
    let mut sent = Sent { id: None, event: "message".to_owned(), data: Value::Null };
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(": ").or_else(|| line.split_once(':')) {
            Some(("id", id)) => sent.id = Some(id.to_owned()),
            Some(("event", event)) => event.clone_into(&mut sent.event),
            Some(("data", line)) => data.push(line),
            _ => {}
        }
    }
    if data.is_empty() {
        return None;
    }
    sent.data = serde_json::from_str(&data.join("\n")).unwrap();
    Some(sent)
}

impl Phone<'_> {
    /// Opens a stream after its cursor.
    pub async fn stream(&self) -> Stream {
        self.stream_of(&format!("?after={}", self.cursor()), &[]).await
    }

    /// Opens a stream with this query and more headers.
    pub async fn stream_of(&self, query: &str, headers: &[(&str, &str)]) -> Stream {
        let url = self.world.url(&format!("/v1/sync/stream{query}"));
        let mut request = self.world.http.get(url).bearer_auth(&self.device_token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Stream::of(request.send().await.unwrap())
    }

    /// Opens a stream and reads on until it has been told everything.
    pub async fn caught_up(&self) -> Stream {
        let mut stream = self.stream().await;
        while stream.next().await.expect("the stream goes on").event != "poll" {}
        stream
    }

    /// Opens a WebSocket and says nothing.
    pub async fn socket(&self) -> Socket {
        Socket::open(&self.world.url("/v1/sync/ws"), Some(&self.device_token), Some("reveille.v1")).await.unwrap()
    }

    /// Opens a WebSocket after its cursor.
    pub async fn subscribed(&self) -> Socket {
        let mut socket = self.socket().await;
        socket.say(json!({"type": "subscribe", "after": self.cursor()})).await;
        socket
    }
}

/// A WebSocket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects; an answer that is no WebSocket is an error.
    pub async fn open(url: &str, token: Option<&str>, protocol: Option<&str>) -> Result<Self, tungstenite::Error> {
        let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        Ok(Self(connect_async(request).await?.0))
    }

    pub async fn say(&mut self, frame: Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// Says something, if the connection is still there.
    pub async fn try_say(&mut self, frame: Value) -> Option<()> {
        self.0.send(Message::text(frame.to_string())).await.ok()
    }

    /// The next frame; the close frame if that is what comes.
    pub async fn next(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match tokio::time::timeout(SOON, self.0.next()).await.expect("something comes") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next event, past what else is said.
    pub async fn event(&mut self) -> Value {
        loop {
            let frame = self.next().await.unwrap();
            if frame["type"] == "event" {
                return frame;
            }
        }
    }

    /// Closes it; answers the code that the relay answers with.
    pub async fn close(mut self) -> u16 {
        let frame = CloseFrame { code: 1000.into(), reason: "".into() };
        self.0.close(Some(frame)).await.unwrap();
        self.closed().await
    }

    /// The code that it is closed with.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(frame) = self.next().await {
                return frame.map_or(0, |frame| frame.code.into());
            }
        }
    }
}
