//! Simulated APNs, FCM and Google OAuth, for tests, the demo and `reveille sim`: real TLS and HTTP/2 on real sockets, with their own CA
//! and credentials, and faults on demand. Beside them, a whole fleet in virtual time (`fleet`).
//!
//! They share no code with `transport`, so that a mistake there cannot hide behind the same mistake here; SDKs that nobody here wrote
//! check them (`tests/foreign`).

mod apns;
mod certs;
mod control;
mod faults;
pub mod fleet;
mod folder;
mod google;
mod inbox;
mod listen;
pub mod phones;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use self::certs::{Identity, TEAM_ID};
pub use self::faults::{Fault, FaultKind, Faults};
pub use self::inbox::{Provider, Push};

use self::apns::Apns;
use self::google::{Google, GoogleSetup};
use self::inbox::Inbox;
use self::listen::Tasks;

/// How long [`Sim::stop`] waits for its tasks.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How a [`Sim`] is set up.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where APNs listens; port 0 takes a free one.
    pub apns_listen: SocketAddr,
    /// Where FCM and the OAuth token endpoint listen.
    pub google_listen: SocketAddr,
    /// Where the control API listens (plain HTTP, no authentication); none if absent.
    pub control_listen: Option<SocketAddr>,
    /// The bundle ids the APNs key may push to.
    pub bundle_ids: Vec<String>,
    /// How many pushes are remembered; 0 for benchmarks.
    pub record_pushes: usize,
    /// The Google project.
    pub project_id: String,
    /// How long Google's access tokens hold.
    pub google_token_life: Duration,
    /// Names in the server certificate beside `localhost`, `127.0.0.1` and `::1`.
    pub names: Vec<String>,
    /// The identity of an earlier simulator, to start it again with the same CA and keys; a new one if absent.
    pub identity: Option<Arc<Identity>>,
    /// What time it is.
    pub clock: SimClock,
}

impl Default for SimConfig {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            apns_listen: any,
            google_listen: any,
            control_listen: None,
            bundle_ids: vec!["com.example.shop".to_owned()],
            record_pushes: 10_000,
            project_id: "reveille-sim".to_owned(),
            google_token_life: Duration::from_secs(3599),
            names: Vec::new(),
            identity: None,
            clock: SimClock::default(),
        }
    }
}

/// The simulators' clock, against which tokens are judged.
#[derive(Clone)]
pub struct SimClock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl SimClock {
    /// A clock that asks `now_ms` for the milliseconds since the epoch.
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl Default for SimClock {
    /// The system's clock.
    #[allow(
        clippy::disallowed_methods,
        reason = "the providers have a clock of their own, which the relay's tests may replace"
    )]
    fn default() -> Self {
        Self::new(|| jiff::Timestamp::now().as_millisecond())
    }
}

impl std::fmt::Debug for SimClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimClock")
    }
}

/// Running simulators. Dropping it stops them at once, [`Sim::stop`] waits until they are gone.
pub struct Sim {
    apns_addr: SocketAddr,
    google_addr: SocketAddr,
    control_addr: Option<SocketAddr>,
    bundle_ids: Vec<String>,
    project_id: String,
    identity: Arc<Identity>,
    apns: Arc<Apns>,
    google: Arc<Google>,
    inbox: Arc<Inbox>,
    tasks: Tasks,
}

impl Sim {
    /// Binds the sockets and serves in tasks of the current runtime.
    ///
    /// # Errors
    /// When a socket cannot be bound or a certificate cannot be made.
    pub async fn start(config: SimConfig) -> anyhow::Result<Self> {
        let identity = match config.identity {
            Some(identity) => identity,
            None => Arc::new(Identity::generate(&config.names)?),
        };
        let (apns_listener, apns_addr) = bind(config.apns_listen).await?;
        let (google_listener, google_addr) = bind(config.google_listen).await?;
        let inbox = Arc::new(Inbox::new(config.record_pushes));
        let (faults, clock) = (Arc::<Faults>::default(), config.clock.clone());
        let apns = Arc::new(Apns::new(&identity, config.bundle_ids.clone(), faults, Arc::clone(&inbox), clock)?);
        let google = Arc::new(Google::new(GoogleSetup {
            identity: &identity,
            project_id: config.project_id.clone(),
            client_email: client_email(&config.project_id),
            token_url: token_url(google_addr),
            token_life: config.google_token_life,
            inbox: Arc::clone(&inbox),
            clock: config.clock,
        })?);
        let tasks = Tasks::default();
        {
            let apns = Arc::clone(&apns);
            let tls = identity.tls(&[b"h2"])?;
            tasks.spawn(listen::accept(apns_listener, tls, tasks.clone(), move |stream| {
                Arc::clone(&apns).serve(stream)
            }));
            let google = Arc::clone(&google);
            let tls = identity.tls(&[b"h2", b"http/1.1"])?;
            tasks.spawn(listen::accept(google_listener, tls, tasks.clone(), move |stream| {
                Arc::clone(&google).serve(stream)
            }));
        }
        let mut sim = Self {
            apns_addr,
            google_addr,
            control_addr: None,
            bundle_ids: config.bundle_ids,
            project_id: config.project_id,
            identity,
            apns,
            google,
            inbox,
            tasks,
        };
        if let Some(listen) = config.control_listen {
            let (listener, addr) = bind(listen).await?;
            sim.control_addr = Some(addr);
            control::serve(&sim, listener);
        }
        Ok(sim)
    }

