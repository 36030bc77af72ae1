//! SQLite's one writer: transactions that come while the disk is busy share one COMMIT, and with it one wait for the disk.
//!
//! Each but the first is a savepoint in a transaction of the file. It is answered when that is on the disk; until it has been committed
//! nobody but its followers in line has seen it, and they are committed with it or not at all.

mod disk;
mod line;
#[cfg(test)]
mod tests;

use std::{
    fmt::Display,
    io,
    sync::{Arc, Weak},
};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use self::line::{Hurry, Line};
pub use self::{disk::Disk, line::Turn};
use super::{
    error::{Error, Result},
    marks::{Mark, Marks},
    sqlite::{self, Place},
};

/// Those who want to write stand in line for the file.
#[derive(Debug, Clone)]
pub struct Writer {
    line: Arc<Line>,
    disk: Disk,
}

#[derive(Debug)]
struct Head {
    place: Place,
    /// One that has failed is not kept: closing it rolls back.
    connection: Option<Connection>,
    closed: bool,
    state: State,
    /// Who waits for the COMMIT.
    waiting: Vec<oneshot::Sender<Result<()>>>,
    /// One of them is in a hurry.
    hurried: bool,
    /// Turned after each COMMIT.
    commits: watch::Sender<()>,
    disk: Disk,
    marks: Marks,
}

/// What the connection is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// In what whoever is at the head has begun, or one that gave up has left behind.
    Begun(Part),
    /// In what is to be committed.
    Kept(Part),
}

/// A part of the file's transaction that can be taken back alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing is kept before it, so ROLLBACK takes it back; a savepoint would have SQLite copy each page that is written to.
    First,
    /// A savepoint. Two names in turn: should one not have come about, nobody goes back to the one before it.
    A,
    B,
}

/// A transaction; it rolls back unless committed.
pub struct Tx {
    turn: Turn,
    hurry: Hurry,
}

/// Tells of COMMITs for as long as there is somebody to write.
#[derive(Debug)]
pub struct Commits {
    commits: watch::Receiver<()>,
    line: Weak<Line>,
}

impl Writer {
    /// A writer with its connection, which has to be open; `sync` brings the WAL to the disk.
    pub fn new(
        place: Place,
        connection: Connection,
        marks: Marks,
        sync: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> Self {
        let disk = Disk::new();
        let head = Head {
            place,
            connection: Some(connection),
            closed: false,
            state: State::Idle,
            waiting: Vec::new(),
            hurried: false,
            commits: watch::Sender::new(()),
            disk: disk.clone(),
            marks,
        };
        let line = Arc::new(Line::new(head));
        disk.start(Arc::downgrade(&line), sync);
        Self { line, disk }
    }

    /// What readers wait for.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Begins when everyone who is in a hurry and was here before has had a turn.
    pub async fn begin(&self) -> Result<Tx> {
        self.begin_as(Hurry::Yes).await
    }

    /// The same for one that nobody waits for: whoever is in a hurry goes first.
    pub async fn begin_unhurried(&self) -> Result<Tx> {
        self.begin_as(Hurry::No).await
    }

    async fn begin_as(&self, hurry: Hurry) -> Result<Tx> {
        let mut tx = Tx { turn: self.line.turn(hurry).await?, hurry };
        let head = tx.turn.head()?;
        if head.closed {
            return Err(Error::Closed);
        }
        head.disk.check()?;
        if let Err(error) = head.begin() {
            head.fail(&error);
            return Err(error);
        }
        Ok(tx)
    }

    /// The head of the line, with everything committed: nobody writes until it is dropped.
    pub async fn quiet(&self) -> Result<Turn> {
        self.line.quiet().await
    }

    /// Tells of COMMITs from now on.
    pub async fn commits(&self) -> Result<Commits> {
        let commits = self.line.turn(Hurry::Yes).await?.head()?.commits.subscribe();
        Ok(Commits { commits, line: Arc::downgrade(&self.line) })
    }

    /// Commits, and ends the connection. Nobody begins after that.
    pub async fn close(&self) -> Result<()> {
        let mut turn = self.quiet().await?;
        let head = turn.head()?;
        head.closed = true;
        if let Some(connection) = head.connection.take() {
            connection.close().map_err(|(_, error)| error)?;
        }
        self.disk.until_on_disk().await
    }
}

impl Commits {
    /// Waits for the next COMMIT; answers whether there can be one.
    pub async fn wait(&mut self) -> bool {
        self.commits.changed().await.is_ok()
    }

