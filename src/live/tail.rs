//! The tail of every app that somebody listens to: read on when something has been committed, here or elsewhere, and from time to time in
//! any case. One reader for all connections of the process.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{End, Live, ONLINE};
use crate::{
    domain::{cursor::Epoch, feed::Position, id::AppId},
    store::{CHANGES_KEPT, Presence, Result, Store},
};

/// How often it is looked when nothing rings: news of another process' commits may be lost.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is committed within this time is read together.
const GATHER: Duration = Duration::from_millis(5);
/// How often connections that go on are looked after.
const TEND_EVERY: Duration = Duration::from_secs(60);
/// Rounds of reading that one app has before it is another's turn.
const ROUNDS: usize = 8;
/// Who is so far behind reads by itself.
const BEHIND: i64 = 20_000;
/// Device tokens that are looked for at once.
const TOKENS: usize = 500;

/// Passes on what comes in, and looks after those who are connected, until stopped.
pub async fn follow(live: Live, stop: CancellationToken) {
    let mut tail = Tail { epoch: live.0.store.epoch(), looked_at: Instant::now(), live: live.clone() };
    stop.run_until_cancelled(async { tokio::join!(tail.follow(), tend(&live)) }).await;
    live.hub().stop();
}

struct Tail {
    live: Live,
    epoch: Epoch,
    /// When it last read what there is.
    looked_at: Instant,
}

impl Tail {
    fn store(&self) -> &Store {
        &self.live.0.store
    }

    async fn follow(&mut self) {
        let mut changes = self.store().changes();
        loop {
            // Whoever has the sender is the store, and that is here.
            timeout(LOOK_EVERY, changes.changed()).await.ok();
            tokio::time::sleep(GATHER).await;
            changes.mark_unchanged();
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "live connections wait for the database");
            }
        }
    }

    /// Reads on in all apps.
    async fn look(&mut self) -> Result<()> {
        let epoch = self.store().epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.live.hub().end(None, End::EpochChanged);
        }
        let positions = self.live.hub().positions();
        if positions.is_empty() {
            self.looked_at = Instant::now();
            return Ok(());
        }
        let apps: Vec<AppId> = positions.iter().map(|(app, _)| *app).collect();
        let counters = self.store().counters(&apps).await?;
        let mut is_whole = true;
        let too_late = self.looked_at.elapsed() > CHANGES_KEPT / 2;
        for (app, position) in positions {
            match counters.get(&app) {
                None => self.live.hub().end(Some(app), End::Revoked),
                // Behind what has been passed on it is only if the past was restored.
                Some(counter) if too_late || *counter < position || counter.0 - position.0 > BEHIND => {
                    self.live.hub().pass_over(app, *counter);
                }
                Some(counter) if *counter > position => {
                    // One app's trouble is not the others'.
                    if let Err(error) = self.read_on(app, position).await {
                        tracing::debug!(%error, %app, "live connections wait for the database");
                        is_whole = false;
                    }
                }
                Some(_) => {}
            }
        }
        if is_whole {
            self.looked_at = Instant::now();
        }
        Ok(())
    }

    async fn read_on(&self, app: AppId, mut position: Position) -> Result<()> {
        for _ in 0..ROUNDS {
            let Some(news) = self.store().news(app, position).await? else { break };
            let (has_more, through) = (news.has_more, news.through);
            self.live.hub().tell(app, position, news);
            position = through;
            if !has_more {
                break;
            }
        }
        Ok(())
    }
}

/// Looks after connections that go on, from time to time.
async fn tend(live: &Live) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        if let Err(error) = tend_once(live).await {
            tracing::debug!(%error, "live connections could not be looked after");
        }
    }
}

/// Ends what goes on under a token that has ended, and notes of the others that they are still there.
async fn tend_once(live: &Live) -> Result<()> {
    let (connections, store) = (live.hub().of_devices(), &live.0.store);
    for some in connections.chunks(TOKENS) {
        let hashes: Vec<&str> = some.iter().filter_map(|place| place.token()).collect();
        let good = store.tokens(&hashes).await?;
        let (good, ended): (Vec<_>, Vec<_>) =
            some.iter().partition(|place| place.token().is_some_and(|token| good.contains(token)));
        ended.into_iter().for_each(|place| place.end(End::Revoked));
        let stay = good.into_iter().filter_map(|place| {
            let presence = Presence { app: place.app, device: place.device()?, lasts: Some(ONLINE) };
            Some(store.present(presence))
        });
        for stayed in futures_util::future::join_all(stay).await {
            // It lasts for a while yet; the next time is soon.
            if let Err(error) = stayed {
                tracing::debug!(%error, "that a device is still there was not noted");
            }
        }
    }
    Ok(())
}
