//! Connections that are cut at any byte: through resume every event arrives, in order, once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::support::{
    live::{Socket, Stream},
    phone::Phone,
    proxy::Proxy,
    world::World,
};

const EVENTS: usize = 60;
/// A device may connect so often at once (contract §4).
const CUTS: usize = 14;
const LIMIT: Duration = Duration::from_secs(60);

/// What a phone keeps: what it has been told, in the order in which it came, and where it is.
struct Kept<'a> {
    phone: &'a Phone<'a>,
    cursor: RefCell<String>,
    seen: RefCell<Vec<(i64, String)>>,
}

impl Kept<'_> {
    fn take(&self, id: &str, event: &Value) {
        *self.cursor.borrow_mut() = id.to_owned();
        if event["type"] != "reveille.followed" {
            let position = event["position"].as_i64().unwrap();
            self.seen.borrow_mut().push((position, event["id"].as_str().unwrap().to_owned()));
        }
    }

    fn has_all(&self) -> bool {
        self.seen.borrow().len() >= EVENTS
    }

    /// Reads a stream until it breaks off.
    async fn read_stream(&self, port: u16) -> Option<()> {
        let url = format!("http://127.0.0.1:{port}/v1/sync/stream");
        // A client of its own, for a kept connection may be cut already.
        let request = reqwest::Client::new().get(url).bearer_auth(&self.phone.device_token);
        let request = request.header("last-event-id", self.cursor.borrow().as_str());
        let response = request.send().await.ok()?;
        let mut stream = Stream::of(response);
        while !self.has_all() {
            let sent = stream.next().await?;
            if sent.event == "event" {
                self.take(&sent.id.unwrap(), &sent.data);
            }
        }
        Some(())
    }

    /// The same of a WebSocket.
    async fn read_socket(&self, port: u16) -> Option<()> {
        let url = format!("http://127.0.0.1:{port}/v1/sync/ws");
        let mut socket = Socket::open(&url, Some(&self.phone.device_token), Some("reveille.v1")).await.ok()?;
        let subscribe = json!({"type": "subscribe", "after": self.cursor.borrow().clone()});
        socket.try_say(subscribe).await?;
        while !self.has_all() {
            let frame = socket.next().await.ok()?;
            if frame["type"] == "event" {
                self.take(frame["id"].as_str().unwrap(), &frame["event"]);
                socket.try_say(json!({"type": "ack", "cursor": frame["id"]})).await?;
            }
        }
        Some(())
    }

    /// The same of polls that wait; what a page has is taken only if all of it has come.
    async fn read_polls(&self, port: u16) -> Option<()> {
        let http = reqwest::Client::new();
        while !self.has_all() {
            let url = format!("http://127.0.0.1:{port}/v1/sync?after={}", self.cursor.borrow());
            let request = http.get(url).bearer_auth(&self.phone.device_token).header("prefer", "wait=5");
            let page: Value = request.send().await.ok()?.json().await.ok()?;
            let Some(events) = page["events"].as_array() else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return None;
            };
            for event in events {
                self.take(page["next"].as_str().unwrap(), event);
            }
        }
        Some(())
    }
}

#[tokio::test]
async fn connections_that_are_cut_at_any_byte_miss_nothing() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let world = World::start().await;
    let address = world.relay().address().unwrap().to_string();
    let mut phones = Vec::new();
    for number in 0..9 {
        let own = format!("own:{number}");
        phones.push(world.phone(&format!("phone-{number}")).follows(&["news", &own]).await);
    }
    let proxies = join_all(phones.iter().map(|_| {
        let mut cuts: Vec<Option<usize>> = (0..CUTS).map(|_| Some(rng.random_range(0..4000))).collect();
        cuts.reverse();
        Proxy::cutting(address.clone(), cuts)
    }))
    .await;
    let began = Instant::now();
    let read = async |number: usize| {
        let (phone, proxy) = (&phones[number], &proxies[number]);
        let kept = Kept { phone, cursor: phone.cursor().into(), seen: RefCell::default() };
        while !kept.has_all() {
            assert!(began.elapsed() < LIMIT, "{} of {EVENTS} came to {number}", kept.seen.borrow().len());
            match number % 3 {
                0 => kept.read_stream(proxy.port).await,
                1 => kept.read_socket(proxy.port).await,
                _ => kept.read_polls(proxy.port).await,
            };
        }
        kept.seen.into_inner()
    };
    let publish = async {
        let mut published = BTreeMap::new();
        for _ in 0..EVENTS {
            let event = world.publish("news").await;
            published.insert(event["position"].as_i64().unwrap(), event["id"].as_str().unwrap().to_owned());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        published.into_iter().collect::<Vec<_>>()
    };
    let (published, seen) = tokio::join!(publish, join_all((0..phones.len()).map(read)));
    for (number, seen) in seen.into_iter().enumerate() {
        assert_eq!(seen, published, "all of it, in order, once: phone {number}");
    }
}
