//! A load generator: requests over kept connections, one at a time on each, and how long they took.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, http::HeaderMap};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// A connection.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(port: u16) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, Bytes) {
        self.sender.ready().await.unwrap();
        let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }
}

/// A request as a client of the relay makes it.
pub fn request(method: &str, path: &str, key: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

/// What a run has brought.
pub struct Measured {
    pub per_s: f64,
    pub times: Times,
}

impl Measured {
    /// Two runs of the same length as one.
    pub fn and(self, other: Self) -> Self {
        let times = Times::of([self.times.0, other.times.0].concat());
        Self { per_s: f64::midpoint(self.per_s, other.per_s), times }
    }
}

/// Sends requests for some time on so many connections; `make` gets the number of the connection and of the request on it.
pub async fn run(
    port: u16,
    clients: usize,
    time: Duration,
    expected: StatusCode,
    make: impl Fn(usize, usize) -> Request<Full<Bytes>> + Send + Sync + 'static,
) -> Measured {
    let make = Arc::new(make);
    let began = Instant::now();
    let clients = (0..clients).map(|number| {
        let make = Arc::clone(&make);
        tokio::spawn(async move {
            let (mut client, mut took_ms, mut count) = (Client::connect(port).await, Vec::new(), 0);
            while began.elapsed() < time {
                let sent = Instant::now();
                let (status, _, body) = client.send(make(number, count)).await;
                assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
                took_ms.push(sent.elapsed().as_secs_f64() * 1000.0);
                count += 1;
            }
            took_ms
        })
    });
    let took_ms = futures_util::future::try_join_all(clients).await.unwrap().concat();
    Measured { per_s: took_ms.len() as f64 / began.elapsed().as_secs_f64(), times: Times::of(took_ms) }
}

/// Serves a router on a port of its own for as long as `work` takes.
pub async fn beside<T>(router: Router, work: impl AsyncFnOnce(u16) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let done = work(port).await;
    served.abort();
    done
}

/// An empty answer of a bare route.
pub fn answer(status: StatusCode, body: &'static str) -> axum::response::Response {
    axum::http::Response::builder().status(status).body(Body::from(body)).unwrap()
}

/// Times in milliseconds, in order.
pub struct Times(Vec<f64>);

impl Times {
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What this share of them is not above.
    pub fn share(&self, share: f64) -> f64 {
        self.0[((self.0.len() as f64 * share).ceil() as usize).clamp(1, self.0.len()) - 1]
    }
}
