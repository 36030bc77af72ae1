//! The janitor's round: what is past its time goes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::{Result, Store};

const ROUND_EVERY: Duration = Duration::from_secs(60);
/// Between two chunks, so that others get their turn at the writer.
const BETWEEN_CHUNKS: Duration = Duration::from_millis(20);

/// Takes away what is past its time.
#[derive(Clone)]
pub struct Janitor {
    store: Store,
}

impl Janitor {
    /// A janitor of `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// One chunk of everything; answers whether there may be more.
    pub async fn step(&self) -> Result<bool> {
        self.store.tidy().await
    }

    /// Rounds until stopped.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.step().await {
                Ok(true) => BETWEEN_CHUNKS,
                Ok(false) => ROUND_EVERY,
                Err(error) => {
                    tracing::error!(%error, "the janitor could not do its round");
                    ROUND_EVERY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
