//! The breakers of the credentials in use; only those that something is known of are kept.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::LaneKey;
use crate::domain::{
    breaker::{Breaker, Resting, Stage},
    device::Transport,
    id::AppId,
    push::Reply,
    time::Timestamp,
};

/// Breakers kept at once; the credentials beyond go unwatched.
const KEPT: usize = 10_000;

/// A credential whose breaker is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestingCredential {
    /// The tenant.
    pub app: AppId,
    /// The provider.
    pub transport: Transport,
    /// The credential's name.
    pub name: String,
    /// Which calls go.
    pub stage: Stage,
}

#[derive(Default)]
pub(super) struct Breakers(Mutex<HashMap<LaneKey, Breaker>>);

impl Breakers {
    /// An answer has come.
    pub(super) fn heard(&self, key: &LaneKey, reply: &Reply, now: Timestamp) {
        let mut kept = self.kept();
        let known = kept.get(key).copied();
        let breaker = known.unwrap_or_default().heard(reply, now);
        if breaker.is_fresh(now) {
            kept.remove(key);
            return;
        }
        if known.is_none() && kept.len() >= KEPT {
            kept.retain(|_, breaker| !breaker.is_fresh(now));
            if kept.len() >= KEPT {
                return;
            }
        }
        kept.insert(key.clone(), breaker);
    }

    /// Those that let not every call through.
    pub(super) fn resting(&self, now: Timestamp) -> Resting {
        let mut resting = Resting::at(now);
        for (key, breaker) in self.kept().iter().filter(|(_, breaker)| breaker.stage(now) != Stage::Closed) {
            resting.add(key.app, key.transport, &key.name, key.version, *breaker);
        }
        resting
    }

    /// A call goes.
    pub(super) fn called(&self, key: &LaneKey, now: Timestamp) {
        if let Some(breaker) = self.kept().get_mut(key) {
            *breaker = breaker.called(now);
        }
    }

    /// Those that let not every call through, in order.
    pub(super) fn show(&self, now: Timestamp) -> Vec<RestingCredential> {
        let kept = self.kept();
        let open = kept.iter().map(|(key, breaker)| (key, breaker.stage(now)));
        let open = open.filter(|(_, stage)| *stage != Stage::Closed);
        let mut shown: Vec<_> = open
            .map(|(key, stage)| RestingCredential {
                app: key.app,
                transport: key.transport,
                name: key.name.clone(),
                stage,
            })
            .collect();
        shown.sort_by(|a, b| (a.app, a.transport, &a.name).cmp(&(b.app, b.transport, &b.name)));
        shown
    }

    /// Forgets the credentials that are meant.
    pub(super) fn forget(&self, meant: impl Fn(&LaneKey) -> bool) {
        self.kept().retain(|key, _| !meant(key));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<LaneKey, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
