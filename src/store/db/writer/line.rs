//! The line for the file: who is next, and when what has been written is committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{Disk, Head, State};
use crate::store::db::error::{Error, Result};

/// So many transactions share a COMMIT at most …
const SHARED_BY: usize = 16;
/// … and so many that somebody waits for go before one that nobody waits for.
pub(super) const GO_BEFORE: usize = 16;

/// Those who stand in line.
#[derive(Debug)]
pub(super) struct Line {
    queue: Mutex<Queue>,
    disk: Disk,
}

#[derive(Debug)]
struct Queue {
    /// If it is nobody's turn; then nobody waits.
    free: Option<Box<Head>>,
    hurried: VecDeque<oneshot::Sender<Turn>>,
    unhurried: VecDeque<oneshot::Sender<Turn>>,
    /// Hurried ones that have gone before the unhurried one who is next.
    gone_before: usize,
}

/// What is next.
enum Next {
    Commit,
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

impl Line {
    /// A line for a file that nobody writes to yet.
    pub fn new(head: Head) -> Self {
        let (disk, hurried, unhurried) = (head.disk.clone(), VecDeque::new(), VecDeque::new());
        Self { queue: Mutex::new(Queue { free: Some(Box::new(head)), hurried, unhurried, gone_before: 0 }), disk }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Waits for its turn, and commits what was written before.
    pub async fn quiet(self: &Arc<Self>) -> Result<Turn> {
        let mut turn = self.turn(Hurry::Yes).await?;
        turn.head()?.commit();
        Ok(turn)
    }

    /// Commits what has waited for the disk, if nobody is at it.
    pub fn commit_what_is_left(self: &Arc<Self>) {
        let free = self.queue().free.take();
        if let Some(head) = free {
            self.pass_on(head);
        }
    }

    fn pass_on(self: &Arc<Self>, mut head: Box<Head>) {
        let mut queue = self.queue();
        loop {
            match queue.next(&head) {
                Next::Nobody => {
                    queue.free = Some(head);
                    return;
                }
                Next::Commit => {
                    drop(queue);
                    head.commit();
                    queue = self.queue();
                }
                Next::Waiting(next) => {
                    let refused = next.send(Turn { head: Some(head), line: Arc::clone(self) }).err();
                    // Who has gone away meanwhile leaves it to the next.
                    match refused.and_then(|mut turn| turn.head.take()) {
                        Some(same) => head = same,
                        None => return,
                    }
                }
            }
        }
    }
}

impl Queue {
    fn next(&mut self, head: &Head) -> Next {
        let nobody = self.hurried.is_empty() && self.unhurried.is_empty();
        // Of those who could share the COMMIT nobody is in a hurry, but one of those who wait for it is.
        let at_once = head.hurried && self.hurried.is_empty();
        let is_enough = head.waiting.len() >= SHARED_BY;
        // While the disk is busy there is no use in a COMMIT: it could not begin to bring it there.
        if head.state != State::Idle && (is_enough || ((nobody || at_once) && head.disk.is_idle())) {
            return Next::Commit;
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

impl Drop for Line {
    fn drop(&mut self) {
        self.disk.close();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(head) = self.head.take() {
            self.line.pass_on(head);
        }
    }
}
