//! What has been committed is brought to the disk beside the writer, who goes on meanwhile.
//!
//! A COMMIT writes to the WAL and does not wait for it (`synchronous = normal`); the thread here does, for all that have been committed since
//! it last did. After a power cut the WAL ends behind one of the COMMITs (its checksums tell), and every one that has been answered lies
//! before that end. Whoever reads what is not there yet waits for it ([`Disk::until_on_disk`]).

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{oneshot, watch};

use super::line::Line;
use crate::store::db::{
    error::{Error, Result},
    sqlite,
};

/// The disk under a file. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// There is something to do.
    called: Condvar,
    /// COMMITs that have begun: a reader may see so many.
    begun: AtomicU64,
    /// So many of them are on the disk.
    held: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// COMMITs that have ended, one way or the other.
    ended: u64,
    /// Who waits for them.
    waiting: Vec<oneshot::Sender<Result<()>>>,
    at_work: bool,
    /// Why nothing can be brought to the disk any more.
    broken: Option<String>,
    closed: bool,
}

impl Disk {
    /// A disk that nothing has been written to yet.
    pub fn new() -> Self {
        let (state, called, begun) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        Self(Arc::new(Inner { state, called, begun, held: watch::Sender::new(0) }))
    }

    /// Has a thread bring what is written to the disk by `sync`, for as long as there is a line.
    pub(super) fn start(&self, line: Weak<Line>, sync: impl FnMut() -> io::Result<()> + Send + 'static) {
        let disk = self.clone();
        sqlite::start_thread("disk", move || disk.work(&line, sync));
    }

    /// A COMMIT begins; from now on a reader may see it.
    pub fn begin_commit(&self) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// It has ended. Those who wait for it are answered when it is on the disk.
    pub fn end_commit(&self, waiting: impl IntoIterator<Item = oneshot::Sender<Result<()>>>) {
        let mut state = self.state();
        state.ended += 1;
        state.waiting.extend(waiting);
        self.0.called.notify_one();
    }

    /// Whether it would take a COMMIT at once.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        !state.at_work && state.ended == *self.0.held.borrow()
    }

    /// Whether it takes anything at all.
    pub fn check(&self) -> Result<()> {
        self.state().broken.clone().map_or(Ok(()), |error| Err(Error::NotCommitted(error)))
    }

    /// Waits until all is on the disk that a reader can have seen by now.
    pub async fn until_on_disk(&self) -> Result<()> {
        let seen = self.0.begun.load(Ordering::SeqCst);
        if *self.0.held.borrow() < seen {
            let mut held = self.0.held.subscribe();
            held.wait_for(|held| *held >= seen).await.map_err(|_| Error::Closed)?;
        }
        self.check()
    }

    /// Nothing more is written.
    pub fn close(&self) {
        self.state().closed = true;
        self.0.called.notify_one();
    }

    fn work(&self, line: &Weak<Line>, mut sync: impl FnMut() -> io::Result<()>) {
        while let Some((number, waiting)) = self.next() {
            let synced = if self.check().is_ok() { sync() } else { Ok(()) };
            let mut state = self.state();
            state.at_work = false;
            if let Err(error) = synced {
                // What the kernel could not write it forgets, and says so once only: a later success would mean nothing.
                tracing::error!(%error, "the disk does not take what is written: nothing is accepted until the relay is started again");
                state.broken = Some(error.to_string());
            }
            let broken = state.broken.clone();
            self.0.held.send_replace(number);
            drop(state);
            for waits in waiting {
                // Who has gone away does not mind.
                drop(waits.send(broken.clone().map_or(Ok(()), |error| Err(Error::NotCommitted(error)))));
            }
            if let Some(line) = line.upgrade() {
                line.commit_what_is_left();
            }
        }
    }

    /// Waits for COMMITs; answers how many have ended by then, and who waits for them.
    fn next(&self) -> Option<(u64, Vec<oneshot::Sender<Result<()>>>)> {
        let mut state = self.state();
        while state.ended == *self.0.held.borrow() {
            if state.closed {
                return None;
            }
            state = self.0.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.at_work = true;
        Some((state.ended, std::mem::take(&mut state.waiting)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
