//! A phone's life: it hears pushes, polls because of them or by itself, and registers again when its push token is dead.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backend::{Backend, Poll, Registered};
use super::reader::{Page, Reader, Trouble};
use super::{Applied, Cause, News, Phone, What};
use crate::sim::inbox::{Inbox, Push};

/// A phone's own snapshot, where a registration with `reset` sends it.
const SNAPSHOT: &str = "/v1/sync/snapshot";
/// The first pause after a failure that says nothing of time; it doubles with each one more.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A visit is over after so many pages, whatever the relay says.
const MOST_PAGES: usize = 1000;

/// What only the phone's own task needs.
pub(super) struct Life {
    phone: Phone,
    inbox: Arc<Inbox>,
    ear: mpsc::Receiver<Push>,
    backend: Backend,
    news: mpsc::Sender<News>,
    dice: StdRng,
    for_user: Option<String>,
    url: Url,
    cursor: String,
    /// Whether the state must be read anew before anything else.
    reset: bool,
    through: i64,
    after: Duration,
    failures: u32,
    /// Why it will poll next.
    cause: Cause,
    next_poll: Instant,
    /// Whether a page has said that the push token is dead.
    dead: bool,
    /// What has been read since the last visit that came to its end.
    applied: Vec<Applied>,
}

impl Life {
    pub fn new(
        phone: Phone,
        inbox: Arc<Inbox>,
        ear: mpsc::Receiver<Push>,
        backend: Backend,
        registered: Registered,
        news: mpsc::Sender<News>,
        dice: StdRng,
    ) -> anyhow::Result<Self> {
        let Poll { url, cursor, after_s, reset } = registered.poll;
        let url = Url::parse(&url).context("the relay names no URL to poll")?;
        Ok(Self {
            phone,
            inbox,
            ear,
            backend,
            news,
            dice,
            for_user: registered.for_user,
            url,
            cursor,
            reset,
            through: 0,
            after: Duration::from_secs(after_s),
            failures: 0,
            cause: Cause::Start,
            next_poll: Instant::now(),
            dead: false,
            applied: Vec::new(),
        })
    }

    pub async fn run(mut self) {
        let mut online = self.phone.0.online.subscribe();
        loop {
            if !*online.borrow_and_update() {
                self.be_offline(&mut online).await;
            }
            tokio::select! {
                push = self.ear.recv() => match push {
                    Some(push) => self.hear(&push).await,
                    // The inbox holds the other end as long as the simulator lives.
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_poll) => self.visit().await,
                _ = online.changed() => {}
            }
        }
    }

    /// Pushes are missed; when the network is back, an app comes and looks.
    async fn be_offline(&mut self, online: &mut watch::Receiver<bool>) {
        self.tell(What::Offline).await;
        loop {
            tokio::select! {
                back = async { online.wait_for(|online| *online).await.is_ok() } => {
                    if back {
                        break;
                    }
                    return;
                }
                push = self.ear.recv() => if push.is_none() { return },
            }
        }
        while self.ear.try_recv().is_ok() {}
        (self.cause, self.next_poll) = (Cause::Itself, Instant::now());
        self.tell(What::Online).await;
    }

    async fn hear(&mut self, push: &Push) {
        let lost = self.dice.random_range(0..100) < self.phone.0.setup.lose_percent;
        let trigger = push.trigger().unwrap_or_default();
        let foreign = trigger.get("for") != self.for_user.as_ref() || !self.is_at_relay(trigger.get("poll"));
        {
            let mut memory = self.phone.0.memory();
            memory.counts.pushes_received += 1;
            memory.counts.pushes_lost += u64::from(lost);
            memory.counts.pushes_foreign += u64::from(foreign && !lost);
        }
        if lost || foreign {
            return;
        }
        let wake = trigger.get("wake").cloned().unwrap_or_default();
        let head = trigger.get("head").and_then(|head| head.parse().ok()).unwrap_or(i64::MAX);
        let feed = trigger.get("feed").cloned();
        self.tell(What::Pushed { wake: wake.clone(), head, feed }).await;
        // A phone that is already there need not ask (contract §5, `through`).
        if head > self.through && !self.asked_to_wait() {
            self.cause = Cause::Push { wake };
            self.visit().await;
        }
    }

    /// A pause that the relay asked for also holds for pushes.
    fn asked_to_wait(&self) -> bool {
        self.failures > 0 && self.next_poll > Instant::now()
    }

    /// Device tokens go to the relay and nowhere else.
    fn is_at_relay(&self, poll: Option<&String>) -> bool {
        poll.and_then(|poll| Url::parse(poll).ok()).is_some_and(|poll| poll == self.url)
    }

