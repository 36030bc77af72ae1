//! How far a device on a live connection has come, noted aside: one write after the other, so that telling waits for none of them, and what
//! was acknowledged last is noted even if the connection is over by then.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    api::{Api, sync::Came},
    domain::{device::DeviceStatus, feed::Position},
    store::Poller,
};

/// A write that failed is tried again so often …
const TRIES: u32 = 10;
/// … after such a time. Should it not be noted, a push goes out that was not needed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What is noted of a device on one connection.
#[derive(Clone)]
pub struct Diary(Arc<Inner>);

struct Inner {
    api: Api,
    pages: Mutex<Pages>,
}

struct Pages {
    /// As it has been noted.
    poller: Poller,
    came: Came,
    is_writing: bool,
}

impl Diary {
    pub fn new(api: Api, poller: Poller) -> Self {
        let came = Came { live: true, ..Came::default() };
        Self(Arc::new(Inner { api, pages: Mutex::new(Pages { poller, came, is_writing: false }) }))
    }

    /// It has been given and has acknowledged everything up to here. To come is a sign of life, however far.
    pub fn note(&self, fetched: Position, acked: Position) {
        let mut pages = self.pages();
        pages.came.fetched = pages.came.fetched.max(fetched).max(acked);
        pages.came.acked = pages.came.acked.max(acked);
        if !pages.is_writing && pages.has_news(&self.0.api) {
            pages.is_writing = true;
            self.0.api.live.spawn(self.clone().write());
        }
    }

    /// The device, as it has been read anew.
    pub fn renew(&self, poller: Poller) {
        self.pages().poller = poller;
    }

    /// The device, as far as it is known here.
    pub fn poller(&self) -> Poller {
        self.pages().poller.clone()
    }

    async fn write(self) {
        let (api, mut failures) = (&self.0.api, 0);
        loop {
            let (before, came) = {
                let mut pages = self.pages();
                if !pages.has_news(api) || failures >= TRIES {
                    pages.is_writing = false;
                    return;
                }
                (pages.poller.clone(), pages.came)
            };
            match api.visit(&before, came).await {
                Ok(missed) => self.pages().has_come(&came, missed, api),
                Err(problem) => {
                    tracing::debug!(?problem, "what a live connection was given was not noted");
                    failures += 1;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn has_news(&self, api: &Api) -> bool {
        api.is_news(&self.poller, self.came.fetched, self.came.acked)
    }

    fn has_come(&mut self, came: &Came, missed: u32, api: &Api) {
        let Poller { fetched, acked, seen_at, status, .. } = &mut self.poller;
        (*fetched, *acked, *seen_at) = (came.fetched.max(*fetched), came.acked.max(*acked), api.clock.now());
        if *status != DeviceStatus::Gone {
            *status = DeviceStatus::Active;
        }
        self.poller.missed = missed;
    }
}
