//! The tail of every app that somebody listens to: read on when something has been committed, here or elsewhere, and from time to time in
//! any case. One reader for all connections of the process.

use std::time::Duration;

use tokio::time::Instant;
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

/// Passes on what comes in, until stopped.
pub async fn follow(live: Live, stop: CancellationToken) {
    let mut tail = Tail { epoch: live.0.store.epoch(), looked_at: Instant::now(), live };
    let (mut changes, mut tended_at) = (tail.store().changes(), Instant::now());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // Whoever has the sender is the store, and that is here.
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(GATHER)).await.is_none() {
            break;
        }
        changes.mark_unchanged();
        if let Err(error) = tail.look().await {
            tracing::debug!(%error, "live connections wait for the database");
        }
        if tended_at.elapsed() >= TEND_EVERY {
            tended_at = Instant::now();
            if let Err(error) = tail.tend().await {
                tracing::debug!(%error, "live connections could not be looked after");
            }
        }
    }
    tail.live.hub().end(None, End::Stopping);
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
        let too_late = self.looked_at.elapsed() > CHANGES_KEPT / 2;
        for (app, position) in positions {
            match counters.get(&app) {
                None => self.live.hub().end(Some(app), End::Revoked),
                Some(counter) if too_late || counter.0 - position.0 > BEHIND => {
                    self.live.hub().pass_over(app, *counter);
                }
                Some(counter) if *counter > position => self.read_on(app, position).await?,
                Some(_) => {}
            }
        }
        self.looked_at = Instant::now();
        Ok(())
    }

    async fn read_on(&self, app: AppId, mut position: Position) -> Result<()> {
        for _ in 0..ROUNDS {
            let Some(news) = self.store().news(app, position).await? else { break };
            position = news.through;
            let has_more = news.has_more;
            self.live.hub().tell(app, news);
            if !has_more {
                break;
            }
        }
        Ok(())
    }

    /// Ends what goes on under a token that has ended, and notes of the others that they are still there.
    async fn tend(&self) -> Result<()> {
        let streams = self.live.hub().streams();
        for some in streams.chunks(TOKENS) {
            let hashes: Vec<&str> = some.iter().filter_map(|place| place.token()).collect();
            let good = self.store().tokens(&hashes).await?;
            let (good, ended): (Vec<_>, Vec<_>) =
                some.iter().partition(|place| place.token().is_some_and(|token| good.contains_key(token)));
            ended.into_iter().for_each(|place| place.end(End::Revoked));
            let stay = good.into_iter().filter_map(|place| {
                let presence = Presence { app: place.app, device: place.device()?, lasts: Some(ONLINE) };
                Some(self.store().present(presence))
            });
            for stayed in futures_util::future::join_all(stay).await {
                stayed?;
            }
        }
        Ok(())
    }
}
