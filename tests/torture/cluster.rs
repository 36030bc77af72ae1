//! The relays under torture: real processes on one database, and a balancer before them as any deployment has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::seq::SliceRandom;
use reveille::sim::Sim;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub const OPERATOR_KEY: &str = "ro_operator-key-of-the-torture";
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// A claimed call belongs to its node for so long.
pub const LEASE: Duration = Duration::from_secs(3);

/// One relay; it may be dead.
pub struct Node {
    relay: PathBuf,
    port: u16,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    child: Mutex<Option<Child>>,
    /// Whether the balancer may send it anybody.
    in_service: AtomicBool,
    /// Turned to end all connections that the balancer has to it.
    cut: watch::Sender<u64>,
}

/// How its clock goes.
#[derive(Debug, Clone, Copy)]
pub enum ClockFault {
    Held,
    WrongByMs(i64),
}

impl Node {
    fn command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let mut command = Command::new(&self.relay);
        command.arg("serve").current_dir(&self.folder).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_or(Stdio::null(), Stdio::from));
        command
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, unless it lives.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut child = self.child();
        let lives = match child.as_mut() {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        if !lives {
            *child = Some(self.command().spawn()?);
        }
        self.in_service.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Dies without a word.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Is asked to end, and is waited for.
    pub fn end(&self) {
        self.signal("TERM");
        if let Some(mut child) = self.child().take() {
            drop(child.wait());
        }
    }

    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
        self.in_service.store(true, Ordering::Relaxed);
    }

    /// The balancer finds that it does not answer.
    pub fn take_out_of_service(&self) {
        self.in_service.store(false, Ordering::Relaxed);
        self.cut_connections();
    }

    pub fn cut_connections(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    pub fn set_clock(&self, fault: Option<ClockFault>) {
        let wish = match fault {
            None => "0".to_owned(),
            Some(ClockFault::Held) => "held".to_owned(),
            Some(ClockFault::WrongByMs(ms)) => ms.to_string(),
        };
        drop(fs::write(self.folder.join("clock"), wish));
    }

    /// What it has logged as an error, and whether it has ended by itself.
    pub fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("panicked") || line.contains("Corrupt")).map(str::to_owned).collect()
    }

    /// Memory that it holds, in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let process = self.child().as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = self.child().as_ref() {
            drop(Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.go_on();
        self.kill();
    }
}

/// Several relays behind one address.
pub struct Cluster {
    pub nodes: Vec<Arc<Node>>,
    pub url: String,
}

impl Cluster {
    /// `count` nodes on one database, with their files in `folder`.
    pub async fn start(
        count: usize,
        relay: &Path,
        database_url: &str,
        folder: &Path,
        sim: &Sim,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let mut nodes = Vec::new();
        for number in 0..count {
            let folder = folder.join(format!("node-{number}"));
            fs::create_dir(&folder)?;
            fs::write(folder.join("ca.pem"), sim.ca_pem())?;
            let port = super::free_port()?;
            let environment = vec![
                ("REVEILLE_LISTEN", format!("127.0.0.1:{port}")),
                ("REVEILLE_PUBLIC_URL", url.clone()),
                ("REVEILLE_MASTER_KEY", MASTER_KEY.into()),
                ("REVEILLE_DATABASE_URL", database_url.into()),
                ("REVEILLE_OPERATOR_KEY", OPERATOR_KEY.into()),
                ("REVEILLE_APNS_URL", sim.apns_url()),
                ("REVEILLE_FCM_URL", sim.fcm_url()),
                ("REVEILLE_EXTRA_CA", "ca.pem".into()),
                ("REVEILLE_LEASE_S", LEASE.as_secs().to_string()),
                ("REVEILLE_LOG", "warn".into()),
                ("REVEILLE_FAULT_CLOCK", folder.join("clock").display().to_string()),
            ];
            let (child, in_service) = (Mutex::default(), AtomicBool::new(false));
            let relay = relay.to_owned();
            nodes.push(Arc::new(Node {
                relay,
                port,
                folder,
                environment,
                child,
                in_service,
                cut: watch::Sender::new(0),
            }));
        }
        for node in &nodes {
            node.start()?;
        }
        tokio::spawn(balance(listener, nodes.clone()));
        Ok(Self { nodes, url })
    }

    /// Everything is as it should be again.
    pub fn heal(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.set_clock(None);
            node.go_on();
            node.start()?;
        }
        Ok(())
    }
}

/// Gives each connection to some node that takes it.
async fn balance(listener: TcpListener, nodes: Vec<Arc<Node>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let mut in_turn: Vec<_> = nodes.iter().filter(|node| node.in_service.load(Ordering::Relaxed)).collect();
            in_turn.shuffle(&mut rand::rng());
            for node in in_turn {
                let mut cut = node.cut.subscribe();
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", node.port)).await else { continue };
                let _ = near.set_nodelay(true).and(far.set_nodelay(true));
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => {}
                }
                return;
            }
        });
    }
}
