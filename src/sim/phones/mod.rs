//! Virtual phones: each keeps its own copy of the backend's state, built only from what it reads at the relay's polling endpoint.
//!
//! Pushes tell a phone to come and look; it also comes by itself, so that a lost push costs time and never the truth.

mod backend;
mod life;
mod reader;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use self::backend::Backend;
pub use self::state::{Item, Items};

use self::state::State;
use super::Sim;
use super::inbox::Provider;

/// What a phone is like.
#[derive(Debug, Clone)]
pub struct PhoneSetup {
    /// What it is called in [`News`].
    pub name: String,
    /// Its installation id at the relay; made up if absent.
    pub installation_id: Option<String>,
    /// An iPhone has APNs, an Android phone FCM.
    pub provider: Provider,
    /// Whose phone it is, if anybody's.
    pub user: Option<String>,
    /// The feeds it follows beside its user's and its own.
    pub feeds: Vec<String>,
    /// The bundle id of its app; means nothing for FCM.
    pub topic: String,
    /// How often it polls by itself; what the relay asks for (`poll.after_s`) if absent.
    pub floor: Option<Duration>,
    /// Of a hundred pushes that reach it, so many are lost in it.
    pub lose_percent: u8,
    /// Seeds its installation id, its push tokens and its losses.
    pub seed: u64,
}

/// Why a phone polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It has just registered.
    Start,
    /// This push told it to.
    Push {
        /// The push's wake.
        wake: String,
    },
    /// It was time, or it was offline and is back.
    Itself,
}

/// An event that a phone has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its feed.
    pub feed: String,
    /// Its position.
    pub position: i64,
}

/// What a phone has to tell.
#[derive(Debug, Clone)]
pub enum What {
    /// A push has arrived.
    Pushed {
        /// The push's wake.
        wake: String,
        /// Up to where it announces news.
        head: i64,
        /// The feed, if it announces only one.
        feed: Option<String>,
    },
    /// It has polled until there was no more.
    Polled {
        /// Why.
        cause: Cause,
        /// What it has read, oldest first.
        applied: Vec<Applied>,
        /// Up to where it now knows everything.
        through: i64,
        /// How long the requests took.
        took: Duration,
    },
    /// The relay says that its push token is dead.
    TokenDead,
    /// It has registered again, with a new push token or because its device token had ended.
    RegisteredAgain,
    /// The relay asks it to come later.
    Later {
        /// 429 or 503.
        status: u16,
        /// How much later.
        pause: Duration,
    },
    /// It has lost the network.
    Offline,
    /// It has the network again.
    Online,
    /// It could not do what it wanted.
    Trouble(String),
}

/// Something happened at a phone.
#[derive(Debug, Clone)]
pub struct News {
    /// Its name.
    pub phone: Arc<str>,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What a phone has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pushes that reached it, also those lost in it or meant for another user.
    pub pushes_received: u64,
    /// Pushes that it lost by itself.
    pub pushes_lost: u64,
    /// Pushes for another user than its own, which it drops.
    pub pushes_foreign: u64,
    /// Polls because of a push.
    pub polls_by_push: u64,
    /// Polls by itself, those after a registration not counted.
    pub polls_by_itself: u64,
    /// Events it has read.
    pub events_applied: u64,
    /// Registrations after the first.
    pub registered_again: u64,
}

/// A phone that lives as long as its [`Sim`]. This is a handle: cloning it makes no second phone.
#[derive(Clone)]
pub struct Phone(Arc<Shared>);

struct Shared {
    setup: PhoneSetup,
    name: Arc<str>,
    installation_id: String,
    online: watch::Sender<bool>,
    memory: Mutex<Memory>,
}

struct Memory {
    device: String,
    push_token: String,
    device_token: SecretString,
    counts: Counts,
    state: State,
}

impl Phone {
    /// Registers a phone and lets it live in a task of `sim`. What happens to it goes into `news`, which it waits for when it is full.
    ///
    /// # Errors
    /// When the relay does not take the registration.
    pub async fn start(
        sim: &Sim,
        setup: PhoneSetup,
        backend: Backend,
        news: mpsc::Sender<News>,
    ) -> anyhow::Result<Self> {
        let mut dice = StdRng::seed_from_u64(setup.seed);
        let made_up = hex(&mut dice, 16);
        let installation_id = setup.installation_id.clone().unwrap_or(made_up);
        let push_token = new_push_token(setup.provider, &mut dice);
        let ear = sim.inbox.subscribe(&push_token);
        let mut wanted = registration(&setup, &installation_id, &push_token);
        wanted["feeds"] = json!(setup.feeds);
        wanted["user"] = json!(setup.user);
        let registered = backend.register(&wanted).await?;
        let memory = Memory {
            device: registered.id.clone(),
            push_token,
            device_token: registered.device_token.clone(),
            counts: Counts::default(),
            state: State::default(),
        };
        let shared = Arc::new(Shared {
            name: setup.name.as_str().into(),
            setup,
            installation_id,
            online: watch::Sender::new(true),
            memory: Mutex::new(memory),
        });
        let phone = Self(shared);
        let life = life::Life::new(phone.clone(), Arc::clone(&sim.inbox), ear, backend, registered, news, dice)?;
        sim.tasks.spawn(life.run());
        Ok(phone)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Who pushes to it.
    pub fn provider(&self) -> Provider {
        self.0.setup.provider
    }

    /// The feeds it follows by its backend's word.
    pub fn feeds(&self) -> &[String] {
        &self.0.setup.feeds
    }

    /// Its device id at the relay.
    pub fn device(&self) -> String {
        self.0.memory().device.clone()
    }

    /// The push token it has now.
    pub fn push_token(&self) -> String {
        self.0.memory().push_token.clone()
    }

    /// The device token it has now.
    pub fn device_token(&self) -> SecretString {
        self.0.memory().device_token.clone()
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        self.0.memory().counts
    }

    /// What it knows.
    pub fn items(&self) -> Items {
        self.0.memory().state.items().clone()
    }

    /// Takes it off the network: pushes are missed, nothing is polled.
    pub fn go_offline(&self) {
        self.0.online.send_replace(false);
    }

    /// Brings it back; it polls at once.
    pub fn go_online(&self) {
        self.0.online.send_replace(true);
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every registration of an installation says.
fn registration(setup: &PhoneSetup, installation_id: &str, push_token: &str) -> Value {
    match setup.provider {
        Provider::Apns => json!({
            "installation_id": installation_id, "transport": "apns", "platform": "ios", "token": push_token,
            "environment": "production", "topic": setup.topic, "os": "ios 20",
        }),
        Provider::Fcm => json!({
            "installation_id": installation_id, "transport": "fcm", "platform": "android", "token": push_token, "os": "android 17",
        }),
    }
}

/// A token as the provider makes them: 64 hex digits, or an FCM registration token (instance id, colon, about 140 characters).
fn new_push_token(provider: Provider, dice: &mut StdRng) -> String {
    match provider {
        Provider::Apns => hex(dice, 64),
        Provider::Fcm => format!("{}:APA91b{}", hex(dice, 22), hex(dice, 134)),
    }
}

fn hex(dice: &mut StdRng, digits: usize) -> String {
    (0..digits).filter_map(|_| char::from_digit(dice.random_range(0..16), 16)).collect()
}
