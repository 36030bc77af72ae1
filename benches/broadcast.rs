//! One event for a million followers: how fast it goes out, what it costs in memory, and how long another app's pushes wait meanwhile.
//! `cargo bench --bench broadcast`
//!
//! A broadcast to all of them takes longer than a bench may, so its first [`ALONE`] is looked at with nothing beside it, and the [`BESIDE`]
//! after that with another app at work. How long a transaction holds the writer shows from outside: no post can be answered meanwhile.
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

use reveille::sim::{Sim, SimConfig};
use serde_json::json;

use self::relay::{App, Served, ceiling, load::Times};

const FOLLOWERS: usize = 1_000_000;
/// For how long the broadcast has the relay to itself, …
const ALONE: Duration = Duration::from_secs(30);
/// … and how long another app pushes beside it.
const BESIDE: Duration = Duration::from_secs(15);
const BETWEEN_PUSHES: Duration = Duration::from_millis(20);
const BUDGET: usize = 800;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let followers: usize = std::env::var("BENCH_DEVICES").map_or(FOLLOWERS, |devices| devices.parse().unwrap());
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut ceilings = vec![ceiling::measure(&sim).await];
    let mut served = Served::start(&sim).await;
    let (a, b) = (served.app(&sim).await.key, served.app(&sim).await.key);
    served.app_of(a.clone()).seed("fcm", followers / 2, "'all'").await;
    served.app_of(a.clone()).seed("apns", followers / 2, "'all'").await;
    let phone = json!({"installation_id": "b", "transport": "apns", "topic": "com.example.shop", "token": TOKEN_OF_B, "feeds": ["b"]});
    served.app_of(b.clone()).post("/v1/devices", phone).await;
    // A relay that has just started, as far as its memory is concerned.
    served.serve("api,dispatch,janitor").await;
    let (a, b) = (served.app_of(a), served.app_of(b));
    push_and_wait(&sim, &b).await;
    served.rest().await;
    let before_mib = served.memory_mib();
    served.peak_mib();

    let received = || sim.fcm().received() + sim.apns().received();
    let first = received();
    let posted = Instant::now();
    a.post("/v1/events", json!({"feed": "all", "type": "t"})).await;
    while received() == first {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let to_the_first_ms = posted.elapsed().as_secs_f64() * 1000.0;
    let began = Instant::now();
    while began.elapsed() < ALONE && received() - first < followers {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let alone_per_s = (received() - first) as f64 / began.elapsed().as_secs_f64();

    let (first_beside, began_beside, mut waited, mut answered) = (received(), Instant::now(), Vec::new(), Vec::new());
    while began_beside.elapsed() < BESIDE && waited.len() < BUDGET {
        let (wait_ms, answer_ms) = push_and_wait(&sim, &b).await;
        waited.push(wait_ms);
        answered.push(answer_ms);
        tokio::time::sleep(BETWEEN_PUSHES).await;
    }
    assert!(received() - first < followers, "the broadcast was over before the other app's pushes were");
    let beside_per_s = (received() - first_beside) as f64 / began_beside.elapsed().as_secs_f64();
    let grown_mib = served.peak_mib() - before_mib;
    served.kill();
    ceilings.push(ceiling::measure(&sim).await);
    let ceiling = ceilings.iter().sum::<f64>() / ceilings.len() as f64;
    let (waited, answered) = (Times::of(waited), Times::of(answered));
    let kind = served.database.kind();
    println!(
        "broadcast    to {followers} followers                    {alone_per_s:>8.0} pushes/s   {:.3} of the ceiling   {kind}",
        alone_per_s / ceiling
    );
    println!("             its first push                             {to_the_first_ms:>8.1} ms");
    println!("             while another app pushes                   {beside_per_s:>8.0} pushes/s");
    println!(
        "other app    from request to push, {} pushes           p50 {:>5.1} ms   p99 {:>5.1} ms",
        waited.count(),
        waited.share(0.5),
        waited.share(0.99)
    );
    println!(
        "             until its post is answered                 p50 {:>5.1} ms   longest {:>5.1} ms",
        answered.share(0.5),
        answered.share(1.0)
    );
    println!(
        "memory       before                                     {before_mib:>8.1} MiB   grown by {grown_mib:.1} MiB at most"
    );
    let json = json!({
        "bench": "broadcast", "database": kind, "followers": followers, "ceiling_per_s": ceiling, "pushed_per_s": alone_per_s,
        "ratio": alone_per_s / ceiling, "beside_per_s": beside_per_s, "other_p99_ms": waited.share(0.99),
        "other_answered_longest_ms": answered.share(1.0), "before_mib": before_mib, "grown_mib": grown_mib,
    });
    println!("{json}");
    served.database.discard().await;
}

/// Of app B's phone.
const TOKEN_OF_B: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";

/// Posts an event for B's phone; answers after how many milliseconds its push has arrived, and the post been answered.
async fn push_and_wait(sim: &Sim, b: &App<'_>) -> (f64, f64) {
    let (mut phone, began) = (sim.subscribe(TOKEN_OF_B), Instant::now());
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    let arrived = async {
        tokio::time::timeout(Duration::from_secs(30), phone.recv()).await.expect("B's push arrives").unwrap();
        ms(began.elapsed())
    };
    let answered = async {
        b.post("/v1/events", json!({"feed": "b", "type": "t"})).await;
        ms(began.elapsed())
    };
    tokio::join!(arrived, answered)
}
