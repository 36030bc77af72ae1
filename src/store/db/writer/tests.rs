//! Who shares a COMMIT, who goes first, and what fails with whom.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Mutex,
};

use futures_util::poll;

use super::{line::GO_BEFORE, *};
use crate::store::db::migrations;

impl Tx {
    async fn commit(self) -> Result<()> {
        self.submit()?.await.unwrap()
    }
}

/// A disk that takes what is written when it is told to, and as it is told.
struct SlowDisk(std::sync::mpsc::Sender<io::Result<()>>);

impl SlowDisk {
    fn new() -> (Self, impl FnMut() -> io::Result<()> + Send + 'static) {
        let (told, orders) = std::sync::mpsc::channel();
        (Self(told), move || orders.recv().unwrap_or(Ok(())))
    }

    fn takes(&self, what: io::Result<()>) {
        self.0.send(what).unwrap();
    }
}

struct Scratch {
    writer: Writer,
    reader: Connection,
    folder: tempfile::TempDir,
}

impl Scratch {
    async fn new() -> Self {
        Self::on(|| Ok(())).await
    }

    async fn on(sync: impl FnMut() -> io::Result<()> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of(&format!("sqlite:{}", folder.path().join("reveille.db").display())).unwrap();
        let mut connection = place.connect_to_write().unwrap();
        migrations::apply(&mut connection).unwrap();
        let tables = "create table parent (id integer primary key);
                      create table child (id integer references parent (id))";
        connection.execute_batch(tables).unwrap();
        let writer = Writer::new(place.clone(), connection, Marks::default(), sync);
        Self { writer, reader: place.connect_plainly().unwrap(), folder }
    }

    async fn insert(&self, id: i64) -> Tx {
        let mut tx = self.writer.begin().await.unwrap();
        run(&mut tx, &format!("insert into parent values ({id})"));
        tx
    }

    /// One that waits for its turn.
    async fn next_in_line(&self) -> Pin<Box<dyn Future<Output = Result<Tx>> + '_>> {
        let mut next = Box::pin(self.writer.begin());
        assert!(poll!(next.as_mut()).is_pending());
        next
    }

    fn parents(&self) -> Vec<i64> {
        sqlite::fetch_all(&self.reader, "select id from parent order by id", ()).unwrap()
    }
}

fn run(tx: &mut Tx, sql: &str) {
    tx.connection().unwrap().execute_batch(sql).unwrap();
}

/// Runs until it waits for something else than the disk.
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
    let scratch = Scratch::new().await;
    let first = scratch.insert(1).await;
    let second = scratch.next_in_line().await;

    let mut committed = pin!(first.commit());
    assert!(stands_still(&mut committed).await, "one in line has come before the COMMIT");
    let mut second = second.await.unwrap();
    run(&mut second, "insert into parent values (2)");
    assert!(stands_still(&mut committed).await);
    assert_eq!(scratch.parents(), [0_i64; 0]);
    second.commit().await.unwrap();
    committed.await.unwrap();
    assert_eq!(scratch.parents(), [1, 2]);
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

    drop(hurried);
    unhurried.await.unwrap();
}

#[tokio::test]
async fn who_is_not_waited_for_has_its_turn_after_all() {
    let scratch = Scratch::new().await;
    let writer = &scratch.writer;
    let mut unhurried = pin!(writer.begin_unhurried());
    let mut at_the_head = writer.begin().await.unwrap();
    assert!(poll!(unhurried.as_mut()).is_pending());
    for _ in 0..GO_BEFORE {
        let mut next = Box::pin(writer.begin());
        assert!(poll!(next.as_mut()).is_pending());
        drop(at_the_head);
        at_the_head = next.await.unwrap();
    }
    let mut next = pin!(writer.begin());
    assert!(poll!(next.as_mut()).is_pending());
    drop(at_the_head);
    drop(unhurried.await.unwrap());
    next.await.unwrap();
}

