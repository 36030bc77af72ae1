//! The transport floor: one call to a push provider, from trigger to [`Reply`].

mod apns;
mod breakers;
mod dial;
mod fcm;
pub mod lane;
pub mod payload;
mod pool;
mod provider;
#[cfg(test)]
mod recorded;
mod token;
mod trust;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, field::Empty};
use url::Url;

pub use breakers::RestingCredential;
pub use dial::Endpoint;
pub use payload::{TooLarge, measure};
pub use token::prove;
pub use trust::client_config;

use crate::domain::{
    breaker::Resting,
    credential::Credential,
    device::Transport,
    id::AppId,
    push::{Reply, Target, Trigger},
    time::Clock,
};
use crate::{
    metrics::{Metrics, Traffic},
    telemetry::traces,
};
use breakers::Breakers;
use provider::{Provider, Way};

/// Lanes kept at once; beyond, the one that was used the longest ago goes.
const LANES: usize = 10_000;

/// What the transports need to know.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Instead of Apple's hosts, for both environments.
    pub apns_url: Option<Url>,
    /// Instead of Google's host.
    pub fcm_url: Option<Url>,
    /// Certificates trusted in addition to the public ones.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// The relay's canonical polling endpoint, as every push carries it.
    pub poll_url: String,
    /// A call is over after this long, whatever happens (contract §8: 15 s).
    pub call_timeout: Duration,
}

/// One version of one stored credential; it has its own connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The tenant.
    pub app: AppId,
    /// The provider.
    pub transport: Transport,
    /// The credential's name.
    pub name: String,
    /// Which replacement of it.
    pub version: i64,
}

impl LaneKey {
    fn names(&self, app: AppId, transport: Transport, name: &str) -> bool {
        self.app == app && self.transport == transport && self.name == name
    }
}

/// All ways to the providers. Cheap to clone.
#[derive(Clone)]
pub struct Transports {
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    call_timeout: Duration,
    lanes: RwLock<HashMap<LaneKey, Arc<Entry>>>,
    uses: AtomicU64,
    breakers: Breakers,
}

struct Entry {
    provider: Provider,
    last_use: AtomicU64,
}

impl Transports {
    /// Reads URLs and certificates; connects to nobody yet. Every background task is counted by `tasks`.
    pub fn new(config: TransportConfig, clock: Clock, metrics: Metrics, tasks: TaskTracker) -> anyhow::Result<Self> {
        let call_timeout = config.call_timeout;
        let way = Way::new(config, clock, metrics, tasks)?;
        let shared = Shared {
            way,
            call_timeout,
            lanes: RwLock::default(),
            uses: AtomicU64::new(0),
            breakers: Breakers::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// One call to the provider; it always ends within the call timeout.
    pub async fn send(&self, key: &LaneKey, credential: &Credential, target: &Target, trigger: &Trigger) -> Reply {
        let deadline = Instant::now() + self.shared.call_timeout;
        let span = tracing::info_span!(
            target: traces::TARGET,
            "call",
            otel.name = format!("push over {}", key.transport),
            otel.kind = "client",
            reveille.transport = key.transport.as_str(),
            reveille.outcome = Empty,
            reveille.reason = Empty,
            http.response.status_code = Empty,
        );
        let entry = self.entry(key, credential);
        let sending = entry.provider.send(target, trigger, &self.shared.way, deadline);
        let reply = sending.instrument(span.clone()).await;
        span.record("reveille.outcome", reply.meaning.outcome().as_str());
        span.record("reveille.reason", reply.reason.as_deref());
        span.record("http.response.status_code", reply.status);
        // What is heard of a credential that has been replaced or deleted meanwhile is of no interest.
        if self.shared.lanes.read().unwrap_or_else(PoisonError::into_inner).contains_key(key) {
            self.shared.breakers.heard(key, &reply, self.shared.way.now());
        }
        reply
    }

    /// Which credentials rest at this moment.
    pub fn resting(&self) -> Resting {
        self.shared.breakers.resting(self.shared.way.now())
    }

    /// A call has been claimed and is about to be sent: if its breaker is half-open, it is the probe.
    pub fn called(&self, key: &LaneKey) {
        self.shared.breakers.called(key, self.shared.way.now());
    }

    /// What goes on towards the providers, lane by lane.
    pub fn traffic(&self) -> Vec<(Transport, Traffic)> {
        let lanes = self.shared.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().map(|(key, entry)| (key.transport, entry.provider.traffic())).collect()
    }

    /// All credentials whose breakers are not closed.
    pub fn all_breakers(&self) -> Vec<RestingCredential> {
        self.shared.breakers.show(self.shared.way.now())
    }

    /// An app's credentials whose breakers are not closed.
    pub fn breakers(&self, app: AppId) -> Vec<RestingCredential> {
        self.all_breakers().into_iter().filter(|resting| resting.app == app).collect()
    }

    /// Asks the provider about a credential without reaching any device: FCM `validate_only`, APNs with an impossible token. A
    /// usable credential is answered with [`Meaning::AmbiguousToken`](crate::domain::push::Meaning::AmbiguousToken) (or `Accepted`).
    pub async fn check(&self, key: &LaneKey, credential: &Credential) -> Reply {
        let deadline = Instant::now() + self.shared.call_timeout;
        self.entry(key, credential).provider.check(credential, &self.shared.way, deadline).await
    }

    /// A credential was replaced: what is known of the old one says nothing of the new one. Calls in flight finish.
    pub fn renewed(&self, app: AppId, transport: Transport, name: &str) {
        self.shared.breakers.forget(|key| key.names(app, transport, name));
    }

    /// Forgets a credential that was deleted; calls in flight finish.
    pub fn retire(&self, app: AppId, transport: Transport, name: &str) {
        self.write().retain(|key, _| !key.names(app, transport, name));
        self.shared.breakers.forget(|key| key.names(app, transport, name));
    }

    /// Forgets all credentials of an app that was deleted; calls in flight finish.
    pub fn retire_app(&self, app: AppId) {
        self.write().retain(|key, _| key.app != app);
        self.shared.breakers.forget(|key| key.app == app);
    }

    /// Closes all connections once their calls have finished: only then do the tasks end. For shutdown, after the last `send`.
    pub fn close(&self) {
        self.write().clear();
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<LaneKey, Arc<Entry>>> {
        self.shared.lanes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: &LaneKey, credential: &Credential) -> Arc<Entry> {
        let now = self.shared.uses.fetch_add(1, Ordering::Relaxed);
        let known = self.shared.lanes.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(entry) = known {
            entry.last_use.store(now, Ordering::Relaxed);
            return entry;
        }
        let mut lanes = self.write();
        if let Some(entry) = lanes.get(key) {
            return Arc::clone(entry);
        }
        let replaced = |old: &LaneKey| old.names(key.app, key.transport, &key.name) && old.version < key.version;
        lanes.retain(|old, _| !replaced(old));
        self.shared.breakers.forget(replaced);
        if lanes.len() >= LANES {
            let oldest = lanes.iter().min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                lanes.remove(&oldest);
            }
        }
        let entry =
            Arc::new(Entry { provider: Provider::new(credential, &self.shared.way), last_use: AtomicU64::new(now) });
        lanes.insert(key.clone(), Arc::clone(&entry));
        entry
    }
}
