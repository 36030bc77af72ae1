//! Everything the demo runs: the simulated providers, the relay with a fresh database, the shop and its phones.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{TryRng as _, rngs::SysRng};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::life;
use super::plan::{self, Plan};
use super::screen::{Look, Screen};
use super::shop::Shop;
use crate::config::{Config, Flags};
use crate::domain::time::{Clock, Timestamp};
use crate::relay::{Background, Relay};
use crate::secret;
use crate::sim::phones::{Backend, Counts, News, Phone, PhoneSetup};
use crate::sim::{Sim, SimClock, SimConfig};
use crate::store::StoreOptions;

/// The bundle id of the shop's app.
const TOPIC: &str = "com.example.shop";
/// How often a phone of the demo polls by itself; real ones are told 900 s by default.
pub const FLOOR: Duration = Duration::from_secs(3);
/// Of a hundred pushes, this many are accepted by the provider and never arrive.
pub const LOSE_PERCENT: u8 = 30;
/// News that phones may be ahead of the screen.
const NEWS: usize = 1024;

/// See above.
pub struct World {
    pub url: String,
    pub sim: Sim,
    pub shop: Shop,
    pub phones: Vec<Phone>,
    /// Of each order: the position of its first event.
    pub placed: Vec<i64>,
    /// Of each phone: the index of its order.
    pub orders: Vec<usize>,
    /// When the story began, and what the phones had counted until then.
    pub began: (Timestamp, Counts),
    pub clock: Clock,
    relay: Relay,
    operator_key: SecretString,
    /// Holds the database; removed in the end.
    folder: TempDir,
}

impl World {
    /// Starts all of it: orders are placed, then the phones register.
    pub async fn start(plan: &Plan, seed: u64, keep: bool) -> anyhow::Result<(Self, mpsc::Receiver<News>)> {
        let folder = tempfile::Builder::new().prefix("reveille-demo-").tempdir().context("no temporary folder")?;
        let control = keep.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let clock = if keep { Clock::behind(life::DAY) } else { Clock::System };
        let of_providers = clock.clone();
        let sim = SimConfig {
            control_listen: control,
            clock: SimClock::new(move || of_providers.now().as_ms()),
            ..SimConfig::default()
        };
        let sim = Sim::start(sim).await?;
        let operator_key = secret::generate("ro_");
        let config = configure(&sim, folder.path(), &operator_key)?;
        let relay = Relay::start(&config, clock.clone(), StoreOptions::default(), Background::Runs).await?;
        let url = format!("http://{}", relay.address().context("the relay does not listen")?);

        let shop = Shop::open(&url, &operator_key).await?;
        shop.put_credential("apns", &sim.apns_credential()).await?;
        shop.put_credential("fcm", &sim.fcm_credential()).await?;
        let mut placed = Vec::new();
        for order in 0..plan.orders {
            placed.push(shop.publish(&plan::placed(order)).await?.position);
        }
        let (news, receiver) = mpsc::channel(NEWS);
        let backend = Backend::new(&url, shop.app_key().clone())?;
        let mut phones = Vec::new();
        for (index, cast) in plan.cast.iter().enumerate() {
            let setup = PhoneSetup {
                name: cast.name.clone(),
                installation_id: Some(cast.name.clone()),
                provider: cast.provider,
                user: Some(format!("customer-{}", cast.order + 1)),
                feeds: vec![plan::feed(cast.order)],
                topic: TOPIC.to_owned(),
                floor: Some(FLOOR),
                lose_percent: 0,
                seed: seed.wrapping_mul(1000).wrapping_add(index as u64),
            };
            phones.push(Phone::start(&sim, setup, backend.clone(), news.clone()).await?);
        }
        let (orders, began) = (plan.cast.iter().map(|cast| cast.order).collect(), (clock.now(), Counts::default()));
        let world = Self { url, sim, shop, phones, placed, orders, began, clock, relay, operator_key, folder };
        Ok((world, receiver))
    }

    /// From now on pushes are lost.
    pub fn lose_pushes(&self, seed: u64) {
        self.sim.apns().lose_share(LOSE_PERCENT, seed);
        self.sim.fcm().lose_share(LOSE_PERCENT, seed.wrapping_add(1));
    }

    /// Begins the story: what was before is not counted in.
    pub fn begin(&mut self, seed: u64) {
        self.sim.fcm().clear();
        self.sim.apns().clear();
        self.lose_pushes(seed);
        self.sim.forget_pushes();
        self.began = (self.clock.now(), self.counts());
    }

