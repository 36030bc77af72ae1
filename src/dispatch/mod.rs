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
use tracing::{Instrument as _, Span};

pub use self::janitor::Janitor;
use self::{send::Sender, turns::Turns};
use crate::{
    domain::{
        id::AppId,
        time::{Clock, Timestamp},
    },
    store::{Call, Claimed, FanOut, Queue, Result, Store},
    telemetry::traces,
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
    /// What is due has to wait for calls to end, here or in another process.
    Full,
    /// Nothing to do before this time, if nothing changes.
    Idle(Option<Timestamp>),
}

impl Step {
    /// What two looks have found together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Busy, _) | (_, Self::Busy) => Self::Busy,
            (Self::Full, _) | (_, Self::Full) => Self::Full,
            (Self::Idle(one), Self::Idle(other)) => Self::Idle(one.into_iter().chain(other).min()),
        }
    }
}

/// A try of a wake in the trace of the event that it announces.
fn wake_span(call: &Call) -> Span {
    let span = tracing::info_span!(
        target: traces::TARGET,
        "wake",
        reveille.app = %call.app,
        reveille.device = %call.device,
        reveille.wake = %call.trigger.wake,
        reveille.attempt = %call.attempt,
        reveille.class = call.wake_class.as_str(),
        reveille.head = call.trigger.head.0,
        reveille.try = call.tries,
    );
    if let Some(parent) = call.traceparent.as_ref().filter(|_| traces::are_on()) {
        traces::continue_from(&span, parent);
    }
    span
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
        let more = self.fan_out().await?;
        let (mut step, mut calls) = self.claim(Queue::Express).await?;
        let (bulk, more_calls) = self.claim(Queue::Bulk).await?;
        step = step.and(bulk);
        calls.extend(more_calls);
        Ok((if more { Step::Busy } else { step }, calls))
    }

    /// Tells of new alarms, and works off a chunk of fan-out, of another app's than the last time if there is one. Answers whether there may
    /// be more.
    async fn fan_out(&self) -> Result<bool> {
        if let Err(error) = self.store.announce().await {
            tracing::error!(%error, "an alarm could not be told of");
        }
        let last = *self.fanned_out.lock().unwrap_or_else(PoisonError::into_inner);
        let fan_out = self.store.fan_out(last, self.turns.portion().fan_out).await?;
        if let FanOut::Chunk(app) = fan_out {
            *self.fanned_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(app);
        }
        Ok(fan_out != FanOut::Idle)
    }

    /// Claims calls of a queue, which are to be started.
    async fn claim(&self, queue: Queue) -> Result<(Step, Vec<Call>)> {
        self.beat.0.store(self.clock.now().as_ms(), Ordering::Relaxed);
        let shares = self.turns.shares(queue, self.store.due().await?, self.clock.now());
        let claimed = if shares.apps.is_empty() {
            Claimed::default()
        } else {
            self.store.claim_due(&shares.apps, queue, &mut self.transports.resting()).await?
        };
        self.turns.taken(&shares, &claimed.looked_at);
        let step = if !claimed.looked_at.is_empty() {
            Step::Busy
        } else if shares.some_must_wait || !shares.apps.is_empty() {
            // What is due is being called, or another process has hold of it.
            Step::Full
        } else {
            Step::Idle(shares.next)
        };
        Ok((step, claimed.calls))
    }

    /// The second half of a step: makes the calls.
    pub fn start(&self, calls: Vec<Call>) {
        for call in calls {
            let turn = self.turns.take(call.app);
            let key = send::lane_key(&call);
            self.transports.called(&key);
            let (sender, metrics) = (self.sender.clone(), self.store.metrics().clone());
            metrics.under_way(1);
            let span = wake_span(&call);
            let sending = async move {
                sender.send(call, key).await;
                metrics.under_way(-1);
                drop(turn);
            };
            self.tasks.spawn(sending.instrument(span));
        }
    }

    /// Works until stopped, counted by `tasks`. Calls under way are left to those of the dispatcher.
    ///
    /// Fan-out and the two queues go on side by side, so that a single push waits for none of what another app's broadcast takes.
    pub fn run(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        self.store.start("fan-out", tasks, self.clone().fan_outs(stop.clone()));
        for (name, queue) in [("claim", Queue::Express), ("claim-many", Queue::Bulk)] {
            self.store.start(name, tasks, self.clone().claims(stop.clone(), queue));
        }
    }

    async fn fan_outs(self, stop: CancellationToken) {
        let mut changes = self.store.changes();
        while !stop.is_cancelled() {
            changes.mark_unchanged();
            let pause = match self.fan_out().await {
                Ok(true) => continue,
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    tracing::error!(%error, "a fan-out could not go on");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn claims(self, stop: CancellationToken, queue: Queue) {
        let (mut changes, mut freed) = (self.store.changes(), self.turns.freed());
        while !stop.is_cancelled() {
            changes.mark_unchanged();
            freed.mark_unchanged();
            let (pause, is_full) = match self.claim(queue).await {
                Ok((step, calls)) => {
                    self.start(calls);
                    match step {
                        Step::Busy => continue,
                        Step::Full => (LOOK_EVERY, true),
                        Step::Idle(due) => {
                            (due.map_or(LOOK_EVERY, |due| due.since(self.clock.now()).min(LOOK_EVERY)), false)
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the dispatcher could not look at what is due");
                    (AFTER_FAILURE, false)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = freed.changed(), if is_full => {}
                _ = changes.changed() => {}
                () = self.turns.some_have_many(), if queue == Queue::Bulk => {}
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
