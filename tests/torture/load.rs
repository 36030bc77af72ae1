//! What goes on meanwhile: backends that post until they are answered, and phones that come when they are pushed to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reveille::sim::{
    Provider, Push, Sim,
    phones::{Backend, Cause, News, Phone, PhoneSetup, What},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::cluster::{Cluster, OPERATOR_KEY};

pub const FEEDS: usize = 12;
const PHONES: usize = 60;
const FEEDS_OF_A_PHONE: usize = 3;
const WRITERS: usize = 8;
/// A writer rests so long between two events, on average.
const REST: Duration = Duration::from_millis(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How often a phone comes by itself, if it does.
const FLOOR: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// An event that the relay has accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub id: String,
    pub feed: String,
    /// The key within the feed whose value it is.
    pub item: String,
    pub wakes: bool,
    pub at_ms: i64,
}

/// What the outside knows.
#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
    pub replays: AtomicU64,
    pub turned_away: AtomicU64,
}

#[derive(Default)]
struct State {
    accepted: BTreeMap<i64, Accepted>,
    /// What each phone has read, in its order.
    read: HashMap<Arc<str>, Vec<(String, i64)>>,
    /// What each phone was last told by a push.
    told: HashMap<Arc<str>, (String, i64)>,
    pushes: Vec<Pushed>,
    violations: Vec<String>,
}

/// A push that reached a provider.
#[derive(Debug, Clone)]
pub struct Pushed {
    pub wake: String,
    pub id: Option<String>,
    pub token: String,
    pub head: i64,
    pub at_ms: i64,
    /// What the provider answered; 0 if nothing.
    pub status: u16,
    pub delivered: bool,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn accuse(&self, words: String) {
        eprintln!("VIOLATION: {words}");
        self.state().violations.push(words);
    }

    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub fn accepted(&self) -> BTreeMap<i64, Accepted> {
        self.state().accepted.clone()
    }

    pub fn events(&self) -> usize {
        self.state().accepted.len()
    }

    pub fn pushes(&self) -> Vec<Pushed> {
        self.state().pushes.clone()
    }

    /// What a phone has read of these feeds.
    pub fn read(&self, phone: &str) -> Vec<(String, i64)> {
        self.state().read.get(phone).cloned().unwrap_or_default()
    }

    fn accept(&self, position: i64, event: Accepted) {
        let mut state = self.state();
        if let Some(other) = state.accepted.insert(position, event.clone()) {
            drop(state);
            self.accuse(format!("position {position} was given to {} and to {}", other.id, event.id));
        }
    }

    pub fn take_pushes(&self, sim: &Sim) {
        let pushes = sim.take_pushes();
        self.state().pushes.extend(pushes.iter().filter_map(Pushed::of));
    }

    fn hear(&self, news: News) {
        let mut wrong = Vec::new();
        let mut state = self.state();
        match news.what {
            What::Pushed { wake, head, .. } => drop(state.told.insert(news.phone, (wake, head))),
            What::Polled { cause, applied, through, .. } => {
                if let (Cause::Push { wake }, Some((told, head))) = (cause, state.told.get(&news.phone))
                    && wake == *told
                    && through < *head
                {
                    wrong.push(format!("{} was told of {head} by {wake}, came, and was shown {through}", news.phone));
                }
                let read = state.read.entry(Arc::clone(&news.phone)).or_default();
                for entry in applied {
                    if let Some((_, before)) = read.last()
                        && *before >= entry.position
                    {
                        wrong.push(format!("{} read {} after {before}", news.phone, entry.position));
                    }
                    read.push((entry.feed, entry.position));
                }
            }
            _ => {}
        }
        drop(state);
        wrong.into_iter().for_each(|words| self.accuse(words));
    }
}

impl Pushed {
    fn of(push: &Push) -> Option<Self> {
        let trigger = push.trigger()?;
        Some(Self {
            wake: trigger.get("wake")?.clone(),
            id: push.headers.get("apns-id").cloned(),
            token: push.token.clone(),
            head: trigger.get("head")?.parse().ok()?,
            at_ms: push.at_ms,
            status: push.status,
            delivered: push.delivered,
        })
    }
}