    /// What the phones have counted together.
    pub fn counts(&self) -> Counts {
        self.phones.iter().map(Phone::counts).fold(Counts::default(), |sum, one| Counts {
            polls_by_push: sum.polls_by_push + one.polls_by_push,
            polls_by_itself: sum.polls_by_itself + one.polls_by_itself,
            ..sum
        })
    }

    /// Prints the way to the dashboard, and requests to try.
    pub fn invite(&self, screen: Screen) {
        let Some(phone) = self.phones.first() else { return };
        let (url, control) = (&self.url, self.sim.control_url().unwrap_or_default());
        let feed = phone.feeds().first().cloned().unwrap_or_default();
        let lines = [
            (
                "the backend's key, the operator's, and one phone's:".to_owned(),
                vec![
                    format!("APP_KEY={}", self.shop.app_key().expose_secret()),
                    format!("OPERATOR_KEY={}", self.operator_key.expose_secret()),
                    format!("DEVICE_TOKEN={}", phone.device_token().expose_secret()),
                ],
            ),
            (
                format!("publish an event to {}:", phone.name()),
                vec![
                    format!("curl {url}/v1/events -H \"Authorization: Bearer $APP_KEY\" --json \\"),
                    format!(
                        "  '{{\"feed\":\"{feed}\",\"type\":\"note\",\"key\":\"note\",\"op\":\"upsert\",\"data\":\"hello\"}}'"
                    ),
                ],
            ),
            (
                "see every call to the providers:".to_owned(),
                vec![format!("curl '{url}/v1/attempts?limit=5' -H \"Authorization: Bearer $APP_KEY\"")],
            ),
            (
                format!("poll as {} (peek: without being counted):", phone.name()),
                vec![format!("curl '{url}/v1/sync?peek=true' -H \"Authorization: Bearer $DEVICE_TOKEN\"")],
            ),
            (
                "list the apps:".to_owned(),
                vec![format!("curl {url}/v1/apps -H \"Authorization: Bearer $OPERATOR_KEY\"")],
            ),
            (
                "see what the providers got, and lose the next three FCM pushes:".to_owned(),
                vec![
                    format!("curl {control}/pushes"),
                    format!("curl {control}/faults --json '{{\"provider\":\"fcm\",\"count\":3,\"fault\":\"lost\"}}'"),
                ],
            ),
        ];
        let key = self.shop.app_key().expose_secret();
        screen.line("");
        screen.line(screen.paint(Look::Bold, "Open the dashboard, and ask it why phone-07 is behind:"));
        screen.line("");
        // The part behind # stays in the browser, and the page takes it away at once. Only this key, of a relay that is gone with this
        // process, is ever written so (decision 13).
        screen.line(format!("  {url}/#key={key}"));
        screen.line("");
        screen.line(
            screen.paint(
                Look::Bold,
                "Everything goes on running, and phones tell what they read; Ctrl-C ends it. Or try:",
            ),
        );
        screen.line(format!("  (database: {})", self.folder.path().join("reveille.db").display()));
        for (what, commands) in lines {
            screen.line("");
            screen.line(format!("  # {what}"));
            for command in commands {
                screen.line(format!("  {command}"));
            }
        }
        screen.line("");
    }

    /// Closes everything down and removes the database.
    pub async fn stop(self) {
        self.sim.stop().await;
        self.relay.stop().await;
    }
}

fn configure(sim: &Sim, folder: &Path, operator_key: &SecretString) -> anyhow::Result<Config> {
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, sim.ca_pem()).context("the simulators' certificate cannot be written")?;
    let mut master_key = [0; 32];
    SysRng.try_fill_bytes(&mut master_key).context("the system gives no random numbers")?;
    let master_key = BASE64_STANDARD.encode(master_key);
    let flags = Flags {
        listen: Some("127.0.0.1:0".to_owned()),
        database_url: Some("sqlite:reveille.db".to_owned()),
        apns_url: Some(sim.apns_url()),
        fcm_url: Some(sim.fcm_url()),
        extra_ca: Some(ca.display().to_string()),
        ..Flags::default()
    };
    // Nothing of the reader's own environment takes part.
    let env = |name: &str| match name {
        "REVEILLE_MASTER_KEY" => Some(master_key.clone()),
        "REVEILLE_OPERATOR_KEY" => Some(operator_key.expose_secret().to_owned()),
        _ => None,
    };
    Ok(Config::load(&flags, env, folder)?)
}
