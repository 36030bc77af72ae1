//! One call: the credential is opened, the provider asked, and the answer finished.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{
        credential::Credential,
        push::{Meaning, Reply},
        time::Clock,
    },
    fault,
    store::{Call, Finished, Store},
    transport::{LaneKey, Transports},
};

/// A call starts only with this much of a lease of 45 s left (contract §8); of a shorter one, in the same measure.
const LEAST_LEASE: Duration = Duration::from_secs(20);
/// Opened credentials that are kept.
const OPENED: usize = 1_000;
/// How often the log is told that a credential does not work.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How often an answer that could not be written is tried again, and the pause between.
const FINISH_TRIES: u32 = 5;
const FINISH_PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Sender {
    store: Store,
    transports: Transports,
    clock: Clock,
    /// Less than this, and the call might not end before someone else may repeat it.
    least_lease: Duration,
    opened: Arc<Mutex<HashMap<LaneKey, Arc<Credential>>>>,
    /// When the log was last told that a credential does not work.
    complained: Arc<Mutex<HashMap<LaneKey, Instant>>>,
}

impl Sender {
    pub fn new(store: Store, transports: Transports, clock: Clock, lease: Duration) -> Self {
        let least_lease = LEAST_LEASE.min(lease * 20 / 45);
        Self { store, transports, clock, least_lease, opened: Arc::default(), complained: Arc::default() }
    }

    /// Makes a claimed call and finishes it. A call that comes too late is left to the end of its lease.
    pub async fn send(&self, call: Call, key: LaneKey) {
        let wanted = self.store.still_wanted(&call);
        let now = self.clock.now();
        if now + self.least_lease > call.lease_ends_at {
            tracing::warn!(wake = %call.trigger.wake, "a call waited too long to start; its lease will end");
            return;
        }
        if !wanted {
            if let Err(error) = self.store.withdraw(&call).await {
                tracing::error!(%error, wake = %call.trigger.wake, "a call could not be taken back; its lease will end");
            }
            return;
        }
        fault::point("send: before the call");
        let began = Instant::now();
        let reply = match self.open(&key).await {
            Ok(Some(credential)) => self.transports.send(&key, &credential, &call.target, &call.trigger).await,
            Ok(None) => no_call(Meaning::Unreachable, "the credential was replaced before the call"),
            Err(error) => {
                tracing::error!(%error, app = %key.app, name = key.name, "a credential cannot be opened");
                no_call(Meaning::CredentialFault, "the credential cannot be opened")
            }
        };
        if reply.meaning == Meaning::CredentialFault {
            self.complain(&key, &reply);
        }
        fault::point("send: after the answer");
        let outcome = reply.meaning.outcome();
        tracing::debug!(
            app = %call.app, device = %call.device, wake = %call.trigger.wake, tries = call.tries,
            outcome = outcome.as_str(), status = reply.status, reason = reply.reason, "attempt"
        );
        self.finish(Finished { call, duration: began.elapsed(), reply }).await;
    }

    /// Tells the log that a credential does not work, but not for every push.
    fn complain(&self, key: &LaneKey, reply: &Reply) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if complained.get(key).is_some_and(|last| now.duration_since(*last) < COMPLAIN_EVERY) {
            return;
        }
        if complained.len() >= OPENED {
            complained.clear();
        }
        complained.insert(key.clone(), now);
        tracing::warn!(
            app = %key.app, transport = %key.transport, credential = key.name, status = reply.status, reason = reply.reason,
            "the provider does not accept this credential, so none of its pushes goes out"
        );
    }

    async fn finish(&self, finished: Finished) {
        let mut pause = FINISH_PAUSE;
        for tries in 1..=FINISH_TRIES {
            match self.store.finish(finished.clone()).await {
                Ok(()) => return,
                Err(error) if tries == FINISH_TRIES => {
                    tracing::error!(%error, attempt = %finished.call.attempt, "an answer could not be written; its lease will end");
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
    }

    async fn open(&self, key: &LaneKey) -> crate::store::Result<Option<Arc<Credential>>> {
        let known = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let opened = self.store.open_credential(key.app, key.transport, &key.name, key.version).await?.map(Arc::new);
        if let Some(credential) = &opened {
            let mut kept = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|other, _| (other.app, other.transport, &other.name) != (key.app, key.transport, &key.name));
            if kept.len() >= OPENED {
                kept.clear();
            }
            kept.insert(key.clone(), Arc::clone(credential));
        }
        Ok(opened)
    }
}

/// The credential that a call is made with.
pub(super) fn lane_key(call: &Call) -> LaneKey {
    LaneKey {
        app: call.app,
        transport: call.target.transport,
        name: call.credential.clone(),
        version: call.credential_version,
    }
}

fn no_call(meaning: Meaning, reason: &str) -> Reply {
    Reply { meaning, status: None, reason: Some(reason.to_owned()), provider_id: None, retry_after: None, bytes: 0 }
}