    /// As [`Writer::quiet`].
    pub async fn quiet(&self) -> Result<Turn> {
        self.line.upgrade().ok_or(Error::Closed)?.quiet().await
    }
}

impl Head {
    fn begin(&mut self) -> Result<()> {
        if let State::Begun(part) = self.state {
            // What one that gave up has left behind is undone, and its part begins anew.
            let sql: &[&str] = match part {
                Part::First => &["rollback", "begin immediate"],
                Part::A => &["rollback to a"],
                Part::B => &["rollback to b"],
            };
            match self.execute(sql) {
                Ok(()) => return Ok(()),
                Err(error) => self.fail(&error),
            }
        }
        if self.connection.is_none() {
            let connection = self.place.connect_to_write()?;
            self.marks.watch(&connection)?;
            self.connection = Some(connection);
        }
        let (sql, part): (&[&str], _) = match self.state {
            State::Idle | State::Begun(_) => (&["begin immediate"], Part::First),
            State::Kept(Part::First) => (&["savepoint a"], Part::A),
            State::Kept(Part::A) => (&["release a", "savepoint b"], Part::B),
            State::Kept(Part::B) => (&["release b", "savepoint a"], Part::A),
        };
        self.execute(sql)?;
        self.state = State::Begun(part);
        Ok(())
    }

    /// What has been written in this part is to be committed; the answer comes with the COMMIT.
    fn keep(&mut self, hurry: Hurry) -> oneshot::Receiver<Result<()>> {
        if let State::Begun(part) = self.state {
            self.state = State::Kept(part);
        }
        self.hurried |= hurry == Hurry::Yes;
        let committed = self.wait();
        if self.connection.as_ref().is_none_or(Connection::is_autocommit) {
            // As it does when the disk is full.
            self.fail(&"SQLite has rolled it back");
        }
        committed
    }

    /// To one that gives up: the COMMIT of what it has seen, if that has not come yet.
    fn wait_for_those_before(&mut self) -> Option<oneshot::Receiver<Result<()>>> {
        matches!(self.state, State::Begun(Part::A | Part::B)).then(|| self.wait())
    }

    fn wait(&mut self) -> oneshot::Receiver<Result<()>> {
        let (waits, committed) = oneshot::channel();
        self.waiting.push(waits);
        committed
    }

    fn commit(&mut self) {
        let sql: &[&str] = match self.state {
            State::Idle => return,
            State::Begun(Part::First) => {
                match self.execute(&["rollback"]) {
                    Ok(()) => self.state = State::Idle,
                    Err(error) => self.fail(&error),
                }
                return;
            }
            State::Begun(Part::A) => &["rollback to a", "commit"],
            State::Begun(Part::B) => &["rollback to b", "commit"],
            State::Kept(_) => &["commit"],
        };
        self.disk.begin_commit();
        match self.execute(sql) {
            Ok(()) => {
                (self.state, self.hurried) = (State::Idle, false);
                self.marks.committed();
                self.commits.send_replace(());
            }
            Err(error) => self.fail(&error),
        }
        self.disk.end_commit(self.waiting.drain(..));
    }

    /// Rolls everything back that is not committed, and says so to those who wait for it.
    fn fail(&mut self, error: &dyn Display) {
        self.connection = None;
        // A COMMIT that fails may have come about.
        self.marks.committed();
        (self.state, self.hurried) = (State::Idle, false);
        for waits in self.waiting.drain(..) {
            drop(waits.send(Err(Error::NotCommitted(error.to_string()))));
        }
    }

    fn execute(&self, statements: &[&str]) -> Result<()> {
        let connection = self.connection.as_ref().ok_or(Error::Closed)?;
        statements.iter().try_for_each(|sql| sqlite::execute(connection, sql, ()).map(drop))
    }
}

impl Tx {
    /// The connection, within the transaction.
    pub fn connection(&mut self) -> Result<&mut Connection> {
        self.turn.head()?.connection.as_mut().ok_or(Error::Closed)
    }

    /// What is written concerns this mark.
    pub fn touch(&mut self, mark: Mark) -> Result<()> {
        self.turn.head()?.marks.touch(mark);
        Ok(())
    }

    /// Whether somebody who is waited for stands in line.
    pub fn is_wanted(&self) -> bool {
        self.turn.is_wanted()
    }

    /// Takes back what was written, and waits until what was read is on the disk.
    pub async fn leave(self) -> Result<()> {
        let Self { mut turn, .. } = self;
        let head = turn.head()?;
        let (disk, before) = (head.disk.clone(), head.wait_for_those_before());
        drop(turn);
        if let Some(before) = before {
            before.await.map_err(|_| Error::Closed)??;
        }
        disk.until_on_disk().await
    }

    /// Lets the next one go on; what is answered is to be waited for until it is on the disk.
    pub fn submit(self) -> Result<oneshot::Receiver<Result<()>>> {
        let Self { mut turn, hurry } = self;
        Ok(turn.head()?.keep(hurry))
    }
}
