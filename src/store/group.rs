//! Group commit: what many callers write at the same time goes into one transaction, and no caller notices. One that the database breaks
//! off for another's sake is tried again.

use std::{future::Future, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    Error, Result,
    db::{Db, Submitted, retry},
};
use crate::metrics::Metrics;

/// At most so many requests share a transaction, …
const BATCH: usize = 256;
/// … no more than this much work, unless one alone is more, …
const WORK: usize = 500;
/// … and so many wait for one; more are told that the store is busy.
const WAITING: usize = 4096;

/// So many transactions may be written while the one before them is on its way to the disk; then the next one gathers.
const AHEAD: usize = 1;

/// A queue of requests that are written together. While one transaction is on its way to the disk, the next one is written and the one
/// behind it gathers, so nobody waits for company.
pub struct Group<Q, A> {
    queue: mpsc::Sender<Asked<Q, A>>,
}

/// A request that others may share a transaction with.
pub trait Request {
    /// How much work it is: the rows that it writes, about.
    fn work(&self) -> usize {
        1
    }
}

/// Who has asked, and where the answer goes.
type Asked<Q, A> = (Q, oneshot::Sender<Result<A>>);

/// What has been written, and who is answered when it is on the disk.
type Written<A> = (Vec<oneshot::Sender<Result<A>>>, Result<(Vec<A>, Submitted)>);

impl<Q: Request + Send + Sync + 'static, A: Send + 'static> Group<Q, A> {
    /// Starts the queue; `write` puts a whole batch into one transaction and answers each request in its place. When that can be seen by
    /// all and is on the disk, `then` is called, and the requests are answered.
    pub fn start<F, Fut>(
        name: &'static str,
        db: &Db,
        tasks: &TaskTracker,
        metrics: Metrics,
        write: F,
        then: impl Fn() + Send + 'static,
    ) -> Self
    where
        F: Fn(Db, Arc<Vec<Q>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(Vec<A>, Submitted)>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel::<Asked<Q, A>>(WAITING);
        let (written, on_their_way) = mpsc::channel(AHEAD);
        tasks.spawn(answer(on_their_way, then));
        let to = db.clone();
        db.start(name, tasks, async move {
            let mut batch = Vec::with_capacity(BATCH);
            // Its place is taken first: while there is none, more requests gather.
            while let Ok(place) = written.reserve().await {
                if batch.is_empty() && waiting.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                let (requests, callers): (Vec<_>, Vec<_>) = batch.drain(..share(&batch)).unzip();
                metrics.shared(name, requests.len());
                let requests = Arc::new(requests);
                place.send((callers, retry(|| write(to.clone(), Arc::clone(&requests))).await));
            }
        });
        Self { queue }
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        WAITING - self.queue.capacity()
    }

    /// Whether more than half of the queue is taken.
    pub fn is_pressed(&self) -> bool {
        self.queue.capacity() < WAITING / 2
    }

    /// Writes one request, together with whatever else is waiting.
    pub async fn write(&self, request: Q) -> Result<A> {
        let (caller, answer) = oneshot::channel();
        self.queue.try_send((request, caller)).map_err(|_| Error::Busy)?;
        answer.await.map_err(|_| Error::Busy)?
    }
}

/// Answers in the order in which it has been written.
async fn answer<A>(mut on_their_way: mpsc::Receiver<Written<A>>, then: impl Fn()) {
    while let Some((callers, written)) = on_their_way.recv().await {
        let written = match written {
            Ok((answers, submitted)) => submitted.done().await.map(|()| answers).map_err(Error::from),
            Err(error) => Err(error),
        };
        then();
        // A caller that has gone away does not mind.
        match written {
            Ok(answers) => callers.into_iter().zip(answers).for_each(|(caller, answer)| drop(caller.send(Ok(answer)))),
            Err(error) => {
                let error = Arc::new(error);
                callers.into_iter().for_each(|caller| drop(caller.send(Err(Error::Shared(Arc::clone(&error))))));
            }
        }
    }
}

/// How many of the first of those who have asked may share a transaction.
fn share<Q: Request, A>(asked: &[Asked<Q, A>]) -> usize {
    let mut work = 0;
    let fits = asked.iter().take_while(|(request, _)| {
        work += request.work();
        work <= WORK
    });
    fits.count().max(1)
}
