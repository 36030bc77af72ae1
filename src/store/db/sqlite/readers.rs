//! The connections that read. Each sees what was committed when its statement, or its snapshot, began.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::place::Place;
use crate::store::db::error::{Error, Result};

/// So many read at once.
const READERS: usize = 4;

/// The connections that nobody uses just now; they are opened when they are needed.
#[derive(Debug, Clone)]
pub struct Readers {
    place: Place,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

/// A connection, until it is dropped.
pub struct Reader {
    /// Gone when it has been given back.
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permit: OwnedSemaphorePermit,
}

impl Readers {
    pub fn new(place: Place) -> Self {
        Self { place, idle: Arc::default(), permits: Arc::new(Semaphore::new(READERS)) }
    }

    /// Waits until one is free.
    pub async fn reader(&self) -> Result<Reader> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::Closed)?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.place.connect_to_read()?,
        };
        Ok(Reader { connection: Some(connection), idle: Arc::clone(&self.idle), permit })
    }

    /// One that sees the same state from its first statement until it is dropped.
    pub async fn snapshot(&self) -> Result<Reader> {
        let mut reader = self.reader().await?;
        reader.connection()?.prepare_cached("begin")?.execute(())?;
        Ok(reader)
    }

    /// Nobody reads any more; those who do now end what they have begun.
    pub fn close(&self) {
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Reader {
    pub fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or(Error::Closed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let ended = connection.is_autocommit()
            || connection.prepare_cached("rollback").and_then(|mut rollback| rollback.execute(())).is_ok();
        if ended && !self.permit.semaphore().is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
