//! What goes wrong, at random but in an order that a seed repeats.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reveille::sim::{Fault, FaultKind, Sim};

use super::{
    cluster::{ClockFault, Cluster, LEASE, Node},
    load::now_ms,
    server::{Server, Stop},
};

/// Between two troubles.
const CALM: std::ops::Range<f64> = 0.3..2.0;

/// What went wrong, and when.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub what: &'static str,
    pub from_ms: i64,
    pub until_ms: i64,
}

/// Whoever makes the trouble.
pub struct Maker<'a> {
    pub cluster: &'a Cluster,
    pub server: Option<&'a Server>,
    pub sim: &'a Sim,
    pub only: Option<Kind>,
    chance: StdRng,
    log: Vec<Trouble>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Kill,
    Restart,
    Pause,
    Clock,
    Connections,
    Provider,
    Database,
}

impl<'a> Maker<'a> {
    pub fn new(cluster: &'a Cluster, server: Option<&'a Server>, sim: &'a Sim, only: Option<Kind>, seed: u64) -> Self {
        Self { cluster, server, sim, only, chance: StdRng::seed_from_u64(seed), log: Vec::new() }
    }

    /// Makes trouble for so long, and puts everything right again.
    pub async fn go_on_for(mut self, length: Duration) -> anyhow::Result<Vec<Trouble>> {
        let began = Instant::now();
        while began.elapsed() < length {
            self.rest(CALM).await;
            let from_ms = now_ms();
            let what = self.once().await?;
            self.log.push(Trouble { what, from_ms, until_ms: now_ms() });
        }
        self.sim.apns().clear();
        self.sim.fcm().clear();
        self.cluster.heal()?;
        Ok(self.log)
    }

    async fn once(&mut self) -> anyhow::Result<&'static str> {
        let node = self.node();
        let kind = match self.only {
            Some(kind) => kind,
            None => self.kind(),
        };
        Ok(match kind {
            Kind::Kill => {
                node.kill();
                node.cut_connections();
                self.rest(0.1..3.0).await;
                node.start()?;
                "kill -9"
            }
            Kind::Restart => {
                let ends = Arc::clone(&node);
                tokio::task::spawn_blocking(move || ends.end()).await?;
                node.start()?;
                "restart"
            }
            Kind::Pause => {
                node.pause();
                // A balancer takes a moment to find out.
                self.rest(0.2..1.0).await;
                node.take_out_of_service();
                // Shorter than a lease, or longer.
                self.rest(0.2..2.5 * LEASE.as_secs_f64()).await;
                node.go_on();
                "SIGSTOP"
            }
            Kind::Clock => {
                let wrong_by_ms = self.chance.random_range(-4_000..4_000);
                let held = self.chance.random_bool(0.5);
                node.set_clock(Some(if held { ClockFault::Held } else { ClockFault::WrongByMs(wrong_by_ms) }));
                self.rest(1.0..6.0).await;
                node.set_clock(None);
                if held { "clock held" } else { "clock wrong" }
            }
            Kind::Connections => {
                self.cluster.nodes.iter().for_each(|node| node.cut_connections());
                "connections cut"
            }
            Kind::Provider => self.trouble_a_provider(),
            Kind::Database => match self.server {
                Some(server) => {
                    let stop = if self.chance.random_bool(0.5) { Stop::Immediate } else { Stop::Fast };
                    let down = self.chance.random_range(0.0..2.0);
                    tokio::task::block_in_place(|| {
                        server.stop(stop)?;
                        std::thread::sleep(Duration::from_secs_f64(down));
                        server.start_again()
                    })?;
                    if matches!(stop, Stop::Immediate) { "PostgreSQL crashed" } else { "PostgreSQL restarted" }
                }
                // Who has a file has no server that could stop; the process that has it open is killed instead.
                None => {
                    node.kill();
                    node.start()?;
                    "kill -9"
                }
            },
        })
    }

    fn kind(&mut self) -> Kind {
        use Kind::{Clock, Connections, Database, Kill, Pause, Provider, Restart};
        let likely =
            [Kill, Kill, Kill, Pause, Pause, Provider, Provider, Provider, Database, Clock, Restart, Connections];
        *likely.choose(&mut self.chance).unwrap_or(&Kill)
    }

    fn trouble_a_provider(&mut self) -> &'static str {
        let apns = self.chance.random_bool(0.5);
        let faults = if apns { self.sim.apns() } else { self.sim.fcm() };
        let count = self.chance.random_range(1..40);
        let later = |status, of_apns: &str, of_fcm: &str| FaultKind::Status {
            status,
            reason: Some(if apns { of_apns } else { of_fcm }.to_owned()),
            retry_after: Some("1".into()),
        };
        let (fault, what) = match self.chance.random_range(0..7) {
            0 => (later(503, "ServiceUnavailable", "UNAVAILABLE"), "provider: 503"),
            1 => (later(429, "TooManyRequests", "QUOTA_EXCEEDED"), "provider: 429"),
            2 => (FaultKind::Reset, "provider: reset"),
            3 => (FaultKind::GoAway { reason: None }, "provider: GOAWAY"),
            4 => (FaultKind::BlackHole, "provider: no answer"),
            5 => (FaultKind::Lost, "provider: lost"),
            _ => (FaultKind::Delay(Duration::from_millis(700)), "provider: slow"),
        };
        faults.answer(Fault::new(fault).times(count));
        what
    }

    fn node(&mut self) -> Arc<Node> {
        let index = self.chance.random_range(0..self.cluster.nodes.len());
        Arc::clone(&self.cluster.nodes[index])
    }

    async fn rest(&mut self, seconds: std::ops::Range<f64>) {
        tokio::time::sleep(Duration::from_secs_f64(self.chance.random_range(seconds))).await;
    }
}