#[tokio::test]
async fn who_leaves_the_line_is_passed_over() {
    let scratch = Scratch::new().await;
    let first = scratch.writer.begin().await.unwrap();
    let writer = &scratch.writer;
    let (mut gone, mut next) = (Box::pin(writer.begin()), pin!(writer.begin()));
    assert!(poll!(gone.as_mut()).is_pending() && poll!(next.as_mut()).is_pending());
    drop(gone);
    drop(first);
    next.await.unwrap();
}

#[tokio::test]
async fn one_that_gives_up_takes_nothing_with_it() {
    let scratch = Scratch::new().await;
    let first = scratch.insert(1).await;
    let writer = scratch.writer.clone();
    let (mut second, mut third) = (pin!(writer.begin()), pin!(writer.begin()));
    assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
    let mut committed = pin!(first.commit());
    assert!(stands_still(&mut committed).await);

    let mut second = second.await.unwrap();
    run(&mut second, "insert into parent values (2)");
    drop(second);
    let mut third = third.await.unwrap();
    run(&mut third, "insert into parent values (3)");
    third.commit().await.unwrap();
    committed.await.unwrap();
    assert_eq!(scratch.parents(), [1, 3]);

    // With nobody behind it, it undoes that itself, and the file is free.
    let last = scratch.insert(4).await;
    drop(last);
    drop(scratch.writer.quiet().await.unwrap());
    scratch.reader.execute_batch("insert into parent values (5)").unwrap();
    assert_eq!(scratch.parents(), [1, 3, 5]);
}

#[tokio::test]
async fn who_has_gone_away_while_it_is_committed_is_committed() {
    let (disk, sync) = SlowDisk::new();
    let scratch = Scratch::on(sync).await;
    let tx = scratch.insert(1).await;
    {
        let mut committed = pin!(tx.commit());
        assert!(poll!(committed.as_mut()).is_pending());
    }
    disk.takes(Ok(()));
    drop(scratch.writer.quiet().await.unwrap());
    assert_eq!(scratch.parents(), [1]);
}

#[tokio::test]
async fn what_sqlite_has_rolled_back_by_itself_is_not_committed() {
    let scratch = Scratch::new().await;
    let mut first = scratch.writer.begin().await.unwrap();
    run(&mut first, "insert into parent values (1); rollback");
    assert!(first.commit().await.is_err());
    let next = scratch.insert(2).await;
    next.commit().await.unwrap();
    assert_eq!(scratch.parents(), [2]);
}

#[tokio::test]
async fn the_first_that_gives_up_takes_nothing_with_it() {
    let scratch = Scratch::new().await;
    let first = scratch.insert(1).await;
    let next = scratch.next_in_line().await;
    drop(first);
    let mut next = next.await.unwrap();
    run(&mut next, "insert into parent values (2)");
    next.commit().await.unwrap();
    assert_eq!(scratch.parents(), [2]);
}

#[tokio::test]
async fn a_commit_that_fails_fails_for_all_and_the_next_begins_anew() {
    let scratch = Scratch::new().await;
    let first = scratch.insert(1).await;
    let second = scratch.next_in_line().await;
    let mut committed = pin!(first.commit());
    assert!(stands_still(&mut committed).await);

    let mut second = second.await.unwrap();
    run(&mut second, "pragma defer_foreign_keys = on; insert into child values (7)");
    assert!(second.commit().await.is_err());
    assert!(committed.await.is_err());
    assert_eq!(scratch.parents(), [0_i64; 0]);

    let third = scratch.insert(3).await;
    third.commit().await.unwrap();
    assert_eq!(scratch.parents(), [3]);
    scratch.writer.close().await.unwrap();
    assert!(scratch.writer.begin().await.is_err(), "it does not open the file again");
}

