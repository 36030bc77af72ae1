//! Whether one app's trouble delays another's single push. `cargo bench --bench fairness`
//!
//! One run of the real binary: app B posts single events for an iPhone and the time from request to arrival at the simulated APNs is taken,
//! alone and while app A's big feed is fanned out and pushed, in turn, and then while app A's provider lets every call hang.
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

/// App A's devices; the fan-out to them outlasts a round.
const DEVICES_OF_A: usize = 12_000;
/// Rounds in turn: B alone, and B while A pushes. What else the machine is busy with weighs on both alike.
const ROUNDS: usize = 12;
const PUSHES_PER_ROUND: usize = 50;
const BETWEEN_PUSHES: Duration = Duration::from_millis(15);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let served = Served::start(&sim).await;
    let (a, b) = (served.app(&sim).await, served.app(&sim).await);
    a.seed("fcm", DEVICES_OF_A, "'all'").await;
    // One for each round, so that none runs out of budget.
    for round in 0..ROUNDS {
        let (name, token) = (format!("iphone-{round}"), format!("a{round:03}").repeat(16));
        let topic = "com.example.shop";
        b.post(
            "/v1/devices",
            json!({"installation_id": name, "transport": "apns", "topic": topic, "token": token, "feeds": [name]}),
        )
        .await;
    }
    measure(&sim, &b, 0).await;

    let (mut alone, mut beside, mut hanging, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        alone.extend(measure(&sim, &b, round).await);
        let (pushed_before, began) = (sim.fcm().received(), Instant::now());
        let pushed = || sim.fcm().received() - pushed_before;
        a.post("/v1/events", json!({"feed": "all", "type": "t"})).await;
        beside.extend(measure(&sim, &b, round).await);
        assert!(pushed() < DEVICES_OF_A, "A was done before B's round was over");
        rates.push(pushed() as f64 / began.elapsed().as_secs_f64());
        while pushed() < DEVICES_OF_A {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // What is still being recorded is A's as well.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    sim.fcm().answer(FaultKind::BlackHole);
    a.post("/v1/events", json!({"feed": "all", "type": "t", "wake": {"class": "background", "ttl_s": 30}})).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for round in 0..ROUNDS {
        hanging.extend(measure(&sim, &b, round).await);
    }
    let alone = Times::of(alone);
    for (name, times) in
        [("alone", &alone), ("A pushes to many", &Times::of(beside)), ("A's provider hangs", &Times::of(hanging))]
    {
        println!(
            "{name:<20} {:>4} pushes   median {:>6.1} ms   p99 {:>6.1} ms   {:>5.2} x alone",
            times.0.len(),
            times.share(0.5),
            times.share(0.99),
            times.share(0.99) / alone.share(0.99)
        );
    }
    rates.sort_by(f64::total_cmp);
    println!("A's pushes meanwhile {:>6.0} /s (median of {ROUNDS} rounds)", rates[ROUNDS / 2]);
}

/// The times from request to arrival of a round's pushes, in milliseconds.
async fn measure(sim: &Sim, b: &App<'_>, round: usize) -> Vec<f64> {
    let mut took_ms = Vec::new();
    for _ in 0..PUSHES_PER_ROUND {
        let (before, began) = (sim.apns().received(), Instant::now());
        b.post("/v1/events", json!({"feed": format!("iphone-{round}"), "type": "t"})).await;
        while sim.apns().received() == before {
            assert!(began.elapsed() < Duration::from_secs(30), "B's push does not arrive");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        took_ms.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(BETWEEN_PUSHES).await;
    }
    took_ms
}

/// Times in milliseconds, in order.
struct Times(Vec<f64>);

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// What this share of them is not above.
    fn share(&self, share: f64) -> f64 {
        self.0[((self.0.len() as f64 * share).ceil() as usize).clamp(1, self.0.len()) - 1]
    }
}
