//! What goes wrong at a simulated provider, on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What happens instead of the normal answer. Faults befall only requests that are otherwise right: a wrong one is told so first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// An error answer in the provider's own JSON. FCM: `reason` is the `FcmError` code (`UNAVAILABLE`), optionally with the field at
    /// fault (`INVALID_ARGUMENT:message.token`); without a reason the error carries no details.
    Status {
        /// The HTTP status.
        status: u16,
        /// The provider's word for it.
        #[serde(default)]
        reason: Option<String>,
        /// The `Retry-After` header, as it is: seconds or an HTTP date.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// RST_STREAM with INTERNAL_ERROR (HTTP/1.1: the connection is closed without an answer).
    Reset,
    /// GOAWAY, with `{"reason": …}` (APNs) or the bare word (FCM) as debug data. This request is refused unprocessed; the others under
    /// way on the connection are still answered, then it is closed.
    GoAway {
        /// The debug data; none if absent.
        #[serde(default)]
        reason: Option<String>,
    },
    /// A 502 from something in between that speaks HTML.
    #[serde(rename = "html_502")]
    Html502,
    /// A status without any body.
    Empty {
        /// The HTTP status.
        status: u16,
    },
    /// Never answered; the stream stays open until the client gives up.
    BlackHole,
    /// Answered 200 and delivered to nobody.
    Lost,
    /// The answer comes this much later; the push itself arrives at once. Later faults still apply.
    #[serde(rename = "delay_ms", with = "millis")]
    Delay(Duration),
}

/// A [`FaultKind`], whom it befalls and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Only requests to this device token; all if absent.
    #[serde(default)]
    pub token: Option<String>,
    /// How many requests; until cleared if absent.
    #[serde(default)]
    pub count: Option<usize>,
    /// What happens.
    pub fault: FaultKind,
}

impl Fault {
    /// For every request, until cleared.
    pub fn new(fault: FaultKind) -> Self {
        Self { token: None, count: None, fault }
    }

    /// Only for requests to `token`.
    #[must_use]
    pub fn to_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Only for the next `count` requests.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.count = Some(count);
        self
    }
}

impl From<FaultKind> for Fault {
    fn from(fault: FaultKind) -> Self {
        Self::new(fault)
    }
}

/// One simulated provider's bad days, and its counters.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    paused: watch::Sender<bool>,
    received: AtomicUsize,
    connections: AtomicUsize,
    refused_streams: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Fault>,
    dead: HashMap<String, Option<i64>>,
    lose_next: usize,
    lose_share: Option<LoseShare>,
    delay: Option<Duration>,
}

struct LoseShare {
    percent: u8,
    dice: u64,
}

/// What the provider does with a right request.
pub(super) struct Verdict {
    /// How long the answer is held.
    pub delay: Option<Duration>,
    pub effect: Effect,
}

/// See [`Verdict`].
pub(super) enum Effect {
    Deliver,
    Lose,
    /// The token is dead since then (milliseconds since the epoch).
    Dead {
        since_ms: Option<i64>,
    },
    Fault(FaultKind),
}

impl Faults {
    /// The next `count` right requests are answered 200 and delivered to nobody.
    pub fn lose(&self, count: usize) {
        self.lock().lose_next = count;
    }

    /// From now on `percent` of the right requests are answered 200 and delivered to nobody, the same ones for the same `seed`.
    pub fn lose_share(&self, percent: u8, seed: u64) {
        self.lock().lose_share = (percent > 0).then_some(LoseShare { percent, dice: seed });
    }

    /// Queues a fault. The oldest one that fits a request befalls it.
    pub fn answer(&self, fault: impl Into<Fault>) {
        let fault = fault.into();
        if fault.count != Some(0) {
            self.lock().queue.push_back(fault);
        }
    }

    /// The app was removed from this device: APNs answers 410 `Unregistered` with this timestamp (milliseconds since the epoch; `None`
    /// = the time of the answer), FCM answers 404 `UNREGISTERED`.
    pub fn dead_token(&self, token: &str, since_ms: Option<i64>) {
        self.lock().dead.insert(token.to_owned(), since_ms);
    }

    /// The same token is valid again.
    pub fn revive_token(&self, token: &str) {
        self.lock().dead.remove(token);
    }

    /// Every answer comes this much later.
    pub fn delay(&self, delay: Duration) {
        self.lock().delay = (!delay.is_zero()).then_some(delay);
    }

    /// Ends every fault, dead token, delay and pause. Counters stay.
    pub fn clear(&self) {
        *self.lock() = State::default();
        self.resume();
    }

    /// Requests are still received, counted and delivered, but their answers are held until [`Faults::resume`].
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Lets the held answers go.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Send requests that reached the provider so far, whatever became of them; streams it refused unread do not count.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// Connections opened so far (TLS done).
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Streams APNs refused because they were opened beside the first one before it had authenticated.
    pub fn refused_streams(&self) -> usize {
        self.refused_streams.load(Ordering::Relaxed)
    }

    /// The queued faults that have not run out.
    pub fn queued(&self) -> Vec<Fault> {
        self.lock().queue.iter().cloned().collect()
    }

    pub(super) fn count_request(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused_stream(&self) {
        self.refused_streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Decides about a right request to `token`, using up what is counted.
    pub(super) fn decide(&self, token: &str) -> Verdict {
        let mut state = self.lock();
        let mut delay = state.delay;
        if let Some(since_ms) = state.dead.get(token) {
            return Verdict { delay, effect: Effect::Dead { since_ms: *since_ms } };
        }
        let mut delayed = false;
        let effect = loop {
            match state.next_fault(token, delayed) {
                Some(FaultKind::Delay(more)) => {
                    delay = Some(delay.unwrap_or_default() + more);
                    delayed = true;
                }
                Some(FaultKind::Lost) => break Effect::Lose,
                Some(fault) => break Effect::Fault(fault),
                None if state.loses() => break Effect::Lose,
                None => break Effect::Deliver,
            }
        };
        Verdict { delay, effect }
    }

    /// Whether [`Faults::hold`] would wait.
    pub(super) fn holds(&self, delay: Option<Duration>) -> bool {
        delay.is_some() || *self.paused.borrow()
    }

    /// Waits for the delay and for the end of a pause.
    pub(super) async fn hold(&self, delay: Option<Duration>) {
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        if *self.paused.borrow() {
            let mut paused = self.paused.subscribe();
            // An error means that the sender is gone; it lives in `self`.
            let _ = paused.wait_for(|paused| !paused).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The oldest fault for `token`; one delay per request, so that an endless one ends.
    fn next_fault(&mut self, token: &str, delayed: bool) -> Option<FaultKind> {
        let fits = |fault: &Fault| {
            fault.token.as_deref().is_none_or(|only| only == token)
                && !(delayed && matches!(fault.fault, FaultKind::Delay(_)))
        };
        let index = self.queue.iter().position(fits)?;
        let fault = self.queue.get_mut(index)?;
        let kind = fault.fault.clone();
        if let Some(count) = &mut fault.count {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.queue.remove(index);
            }
        }
        Some(kind)
    }

    fn loses(&mut self) -> bool {
        if self.lose_next > 0 {
            self.lose_next -= 1;
            return true;
        }
        self.lose_share.as_mut().is_some_and(LoseShare::roll)
    }
}

impl LoseShare {
    /// SplitMix64: a reproducible die is all that is needed.
    fn roll(&mut self) -> bool {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100 < u64::from(self.percent)
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