#[tokio::test]
async fn nothing_is_answered_or_read_before_it_is_on_the_disk_but_the_next_is_written_meanwhile() {
    let (disk, sync) = SlowDisk::new();
    let scratch = Scratch::on(sync).await;
    let first = scratch.insert(1).await;
    let (mut first, mut reader) = (pin!(first.commit()), pin!(scratch.writer.disk().until_on_disk()));
    assert!(stands_still(&mut first).await);
    assert_eq!(scratch.parents(), [1], "it has been committed, and can be seen");
    assert!(stands_still(&mut reader).await);

    let second = scratch.insert(2).await;
    let mut second = pin!(second.commit());
    assert!(stands_still(&mut second).await);
    assert_eq!(scratch.parents(), [1], "a COMMIT waits until the disk is free, for others may share it");

    disk.takes(Ok(()));
    first.await.unwrap();
    reader.await.unwrap();
    while scratch.parents() != [1, 2] {
        assert!(poll!(second.as_mut()).is_pending());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(stands_still(&mut second).await);
    disk.takes(Ok(()));
    second.await.unwrap();
    scratch.writer.disk().until_on_disk().await.unwrap();
}

#[tokio::test]
async fn what_the_disk_refuses_is_said_to_all_and_nothing_more_is_written() {
    let (disk, sync) = SlowDisk::new();
    let scratch = Scratch::on(sync).await;
    let first = scratch.insert(1).await;
    let mut first = pin!(first.commit());
    assert!(stands_still(&mut first).await);
    let second = scratch.writer.begin().await.unwrap();
    let mut second = pin!(second.commit());
    assert!(stands_still(&mut second).await);

    disk.takes(Err(io::Error::other("no space left")));
    for refused in [first.await, second.await, scratch.writer.disk().until_on_disk().await] {
        assert_eq!(refused.unwrap_err().to_string(), "the transaction could not be committed: no space left");
    }
    assert!(scratch.writer.begin().await.is_err());
}

#[tokio::test]
async fn who_leaves_with_what_it_has_read_waits_for_it() {
    let (disk, sync) = SlowDisk::new();
    let scratch = Scratch::on(sync).await;
    let first = scratch.insert(1).await;
    let mut first = pin!(first.commit());
    assert!(stands_still(&mut first).await);
    let second = scratch.insert(2).await;
    let mut second = pin!(second.commit());
    assert!(stands_still(&mut second).await);

    let third = scratch.insert(3).await;
    let mut third = pin!(third.leave());
    disk.takes(Ok(()));
    first.await.unwrap();
    assert!(stands_still(&mut third).await, "it has seen what is not on the disk yet");
    disk.takes(Ok(()));
    second.await.unwrap();
    third.await.unwrap();
    assert_eq!(scratch.parents(), [1, 2]);
    scratch.writer.begin().await.unwrap().leave().await.unwrap();
}

/// What a power cut would leave: the database, and the WAL as it was when it was last brought to the disk.
#[derive(Clone, Default)]
struct Remains(Arc<Mutex<(PathBuf, Vec<u8>)>>);

impl Remains {
    fn sync(&self) -> impl FnMut() -> io::Result<()> + Send + 'static {
        let remains = Arc::clone(&self.0);
        move || {
            let mut remains = remains.lock().unwrap();
            remains.1 = std::fs::read(&remains.0)?;
            Ok(())
        }
    }

    fn parents(&self, database: &Path) -> Vec<i64> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reveille.db");
        std::fs::copy(database, &path).unwrap();
        std::fs::write(folder.path().join("reveille.db-wal"), &self.0.lock().unwrap().1).unwrap();
        let found = Connection::open(&path).unwrap();
        sqlite::fetch_all(&found, "select id from parent order by id", ()).unwrap()
    }
}

#[tokio::test]
async fn after_a_power_cut_all_is_there_that_was_answered() {
    let remains = Remains::default();
    let scratch = Scratch::on(remains.sync()).await;
    let database = scratch.folder.path().join("reveille.db");
    remains.0.lock().unwrap().0 = scratch.folder.path().join("reveille.db-wal");
    let answered = Mutex::new(Vec::new());
    let write = async |first: i64| {
        for id in (first..200).step_by(4) {
            scratch.insert(id).await.commit().await.unwrap();
            answered.lock().unwrap().push(id);
            let answered = answered.lock().unwrap().clone();
            if id % 7 == 0 {
                let left = remains.parents(&database);
                assert!(answered.iter().all(|id| left.contains(id)), "answered: {answered:?}, left: {left:?}");
            }
        }
    };
    tokio::join!(write(0), write(1), write(2), write(3));
    assert_eq!(remains.parents(&database).len(), 200);
}
