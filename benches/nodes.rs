//! How soon an event that one process accepts reaches a stream at another: both at one PostgreSQL server, and on one machine with it and
//! with the client. `BENCH_POSTGRES=postgres://… cargo bench --bench nodes`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench says what went wrong by failing"
)]

mod relay;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::relay::{Served, load::Times};

const STREAMS: usize = 100;
const EVENTS: usize = 1_000;
/// Between two events; odd, so that they fall in with nothing that the relay does regularly.
const PAUSE: Duration = Duration::from_millis(17);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::new(&sim).await;
    assert_eq!(served.database.kind(), "PostgreSQL", "SQLite is for one process");
    served.serve("api").await;
    let app = served.app(&sim).await;
    let (mut other, port) = served.beside("api").await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let device = json!({
            "installation_id": format!("phone-{number}"), "transport": "fcm", "token": format!("token-{number}"), "feeds": ["news"],
        });
        let device = app.post("/v1/devices", device).await;
        let url =
            format!("http://127.0.0.1:{port}/v1/sync/stream?after={}", device["poll"]["cursor"].as_str().unwrap());
        let request = reqwest::Client::new().get(url).bearer_auth(device["device_token"].as_str().unwrap());
        streams.push(listen(request, tell.clone()));
    }
    let listening = join_all(streams).await;
    let (mut from_request, mut from_answer) = (Vec::new(), Vec::new());
    for number in 0..EVENTS {
        let began = Instant::now();
        app.post("/v1/events", json!({"feed": "news", "type": format!("t{number}"), "wake": {"class": "none"}})).await;
        let answered = Instant::now();
        for _ in 0..STREAMS {
            let at = heard.recv().await.unwrap();
            from_request.push((at - began).as_secs_f64() * 1000.0);
            from_answer.push(at.saturating_duration_since(answered).as_secs_f64() * 1000.0);
        }
        tokio::time::sleep(PAUSE).await;
    }
    listening.into_iter().for_each(|task| task.abort());
    other.kill().unwrap();
    other.wait().unwrap();
    let (from_request, from_answer) = (Times::of(from_request), Times::of(from_answer));
    let line = |name: &str, times: &Times| {
        println!(
            "{name:<18} p50 {:>6.1} ms   p99 {:>6.1} ms   last {:>6.1} ms",
            times.share(0.5),
            times.share(0.99),
            times.share(1.0)
        );
    };
    line("from the request", &from_request);
    line("from the answer", &from_answer);
    let json: Value = json!({
        "bench": "nodes", "streams": STREAMS, "events": EVENTS, "p50_ms": from_request.share(0.5), "p99_ms": from_request.share(0.99),
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

/// Opens a stream, and once it has been told everything tells of each event when it comes.
async fn listen(request: reqwest::RequestBuilder, tell: mpsc::UnboundedSender<Instant>) -> tokio::task::JoinHandle<()> {
    let mut response = request.send().await.unwrap();
    let mut text = String::new();
    while !text.contains("event: poll") {
        text.push_str(&String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap()));
    }
    tokio::spawn(async move {
        while let Ok(Some(chunk)) = response.chunk().await {
            let at = Instant::now();
            for _ in 0..String::from_utf8_lossy(&chunk).matches("event: event").count() {
                tell.send(at).unwrap();
            }
        }
    })
}
