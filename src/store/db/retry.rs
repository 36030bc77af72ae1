//! Transactions that the database has broken off for another's sake are tried again.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::RngExt;

use super::error::Error;

/// How often one is tried in all.
const TRIES: u32 = 5;
/// The first pause; each further one is twice as long, and all are cut short at random, so that two do not meet again.
const PAUSE: Duration = Duration::from_millis(10);

/// How many of this process' were broken off so far.
static BROKEN_OFF: AtomicU64 = AtomicU64::new(0);

/// Transactions of this process that the database has broken off for another's sake so far; each was tried again, up to a bound.
pub fn broken_off() -> u64 {
    BROKEN_OFF.load(Ordering::Relaxed)
}

/// Runs a transaction until the database does not break it off for another's sake, but not for ever.
pub async fn retry<T, E: MayBeDatabase, F: Future<Output = Result<T, E>>>(mut run: impl FnMut() -> F) -> Result<T, E> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match run().await {
            Err(error) if error.database().is_some_and(Error::is_conflict) => {
                BROKEN_OFF.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    code = error.database().and_then(Error::code),
                    "a transaction was broken off for another's sake and is tried again"
                );
                let part = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(pause.mul_f64(part)).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    run().await
}

/// An error that may be the database's.
pub trait MayBeDatabase {
    /// The database's, if it is.
    fn database(&self) -> Option<&Error>;
}

impl MayBeDatabase for Error {
    fn database(&self) -> Option<&Error> {
        Some(self)
    }
}