/// An app with its backends and phones.
pub struct Load {
    pub ledger: Arc<Ledger>,
    pub phones: Vec<Phone>,
    pub key: String,
    pub http: reqwest::Client,
    url: String,
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    pub async fn start(cluster: &Cluster, sim: &Sim, seed: u64) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        let url = cluster.url.clone();
        ready(&http, &url).await?;
        let key = app(&http, &url, sim).await?;
        let ledger = Arc::new(Ledger::default());
        let (news, mut heard) = mpsc::channel(10_000);
        let backend = Backend::new(&url, SecretString::from(key.clone()))?;
        let mut phones = Vec::new();
        for number in 0..PHONES {
            let setup = PhoneSetup {
                name: format!("phone-{number}"),
                installation_id: None,
                provider: if number % 2 == 0 { Provider::Apns } else { Provider::Fcm },
                user: None,
                feeds: (0..FEEDS_OF_A_PHONE).map(|index| feed((number / 2 + index * 5) % FEEDS)).collect(),
                topic: "com.example.shop".into(),
                // Some come only when they are pushed to.
                floor: Some(if number % 5 < 2 { NEVER } else { FLOOR }),
                lose_percent: 0,
                seed: seed.wrapping_mul(1000) + number as u64,
            };
            phones.push(Phone::start(sim, setup, backend.clone(), news.clone()).await?);
        }
        let listens = Arc::clone(&ledger);
        tokio::spawn(async move {
            while let Some(news) = heard.recv().await {
                listens.hear(news);
            }
        });
        // A phone begins with a snapshot; what is posted before that it does not read as an event.
        while ledger.state().read.len() < phones.len() {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer {
                number,
                http: http.clone(),
                url: format!("{url}/v1/events"),
                key: key.clone(),
                ledger: Arc::clone(&ledger),
                chance: StdRng::seed_from_u64(seed.wrapping_mul(77) + number as u64),
            };
            writers.spawn(writer.run(Arc::clone(&stop)));
        }
        Ok(Self { ledger, phones, key, http, url, stop, writers })
    }

    /// The backends end with what they are at.
    pub async fn stop_writing(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.is_some() {}
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await?;
        ensure!(answer.status() == 200, "{path} is answered {}", answer.status());
        Ok(answer.json().await?)
    }
}

pub fn feed(number: usize) -> String {
    format!("orders:{number}")
}

async fn ready(http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let ready = http.get(format!("{url}/readyz")).send().await;
        if ready.is_ok_and(|ready| ready.status() == 200) {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "no relay becomes ready");
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// An app for both providers, whose budgets are no limit and which wakes again soon.
async fn app(http: &reqwest::Client, url: &str, sim: &Sim) -> anyhow::Result<String> {
    let class = json!({"gap_s": 0, "budget": {"burst": 1000, "refill_s": 1}, "rewake_s": [2, 3, 5, 8, 13, 21, 34]});
    let wake = json!({"background": class, "alert": class});
    let settings = json!({"wake": {"ios": wake, "android": wake}});
    let post = async |path: String, body: Value| {
        let answer = http.post(format!("{url}{path}")).bearer_auth(OPERATOR_KEY).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{path} is answered {}", answer.status());
        anyhow::Ok(answer.json::<Value>().await?)
    };
    let app = post("/v1/apps".into(), json!({"name": "shop", "settings": settings})).await?;
    let id = app["id"].as_str().context("an app has an id")?;
    let key = post(format!("/v1/apps/{id}/keys"), json!({"name": "backend", "scopes": ["admin"]})).await?;
    let key = key["secret"].as_str().context("a key has a secret")?.to_owned();
    for (transport, credential) in [("fcm", sim.fcm_credential()), ("apns", sim.apns_credential())] {
        let put = http.put(format!("{url}/v1/credentials/{transport}")).bearer_auth(&key).json(&credential);
        ensure!(put.send().await?.status().is_success(), "the relay takes the credential for {transport}");
    }
    Ok(key)
}

/// A backend. What it posts it posts until it is answered, as the contract says: with the same key.
struct Writer {
    number: usize,
    http: reqwest::Client,
    url: String,
    key: String,
    ledger: Arc<Ledger>,
    chance: StdRng,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut last_position = 0;
        for count in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let feed = feed(self.chance.random_range(0..FEEDS));
            let item = format!("order-{}", count % 7);
            let mut body = json!({"feed": feed, "type": "order", "key": item, "data": count});
            let class = match self.chance.random_range(0..10) {
                0 => "none",
                1..=2 => "alert",
                _ => "background",
            };
            body["wake"] = json!({"class": class});
            if class == "alert" {
                body["wake"]["alert"] = json!({"title": "Your order"});
            }
            let key = format!("writer-{}-{count}", self.number);
            let answer = self.post(&key, &body).await;
            let at_ms = now_ms();
            let (Some(id), Some(position)) = (answer["id"].as_str(), answer["position"].as_i64()) else {
                return self.ledger.accuse(format!("an event was answered {answer}"));
            };
            if position <= last_position {
                self.ledger.accuse(format!("{position} came after {last_position} of the same backend"));
            }
            last_position = position;
            let (id, wakes) = (id.to_owned(), class != "none");
            self.ledger.accept(position, Accepted { id, feed, item, wakes, at_ms });
            if self.chance.random_bool(0.1) {
                let again = self.post(&key, &body).await;
                self.ledger.replays.fetch_add(1, Ordering::Relaxed);
                if (&again["id"], &again["position"]) != (&answer["id"], &answer["position"]) {
                    self.ledger.accuse(format!("{key} was answered {answer} and then {again}"));
                }
            }
            tokio::time::sleep(REST.mul_f64(self.chance.random_range(0.2..1.8))).await;
        }
    }

    async fn post(&self, key: &str, body: &Value) -> Value {
        loop {
            let request = self.http.post(&self.url).bearer_auth(&self.key).header("idempotency-key", key);
            if let Ok(answer) = request.json(body).send().await {
                let status = answer.status().as_u16();
                match (status, answer.json::<Value>().await) {
                    (202, Ok(answer)) => return answer,
                    (503 | 429 | 202, _) => {}
                    (status, answer) => self.ledger.accuse(format!("an event was answered {status}: {answer:?}")),
                }
            }
            self.ledger.turned_away.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
