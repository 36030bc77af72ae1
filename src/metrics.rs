//! Metrics in the Prometheus text format; docs/operations/metrics.md is their table. Names and labels are stable, and no label holds a
//! tenant's text but the app's id.

mod requests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

pub use self::requests::Requests;
use self::requests::{Answered, Route};
use crate::domain::{
    device::{DeviceStatus, Transport},
    event::Class,
    id::AppId,
    push::{Meaning, Outcome},
    tally::{IN_TIME, Tally},
};

/// OpenMetrics 1.0, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a process counts. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

type Seconds = Gauge<f64, AtomicU64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug)]
struct Inner {
    registry: Registry,
    events_accepted: Family<OfApp, Counter>,
    accept_requests: Family<Resulting, Counter>,
    decisions: Family<Decision, Counter>,
    wakes: Family<Way, Counter>,
    wakes_fetched: Family<Within, Counter>,
    push_to_fetch: Histograms<Way>,
    polls_with_news: Family<Cause, Counter>,
    attempts: Family<Ended, Counter>,
    call_duration: Histograms<By>,
    token_refreshes: Family<Refresh, Counter>,
    calls_under_way: Gauge,
    requests: Family<Answered, Counter>,
    request_duration: Histograms<Route>,
    polls: Family<Poll, Counter>,
    live: Family<Open, Gauge>,
    live_began: Family<Open, Counter>,
    live_events: Family<Open, Counter>,
    operation_duration: Histograms<Operation>,
    failures: Family<Operation, Counter>,
    batches: Histograms<Queue>,
    at_scrape: AtScrape,
    /// Held while gauges are set and read: who scrapes at the same time must not find them half set.
    scrape: Mutex<()>,
}

/// Gauges that are read when somebody asks.
#[derive(Debug, Default)]
struct AtScrape {
    ready: Gauge,
    connections: Family<By, Gauge>,
    streams: Family<By, Gauge>,
    breakers: Family<Breaker, Gauge>,
    oldest_due_age: Family<Unlabelled, Seconds>,
    due: Family<Unlabelled, Gauge>,
    leased: Family<Unlabelled, Gauge>,
    dispatcher_age: Family<Unlabelled, Seconds>,
    queue_length: Family<Queue, Gauge>,
    broken_off: Counter,
    devices: Family<OfAppWith, Gauge>,
    alarms: Family<OfApp, Gauge>,
    wake_rate: Family<RateOf, Seconds>,
}

/// The ways of a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A poll that waits.
    LongPoll,
    /// Server-sent events.
    Sse,
    /// A WebSocket.
    WebSocket,
}

impl Channel {
    const ALL: [Self; 3] = [Self::LongPoll, Self::Sse, Self::WebSocket];

    const fn as_str(self) -> &'static str {
        match self {
            Self::LongPoll => "long_poll",
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
        }
    }
}

/// How it stands at the moment of a scrape.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the metrics' own names and help say it")]
pub struct Present {
    pub ready: bool,
    pub traffic: Vec<(Transport, Traffic)>,
    /// Credentials by transport, whose breakers are in this state.
    pub breakers: Vec<(Transport, &'static str)>,
    /// What the database knows; nothing if it cannot be asked.
    pub census: Option<Census>,
    /// How long ago the dispatcher looked, if this process has one.
    pub dispatcher_age: Option<Duration>,
    pub queues: Vec<(&'static str, usize)>,
    pub broken_off: u64,
}

/// What the database knows; the same for all processes at it.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// How long the longest due wake has been due.
    pub oldest_due_age: Duration,
    /// Levels that are due, counted up to 10,000.
    pub due: i64,
    /// Levels that are being called for, counted up to 10,000.
    pub leased: i64,
    /// Devices by app and status.
    pub devices: Vec<(AppId, DeviceStatus, i64)>,
    /// Alarms that stand, by app.
    pub alarms: Vec<(AppId, i64)>,
    /// What share of the last whole hour's pushes was fetched within 15 minutes.
    pub wake_rates: Vec<(AppId, Transport, f64)>,
}

/// What goes on towards a provider.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub connections: usize,
    pub streams: usize,
}

macro_rules! labels {
    ($($name:ident { $($label:ident: $type:ty),* })*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
            struct $name { $($label: $type),* }
        )*
    };
}

