//! What reached the simulated providers, and what they passed on to virtual phones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

/// Pushes a slow virtual phone may leave unread before newer ones are dropped for it.
const EAR_CAPACITY_PUSHES: usize = 64;

/// Which simulated provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
}

/// One send request, as the provider saw it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Push {
    /// Who was asked.
    pub provider: Provider,
    /// The device token (APNs: hex; FCM: registration token, Firebase installation id, or `/topics/…`).
    pub token: String,
    /// The `apns-id`, or the FCM message name (empty when FCM refused).
    pub id: String,
    /// The `apns-*` headers; always empty for FCM. Never the authorization.
    pub headers: BTreeMap<String, String>,
    /// The APNs payload, or the FCM `message` object; null if it was no JSON.
    pub body: Value,
    /// When it arrived, milliseconds since the epoch on the simulator's clock.
    pub at_ms: i64,
    /// The answered HTTP status; 0 if there was no answer (reset, GOAWAY, black hole).
    pub status: u16,
    /// Whether it was passed on to the phones listening at this token.
    pub delivered: bool,
}

impl Push {
    /// The relay's trigger: the `reveille` object of an APNs payload, also of one inside an FCM message, or the `data` of an FCM
    /// message. `None` if there is none, or a value in it is not a string.
    pub fn trigger(&self) -> Option<BTreeMap<String, String>> {
        let object = match self.provider {
            Provider::Apns => self.body.get("reveille"),
            Provider::Fcm => self.body.get("data").or_else(|| self.body.pointer("/apns/payload/reveille")),
        };
        object?.as_object()?.iter().map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }
}

/// The bounded memory of pushes and the ears of the virtual phones.
pub(super) struct Inbox {
    keep: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pushes: VecDeque<Push>,
    ears: HashMap<String, Vec<mpsc::Sender<Push>>>,
}

impl Inbox {
    /// Remembers the newest `keep` pushes.
    pub fn new(keep: usize) -> Self {
        Self { keep, state: Mutex::default() }
    }

    /// Records a request and, if it is `delivered`, passes it on. `push` is only called when somebody wants it.
    pub fn take(&self, token: &str, delivered: bool, push: impl FnOnce() -> Push) {
        let mut state = self.lock();
        let ears = if delivered { state.ears.get_mut(token) } else { None };
        if self.keep == 0 && ears.is_none() {
            return;
        }
        let push = push();
        if let Some(ears) = ears {
            ears.retain(|ear| !matches!(ear.try_send(push.clone()), Err(mpsc::error::TrySendError::Closed(_))));
            if ears.is_empty() {
                state.ears.remove(token);
            }
        }
        if self.keep > 0 {
            while state.pushes.len() >= self.keep {
                state.pushes.pop_front();
            }
            state.pushes.push_back(push);
        }
    }

    /// A new ear at `token`.
    pub fn subscribe(&self, token: &str) -> mpsc::Receiver<Push> {
        let (ear, receiver) = mpsc::channel(EAR_CAPACITY_PUSHES);
        let mut state = self.lock();
        let ears = state.ears.entry(token.to_owned()).or_default();
        ears.retain(|ear| !ear.is_closed());
        ears.push(ear);
        receiver
    }

    /// The remembered pushes, oldest first; only those to `token`, if given.
    pub fn pushes(&self, token: Option<&str>) -> Vec<Push> {
        self.lock().pushes.iter().filter(|push| token.is_none_or(|token| push.token == token)).cloned().collect()
    }

    /// The remembered pushes, oldest first, which are forgotten.
    pub fn take_all(&self) -> Vec<Push> {
        self.lock().pushes.drain(..).collect()
    }

    /// Forgets the remembered pushes; the ears stay.
    pub fn clear(&self) {
        self.lock().pushes.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
