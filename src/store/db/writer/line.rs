//! The line for the file: who is next, and when what has been written is committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use super::{Head, State};
use crate::store::db::{
    error::{Error, Result},
    sqlite,
};

/// So many transactions share a COMMIT at most …
const SHARED_BY: usize = 16;
/// … and so many that somebody waits for go before one that nobody waits for.
pub(super) const GO_BEFORE: usize = 16;

/// Those who stand in line.
#[derive(Debug)]
pub(super) struct Line(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    /// If it is nobody's turn; then nobody waits.
    free: Option<Box<Head>>,
    hurried: VecDeque<oneshot::Sender<Turn>>,
    unhurried: VecDeque<oneshot::Sender<Turn>>,
    /// Hurried ones that have gone before the unhurried one who is next.
    gone_before: usize,
    /// Its thread ends with the line.
    committer: mpsc::Sender<Commission>,
}

/// To commit what has been written, and to give the turn back if somebody wants it; else it is the next one's.
type Commission = (Turn, Option<oneshot::Sender<Turn>>);

/// Who is to have the file next.
enum Next {
    Committer,
    Waiting(oneshot::Sender<Turn>),
    Nobody,
}

/// Whoever has this is at the head of the line; the next one is when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Gone when it has been passed on.
    head: Option<Box<Head>>,
    line: Arc<Line>,
}

/// Whether somebody waits for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurry {
    Yes,
    No,
}

/// Commits on a thread of its own, where waiting for the disk holds nobody up who does not wait for it.
fn commit(mut commissions: mpsc::Receiver<Commission>) {
    while let Some((mut turn, back)) = commissions.blocking_recv() {
        if let Ok(head) = turn.head() {
            head.commit();
        }
        // Who has gone away does not want it any more.
        back.map(|back| back.send(turn));
    }
}

impl Line {
    /// A line for a file that nobody writes to yet.
    pub fn new(head: Head) -> Self {
        // One turn is all there is.
        let (committer, commissions) = mpsc::channel(1);
        sqlite::start_thread("commit", move || commit(commissions));
        let (hurried, unhurried) = (VecDeque::new(), VecDeque::new());
        Self(Mutex::new(Queue { free: Some(Box::new(head)), hurried, unhurried, gone_before: 0, committer }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn.
    pub async fn turn(self: &Arc<Self>, hurry: Hurry) -> Result<Turn> {
        let turn = {
            let mut queue = self.queue();
            if let Some(head) = queue.free.take() {
                return Ok(Turn { head: Some(head), line: Arc::clone(self) });
            }
            let (waiting, turn) = oneshot::channel();
            match hurry {
                Hurry::Yes => queue.hurried.push_back(waiting),
                Hurry::No => queue.unhurried.push_back(waiting),
            }
            turn
        };
        turn.await.map_err(|_| Error::Closed)
    }

    /// Waits for its turn, and has committed what was written before.
    pub async fn quiet(self: &Arc<Self>) -> Result<Turn> {
        let turn = self.turn(Hurry::Yes).await?;
        let committer = self.queue().committer.clone();
        let (back, committed) = oneshot::channel();
        committer.send((turn, Some(back))).await.map_err(|_| Error::Closed)?;
        committed.await.map_err(|_| Error::Closed)
    }

    fn pass_on(self: &Arc<Self>, mut head: Box<Head>) {
        let mut queue = self.queue();
        loop {
            let turn = |head| Turn { head: Some(head), line: Arc::clone(self) };
            let returned = match queue.next(&head) {
                Next::Nobody => {
                    queue.free = Some(head);
                    return;
                }
                Next::Waiting(next) => next.send(turn(head)).err(),
                Next::Committer => {
                    let refused = queue.committer.try_send((turn(head), None)).err();
                    refused.map(|refused| {
                        let (mut turn, _) = refused.into_inner();
                        // The thread has died.
                        turn.head.iter_mut().for_each(|head| head.fail(&Error::Closed));
                        turn
                    })
                }
            };
            // Who has gone away meanwhile leaves it to the next.
            match returned.and_then(|mut turn| turn.head.take()) {
                Some(same) => head = same,
                None => return,
            }
        }
    }
}

impl Queue {
    fn next(&mut self, head: &Head) -> Next {
        let nobody = self.hurried.is_empty() && self.unhurried.is_empty();
        // Of those who could share the COMMIT nobody is in a hurry, but one of those who wait for it is.
        let at_once = head.hurried && self.hurried.is_empty();
        if head.state != State::Idle && (nobody || at_once || head.waiting.len() >= SHARED_BY) {
            return Next::Committer;
        }
        if self.gone_before < GO_BEFORE
            && let Some(next) = self.hurried.pop_front()
        {
            self.gone_before += usize::from(!self.unhurried.is_empty());
            return Next::Waiting(next);
        }
        self.gone_before = 0;
        self.unhurried.pop_front().or_else(|| self.hurried.pop_front()).map_or(Next::Nobody, Next::Waiting)
    }
}

impl Turn {
    /// Whether somebody in a hurry is next.
    pub(super) fn is_wanted(&self) -> bool {
        !self.line.queue().hurried.is_empty()
    }

    pub(super) fn head(&mut self) -> Result<&mut Head> {
        self.head.as_deref_mut().ok_or(Error::Closed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(head) = self.head.take() {
            self.line.pass_on(head);
        }
    }
}