labels! {
    Unlabelled {}
    OfApp { app: String }
    OfAppWith { app: String, status: &'static str }
    RateOf { app: String, transport: &'static str }
    Resulting { result: &'static str }
    Decision { class: &'static str, decision: &'static str, reason: &'static str }
    Way { transport: &'static str, class: &'static str }
    Within { transport: &'static str, class: &'static str, within: &'static str }
    Cause { transport: &'static str, class: &'static str, cause: &'static str }
    Ended { transport: &'static str, outcome: &'static str, meaning: &'static str }
    By { transport: &'static str }
    Refresh { transport: &'static str, result: &'static str }
    Breaker { transport: &'static str, state: &'static str }
    Poll { route: &'static str, result: &'static str }
    Open { channel: &'static str }
    Operation { operation: &'static str }
    Queue { queue: &'static str }
}

/// From half a millisecond to sixteen seconds: longer than any call may take.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// From a tenth of a second to a day.
fn waits() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0])
}

fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("reveille"),
            events_accepted: Family::default(),
            accept_requests: Family::default(),
            decisions: Family::default(),
            wakes: Family::default(),
            wakes_fetched: Family::default(),
            push_to_fetch: Family::new_with_constructor(waits),
            polls_with_news: Family::default(),
            attempts: Family::default(),
            call_duration: Family::new_with_constructor(durations),
            token_refreshes: Family::default(),
            calls_under_way: Gauge::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            polls: Family::default(),
            live: Family::default(),
            live_began: Family::default(),
            live_events: Family::default(),
            operation_duration: Family::new_with_constructor(durations),
            failures: Family::default(),
            batches: Family::new_with_constructor(sizes),
            at_scrape: AtScrape::default(),
            scrape: Mutex::default(),
        };
        inner.register();
        inner.begin_at_zero();
        Self(Arc::new(inner))
    }
}

impl Inner {
    /// Every metric with its help. Counters get `_total` when they are written, durations `_seconds` here.
    fn register(&mut self) {
        let all = &mut self.registry;
        all.register("build", "The relay's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        all.register("events_accepted", "Events accepted", self.events_accepted.clone());
        all.register("accept_requests", "Requests to append events", self.accept_requests.clone());
        all.register("decisions", "Decisions about devices that were due, and why", self.decisions.clone());
        all.register("wakes", "Wakes that a provider accepted", self.wakes.clone());
        all.register("wakes_fetched", "Wakes whose news a poll brought, by how soon", self.wakes_fetched.clone());
        all.register("push_to_fetch_seconds", "From a push to the poll that had its news", self.push_to_fetch.clone());
        all.register("polls_with_news", "Polls that brought news, by what caused them", self.polls_with_news.clone());
        all.register("attempts", "Calls to providers that ended", self.attempts.clone());
        all.register("provider_call_duration_seconds", "How long calls to providers took", self.call_duration.clone());
        all.register("provider_token_refreshes", "New tokens for providers", self.token_refreshes.clone());
        all.register("calls_under_way", "Claimed calls of this process", self.calls_under_way.clone());
        all.register("http_requests", "Requests answered", self.requests.clone());
        all.register("http_request_duration_seconds", "How long requests took", self.request_duration.clone());
        all.register("polls", "Polls by what they were answered", self.polls.clone());
        all.register("live_connections", "Live connections that are open", self.live.clone());
        all.register("live_connections_begun", "Live connections that have begun", self.live_began.clone());
        all.register("live_events", "Events that went out on live connections", self.live_events.clone());
        all.register("store_operation_duration_seconds", "How long the store took", self.operation_duration.clone());
        all.register("store_failures", "Operations of the store that failed", self.failures.clone());
        all.register("group_commit_requests", "Requests that shared a transaction", self.batches.clone());
        let now = &self.at_scrape;
        all.register("ready", "Whether /readyz says so", now.ready.clone());
        all.register("provider_connections", "Connections to providers", now.connections.clone());
        all.register("provider_streams_in_use", "Calls under way on them", now.streams.clone());
        all.register("breakers", "Credentials whose breakers are not closed", now.breakers.clone());
        all.register(
            "oldest_due_age_seconds",
            "How long the longest due wake has been due",
            now.oldest_due_age.clone(),
        );
        all.register("due_devices", "Devices due, counted up to 10000", now.due.clone());
        all.register("leased_devices", "Devices being called, counted up to 10000", now.leased.clone());
        all.register("dispatcher_last_look_age_seconds", "How long ago it looked", now.dispatcher_age.clone());
        all.register("store_queue_length", "Requests that wait for a transaction", now.queue_length.clone());
        all.register("broken_off_transactions", "Transactions tried again for another's sake", now.broken_off.clone());
        all.register("devices", "Devices, counted once a minute", now.devices.clone());
        all.register("alarms", "Alarms that stand", now.alarms.clone());
        all.register(
            "wake_rate",
            "Of the last whole hour's pushes, those fetched in 15 minutes",
            now.wake_rate.clone(),
        );
    }

    /// What has not happened yet is 0 and not absent, so that its first time can be seen as a change.
    fn begin_at_zero(&self) {
        for transport in Transport::ALL.map(Transport::as_str) {
            for meaning in Meaning::WORDS {
                let (outcome, meaning) = (meaning.outcome().as_str(), meaning.as_str());
                self.attempts.get_or_create(&Ended { transport, outcome, meaning }).inc_by(0);
            }
            let (outcome, meaning) = (Outcome::Unknown.as_str(), Outcome::Unknown.as_str());
            self.attempts.get_or_create(&Ended { transport, outcome, meaning }).inc_by(0);
            for result in ["ok", "failed"] {
                self.token_refreshes.get_or_create(&Refresh { transport, result }).inc_by(0);
            }
        }
        for channel in Channel::ALL.map(Channel::as_str) {
            self.live.get_or_create(&Open { channel }).set(0);
            self.live_began.get_or_create(&Open { channel }).inc_by(0);
        }
        for channel in [Channel::Sse, Channel::WebSocket].map(Channel::as_str) {
            self.live_events.get_or_create(&Open { channel }).inc_by(0);
        }
        for result in ["new", "replayed", "key_reused", "no_app", "busy", "failed"] {
            self.accept_requests.get_or_create(&Resulting { result }).inc_by(0);
        }
    }
}

impl Metrics {
    /// A request to append events came to this.
    pub fn accept_request(&self, result: &'static str) {
        self.0.accept_requests.get_or_create(&Resulting { result }).inc();
    }

    /// So many events of an app were accepted.
    pub fn events_accepted(&self, app: AppId, events: usize) {
        self.0.events_accepted.get_or_create(&OfApp { app: app.to_string() }).inc_by(events as u64);
    }

    /// An app was deleted.
    pub fn forget(&self, app: AppId) {
        self.0.events_accepted.remove(&OfApp { app: app.to_string() });
    }

    /// A device that was due was decided about.
    pub fn decided(&self, class: Class, decision: &'static str, reason: &'static str) {
        self.0.decisions.get_or_create(&Decision { class: class.as_str(), decision, reason }).inc();
    }

    /// A call to a provider ended.
    pub fn called(&self, transport: Transport, meaning: Meaning, took: Duration) {
        let transport = transport.as_str();
        let ended = Ended { transport, outcome: meaning.outcome().as_str(), meaning: meaning.as_str() };
        self.0.attempts.get_or_create(&ended).inc();
        self.0.call_duration.get_or_create(&By { transport }).observe(took.as_secs_f64());
    }

    /// A provider has accepted a wake.
    pub fn told(&self, transport: Transport, class: Class) {
        self.0.wakes.get_or_create(&Way { transport: transport.as_str(), class: class.as_str() }).inc();
    }

    /// Nobody will hear of a call any more.
    pub fn lost(&self, transport: Transport) {
        let unknown = Outcome::Unknown.as_str();
        let ended = Ended { transport: transport.as_str(), outcome: unknown, meaning: unknown };
        self.0.attempts.get_or_create(&ended).inc();
    }

    /// A claimed call began (1) or ended (-1).
    pub fn under_way(&self, change: i64) {
        self.0.calls_under_way.inc_by(change);
    }

    /// A poll brought the news of a wake, so long after the push.
    pub fn fetched(&self, transport: Transport, class: Class, latency: Duration) {
        let (transport, class) = (transport.as_str(), class.as_str());
        self.0.push_to_fetch.get_or_create(&Way { transport, class }).observe(latency.as_secs_f64());
        let all = [("10s", Duration::from_secs(10)), ("60s", Duration::from_secs(60)), ("15min", IN_TIME)];
        let within = all.into_iter().filter(|(_, most)| latency <= *most).map(|(within, _)| within);
        for within in within.chain(["ever"]) {
            self.0.wakes_fetched.get_or_create(&Within { transport, class, within }).inc();
        }
    }

    /// A poll brought news, because of a push or by itself.
    pub fn came(&self, transport: Transport, class: Class, why: Tally) {
        let cause = if why == Tally::WokeByPush { "push" } else { "itself" };
        let cause = Cause { transport: transport.as_str(), class: class.as_str(), cause };
        self.0.polls_with_news.get_or_create(&cause).inc();
    }

    /// A poll was answered.
    pub fn polled(&self, route: &'static str, result: &'static str) {
        self.0.polls.get_or_create(&Poll { route, result }).inc();
    }

    /// A live connection began (1) or ended (-1).
    pub fn connected(&self, channel: Channel, change: i64) {
        let channel = Open { channel: channel.as_str() };
        self.0.live.get_or_create(&channel).inc_by(change);
        if change > 0 {
            self.0.live_began.get_or_create(&channel).inc();
        }
    }

    /// So many events went out on a live connection.
    pub fn passed_on(&self, channel: Channel, events: usize) {
        self.0.live_events.get_or_create(&Open { channel: channel.as_str() }).inc_by(events as u64);
    }

    /// A provider was, or was to be, given a new token.
    pub fn token_refreshed(&self, transport: Transport, result: &'static str) {
        self.0.token_refreshes.get_or_create(&Refresh { transport: transport.as_str(), result }).inc();
    }

    /// The store did something.
    pub fn operated(&self, operation: &'static str, took: Duration) {
        self.0.operation_duration.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    /// The store failed to do something.
    pub fn failed(&self, operation: &'static str) {
        self.0.failures.get_or_create(&Operation { operation }).inc();
    }

    /// So many requests shared a transaction.
    pub fn shared(&self, queue: &'static str, requests: usize) {
        self.0.batches.get_or_create(&Queue { queue }).observe(requests as f64);
    }

    /// All of it as text.
    pub fn text(&self, present: &Present) -> String {
        let _scrape = self.0.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.at_scrape.set(present);
        let mut text = String::new();
        // A string takes whatever is written.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

impl AtScrape {
    fn set(&self, present: &Present) {
        self.ready.set(present.ready.into());
        for transport in Transport::ALL {
            let of_transport = present.traffic.iter().filter(|(way, _)| *way == transport).map(|(_, traffic)| traffic);
            let (mut connections, mut streams) = (0, 0);
            for traffic in of_transport {
                connections += traffic.connections;
                streams += traffic.streams;
            }
            let by = By { transport: transport.as_str() };
            self.connections.get_or_create(&by).set(count(connections));
            self.streams.get_or_create(&by).set(count(streams));
            for (state, word) in [("open", "open"), ("half_open", "half-open")] {
                let n = present.breakers.iter().filter(|(way, is)| *way == transport && *is == word).count();
                self.breakers.get_or_create(&Breaker { transport: transport.as_str(), state }).set(count(n));
            }
        }
        match present.dispatcher_age {
            Some(age) => drop(self.dispatcher_age.get_or_create(&Unlabelled {}).set(age.as_secs_f64())),
            None => self.dispatcher_age.clear(),
        }
        for (queue, length) in &present.queues {
            self.queue_length.get_or_create(&Queue { queue }).set(count(*length));
        }
        self.broken_off.inner().store(present.broken_off, Ordering::Relaxed);
        self.count(present.census.as_ref());
    }

    /// What is not known, or gone, is not told of.
    fn count(&self, census: Option<&Census>) {
        self.oldest_due_age.clear();
        self.due.clear();
        self.leased.clear();
        self.devices.clear();
        self.alarms.clear();
        self.wake_rate.clear();
        let Some(census) = census else { return };
        self.oldest_due_age.get_or_create(&Unlabelled {}).set(census.oldest_due_age.as_secs_f64());
        self.due.get_or_create(&Unlabelled {}).set(census.due);
        self.leased.get_or_create(&Unlabelled {}).set(census.leased);
        for (app, status, n) in &census.devices {
            self.devices.get_or_create(&OfAppWith { app: app.to_string(), status: status.as_str() }).set(*n);
        }
        for (app, n) in &census.alarms {
            self.alarms.get_or_create(&OfApp { app: app.to_string() }).set(*n);
        }
        for (app, transport, rate) in &census.wake_rates {
            let of = RateOf { app: app.to_string(), transport: transport.as_str() };
            self.wake_rate.get_or_create(&of).set(*rate);
        }
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
