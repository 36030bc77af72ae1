//! How long it takes from an event to its push at 1,000 events a second. `cargo bench --bench latency`
//!
//! Backends post one event at a time over kept connections, each for one of 10,000 devices; for one device in fifty the time is taken at
//! which its push arrives at the simulated APNs, from the request and from the answer to it, which comes after the commit.
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
    sync::Arc,
    time::{Duration, Instant},
};

use reveille::sim::{Sim, SimConfig};
use serde_json::json;
use tokio::{sync::mpsc, time::MissedTickBehavior};

use self::relay::{
    Served,
    load::{self, Client, Times},
};

const DEVICES: usize = 10_000;
/// One device in so many is watched.
const WATCHED: usize = 50;
const EVENTS_PER_S: u64 = 1_000;
const EVENTS: usize = 20_000;
const CLIENTS: usize = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Arc::new(Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap());
    let served = Served::start(&sim).await;
    let app = served.app(&sim).await;
    app.seed("apns", DEVICES, "'phone:' || i").await;

    let (idle, idle_clients) = mpsc::channel(CLIENTS);
    let idle_clients = Arc::new(tokio::sync::Mutex::new(idle_clients));
    for _ in 0..CLIENTS {
        idle.send(Client::connect(served.port).await).await.unwrap();
    }
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / EVENTS_PER_S));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (times, mut taken) = mpsc::unbounded_channel();
    let began = Instant::now();
    for number in 0..EVENTS {
        tick.tick().await;
        let device = 1 + number % DEVICES;
        let body = json!({"feed": format!("phone:{device}"), "type": "order.changed"}).to_string();
        let request = load::request("POST", "/v1/events", &app.key, body);
        let mut phone = device.is_multiple_of(WATCHED).then(|| sim.subscribe(&format!("{device:064x}")));
        let (idle, idle_clients, times) = (idle.clone(), Arc::clone(&idle_clients), times.clone());
        tokio::spawn(async move {
            let mut client = idle_clients.lock().await.recv().await.unwrap();
            let began = Instant::now();
            let arrived = async {
                match &mut phone {
                    Some(phone) => phone.recv().await.map(|_| Instant::now()),
                    None => None,
                }
            };
            let posted = async {
                let (status, ..) = client.send(request).await;
                assert_eq!(status, 202);
                let answered = Instant::now();
                idle.send(client).await.ok().unwrap();
                answered
            };
            if let (Some(arrived), answered) = tokio::join!(arrived, posted) {
                let ms = |from: Instant| arrived.saturating_duration_since(from).as_secs_f64() * 1000.0;
                times.send((ms(began), ms(answered))).unwrap();
            }
        });
    }
    let rate = EVENTS as f64 / began.elapsed().as_secs_f64();
    let (mut from_request, mut from_commit) = (Vec::new(), Vec::new());
    while from_request.len() < EVENTS / WATCHED {
        let (request, commit) = tokio::time::timeout(Duration::from_secs(10), taken.recv()).await.unwrap().unwrap();
        from_request.push(request);
        from_commit.push(commit);
    }
    let (from_request, from_commit) = (Times::of(from_request), Times::of(from_commit));
    for (name, times) in [("request -> push", &from_request), ("answer -> push", &from_commit)] {
        println!(
            "{name:<16} {:>4} of {EVENTS} events at {rate:.0}/s   p50 {:>5.1} ms   p99 {:>5.1} ms   {}",
            times.count(),
            times.share(0.5),
            times.share(0.99),
            served.database.kind(),
        );
    }
    let json = json!({
        "bench": "latency", "database": served.database.kind(), "events_per_s": rate,
        "request_to_push_p50_ms": from_request.share(0.5), "request_to_push_p99_ms": from_request.share(0.99),
        "commit_to_push_p50_ms": from_commit.share(0.5), "commit_to_push_p99_ms": from_commit.share(0.99),
    });
    println!("{json}");
    served.database.discard().await;
}
