//! The demo's course: it lets the plan happen, hears what the phones tell, and shows each update once its phones have it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ledger::{Ledger, Update};
use super::plan::{self, HICCUP_REQUESTS, HICCUP_RETRY_AFTER_S, Plan, Step};
use super::screen::{Look, Screen, time};
use super::world::World;
use crate::sim::phones::{Cause, News, What};
use crate::sim::{Fault, FaultKind, Push};

/// How often the phones are asked whether they have it all, once everything is published.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See above.
pub struct Story {
    screen: Screen,
    plan: Plan,
    news: mpsc::Receiver<News>,
    pub ledger: Ledger,
    began: Instant,
    /// Whose push tokens are or were whose, by index.
    tokens: HashMap<String, usize>,
}

impl Story {
    pub fn new(screen: Screen, plan: Plan, news: mpsc::Receiver<News>) -> Self {
        Self { screen, plan, news, ledger: Ledger::default(), began: Instant::now(), tokens: HashMap::new() }
    }

    /// Lets everything happen and waits until all phones have the true state.
    pub async fn tell(&mut self, world: &World) -> anyhow::Result<()> {
        for (order, position) in world.placed.iter().enumerate() {
            self.ledger.publish(order, "placed", *position);
        }
        self.wait_for_the_start(world).await;
        self.note_tokens(world);
        self.began = Instant::now();
        for (at, step) in std::mem::take(&mut self.plan.steps) {
            self.listen_until(world, self.began + at).await;
            self.happen(world, step).await?;
        }
        while !self.missing(world).is_empty() || self.unregistered(world) {
            self.listen_until(world, Instant::now() + LOOK_EVERY).await;
        }
        // What the phones have read by now, they have told or are about to tell.
        self.listen_until(world, Instant::now() + LOOK_EVERY).await;
        Ok(())
    }

    /// The phones that do not have the true state.
    pub fn missing(&self, world: &World) -> Vec<String> {
        let pairs = world.phones.iter().zip(&self.plan.cast);
        let wrong = pairs.filter(|(phone, cast)| !self.ledger.is_true(&phone.items(), cast.order));
        wrong.map(|(phone, _)| phone.name().to_owned()).collect()
    }

    /// Whether a phone whose push token was refused has not registered again yet.
    fn unregistered(&self, world: &World) -> bool {
        let refused = world.sim.pushes().into_iter().filter(|push| matches!(push.status, 404 | 410));
        let mut phones = refused.filter_map(|push| world.phones.get(*self.tokens.get(&push.token)?));
        phones.any(|phone| phone.counts().registered_again == 0)
    }

    /// How many updates the plan has.
    pub fn updates(&self) -> usize {
        self.plan.updates()
    }

    /// Shows what could not be shown in time.
    pub fn show_rest(&mut self, world: &World) {
        let rest = self.ledger.rest();
        self.show(world, &rest);
    }

