//! SQLite's one writer: transactions that come one after the other share one COMMIT, and with it one wait for the disk.
//!
//! Each is a savepoint in a transaction of the file. It is answered when that has been committed; until then nobody but its followers in
//! line has seen it, and they are committed with it or not at all.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use sqlx::{Connection, Error, Result, Sqlite, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot, watch};

/// Those who want to write stand in line for the file.
#[derive(Debug, Clone)]
pub struct Writer {
    line: Line,
    /// How many of them somebody waits for.
    hurried: Arc<AtomicUsize>,
    committer: Committer,
}

type Line = Arc<Mutex<Head>>;

/// What has the committer commit; it ends with the last of these.
#[derive(Debug, Clone)]
struct Committer {
    /// At once.
    now: mpsc::Sender<OwnedMutexGuard<Head>>,
    /// When its turn comes: it stands in line as well, so all who are before it share the COMMIT.
    in_line: Arc<Notify>,
}

/// Who is at the head of the line has this.
#[derive(Debug)]
pub struct Head {
    options: SqliteConnectOptions,
    /// One that has failed is not kept: closing it rolls back.
    connection: Option<SqliteConnection>,
    closed: bool,
    state: State,
    /// Who waits for the COMMIT.
    waiting: Vec<oneshot::Sender<Result<()>>>,
    /// Turned after each COMMIT.
    commits: watch::Sender<()>,
}

/// Tells of COMMITs for as long as there is somebody to write.
#[derive(Debug)]
pub struct Commits {
    commits: watch::Receiver<()>,
    line: Weak<Mutex<Head>>,
}

/// What the connection is in the middle of. It is noted before the statement that makes it so, for that may be broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// In a savepoint of whoever is at the head, or left behind by one that gave up.
    Saved,
    /// In a savepoint that is to be committed.
    Kept,
}

/// A transaction; it rolls back unless committed.
pub struct Tx {
    /// Gone when it is committed.
    head: Option<OwnedMutexGuard<Head>>,
    hurry: Option<Hurry>,
    committer: Committer,
}

/// Somebody waits for this transaction.
struct Hurry(Arc<AtomicUsize>);

impl Hurry {
    fn new(hurried: &Arc<AtomicUsize>) -> Self {
        hurried.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hurried))
    }

    fn is_the_only_one(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// A writer with its connection, which has to be open.
    pub fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let connection = Some(connection);
        let commits = watch::Sender::new(());
        let head = Head { options, connection, closed: false, state: State::Idle, waiting: Vec::new(), commits };
        let line = Arc::new(Mutex::new(head));
        let committer = Committer::start(&line);
        Self { line, hurried: Arc::default(), committer }
    }

    /// Waits for everyone before it, and begins.
    pub async fn begin(&self) -> Result<Tx> {
        let hurry = Hurry::new(&self.hurried);
        let head = Arc::clone(&self.line).lock_owned().await;
        self.begin_at(head, Some(hurry)).await
    }

    /// The same for one that nobody waits for: it goes back to the end of the line, once, for those who are waited for.
    pub async fn begin_unhurried(&self) -> Result<Tx> {
        let mut head = Arc::clone(&self.line).lock_owned().await;
        if self.hurried.load(Ordering::Relaxed) > 0 {
            drop(head);
            head = Arc::clone(&self.line).lock_owned().await;
        }
        self.begin_at(head, None).await
    }

    async fn begin_at(&self, head: OwnedMutexGuard<Head>, hurry: Option<Hurry>) -> Result<Tx> {
        if head.closed {
            return Err(Error::PoolClosed);
        }
        let mut tx = Tx { head: Some(head), hurry, committer: self.committer.clone() };
        let head = tx.head()?;
        if let Err(error) = head.begin().await {
            head.fail(&error);
            return Err(error);
        }
        Ok(tx)
    }

    /// The head of the line, with everything committed: nobody writes until it is dropped.
    pub async fn quiet(&self) -> OwnedMutexGuard<Head> {
        quiet(&self.line).await
    }

    /// Tells of COMMITs from now on.
    pub async fn commits(&self) -> Commits {
        Commits { commits: self.line.lock().await.commits.subscribe(), line: Arc::downgrade(&self.line) }
    }

    /// Commits, and ends the connection. Nobody begins after that.
    pub async fn close(&self) {
        let mut head = self.quiet().await;
        head.closed = true;
        if let Some(connection) = head.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database was not closed as it should be");
        }
    }
}

async fn quiet(line: &Line) -> OwnedMutexGuard<Head> {
    let mut head = Arc::clone(line).lock_owned().await;
    head.commit().await;
    head
}

impl Commits {
    /// Waits for the next COMMIT; answers whether there can be one.
    pub async fn wait(&mut self) -> bool {
        self.commits.changed().await.is_ok()
    }

