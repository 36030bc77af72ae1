//! What live connections cost, and how fast one event reaches all of them: polls that wait, server-sent events, WebSockets.
//! `cargo bench --bench live`
//!
//! What a connection costs is what the relay's memory (RSS) grows by, once all are open and have been told everything; the kernel's part of
//! the sockets is not in it. Each channel has a relay that has just been started and has answered a poll of every device, so that it counts
//! neither what another channel has left behind nor what is kept of a device in any case.
//!
//! Load generator and relay share the machine: the times of an event include what the clients take of the processors to read it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench says what went wrong by failing"
)]

mod relay;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future, stream};
use reveille::sim::{Sim, SimConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use self::relay::{
    App, OPERATOR_KEY, Served,
    load::{self, Client, Times},
};

/// Connections of each channel, one of every device.
const CONNECTIONS: usize = 10_000;
/// So many are opened at once: more would wait for each other at the listener.
const AT_ONCE: usize = 250;
/// Clients that poll before.
const CLIENTS: usize = 32;
/// Events to all of them.
const ROUNDS: usize = 5;
/// Nothing here may take longer.
const LATEST: Duration = Duration::from_secs(60);
/// Every connection has a buffer of so many bytes: longer than a frame, and than the page of a poll that waited in vain.
const BUFFER_BYTES: usize = 2048;

fn main() {
    // Every connection is a file. The relay sees to its own.
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

/// A device.
#[derive(Clone)]
struct Phone {
    token: String,
    cursor: String,
}

/// What has come out for a channel.
struct Measured {
    bytes: f64,
    /// Of each round, until the last connection had it.
    fan_out_ms: Vec<f64>,
}

async fn bench() {
    let connections: usize = std::env::var("BENCH_DEVICES").map_or(CONNECTIONS, |devices| devices.parse().unwrap());
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::new(&sim).await;
    served.serve("api").await;
    let key = served.app(&sim).await.key;
    let mut phones: Vec<Phone> = {
        let app = served.app_of(key.clone());
        stream::iter(0..connections).map(|number| register(&app, number)).buffered(32).collect().await
    };
    let long_poll = measure(&mut served, &key, Channel::LongPoll, &mut phones).await;
    let sse = measure(&mut served, &key, Channel::Sse, &mut phones).await;
    let websocket = measure(&mut served, &key, Channel::WebSocket, &mut phones).await;
    let json = json!({
        "bench": "live", "database": served.database.kind(), "connections": connections,
        "long_poll_bytes": long_poll.bytes, "sse_bytes": sse.bytes, "websocket_bytes": websocket.bytes,
        "sse_fanout_ms": sse.fan_out_ms, "websocket_fanout_ms": websocket.fan_out_ms,
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

async fn register(app: &App<'_>, number: usize) -> Phone {
    let body = json!({
        "installation_id": format!("phone-{number}"), "transport": "fcm", "token": format!("token-{number}"),
        "feeds": ["news", format!("own:{number}")],
    });
    let device = app.post("/v1/devices", body).await;
    let token = device["device_token"].as_str().unwrap().to_owned();
    Phone { token, cursor: device["poll"]["cursor"].as_str().unwrap().to_owned() }
}

/// Every phone polls until nothing is new, and comes back once.
async fn poll(port: u16, phones: &mut [Phone]) {
    let each = phones.len().div_ceil(CLIENTS);
    let clients = phones.chunks_mut(each).map(|some| async move {
        let mut client = Client::connect(port).await;
        for phone in some.iter_mut() {
            for _ in 0..2 {
                let path = format!("/v1/sync?after={}", phone.cursor);
                let (status, _, page) = client.send(load::request("GET", &path, &phone.token, "")).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&page));
                let page: Value = serde_json::from_slice(&page).unwrap();
                phone.cursor = page["next"].as_str().unwrap().to_owned();
            }
        }
    });
    future::join_all(clients).await;
}

/// What the connections of a channel cost, and how fast an event reaches all of them.
async fn measure(served: &mut Served, key: &str, channel: Channel, phones: &mut [Phone]) -> Measured {
    let (name, kind, count) = (channel.name(), served.database.kind(), phones.len());
    served.serve("api").await;
    poll(served.port, phones).await;
    until_open(served, channel, 0).await;
    settle().await;
    let before_mib = served.memory_mib();
    let mut connections = Connections::open(served, channel, phones).await;
    settle().await;
    until_open(served, channel, count).await;
    let bytes = (served.memory_mib() - before_mib) * 1_048_576.0 / count as f64;
    println!("{name:<12} {count} connections that wait             {:>8.1} KB each   {kind}", bytes / 1000.0);
    let mut fan_out_ms = Vec::new();
    if channel != Channel::LongPoll {
        let app = served.app_of(key.to_owned());
        // The first post has to connect. Nobody follows this.
        app.post("/v1/events", json!({"feed": "nobody", "type": "t"})).await;
        for round in 1..=ROUNDS {
            let times = connections.fan_out(&app, count).await;
            println!(
                "             an event to all of them, round {round}           p50 {:>6.1} ms   p99 {:>6.1} ms   last {:>6.1} ms",
                times.share(0.5),
                times.share(0.99),
                times.share(1.0)
            );
            fan_out_ms.push(times.share(1.0));
            // That they have it is noted after it has gone out.
            settle().await;
        }
    }
    connections.readers.shutdown().await;
    until_open(served, channel, 0).await;
    Measured { bytes, fan_out_ms }
}

/// Long enough for what goes on after an answer.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Waits until so many connections of a channel are open, as the relay counts them.
async fn until_open(served: &Served, channel: Channel, expected: usize) {
    let mut client = Client::connect(served.port).await;
    let name = format!("reveille_live_connections{{channel=\"{}\"}} ", channel.name());
    let began = Instant::now();
    loop {
        let (status, _, text) = client.send(load::request("GET", "/metrics", OPERATOR_KEY, "")).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(status, 200, "{text}");
        let open = text.lines().find_map(|line| line.strip_prefix(name.as_str())).unwrap();
        if open.parse::<usize>().unwrap() == expected {
            return;
        }
        assert!(began.elapsed() < LATEST, "{name}is {open}, not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The connections of a channel, each with a task that reads it.
struct Connections {
    readers: JoinSet<()>,
    /// When a reader had what it waited for: that all has been told, then each event. Polls that wait say nothing.
    reports: mpsc::UnboundedReceiver<Instant>,
}

impl Connections {
    async fn open(served: &Served, channel: Channel, phones: &[Phone]) -> Self {
        let (tell, reports) = mpsc::unbounded_channel();
        let mut connections = Self { readers: JoinSet::new(), reports };
        let mut open = 0;
        for some in phones.chunks(AT_ONCE) {
            for phone in some {
                connections.readers.spawn(channel.listen(served.port, phone.clone(), tell.clone()));
            }
            open += some.len();
            match channel {
                Channel::LongPoll => until_open(served, channel, open).await,
                Channel::Sse | Channel::WebSocket => drop(connections.heard(some.len()).await),
            }
        }
        connections
    }

    /// Posts an event that every phone follows; answers when each had it.
    async fn fan_out(&mut self, app: &App<'_>, count: usize) -> Times {
        let began = Instant::now();
        app.post("/v1/events", json!({"feed": "news", "type": "t"})).await;
        let heard = self.heard(count).await;
        Times::of(heard.into_iter().map(|at| at.duration_since(began).as_secs_f64() * 1000.0).collect())
    }

    /// Waits for so many reports.
    async fn heard(&mut self, count: usize) -> Vec<Instant> {
        let mut heard = Vec::with_capacity(count);
        while heard.len() < count {
            tokio::select! {
                Some(at) = self.reports.recv() => heard.push(at),
                Some(ended) = self.readers.join_next() => panic!("a connection has ended: {ended:?}"),
                () = tokio::time::sleep(LATEST) => panic!("{} of {count} connections have it", heard.len()),
            }
        }
        heard
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    LongPoll,
    Sse,
    WebSocket,
}

/// Frames of a WebSocket (RFC 6455 §5.2), each the last of its message.
const TEXT: u8 = 0x81;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

impl Channel {
    /// As the metrics call it.
    fn name(self) -> &'static str {
        match self {
            Self::LongPoll => "long_poll",
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
        }
    }

    /// An address of their own for the clients of each: the ports of one are used up by closed connections for a minute.
    fn address(self) -> SocketAddr {
        let last: u8 = match self {
            Self::LongPoll => 2,
            Self::Sse => 3,
            Self::WebSocket => 4,
        };
        SocketAddr::from(([127, 0, 0, last], 0))
    }

    /// The request that opens it.
    fn request(self, phone: &Phone) -> String {
        let Phone { token, cursor } = phone;
        let (path, more) = match self {
            Self::LongPoll => (format!("/v1/sync?after={cursor}"), "prefer: wait=25\r\n"),
            Self::Sse => (format!("/v1/sync/stream?after={cursor}&ping=300"), "accept: text/event-stream\r\n"),
            Self::WebSocket => (
                "/v1/sync/ws".to_owned(),
                "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: reveille.v1\r\n",
            ),
        };
        format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: a-proxy-s\r\nauthorization: Bearer {token}\r\n{more}\r\n"
        )
    }

    /// A connection, from its beginning on.
    async fn listen(self, port: u16, phone: Phone, tell: mpsc::UnboundedSender<Instant>) {
        let mut wire = Wire::connect(port, self.address()).await;
        let request = self.request(&phone);
        wire.send(request.as_bytes()).await;
        match self {
            // It is answered after 25 seconds, and asks again.
            Self::LongPoll => loop {
                wire.begins("HTTP/1.1 200 ").await;
                wire.past(b"content-length: ").await;
                let length = wire.number().await;
                wire.past(b"\n\r\n").await;
                wire.bytes(length).await;
                wire.send(request.as_bytes()).await;
            },
            Self::Sse => {
                wire.begins("HTTP/1.1 200 ").await;
                wire.past(b"event: poll\n").await;
                tell.send(Instant::now()).unwrap();
                loop {
                    wire.past(b"event: event\n").await;
                    tell.send(Instant::now()).unwrap();
                }
            }
            Self::WebSocket => {
                wire.begins("HTTP/1.1 101 ").await;
                wire.past(b"\r\n\r\n").await;
                let subscribe = json!({"type": "subscribe", "after": phone.cursor}).to_string();
                wire.send(&masked(TEXT, subscribe.as_bytes())).await;
                let mut awaited: &[u8] = br#""type":"poll""#;
                loop {
                    let (kind, holds) = wire.frame().await;
                    match kind {
                        TEXT if find(&holds, awaited).is_some() => {
                            tell.send(Instant::now()).unwrap();
                            awaited = br#""type":"event""#;
                        }
                        TEXT => {}
                        PING => wire.send(&masked(PONG, &holds)).await,
                        _ => panic!("a frame {kind:#x}: {}", String::from_utf8_lossy(&holds)),
                    }
                }
            }
        }
    }
}

/// A frame of a client.
fn masked(kind: u8, holds: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x52, 0x65, 0x76, 0x65];
    let mut frame = vec![kind];
    match u8::try_from(holds.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(holds.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(holds.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|some| some == pattern)
}

/// A connection of which little is kept: ten thousand clients of a library would take more of the machine than the relay does.
struct Wire {
    tcp: TcpStream,
    buffer: Box<[u8]>,
    /// Bytes in the buffer that have come and are not done with.
    filled: usize,
}

impl Wire {
    async fn connect(port: u16, from: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let tcp = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), filled: 0 }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.tcp.write_all(bytes).await.unwrap();
    }

    /// Reads what there is.
    async fn fill(&mut self) {
        assert!(self.filled < self.buffer.len(), "longer than anything here should be");
        let count = self.tcp.read(&mut self.buffer[self.filled..]).await.unwrap();
        assert_ne!(count, 0, "the relay has ended a connection");
        self.filled += count;
    }

    /// So many bytes are done with.
    fn take(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }

    /// What comes next has to be this.
    async fn begins(&mut self, with: &str) {
        while self.filled < with.len() {
            self.fill().await;
        }
        let came = &self.buffer[..self.filled];
        assert!(came.starts_with(with.as_bytes()), "{}", String::from_utf8_lossy(came));
        self.take(with.len());
    }

    /// Reads up to the end of the next such bytes.
    async fn past(&mut self, pattern: &[u8]) {
        loop {
            if let Some(at) = find(&self.buffer[..self.filled], pattern) {
                self.take(at + pattern.len());
                return;
            }
            // What may be its beginning stays.
            self.take(self.filled.saturating_sub(pattern.len() - 1));
            self.fill().await;
        }
    }

    async fn byte(&mut self) -> u8 {
        while self.filled == 0 {
            self.fill().await;
        }
        let byte = self.buffer[0];
        self.take(1);
        byte
    }

    /// A number, and the byte that ends it.
    async fn number(&mut self) -> usize {
        let mut number = 0;
        loop {
            match self.byte().await {
                digit @ b'0'..=b'9' => number = number * 10 + usize::from(digit - b'0'),
                _ => return number,
            }
        }
    }

    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.filled < count {
            self.fill().await;
        }
        let bytes = self.buffer[..count].to_vec();
        self.take(count);
        bytes
    }

    /// The next frame of the relay: its first byte, and what it holds.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let kind = self.byte().await;
        let length = match self.byte().await {
            126 => usize::from(u16::from_be_bytes([self.byte().await, self.byte().await])),
            length => usize::from(length),
        };
        (kind, self.bytes(length).await)
    }
}
