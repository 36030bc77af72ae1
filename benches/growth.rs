//! Whether a push costs more the more devices are known: the same work with a thousand to a million of them. `cargo bench --bench growth`
//!
//! Each has a relay of its own; they take turns, so that what else the machine does weighs on all alike. `BENCH_SVG=file.svg` draws it.
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
    fmt::Write,
    time::{Duration, Instant},
};

use reveille::sim::{Sim, SimConfig};
use serde_json::json;

use self::relay::Served;

const KNOWN: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Events of one round, each for a device of its own, spread over all that are known.
const EVENTS: usize = 1_000;
const ROUNDS: usize = 24;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

/// A relay with so many devices.
struct Size {
    known: usize,
    served: Served,
    key: String,
    took: Duration,
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut sizes = Vec::new();
    for known in KNOWN {
        let served = Served::start(&sim).await;
        let key = served.app(&sim).await.key;
        served.app_of(key.clone()).seed("fcm", known, "'own:' || i").await;
        sizes.push(Size { known, served, key, took: Duration::ZERO });
    }
    for round in 0..=ROUNDS {
        for size in &mut sizes {
            let took = size.round(&sim, round).await;
            // The first one is for warming up.
            size.took += if round == 0 { Duration::ZERO } else { took };
        }
    }
    let rates: Vec<(usize, f64)> =
        sizes.iter().map(|size| (size.known, (ROUNDS * EVENTS) as f64 / size.took.as_secs_f64())).collect();
    let kind = sizes[0].served.database.kind();
    for (known, per_s) in &rates {
        println!(
            "growth       {known:>9} devices known                   {per_s:>8.0} pushes/s   {:.2} of the first   {kind}",
            per_s / rates[0].1
        );
    }
    let list: Vec<_> = rates.iter().map(|(known, per_s)| json!({"known": known, "pushed_per_s": per_s})).collect();
    println!("{}", json!({"bench": "growth", "database": kind, "rates": list}));
    if let Ok(file) = std::env::var("BENCH_SVG") {
        std::fs::write(file, draw(&rates)).unwrap();
    }
    for size in &mut sizes {
        size.served.kill();
        size.served.database.discard().await;
    }
}

impl Size {
    /// From the first post to the last push.
    async fn round(&self, sim: &Sim, round: usize) -> Duration {
        let (app, step) = (self.served.app_of(self.key.clone()), self.known / EVENTS);
        let (before, began) = (sim.fcm().received(), Instant::now());
        app.post_to((0..EVENTS).map(|i| format!("own:{}", 1 + i * step + round % step))).await;
        while sim.fcm().received() < before + EVENTS {
            assert!(began.elapsed() < Duration::from_secs(60), "it takes too long");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        let took = began.elapsed();
        self.served.recorded().await;
        took
    }
}

/// Pushes a second over the number of devices, which goes up tenfold from mark to mark; with a band of 20 % below the first.
fn draw(rates: &[(usize, f64)]) -> String {
    const LEFT: f64 = 80.0;
    const TOP: f64 = 40.0;
    const WIDTH: f64 = 480.0;
    const HEIGHT: f64 = 220.0;
    let most = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max) * 1.15;
    let x = |index: usize| LEFT + WIDTH * index as f64 / (rates.len() - 1) as f64;
    let y = |rate: f64| TOP + HEIGHT * (1.0 - rate / most);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 620 310\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Pushes a second by devices known</title>\n<style>\n\
         .page { fill: #ffffff } .ink { fill: #1f2328 } .band { fill: #009e73; opacity: 0.15 } .frame { stroke: #6e7781; fill: none }\n\
         .curve { stroke: #009e73; stroke-width: 2; fill: none } .dot { fill: #009e73 }\n\
         @media (prefers-color-scheme: dark) { .page { fill: #0d1117 } .ink { fill: #e6edf3 } .frame { stroke: #8b949e } }\n</style>\n\
         <rect class=\"page\" width=\"620\" height=\"310\"/>\n\
         <text class=\"ink\" x=\"80\" y=\"24\" font-size=\"15\">Pushes a second, by devices known; the band is 20 % around the first</text>\n",
    );
    let (upper, lower) = (y(rates[0].1 * 1.2).max(TOP), y(rates[0].1 * 0.8));
    writeln!(svg, r#"<rect class="band" x="{LEFT}" y="{upper:.1}" width="{WIDTH}" height="{:.1}"/>"#, lower - upper)
        .unwrap();
    writeln!(svg, r#"<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/>"#).unwrap();
    writeln!(svg, r#"<text class="ink" x="70" y="{:.1}" text-anchor="end">0</text>"#, y(0.0)).unwrap();
    let points: Vec<String> =
        rates.iter().enumerate().map(|(index, (_, rate))| format!("{:.1},{:.1}", x(index), y(*rate))).collect();
    writeln!(svg, r#"<polyline class="curve" points="{}"/>"#, points.join(" ")).unwrap();
    for (index, (known, rate)) in rates.iter().enumerate() {
        let (x, y) = (x(index), y(*rate));
        writeln!(svg, r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="4"/>"#).unwrap();
        writeln!(svg, r#"<text class="ink" x="{x:.1}" y="{:.1}" text-anchor="middle">{rate:.0}</text>"#, y - 10.0)
            .unwrap();
        writeln!(
            svg,
            r#"<text class="ink" x="{x:.1}" y="{:.1}" text-anchor="middle">{known}</text>"#,
            TOP + HEIGHT + 20.0
        )
        .unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}
