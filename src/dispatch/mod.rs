//! Dispatch: the level loop. Each step works off a chunk of fan-out and claims what is due for the calls that are free.

mod janitor;
mod send;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::janitor::Janitor;
use self::send::Sender;
use crate::{
    domain::time::{Clock, Timestamp},
    store::{FanOut, Result, Store},
    transport::Transports,
};

/// Calls to providers that are under way at once.
const CALLS: usize = 2_000;
/// Devices that one claim decides about.
const CLAIM: usize = 256;
/// How often levels are looked at when nothing rings: another process may have changed them.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long after a failure of the store it is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Sends what is due. Cloning it is cheap.
#[derive(Clone)]
pub struct Dispatcher {
    store: Store,
    sender: Sender,
    clock: Clock,
    calls: Arc<Semaphore>,
    tasks: TaskTracker,
    beat: Heartbeat,
}

/// When the dispatcher last looked; shared with whoever asks whether it lives.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicI64>);

impl Heartbeat {
    /// When the dispatcher last looked, in milliseconds since the epoch; 0 before the first time.
    pub fn reader(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.0)
    }
}

/// What a step has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do at once.
    Busy,
    /// All calls are under way that may be.
    Full,
    /// Nothing to do before this time, if nothing changes.
    Idle(Option<Timestamp>),
}

impl Dispatcher {
    /// A dispatcher whose calls are counted by `tasks`; `lease` is what the store gives each call.
    pub fn new(store: Store, transports: Transports, clock: Clock, lease: Duration, tasks: TaskTracker) -> Self {
        let sender = Sender::new(store.clone(), transports, clock.clone(), lease);
        let calls = Arc::new(Semaphore::new(CALLS));
        Self { store, sender, clock, calls, tasks, beat: Heartbeat::default() }
    }

    /// When it last looked.
    pub fn heartbeat(&self) -> Heartbeat {
        self.beat.clone()
    }

    /// One look at what is to be done; calls go on by themselves when it returns.
    pub async fn step(&self) -> Result<Step> {
        self.beat.0.store(self.clock.now().as_ms(), Ordering::Relaxed);
        let fan_out = self.store.fan_out().await?;
        let free = self.calls.available_permits().min(CLAIM);
        if free == 0 {
            return Ok(Step::Full);
        }
        let claimed = self.store.claim_due(free).await?;
        for call in claimed.calls {
            let Ok(permit) = Arc::clone(&self.calls).acquire_owned().await else {
                return Ok(Step::Full);
            };
            let sender = self.sender.clone();
            self.tasks.spawn(async move {
                sender.send(call).await;
                drop(permit);
            });
        }
        if fan_out == FanOut::Chunk || claimed.looked_at == free {
            return Ok(Step::Busy);
        }
        Ok(Step::Idle(self.store.next_due().await?))
    }

    /// Steps until stopped. Calls under way are left to the task tracker.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.step().await {
                Ok(Step::Busy) => continue,
                Ok(Step::Full) => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = self.calls.acquire() => {}
                        // The heart goes on beating while a provider lets all calls hang.
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                    continue;
                }
                Ok(Step::Idle(due)) => due.map_or(LOOK_EVERY, |due| due.since(self.clock.now()).min(LOOK_EVERY)),
                Err(error) => {
                    tracing::error!(%error, "the dispatcher could not look at what is due");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.store.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Steps until nothing is due now and no call is under way: for tests and the demo, which turn the clock themselves.
    pub async fn settle(&self) -> Result<()> {
        loop {
            let step = self.step().await?;
            let idle = matches!(step, Step::Idle(due) if due.is_none_or(|due| due > self.clock.now()));
            if self.calls.available_permits() == CALLS && idle {
                return Ok(());
            }
            if step != Step::Busy {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Calls under way.
    pub fn calls_under_way(&self) -> usize {
        CALLS - self.calls.available_permits()
    }
}
