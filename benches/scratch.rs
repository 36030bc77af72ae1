//! Scratch.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros
)]
mod relay;
use self::relay::Served;
use reveille::sim::{Sim, SimConfig};
use serde_json::json;
use std::time::{Duration, Instant};
#[tokio::main]
async fn main() {
    let devices: usize = std::env::var("N").map_or(40_000, |n| n.parse().unwrap());
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let served = Served::start(&sim).await;
    let app = served.app(&sim).await;
    let began = Instant::now();
    app.seed("fcm", devices, "'all'").await;
    println!("seeded in {:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        let before = sim.fcm().received();
        println!("pid {}", served.pid());
        let io = || {
            std::fs::read_to_string(format!("/proc/{}/io", served.pid()))
                .unwrap()
                .lines()
                .find_map(|l| l.strip_prefix("wchar: "))
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        let cpu = || {
            let s = std::fs::read_to_string(format!("/proc/{}/stat", served.pid())).unwrap();
            let f: Vec<f64> =
                s.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|x| x.parse().unwrap()).collect();
            (f[0] + f[1]) * 1e4
        };
        let (io0, cpu0) = (io(), cpu());
        let began = Instant::now();
        app.post("/v1/events", json!({"feed": "all", "type": "t"})).await;
        while sim.fcm().received() < before + devices {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!(
            "{:.0} pushes/s, {:.1} KB written and {:.0} us CPU per push",
            devices as f64 / began.elapsed().as_secs_f64(),
            (io() - io0) / 1e3 / devices as f64,
            (cpu() - cpu0) / devices as f64
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
