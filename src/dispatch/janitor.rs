//! The janitor: what is past its time goes, and what has been asked for is erased.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::store::{Result, Store};

const ROUND_EVERY: Duration = Duration::from_secs(60);
/// Between two chunks, so that others get their turn at the writer.
const BETWEEN_CHUNKS: Duration = Duration::from_millis(20);

/// Takes away what is past its time or asked to be erased.
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
        let erasing = self.store.go_on_erasing().await?;
        Ok(self.store.tidy().await? || erasing)
    }

    /// Rounds until stopped, counted by `tasks`.
    pub fn run(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        self.store.start("tidy", tasks, self.clone().tidy(stop.clone()));
        self.store.start("erase", tasks, self.clone().erase(stop.clone()));
    }

    async fn tidy(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = pause_after(self.store.tidy().await);
            rest(&stop, pause).await;
        }
    }

    /// Who waits for an erasure need not wait for the next round.
    async fn erase(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = pause_after(self.store.go_on_erasing().await);
            tokio::select! {
                () = rest(&stop, pause) => {}
                () = self.store.erasing() => {}
            }
        }
    }
}

/// How long to wait after a chunk, if there may be more or not.
fn pause_after(chunk: Result<bool>) -> Duration {
    match chunk {
        Ok(true) => BETWEEN_CHUNKS,
        Ok(false) => ROUND_EVERY,
        Err(error) => {
            tracing::error!(%error, "the janitor could not do its round");
            ROUND_EVERY
        }
    }
}

async fn rest(stop: &CancellationToken, pause: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
