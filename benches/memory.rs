//! What a relay takes of the memory: idle, with a million devices known, and with ten thousand of them due. `cargo bench --bench memory`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench says what went wrong by failing"
)]

mod relay;

use std::time::Duration;

use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use self::relay::{
    Served,
    load::{self, Client},
};

const KNOWN: usize = 1_000_000;
const DUE: usize = 10_000;
/// Devices that poll; the others are only known.
const POLLING: usize = 2_000;
/// Broadcasts to those that are due.
const ROUNDS: usize = 4;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let known: usize = std::env::var("BENCH_DEVICES").map_or(KNOWN, |devices| devices.parse().unwrap());
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::start(&sim).await;
    settle().await;
    let idle_mib = served.memory_mib();
    let key = served.app(&sim).await.key;
    served
        .app_of(key.clone())
        .seed("fcm", known, &format!("case when i <= {DUE} then 'some' else 'own:' || i end"))
        .await;
    served.serve("api,dispatch,janitor").await;
    settle().await;
    let known_mib = served.memory_mib();

    let app = served.app_of(key);
    let mut rounds_mib = Vec::new();
    for round in 1..=ROUNDS {
        served.peak_mib();
        app.post("/v1/events", json!({"feed": "some", "type": "t"})).await;
        while sim.fcm().received() < round * DUE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        served.recorded().await;
        rounds_mib.push(served.peak_mib());
    }
    let before_polls_mib = served.memory_mib();
    let mut client = Client::connect(served.port).await;
    for number in 0..POLLING {
        let phone = json!({"installation_id": format!("polls-{number}"), "transport": "fcm", "token": format!("polls-{number}")});
        let device = app.post("/v1/devices", phone).await;
        let token = device["device_token"].as_str().or(device["token"].as_str()).unwrap().to_owned();
        let (_, _, page) = client.send(load::request("GET", "/v1/sync", &token, "")).await;
        let page: Value = serde_json::from_slice(&page).unwrap();
        let path = format!("/v1/sync?after={}", page["next"].as_str().unwrap());
        for _ in 0..2 {
            client.send(load::request("GET", &path, &token, "")).await;
        }
    }
    let polls_mib = served.memory_mib();
    let kind = served.database.kind();
    println!("memory       idle                                       {idle_mib:>8.1} MiB   {kind}");
    println!(
        "             with {known} devices known              {known_mib:>8.1} MiB   {:.1} bytes each",
        (known_mib - idle_mib) * 1_048_576.0 / known as f64
    );
    for (round, mib) in rounds_mib.iter().enumerate() {
        println!("             with {DUE} due, peak of round {}           {mib:>8.1} MiB", round + 1);
    }
    println!(
        "             after {POLLING} devices have polled              {polls_mib:>8.1} MiB   {:.0} bytes each",
        (polls_mib - before_polls_mib) * 1_048_576.0 / POLLING as f64
    );
    let json = json!({
        "bench": "memory", "database": kind, "idle_mib": idle_mib, "known": known, "known_mib": known_mib,
        "due": DUE, "due_peaks_mib": rounds_mib, "polling": POLLING, "polling_mib": polls_mib,
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

/// Long enough for the first rounds of everything that goes on by itself.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}
