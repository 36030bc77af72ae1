//! Dispatch: the level loop. Each step works off a chunk of fan-out and claims what is due for the calls that are free, app by app.

mod janitor;
mod send;
mod turns;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::janitor::Janitor;
use self::{send::Sender, turns::Turns};
use crate::{
    domain::{
        id::AppId,
        time::{Clock, Timestamp},
    },
    store::{Call, FanOut, Result, Store},
    transport::Transports,
};

/// How often levels are looked at when nothing rings: another process may have changed them.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long after a failure of the store it is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Sends what is due. Cloning it is cheap.
#[derive(Clone)]
pub struct Dispatcher {
    store: Store,
    transports: Transports,
    sender: Sender,
    clock: Clock,
    turns: Turns,
    /// The app whose fan-out had the last turn.
    fanned_out: Arc<Mutex<Option<AppId>>>,
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
    /// What is due has to wait for calls to end.
    Full,
    /// Nothing to do before this time, if nothing changes.
    Idle(Option<Timestamp>),
}

impl Dispatcher {
    /// A dispatcher whose calls are counted by `tasks`; `lease` is what the store gives each call.
    pub fn new(store: Store, transports: Transports, clock: Clock, lease: Duration, tasks: TaskTracker) -> Self {
        let sender = Sender::new(store.clone(), transports.clone(), clock.clone(), lease);
        Self {
            store,
            transports,
            sender,
            clock,
            turns: Turns::default(),
            fanned_out: Arc::default(),
            tasks,
            beat: Heartbeat::default(),
        }
    }

    /// When it last looked.
    pub fn heartbeat(&self) -> Heartbeat {
        self.beat.clone()
    }

    /// One look at what is to be done; calls go on by themselves when it returns.
    pub async fn step(&self) -> Result<Step> {
        let (step, calls) = self.look().await?;
        self.start(calls);
        Ok(step)
    }

    /// The first half of a step: works off a chunk of fan-out and claims calls, which are to be started.
    pub async fn look(&self) -> Result<(Step, Vec<Call>)> {
        self.beat.0.store(self.clock.now().as_ms(), Ordering::Relaxed);
        if let Err(error) = self.store.announce().await {
            tracing::error!(%error, "an alarm could not be told of");
        }
        let last = *self.fanned_out.lock().unwrap_or_else(PoisonError::into_inner);
        let fan_out = self.store.fan_out(last, self.turns.portion().fan_out).await?;
        if let FanOut::Chunk(app) = fan_out {
            *self.fanned_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(app);
        }
        let shares = self.turns.shares(self.store.due_apps().await?);
        let (calls, looked_at) = if shares.apps.is_empty() {
            (Vec::new(), 0)
        } else {
            let claimed = self.store.claim_due(&shares.apps, &mut self.transports.resting()).await?;
            (claimed.calls, claimed.looked_at)
        };
        let step = if fan_out != FanOut::Idle || looked_at >= shares.devices() {
            Step::Busy
        } else if shares.some_must_wait {
            Step::Full
        } else {
            Step::Idle(self.store.next_due().await?)
        };
        Ok((step, calls))
    }

    /// The second half of a step: makes the calls.
    pub fn start(&self, calls: Vec<Call>) {
        for call in calls {
            let turn = self.turns.take(call.app);
            let key = send::lane_key(&call);
            self.transports.called(&key);
            let sender = self.sender.clone();
            self.tasks.spawn(async move {
                sender.send(call, key).await;
                drop(turn);
            });
        }
    }

    /// Steps until stopped. Calls under way are left to the task tracker.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.step().await {
                Ok(Step::Busy) => continue,
                Ok(Step::Full) => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.turns.freed() => {}
                        // Others may have news; and the heart goes on beating while a provider lets all calls hang.
                        () = self.store.changed() => {}
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
            // A call that ends during the look may leave something to be found by the next.
            let quiet = self.calls_under_way() == 0;
            let step = self.step().await?;
            let idle = matches!(step, Step::Idle(due) if due.is_none_or(|due| due > self.clock.now()));
            if quiet && self.calls_under_way() == 0 && idle {
                return Ok(());
            }
            if step != Step::Busy {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Calls under way.
    pub fn calls_under_way(&self) -> usize {
        self.turns.under_way()
    }
}