    /// As [`Writer::quiet`], if there is somebody left to write.
    pub async fn quiet(&self) -> Option<OwnedMutexGuard<Head>> {
        Some(quiet(&self.line.upgrade()?).await)
    }
}

impl Committer {
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the last handle, and whom it serves waits for its answers"
    )]
    fn start(line: &Line) -> Self {
        let (now, mut heads) = mpsc::channel::<OwnedMutexGuard<Head>>(1);
        let in_line = Arc::<Notify>::default();
        let (line, called) = (Arc::clone(line), Arc::clone(&in_line));
        tokio::spawn(async move {
            loop {
                let in_its_turn = async {
                    called.notified().await;
                    Arc::clone(&line).lock_owned().await
                };
                tokio::select! {
                    head = heads.recv() => match head {
                        Some(mut head) => head.commit().await,
                        None => return,
                    },
                    mut head = in_its_turn => head.commit().await,
                }
            }
        });
        Self { now, in_line }
    }
}

impl Head {
    async fn begin(&mut self) -> Result<()> {
        if self.state == State::Saved {
            // What one that gave up has left behind is undone; its savepoint serves again.
            match self.execute("rollback to one").await {
                Ok(()) => return Ok(()),
                Err(error) => self.fail(&error),
            }
        }
        if self.connection.is_none() {
            self.connection = Some(SqliteConnection::connect_with(&self.options).await?);
        }
        let sql = match self.state {
            State::Idle => "begin immediate; savepoint one",
            State::Saved | State::Kept => "release one; savepoint one",
        };
        self.state = State::Saved;
        self.execute(sql).await
    }

    /// What has been written in the savepoint is to be committed; the answer comes with the COMMIT.
    fn keep(&mut self) -> oneshot::Receiver<Result<()>> {
        self.state = State::Kept;
        let (waits, committed) = oneshot::channel();
        self.waiting.push(waits);
        committed
    }

