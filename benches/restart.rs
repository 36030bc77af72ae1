//! What `kill -9` costs with a hundred thousand devices due: until it serves again, and how fast the rest is told. `cargo bench --bench restart`
//!
//! The calls that were under way when it died belong to it until their leases end, 45 s later; they are told of after that.
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

use self::relay::Served;

const DUE: usize = 100_000;
/// Told when it is killed.
const TOLD: usize = 40_000;
/// Calls may be under way when it is killed, so many at most.
const UNDER_WAY: usize = 2_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::new(&sim).await;
    served.serve("api").await;
    let key = served.app(&sim).await.key;
    served.app_of(key.clone()).seed("fcm", DUE, "'own:' || i").await;
    served.app_of(key).post_to((1..=DUE).map(|i| format!("own:{i}"))).await;
    served.serve("api,dispatch,janitor").await;
    let received = || sim.fcm().received();
    let before_per_s = rate(&received, TOLD).await;

    served.kill();
    // What it had sent is still being answered.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = received();
    let began = Instant::now();
    served.serve("api,dispatch,janitor").await;
    let serving_ms = began.elapsed().as_secs_f64() * 1000.0;
    let after_per_s = rate(&received, DUE - UNDER_WAY).await;
    served.recorded().await;
    let all_told_s = began.elapsed().as_secs_f64();
    let twice = received() - DUE;
    let unknown = served.database.count("select count(*) from attempts where outcome = 'unknown'").await;
    let accepted =
        served.database.count("select count(distinct device_id) from attempts where outcome = 'accepted'").await;
    assert_eq!(accepted, DUE);

    let kind = served.database.kind();
    println!("restart      until it serves                            {serving_ms:>8.0} ms   {kind}");
    println!("             before it was killed, {told} told           {before_per_s:>8.0} pushes/s");
    println!(
        "             after                                      {after_per_s:>8.0} pushes/s   {:.2} of before",
        after_per_s / before_per_s
    );
    println!(
        "             all told, the leases' end included         {all_told_s:>8.1} s   {twice} were pushed to twice, {unknown} attempts are unknown"
    );
    let json = json!({
        "bench": "restart", "database": kind, "serving_ms": serving_ms, "before_per_s": before_per_s, "after_per_s": after_per_s,
        "ratio": after_per_s / before_per_s, "all_told_s": all_told_s, "twice": twice, "unknown": unknown,
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

/// Pushes a second, from the next one until so many have been received.
async fn rate(received: &impl Fn() -> usize, until: usize) -> f64 {
    let before = received();
    while received() == before {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let (first, began) = (received(), Instant::now());
    while received() < until {
        assert!(began.elapsed() < Duration::from_secs(150), "it takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (received() - first) as f64 / began.elapsed().as_secs_f64()
}
