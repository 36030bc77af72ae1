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

use self::relay::{App, Served, load::Times};

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
        let (name, topic) = (format!("iphone-{round}"), "com.example.shop");
        let token = token_of(round);
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
    let (alone, beside, hanging) = (Times::of(alone), Times::of(beside), Times::of(hanging));
    for (name, times) in [("alone", &alone), ("A pushes to many", &beside), ("A's provider hangs", &hanging)] {
        println!(
            "{name:<20} {:>4} pushes   median {:>6.1} ms   p99 {:>6.1} ms   {:>5.2} x alone",
            times.count(),
            times.share(0.5),
            times.share(0.99),
            times.share(0.99) / alone.share(0.99)
        );
    }
    rates.sort_by(f64::total_cmp);
    println!("A's pushes meanwhile {:>6.0} /s (median of {ROUNDS} rounds)", rates[ROUNDS / 2]);
    let json = json!({
        "bench": "fairness", "alone_p99_ms": alone.share(0.99), "beside_broadcast": beside.share(0.99) / alone.share(0.99),
        "beside_hanging_provider": hanging.share(0.99) / alone.share(0.99), "broadcast_per_s": rates[ROUNDS / 2],
    });
    println!("{json}");
}

/// The push token of a round's phone.
fn token_of(round: usize) -> String {
    format!("a{round:03}").repeat(16)
}

/// The times from request to arrival of a round's pushes, in milliseconds.
async fn measure(sim: &Sim, b: &App<'_>, round: usize) -> Vec<f64> {
    let (mut took_ms, mut phone) = (Vec::new(), sim.subscribe(&token_of(round)));
    for _ in 0..PUSHES_PER_ROUND {
        let began = Instant::now();
        let arrived = async {
            let push = tokio::time::timeout(Duration::from_secs(30), phone.recv()).await;
            push.expect("B's push arrives").unwrap();
            began.elapsed()
        };
        let event = json!({"feed": format!("iphone-{round}"), "type": "t"});
        let (took, _) = tokio::join!(arrived, b.post("/v1/events", event));
        took_ms.push(took.as_secs_f64() * 1000.0);
        tokio::time::sleep(BETWEEN_PUSHES).await;
    }
    took_ms
}
