//! How many events are accepted a second, one in a request and a hundred, each answered when it is on the disk. `cargo bench --bench accept`
//!
//! The ceilings, in the same run: a bare route that reads the body and answers, and rows of the same size written in groups of 64.
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

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use self::relay::{
    Served,
    load::{self, Measured},
};

const DEVICES: usize = 10_000;
const CLIENTS: usize = 64;
const TIME: Duration = Duration::from_secs(8);
const BATCH: usize = 100;
/// Clients that post a hundred at a time: as many as keep the relay at work, and as many as there are.
const FEW: usize = 4;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::new(&sim).await;
    // What is accepted is not pushed meanwhile.
    served.serve("api").await;
    let app = served.app(&sim).await;
    app.seed("fcm", DEVICES, "'order:' || i").await;

    let bare = Router::new().route("/v1/events", post(async |_body: Bytes| load::answer(StatusCode::ACCEPTED, "{}")));
    let bare = load::beside(bare, async |port| {
        load::run(port, CLIENTS, TIME, StatusCode::ACCEPTED, |client, number| {
            load::request("POST", "/v1/events", "rk_0", event(client, number).to_string())
        })
        .await
    })
    .await;
    let disk = rows_in_groups(served.folder.path());
    let key = app.key.clone();
    let singly = load::run(served.port, CLIENTS, TIME, StatusCode::ACCEPTED, move |client, number| {
        load::request("POST", "/v1/events", &key, event(client, number).to_string())
    })
    .await;
    let batched = async |clients: usize| {
        let key = app.key.clone();
        load::run(served.port, clients, TIME, StatusCode::ACCEPTED, move |client, number| {
            let events: Vec<Value> = (0..BATCH).map(|index| event(client, number * BATCH + index)).collect();
            load::request("POST", "/v1/events", &key, Value::from(events).to_string())
        })
        .await
    };
    let (few, many) = (batched(FEW).await, batched(CLIENTS).await);
    let kind = served.database.kind();
    let line = |name: &str, Measured { per_s, times }: &Measured, events: usize| {
        println!(
            "{name:<31} {:>8.0} events/s   p50 {:>6.1} ms   p99 {:>6.1} ms",
            per_s * events as f64,
            times.share(0.5),
            times.share(0.99)
        );
    };
    line("bare route", &bare, 1);
    println!("{:<31} {disk:>8.0} rows/s", "SQLite, groups of 64");
    line(&format!("{kind}, singly"), &singly, 1);
    line(&format!("{kind}, hundreds, {FEW} at a time"), &few, BATCH);
    line(&format!("{kind}, hundreds, {CLIENTS} at a time"), &many, BATCH);
    let json = json!({
        "bench": "accept", "database": kind, "bare_per_s": bare.per_s, "rows_per_s": disk, "singly_per_s": singly.per_s,
        "singly_p99_ms": singly.times.share(0.99),
        "hundreds_few_per_s": few.per_s * BATCH as f64, "hundreds_few_p99_ms": few.times.share(0.99),
        "hundreds_many_per_s": many.per_s * BATCH as f64, "hundreds_many_p99_ms": many.times.share(0.99),
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

fn event(client: usize, number: usize) -> Value {
    let device = 1 + (client * 157 + number) % DEVICES;
    json!({"feed": format!("order:{device}"), "type": "order.changed", "data": {"status": "shipped", "eta": "2026-11-24"}})
}

/// Rows a second that SQLite takes with as many bytes, 64 in each COMMIT and every COMMIT on the disk.
fn rows_in_groups(folder: &std::path::Path) -> f64 {
    const ROWS: i64 = 100_000;
    let mut database = rusqlite::Connection::open(folder.join("alone.db")).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.pragma_update(None, "synchronous", "full").unwrap();
    database.execute_batch("create table rows (id integer primary key, text text not null)").unwrap();
    let (text, began) = ("x".repeat(400), Instant::now());
    for group in 0..ROWS / 64 {
        let tx = database.transaction().unwrap();
        for row in 0..64 {
            let sql = "insert into rows (id, text) values (?1, ?2)";
            tx.prepare_cached(sql).unwrap().execute((group * 64 + row, &text)).unwrap();
        }
        tx.commit().unwrap();
    }
    ROWS as f64 / began.elapsed().as_secs_f64()
}