    async fn commit(&mut self) {
        let sql = match self.state {
            State::Idle => return,
            State::Saved => "rollback to one; commit",
            State::Kept => "commit",
        };
        match self.execute(sql).await {
            Ok(()) => {
                self.state = State::Idle;
                self.waiting.drain(..).for_each(|waits| drop(waits.send(Ok(()))));
                self.commits.send_replace(());
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Rolls everything back that is not committed, and says so to those who wait for it.
    fn fail(&mut self, error: &Error) {
        self.connection = None;
        self.state = State::Idle;
        for waits in self.waiting.drain(..) {
            drop(waits.send(Err(Error::Protocol(format!("the transaction could not be committed: {error}")))));
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one door")]
    async fn execute(&mut self, sql: &'static str) -> Result<()> {
        let connection = self.connection.as_mut().ok_or(Error::WorkerCrashed)?;
        sqlx::query::<Sqlite>(sql).execute(connection).await?;
        Ok(())
    }
}

impl Tx {
    /// The connection, within the transaction.
    pub fn connection(&mut self) -> Result<&mut SqliteConnection> {
        self.head()?.connection.as_mut().ok_or(Error::WorkerCrashed)
    }

    fn head(&mut self) -> Result<&mut Head> {
        self.head.as_deref_mut().ok_or(Error::WorkerCrashed)
    }

    /// Lets the next one go on, and waits until it is on the disk.
    pub async fn commit(mut self) -> Result<()> {
        let committed = self.head()?.keep();
        // Of those who could share the COMMIT nobody else is waited for.
        let at_once = self.hurry.as_ref().is_some_and(Hurry::is_the_only_one);
        if at_once && let Some(head) = self.head.take() {
            // There is room: only who is at the head of the line sends it.
            let _ = self.committer.now.try_send(head);
        }
        drop(self);
        committed.await.map_err(|_| Error::WorkerCrashed)?
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if self.head.take().is_some() {
            // One call is enough for all who are in line when it is answered.
            self.committer.in_line.notify_one();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the one door, tried")]
mod tests {
    use std::{future::Future, pin::pin};

    use futures_util::poll;

    use super::*;

    struct Scratch {
        writer: Writer,
        reader: SqliteConnection,
        _folder: tempfile::TempDir,
    }

    impl Scratch {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let options = SqliteConnectOptions::new().filename(folder.path().join("reveille.db"));
            let options = options.create_if_missing(true).foreign_keys(true);
            let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
            let writer = Writer::new(options.clone(), SqliteConnection::connect_with(&options).await.unwrap());
            let mut tx = writer.begin().await.unwrap();
            let tables = "create table parent (id integer primary key);
                          create table child (id integer references parent (id))";
            run(&mut tx, tables).await;
            tx.commit().await.unwrap();
            Self { writer, reader: SqliteConnection::connect_with(&options).await.unwrap(), _folder: folder }
        }

        async fn parents(&mut self) -> Vec<i64> {
            let sql = "select id from parent order by id";
            sqlx::query_scalar(sql).fetch_all(&mut self.reader).await.unwrap()
        }
    }

    async fn run(tx: &mut Tx, sql: &'static str) {
        sqlx::raw_sql(sql).execute(tx.connection().unwrap()).await.unwrap();
    }

    /// Runs until it waits for something else than the database's thread.
    async fn stands_still<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
        for _ in 0..50 {
            if poll!(future.as_mut()).is_ready() {
                return false;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        true
    }

    #[tokio::test]
    async fn who_is_in_line_shares_the_commit() {
        let mut scratch = Scratch::new().await;
        let mut first = scratch.writer.begin().await.unwrap();
        run(&mut first, "insert into parent values (1)").await;
        let writer = scratch.writer.clone();
        let mut second = pin!(writer.begin());
        assert!(poll!(second.as_mut()).is_pending());

        let mut committed = pin!(first.commit());
        assert!(stands_still(&mut committed).await, "one in line has come before the committer");
        let mut second = second.await.unwrap();
        run(&mut second, "insert into parent values (2)").await;
        assert!(stands_still(&mut committed).await);
        assert_eq!(scratch.parents().await, [0_i64; 0]);
        second.commit().await.unwrap();
        committed.await.unwrap();
        assert_eq!(scratch.parents().await, [1, 2]);
    }

    #[tokio::test]
    async fn who_is_waited_for_goes_before_who_is_not() {
        let scratch = Scratch::new().await;
        let first = scratch.writer.begin().await.unwrap();
        let (one, other) = (scratch.writer.clone(), scratch.writer.clone());
        let (mut unhurried, mut hurried) = (pin!(one.begin_unhurried()), pin!(other.begin()));
        assert!(poll!(unhurried.as_mut()).is_pending() && poll!(hurried.as_mut()).is_pending());
        drop(first);
        assert!(stands_still(&mut unhurried).await);
        let hurried = hurried.await.unwrap();
        assert!(stands_still(&mut unhurried).await);

        // It lets others go first once, and no more.
        let mut next = pin!(other.begin());
        assert!(poll!(next.as_mut()).is_pending());
        drop(hurried);
        unhurried.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_gives_up_takes_nothing_with_it() {
        let mut scratch = Scratch::new().await;
        let mut first = scratch.writer.begin().await.unwrap();
        run(&mut first, "insert into parent values (1)").await;
        let writer = scratch.writer.clone();
        let (mut second, mut third) = (pin!(writer.begin()), pin!(writer.begin()));
        assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
        let mut committed = pin!(first.commit());
        assert!(stands_still(&mut committed).await);

        let mut second = second.await.unwrap();
        run(&mut second, "insert into parent values (2)").await;
        drop(second);
        let mut third = third.await.unwrap();
        run(&mut third, "insert into parent values (3)").await;
        third.commit().await.unwrap();
        committed.await.unwrap();
        assert_eq!(scratch.parents().await, [1, 3]);

        // With nobody behind it, it is the committer that undoes it, and the file is free.
        let mut last = scratch.writer.begin().await.unwrap();
        run(&mut last, "insert into parent values (4)").await;
        drop(last);
        drop(scratch.writer.quiet().await);
        sqlx::raw_sql("insert into parent values (5)").execute(&mut scratch.reader).await.unwrap();
        assert_eq!(scratch.parents().await, [1, 3, 5]);
    }

    #[tokio::test]
    async fn who_has_gone_away_while_it_is_committed_is_committed() {
        let mut scratch = Scratch::new().await;
        let mut tx = scratch.writer.begin().await.unwrap();
        run(&mut tx, "insert into parent values (1)").await;
        {
            let mut committed = pin!(tx.commit());
            assert!(poll!(committed.as_mut()).is_pending());
        }
        drop(scratch.writer.quiet().await);
        assert_eq!(scratch.parents().await, [1]);
    }

    #[tokio::test]
    async fn a_commit_that_fails_fails_for_all_and_the_next_begins_anew() {
        let mut scratch = Scratch::new().await;
        let mut first = scratch.writer.begin().await.unwrap();
        run(&mut first, "insert into parent values (1)").await;
        let writer = scratch.writer.clone();
        let mut second = pin!(writer.begin());
        assert!(poll!(second.as_mut()).is_pending());
        let mut committed = pin!(first.commit());
        assert!(stands_still(&mut committed).await);

        let mut second = second.await.unwrap();
        run(&mut second, "pragma defer_foreign_keys = on; insert into child values (7)").await;
        assert!(second.commit().await.is_err());
        assert!(committed.await.is_err());
        assert_eq!(scratch.parents().await, [0_i64; 0]);

        let mut third = scratch.writer.begin().await.unwrap();
        run(&mut third, "insert into parent values (3)").await;
        third.commit().await.unwrap();
        assert_eq!(scratch.parents().await, [3]);
        scratch.writer.close().await;
        assert!(scratch.writer.begin().await.is_err(), "it does not open the file again");
    }
}
