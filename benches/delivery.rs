//! How close the relay comes to a bare HTTP/2 client, with every event and every attempt on the disk. `cargo bench --bench delivery`
//!
//! One run measures both on the same machine. 100,000 events for one device each, half of them iPhones: once accepted before, so that only
//! the pushing is timed, and once with the accept. Relay, simulators and load share the machine; PostgreSQL too, with `BENCH_POSTGRES`.
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

use self::relay::{Served, ceiling};

/// Half of them of each transport, if nothing else is said.
const DEVICES: usize = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let devices: usize = std::env::var("BENCH_DEVICES").map_or(DEVICES, |devices| devices.parse().unwrap());
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    // The machine may have other work beside this: the ceiling is taken before, between and after, and the mean counts.
    let mut ceilings = vec![ceiling::measure(&sim).await];
    let mut served = Served::new(&sim).await;
    served.serve("api").await;
    let app = served.app(&sim).await;
    for transport in ["fcm", "apns"] {
        app.seed(transport, devices / 2, &format!("'{transport}:' || i")).await;
    }
    let key = app.key.clone();
    let feeds = || ["fcm", "apns"].into_iter().flat_map(|of| (1..=devices / 2).map(move |i| format!("{of}:{i}")));
    let received = || sim.fcm().received() + sim.apns().received();

    let began = Instant::now();
    app.post_to(feeds()).await;
    let accepted = devices as f64 / began.elapsed().as_secs_f64();

    let first = received();
    served.serve("api,dispatch,janitor").await;
    while received() == first {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let began = Instant::now();
    until(|| received() == first + devices).await;
    assert_eq!(served.recorded().await, devices);
    let pushed = devices as f64 / began.elapsed().as_secs_f64();
    ceilings.push(ceiling::measure(&sim).await);

    let (first, began) = (received(), Instant::now());
    served.app_of(key).post_to(feeds()).await;
    until(|| received() == first + devices).await;
    assert_eq!(served.recorded().await, 2 * devices);
    let both = devices as f64 / began.elapsed().as_secs_f64();

    ceilings.push(ceiling::measure(&sim).await);
    let ceiling = ceilings.iter().sum::<f64>() / ceilings.len() as f64;
    let kind = served.database.kind();
    println!("accept       {devices} events in batches of 100             {accepted:>8.0} events/s   {kind}");
    println!(
        "delivery     of events accepted before                  {pushed:>8.0} pushes/s   {:.3} of the ceiling",
        pushed / ceiling
    );
    println!(
        "delivery     with the accept                            {both:>8.0} pushes/s   {:.3} of the ceiling",
        both / ceiling
    );
    println!("memory       peak                                       {:>8.1} MiB", served.peak_mib());
    let json = json!({
        "bench": "delivery", "database": kind, "devices": devices, "ceiling_per_s": ceiling, "accepted_per_s": accepted,
        "pushed_per_s": pushed, "ratio": pushed / ceiling, "with_accept_per_s": both, "with_accept_ratio": both / ceiling,
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

async fn until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(150), "it takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
