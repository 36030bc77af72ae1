//! Transactions that the database has broken off for another's sake are tried again.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::RngExt;

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
pub async fn retry<T, E: AsSqlx, F: Future<Output = Result<T, E>>>(mut run: impl FnMut() -> F) -> Result<T, E> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match run().await {
            Err(error) if error.as_sqlx().is_some_and(is_conflict) => {
                BROKEN_OFF.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    code = code(&error),
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
pub trait AsSqlx {
    /// The database's, if it is.
    fn as_sqlx(&self) -> Option<&sqlx::Error>;
}

impl AsSqlx for sqlx::Error {
    fn as_sqlx(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

fn code<E: AsSqlx>(error: &E) -> Option<String> {
    Some(error.as_sqlx()?.as_database_error()?.code()?.into_owned())
}

/// Serialisation failure or deadlock (PostgreSQL, appendix A).
fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["40001", "40P01"].contains(&code.as_ref()))
}

/// Whether the database cannot be reached for now: no connection, or a server that starts, stops or has no place left
/// (PostgreSQL, appendix A: classes 08, 53 and 57P).
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) && code.len() == 5
        }
        _ => false,
    }
}