    /// Tells what phones do until Ctrl-C.
    pub async fn go_on(&mut self, world: &World) -> anyhow::Result<()> {
        let stop = crate::cli::asked_to_stop();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                stopped = &mut stop => return stopped,
                Some(news) = self.news.recv() => {
                    if !matches!(&news.what, What::Polled { applied, .. } if applied.is_empty()) {
                        self.screen.line(format!("  {}", crate::cli::sim::words(&news)));
                    }
                }
            }
            self.note_tokens(world);
        }
    }

    /// Every phone has registered and has read where its order stands.
    async fn wait_for_the_start(&mut self, world: &World) {
        while !self.missing(world).is_empty() {
            let _ = tokio::time::timeout(LOOK_EVERY, self.news.recv()).await;
        }
    }

    fn note_tokens(&mut self, world: &World) {
        self.tokens.extend(world.phones.iter().enumerate().map(|(index, phone)| (phone.push_token(), index)));
    }

    async fn listen_until(&mut self, world: &World, until: Instant) {
        // An error means that the time is over.
        while let Ok(Some(news)) = tokio::time::timeout_at(until, self.news.recv()).await {
            self.hear(world, &news);
            self.show_complete(world);
        }
    }

    fn hear(&mut self, world: &World, news: &News) {
        let Some(phone) = world.phones.iter().position(|phone| phone.name() == &*news.phone) else { return };
        match &news.what {
            What::Polled { cause, applied, .. } => self.ledger.read(phone, applied, cause, news.at),
            What::TokenDead => {
                self.scene(
                    Look::Odd,
                    &format!("{} polls by itself and is told: push token gone, register", news.phone),
                );
            }
            What::RegisteredAgain => {
                self.note_tokens(world);
                self.scene(Look::Good, &format!("{} has registered again with a new push token", news.phone));
            }
            What::Later { .. } | What::Trouble(_) => self.scene(Look::Bad, &crate::cli::sim::words(news)),
            What::Pushed { .. } | What::Offline | What::Online => {}
        }
    }

    async fn happen(&mut self, world: &World, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Update { order, stage } => return self.publish(world, order, stage).await,
            Step::TokenDies { phone } => {
                if let Some(phone) = world.phones.get(phone) {
                    world.sim.fcm().dead_token(&phone.push_token(), None);
                    self.scene(Look::Bad, &format!("{}'s push token dies (the app was installed anew)", phone.name()));
                }
            }
            Step::Hiccup => {
                let status = FaultKind::Status {
                    status: 503,
                    reason: Some("UNAVAILABLE".to_owned()),
                    retry_after: Some(HICCUP_RETRY_AFTER_S.to_string()),
                };
                world.sim.fcm().answer(Fault::new(status).times(HICCUP_REQUESTS));
                let words = format!(
                    "FCM has a bad moment: 503 to the next {HICCUP_REQUESTS} pushes, \"Retry-After: {HICCUP_RETRY_AFTER_S}\""
                );
                self.scene(Look::Bad, &words);
            }
            Step::Offline { phone } => {
                if let Some(phone) = world.phones.get(phone) {
                    phone.go_offline();
                    self.scene(Look::Bad, &format!("{} goes into a tunnel: no network", phone.name()));
                }
            }
            Step::Online { phone } => {
                if let Some(phone) = world.phones.get(phone) {
                    phone.go_online();
                    self.scene(Look::Good, &format!("{} is out of the tunnel", phone.name()));
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, world: &World, order: usize, stage: usize) -> anyhow::Result<()> {
        let (asked, asked_ms) = (Instant::now(), world.clock.now().as_ms());
        let event = world.shop.publish(&plan::update(order, stage)).await?;
        let update = Update {
            order,
            stage,
            position: event.position,
            at: asked.duration_since(self.began),
            asked,
            asked_ms,
            accepted: asked.elapsed(),
        };
        let (status, _) = plan::stage(stage);
        self.ledger.publish(order, status, event.position);
        let followers: Vec<_> =
            self.plan.cast.iter().enumerate().filter(|(_, cast)| cast.order == order).map(|(phone, _)| phone).collect();
        self.ledger.expect(update, &followers);
        Ok(())
    }

    fn show_complete(&mut self, world: &World) {
        let complete = self.ledger.complete();
        self.show(world, &complete);
    }

    fn show(&self, world: &World, positions: &[i64]) {
        if positions.is_empty() {
            return;
        }
        let mut by_phone: HashMap<usize, Vec<Push>> = HashMap::new();
        for push in world.sim.pushes() {
            if let Some(phone) = self.tokens.get(&push.token) {
                by_phone.entry(*phone).or_default().push(push);
            }
        }
        let who = |phone: usize| {
            let name = world.phones.get(phone).map_or("", |phone| phone.name());
            (name, by_phone.get(&phone).cloned().unwrap_or_default())
        };
        for position in positions {
            for line in self.ledger.lines(self.screen, *position, who) {
                self.screen.line(line);
            }
        }
    }

    fn scene(&self, look: Look, words: &str) {
        let at = self.began.elapsed().as_secs_f64();
        self.screen.line(format!("{at:>6.2}  {}", self.screen.paint(look, &format!("* {words}"))));
    }
}

/// How long readings took for one kind of cause: how many, the median and the 95th percentile.
pub fn quantiles(story: &Story, wanted: impl Fn(&Cause) -> bool) -> (usize, String) {
    let mut times: Vec<_> =
        story.ledger.readings().iter().filter(|got| wanted(&got.cause)).map(|got| got.after).collect();
    times.sort();
    let at = |percent: usize| times.get((times.len().saturating_sub(1) * percent).div_ceil(100)).copied();
    let words = match (at(50), at(95)) {
        (Some(median), Some(p95)) => format!("median {:>7}, 95 of 100 within {:>7}", time(median), time(p95)),
        _ => "-".to_owned(),
    };
    (times.len(), words)
}
