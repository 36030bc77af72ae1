//! Whether one app's trouble delays another's single push. `cargo bench --bench fairness`
//!
//! One run of the real binary: app B posts single events for an iPhone and the time from request to arrival at the simulated APNs is taken,
//! first alone, then while app A's provider lets every call hang, then while app A's big feed is fanned out and pushed.
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

use reveille::sim::{FaultKind, Sim, SimConfig};
use serde_json::json;

use self::relay::{App, Served};

/// App A's devices; the fan-out to them outlasts the measurement.
const DEVICES_OF_A: usize = 40_000;
const PUSHES_OF_B: usize = 240;
const BETWEEN_PUSHES: Duration = Duration::from_millis(15);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let served = Served::start(&sim).await;
    let (a, b) = (served.app(&sim).await, served.app(&sim).await);
    a.register("android", DEVICES_OF_A, |_| "all".to_owned()).await;
    let iphone = json!({"installation_id": "iphone", "transport": "apns", "topic": "com.example.shop", "token": "ab".repeat(32), "feeds": ["b"]});
    b.post("/v1/devices", iphone).await;
    measure(&sim, &b, || false).await;

    let alone = measure(&sim, &b, || false).await;
    report("alone", &alone, &alone);

    let pushed_before = sim.fcm().received();
    a.post("/v1/events", json!({"feed": "all", "type": "t"})).await;
    let broadcast = measure(&sim, &b, || sim.fcm().received() - pushed_before >= DEVICES_OF_A).await;
    report("A pushes to many", &broadcast, &alone);
    println!("{} of A's {DEVICES_OF_A} pushes went out meanwhile", sim.fcm().received() - pushed_before);
    while sim.fcm().received() - pushed_before < DEVICES_OF_A {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    sim.fcm().answer(FaultKind::BlackHole);
    a.post("/v1/events", json!({"feed": "all", "type": "t", "wake": {"class": "background", "ttl_s": 30}})).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let hanging = measure(&sim, &b, || false).await;
    report("A's provider hangs", &hanging, &alone);
}

/// The times from request to arrival, in milliseconds and in order: of so many pushes, or of as many as there are before `over`.
async fn measure(sim: &Sim, b: &App<'_>, over: impl Fn() -> bool) -> Vec<f64> {
    let mut took_ms = Vec::new();
    while took_ms.len() < PUSHES_OF_B && !over() {
        let (before, began) = (sim.apns().received(), Instant::now());
        b.post("/v1/events", json!({"feed": "b", "type": "t"})).await;
        while sim.apns().received() == before {
            assert!(began.elapsed() < Duration::from_secs(30), "B's push does not arrive");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        took_ms.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(BETWEEN_PUSHES).await;
    }
    took_ms.sort_by(f64::total_cmp);
    took_ms
}

fn report(name: &str, took_ms: &[f64], alone_ms: &[f64]) {
    let (median, p99) = (took_ms[took_ms.len() / 2], took_ms[took_ms.len() * 99 / 100]);
    let p99_alone = alone_ms[alone_ms.len() * 99 / 100];
    let count = took_ms.len();
    println!(
        "{name:<20} {count:>4} pushes   median {median:>6.1} ms   p99 {p99:>6.1} ms   {:>5.2} x alone",
        p99 / p99_alone
    );
}