    /// Polls until there is no more, and settles when to come again.
    async fn visit(&mut self) {
        let started = Instant::now();
        match self.read().await {
            Ok(()) => {
                self.failures = 0;
                let cause = self.cause.clone();
                self.count(&cause);
                self.schedule(&cause);
                let took = started.elapsed();
                let (applied, through) = (std::mem::take(&mut self.applied), self.through);
                self.tell(What::Polled { cause, applied, through, took }).await;
                if std::mem::take(&mut self.dead) {
                    self.tell(What::TokenDead).await;
                    self.register_again().await;
                }
            }
            Err(Trouble::Later { status, pause }) => {
                self.failures += 1;
                self.next_poll = Instant::now() + pause;
                self.tell(What::Later { status, pause }).await;
            }
            Err(Trouble::Reset { .. }) => self.fail("the relay refuses its own new cursor".to_owned()).await,
            Err(Trouble::Locked) => {
                self.next_poll = Instant::now() + FIRST_PAUSE;
                self.register_again().await;
            }
            Err(Trouble::Other(words)) => self.fail(words).await,
        }
    }

    fn schedule(&mut self, cause: &Cause) {
        let floor = self.phone.0.setup.floor.unwrap_or(self.after);
        // Phones that started together spread out.
        let share = if *cause == Cause::Start { self.dice.random_range(0.2..1.0) } else { 1.0 };
        (self.cause, self.next_poll) = (Cause::Itself, Instant::now() + floor.mul_f64(share));
    }

    fn count(&self, cause: &Cause) {
        let mut memory = self.phone.0.memory();
        match cause {
            Cause::Push { .. } => memory.counts.polls_by_push += 1,
            Cause::Itself => memory.counts.polls_by_itself += 1,
            Cause::Start => {}
        }
    }

    async fn read(&mut self) -> Result<(), Trouble> {
        let device_token = self.phone.0.memory().device_token.clone();
        let reader = Reader { http: self.backend.http(), device_token };
        if self.reset {
            self.start_anew(&reader, SNAPSHOT).await?;
        }
        let mut wake = match &self.cause {
            Cause::Push { wake } => Some(wake.clone()),
            Cause::Start | Cause::Itself => None,
        };
        for _ in 0..MOST_PAGES {
            match reader.page(&self.url, &self.cursor, wake.take().as_deref()).await {
                Ok(page) => {
                    if !self.take_page(&reader, page).await? {
                        return Ok(());
                    }
                }
                Err(Trouble::Reset { snapshot }) if !self.reset => {
                    self.reset = true;
                    self.start_anew(&reader, &snapshot).await?;
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// Takes the whole state over and goes on from there.
    async fn start_anew(&mut self, reader: &Reader, path: &str) -> Result<(), Trouble> {
        let snapshot = reader.snapshot(&self.url, path).await?;
        self.phone.0.memory().state.replace(snapshot.items, snapshot.through, None);
        (self.cursor, self.through, self.reset) = (snapshot.as_of, snapshot.through, false);
        Ok(())
    }

    /// Takes a page over; answers whether there is more.
    async fn take_page(&mut self, reader: &Reader, page: Page) -> Result<bool, Trouble> {
        for entry in &page.events {
            match &entry.snapshot {
                Some(path) if entry.kind == "reveille.followed" => {
                    let snapshot = reader.snapshot(&self.url, path).await?;
                    let mut memory = self.phone.0.memory();
                    memory.state.replace(snapshot.items, snapshot.through, Some(&entry.feed));
                }
                _ => {
                    let mut memory = self.phone.0.memory();
                    memory.state.apply(entry);
                    memory.counts.events_applied += 1;
                    self.applied.push(Applied { feed: entry.feed.clone(), position: entry.position });
                }
            }
        }
        self.cursor = page.next;
        self.through = page.through;
        self.after = Duration::from_secs(page.poll.after_s);
        self.dead = page.push.register;
        Ok(page.has_more)
    }

    /// As an app does when its push SDK hands it a new token: the backend registers it, the cursor stays.
    async fn register_again(&mut self) {
        let setup = &self.phone.0.setup;
        let push_token = super::new_push_token(setup.provider, &mut self.dice);
        let ear = self.inbox.subscribe(&push_token);
        let wanted = super::registration(setup, &self.phone.0.installation_id, &push_token);
        match self.backend.register(&wanted).await {
            Ok(registered) => {
                self.ear = ear;
                self.remember(push_token, registered.device_token);
                self.for_user = registered.for_user;
                if registered.poll.reset {
                    (self.cursor, self.reset) = (registered.poll.cursor, true);
                }
                self.tell(What::RegisteredAgain).await;
            }
            Err(error) => self.fail(format!("{error:#}")).await,
        }
    }

    fn remember(&self, push_token: String, device_token: SecretString) {
        let mut memory = self.phone.0.memory();
        memory.push_token = push_token;
        memory.device_token = device_token;
        memory.counts.registered_again += 1;
    }

    async fn fail(&mut self, words: String) {
        self.next_poll = Instant::now() + FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.tell(What::Trouble(words)).await;
    }

    async fn tell(&self, what: What) {
        let news = News { phone: Arc::clone(&self.phone.0.name), at: Instant::now(), what };
        // Nobody listens any more: the phone lives on.
        let _ = self.news.send(news).await;
    }
}
