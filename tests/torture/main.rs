//! Relays under torture: real processes are killed, stopped and given wrong clocks, providers fail, PostgreSQL crashes, and meanwhile
//! backends post and phones read. Whatever happens, what was accepted arrives, in order and once.
//!
//! `cargo test --test torture -- --minutes 10 --on postgres` prints a summary, and exits with 1 if anything was not as it must be.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it looks from outside, at processes that have clocks and tasks of their own"
)]

mod cluster;
mod load;
mod server;
mod trouble;
mod verdict;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use reveille::sim::{Sim, SimConfig};

use self::{
    cluster::Cluster,
    load::Load,
    server::Server,
    trouble::{Kind, Maker, Trouble},
    verdict::Figures,
};

const NODES: usize = 3;
/// At the beginning and at the end nothing goes wrong.
const CALM: Duration = Duration::from_secs(5);
/// Pushes that the simulators remember between two looks.
const PUSHES: usize = 100_000;

/// Tortures relays, and says what came of it.
#[derive(Parser)]
struct Arguments {
    /// How long trouble is made, on each database.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// On which database; on one after the other if not said.
    #[arg(long)]
    on: Option<Database>,
    /// Only this trouble.
    #[arg(long)]
    only: Option<Kind>,
    /// Repeats what was done, as far as processes can be made to.
    #[arg(long)]
    seed: Option<u64>,
    /// The relay to torture instead of the one that was built with this; if it was built without the feature `faults`, its clock is right.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// What `cargo test` passes on to every test binary.
    #[arg(long, hide = true)]
    nocapture: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Database {
    /// One node and its file.
    Sqlite,
    /// Three nodes on a server.
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = match arguments.on {
        Some(database) => vec![database],
        None => vec![Database::Sqlite, Database::Postgres],
    };
    let (began, mut failed) = (Instant::now(), 0);
    println!("\nrunning {} tests", all.len());
    for database in &all {
        let said = match torture(*database, &arguments).await {
            Ok(0) => "ok".to_owned(),
            Ok(violations) => format!("FAILED: {violations} violations"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        failed += usize::from(said != "ok");
        println!("test torture on {database:?} ... {said}\n");
    }
    let (passed, took_s) = (all.len() - failed, began.elapsed().as_secs_f64());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {took_s:.2}s\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run; answers how many violations it saw.
async fn torture(database: Database, arguments: &Arguments) -> anyhow::Result<usize> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    println!("torture on {database:?} for {} minutes, seed {seed}", arguments.minutes);
    let folder = tempfile::tempdir()?;
    let sim = Sim::start(SimConfig { record_pushes: PUSHES, ..SimConfig::default() }).await?;
    let (server, nodes) = match database {
        Database::Sqlite => (None, 1),
        Database::Postgres => (Some(Server::start()?), NODES),
    };
    let url = match &server {
        None => format!("sqlite:{}", folder.path().join("reveille.db").display()),
        Some(server) => server.url(),
    };
    let relay = arguments.relay.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_reveille").into());
    let cluster = Cluster::start(nodes, &relay, &url, folder.path(), &sim).await?;
    let mut load = Load::start(&cluster, &sim, seed).await?;
    let began = Instant::now();
    let trouble = async {
        tokio::time::sleep(CALM).await;
        let maker = Maker::new(&cluster, server.as_ref(), &sim, arguments.only, seed);
        let troubles = maker.go_on_for(length).await?;
        tokio::time::sleep(CALM).await;
        anyhow::Ok(troubles)
    };
    let watch = async {
        loop {
            load.ledger.take_pushes(&sim);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let troubles = tokio::select! {
        troubles = trouble => troubles?,
        () = watch => Vec::new(),
    };
    load.stop_writing().await;
    let length = began.elapsed();
    let figures = verdict::judge(&load, &sim, &troubles).await?;
    for (number, node) in cluster.nodes.iter().enumerate() {
        node.complaints().into_iter().for_each(|line| load.ledger.accuse(format!("node {number}: {line}")));
    }
    summarize(&load, &cluster, &troubles, &figures, length);
    let violations = load.ledger.violations().len();
    if violations > 0 {
        keep(folder);
    }
    Ok(violations)
}

/// Whoever looks for the reason wants the logs.
fn keep(folder: tempfile::TempDir) {
    let path = folder.keep();
    println!("what the nodes logged is in {}", Path::display(&path));
}

fn summarize(load: &Load, cluster: &Cluster, troubles: &[Trouble], figures: &Figures, length: Duration) {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for trouble in troubles {
        *kinds.entry(trouble.what).or_default() += 1;
    }
    let list = |counts: Vec<String>| counts.join(", ");
    let (events, pushes) = (load.ledger.events(), load.ledger.pushes());
    println!("  {:.0} s; {events} events accepted, all read by {} phones", length.as_secs_f64(), load.phones.len());
    println!("  troubles: {}", list(kinds.iter().map(|(what, count)| format!("{what} {count}")).collect()));
    let attempts = figures.attempts.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
    println!("  {} pushes reached a provider; attempts: {}", pushes.len(), list(attempts));
    println!(
        "  {} pushes came twice; {} calls were taken over, {}",
        figures.twice,
        figures.taken_over_ms.len(),
        spread(&figures.taken_over_ms)
    );
    println!(
        "  accepted to pushed, undisturbed: {}; with trouble: {}",
        spread(&figures.calm_ms),
        spread(&figures.trouble_ms)
    );
    println!("  at rest {:.1} s after the last event", figures.rest.as_secs_f64());
    let memory = cluster.nodes.iter().filter_map(|node| Some(format!("{} MiB", node.resident_kib()? / 1024))).collect();
    let (replays, away) = (&load.ledger.replays, &load.ledger.turned_away);
    println!(
        "  {replays:?} repeated posts were answered as before; {away:?} requests were in vain; nodes hold {}",
        list(memory)
    );
}

/// Median, 99th percentile and maximum of values in order.
fn spread(ordered_ms: &[i64]) -> String {
    let at = |share: usize| ordered_ms.get((ordered_ms.len().saturating_sub(1)) * share / 100);
    match (at(50), at(99), ordered_ms.last()) {
        (Some(median), Some(p99), Some(most)) => format!("p50 {median} ms, p99 {p99} ms, at most {most} ms"),
        _ => "none".to_owned(),
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
