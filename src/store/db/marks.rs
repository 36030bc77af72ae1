//! What has been written of late, as far as it concerns polls: who remembers what it has read asks whether that still holds.
//!
//! SQLite tells of every row itself, by triggers that only the writer's connection has, so no statement can be forgotten; but new events
//! are told of by the one statement that writes them. At PostgreSQL others write as well, and nothing is remembered.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, functions::FunctionFlags};

/// Apps, devices and feeds share so many marks; two that share one are only read again once in a while without need.
const MARKS: usize = 1 << 16;

/// What is watched: whose rows count as an app's, a device's or a feed's. New events are told by who accepts them: a trigger has SQLite keep
/// a journal of each statement, which was a fifth of the time of a large accept.
const TRIGGERS: &[(&str, &str, &str)] = &[
    ("events", "delete", "'feed', old.app_id, old.feed"),
    ("feed_drops", "insert", "'feed', new.app_id, new.feed"),
    ("feed_drops", "update", "'feed', new.app_id, new.feed"),
    ("follows", "insert", "'device', new.app_id, new.device_id"),
    ("follows", "update", "'device', new.app_id, new.device_id"),
    ("follows", "delete", "'device', old.app_id, old.device_id"),
    ("devices", "insert", "'device', new.app_id, new.id"),
    ("devices", "update", "'device', new.app_id, new.id"),
    ("devices", "delete", "'device', old.app_id, old.id"),
    ("device_tokens", "insert", "'device', new.app_id, new.device_id"),
    ("device_tokens", "update", "'device', new.app_id, new.device_id"),
    ("device_tokens", "delete", "'device', old.app_id, old.device_id"),
    ("apps", "update of name, overrides, confirm, deleted_at", "'app', new.id, ''"),
    ("apps", "delete", "'app', old.id, ''"),
];

/// The number of the last commit that touched each app, device and feed. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Marks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    commits: AtomicU64,
    touched_by: Box<[AtomicU64]>,
    /// What has been touched since the last commit.
    pending: Mutex<Vec<Mark>>,
}

/// The place of an app, a device or a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u16);

impl Mark {
    /// Of an app's settings and whether it is there.
    pub fn of_app(app: &str) -> Self {
        Self::of("app", app, "")
    }

    /// Of a device, its tokens and what it follows.
    pub fn of_device(app: &str, device: &str) -> Self {
        Self::of("device", app, device)
    }

    /// Of a feed's events.
    pub fn of_feed(app: &str, feed: &str) -> Self {
        Self::of("feed", app, feed)
    }

    fn of(kind: &str, app: &str, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (kind, app, name).hash(&mut hasher);
        // The lowest bits are as good as any.
        Self(hasher.finish() as u16)
    }
}

impl Default for Marks {
    fn default() -> Self {
        let touched_by = (0..MARKS).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { commits: AtomicU64::new(0), touched_by, pending: Mutex::default() }))
    }
}

impl Marks {
    /// Has a connection tell of what it writes.
    pub fn watch(&self, connection: &Connection) -> rusqlite::Result<()> {
        let marks = self.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        connection.create_scalar_function("reveille_touch", 3, flags, move |values| {
            let text = |index| values.get_raw(index).as_str().map_err(rusqlite::Error::from);
            marks.touch(Mark::of(text(0)?, text(1)?, text(2)?));
            Ok(None::<i64>)
        })?;
        for (number, (table, when, what)) in TRIGGERS.iter().enumerate() {
            let sql = format!(
                "create temp trigger touch_{number} after {when} on main.{table} begin select reveille_touch({what}); end"
            );
            connection.execute_batch(&sql)?;
        }
        Ok(())
    }

    /// What is written concerns this one; to be seen from the next commit on.
    pub fn touch(&self, mark: Mark) {
        self.pending().push(mark);
    }

    /// What has been touched is to be seen from now on; nobody has been told of it yet.
    pub fn committed(&self) {
        let mut pending = self.pending();
        if pending.is_empty() {
            return;
        }
        let number = self.now() + 1;
        for mark in pending.drain(..) {
            if let Some(touched_by) = self.0.touched_by.get(usize::from(mark.0)) {
                touched_by.store(number, Ordering::Release);
            }
        }
        // Last: whoever knows this number finds all the marks of its commit.
        self.0.commits.store(number, Ordering::Release);
    }

    /// The last commit; what is read after this is not older.
    pub fn now(&self) -> u64 {
        self.0.commits.load(Ordering::Acquire)
    }

    /// Whether none of `marks` has been touched since the commit `as_of`.
    pub fn hold(&self, marks: &[Mark], as_of: u64) -> bool {
        marks.iter().all(|mark| {
            let touched_by = self.0.touched_by.get(usize::from(mark.0));
            touched_by.is_some_and(|number| number.load(Ordering::Acquire) <= as_of)
        })
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Vec<Mark>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::db::Db;

    #[tokio::test]
    async fn a_commit_is_seen_in_the_marks_of_what_it_has_touched_and_in_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite:{}", folder.path().join("reveille.db").display())).await.unwrap();
        let marks = db.marks().unwrap();
        let (of_one, of_other) = (Mark::of_device("app_1", "dev_1"), Mark::of_device("app_1", "dev_2"));
        let before = marks.now();

        let mut tx = db.begin().await.unwrap();
        let sql = "insert into follows (app_id, device_id, feed, since) values ('app_1', 'dev_1', 'news', 7)";
        tx.execute(sql, ()).await.unwrap();
        assert!(marks.hold(&[of_one], before), "nobody can read it yet");
        tx.commit().await.unwrap();
        assert!(!marks.hold(&[of_one], before));
        assert!(marks.hold(&[of_other, Mark::of_feed("app_1", "news")], before));
        assert!(marks.hold(&[of_one], marks.now()), "what is read now knows of it");
    }
}