    /// The base URL for `REVEILLE_APNS_URL`.
    pub fn apns_url(&self) -> String {
        base_url(self.apns_addr)
    }

    /// The base URL for `REVEILLE_FCM_URL`.
    pub fn fcm_url(&self) -> String {
        base_url(self.google_addr)
    }

    /// The base URL of the control API, if there is one.
    pub fn control_url(&self) -> Option<String> {
        self.control_addr.map(|addr| format!("http://{addr}"))
    }

    /// The certificate to trust.
    pub fn ca_pem(&self) -> &str {
        &self.identity.ca_pem
    }

    /// CA and keys, to start another simulator with them.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// What `PUT /v1/credentials/apns` takes.
    pub fn apns_credential(&self) -> Value {
        let key = &self.identity.apns_key;
        json!({
            "team_id": TEAM_ID,
            "key_id": key.key_id,
            "private_key": key.private_pem,
            "topics": self.bundle_ids,
            "environments": ["production", "sandbox"],
        })
    }

    /// What `PUT /v1/credentials/fcm` takes: a service-account file as Google gives it, with the simulator's `token_uri`.
    pub fn fcm_credential(&self) -> Value {
        let key = &self.identity.google_key;
        json!({
            "type": "service_account",
            "project_id": self.project_id,
            "private_key_id": key.key_id,
            "private_key": key.private_pem,
            "client_email": client_email(&self.project_id),
            "client_id": "100000000000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_url(self.google_addr),
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": "googleapis.com",
        })
    }

    /// What goes wrong at APNs.
    pub fn apns(&self) -> &Faults {
        &self.apns.faults
    }

    /// What goes wrong at FCM's send route.
    pub fn fcm(&self) -> &Faults {
        &self.google.faults
    }

    /// What goes wrong at Google's token endpoint. `Status` reasons are OAuth's (`invalid_grant`); dead tokens and losses mean nothing.
    pub fn google_oauth(&self) -> &Faults {
        &self.google.oauth_faults
    }

    /// The remembered send requests, right or wrong, oldest first.
    pub fn pushes(&self) -> Vec<Push> {
        self.inbox.pushes(None)
    }

    /// The same, and they are forgotten.
    pub fn take_pushes(&self) -> Vec<Push> {
        self.inbox.take_all()
    }

    /// Forgets the remembered pushes.
    pub fn forget_pushes(&self) {
        self.inbox.clear();
    }

    /// A virtual phone's ear: what really arrives at `token` from now on. A phone 64 pushes behind misses the newer ones.
    pub fn subscribe(&self, token: &str) -> tokio::sync::mpsc::Receiver<Push> {
        self.inbox.subscribe(token)
    }

    /// Access tokens Google has issued so far.
    pub fn google_tokens_issued(&self) -> usize {
        self.google.tokens_issued()
    }

    /// Every access token issued so far is answered 401 from now on.
    pub fn google_expire_tokens(&self) {
        self.google.expire_tokens();
    }

    /// Writes `ca.pem`, `apns-key.p8`, `apns-credential.json`, `service-account.json` and `env.sh` into `dir`, which is made if needed.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_folder(&self, dir: &Path) -> anyhow::Result<()> {
        folder::write(self, dir)
    }

    /// Closes everything and waits until it is closed (at most 5 s).
    pub async fn stop(self) {
        self.tasks.stop.cancel();
        self.tasks.tracker.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.tracker.wait()).await.is_err() {
            tracing::warn!("a task of the simulator did not end");
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.tasks.stop.cancel();
    }
}

async fn bind(addr: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await.with_context(|| format!("the simulator cannot listen on {addr}"))?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

fn base_url(addr: SocketAddr) -> String {
    format!("https://localhost:{}", addr.port())
}

fn token_url(addr: SocketAddr) -> String {
    format!("{}/token", base_url(addr))
}

fn client_email(project_id: &str) -> String {
    format!("reveille@{project_id}.iam.gserviceaccount.com")
}
