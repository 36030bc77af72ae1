//! The connections of one lane: who may use which stream, when another is opened, and how a broken one is replaced.
//!
//! All state is behind one lock that is never held across an await. Whoever frees room hands it to the longest waiter.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    StatusCode,
    body::Bytes,
    client::conn::http2::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

use super::{
    dial::{Ear, Endpoint, Heard},
    lane::{LaneSettings, Opening},
};
use crate::{
    domain::time::{Clock, Timestamp},
    metrics::Traffic,
};

/// How long DNS, TCP, TLS and the HTTP/2 preface may take together.
const CONNECT: Duration = Duration::from_secs(8);
/// How long a new connection may take before another is opened beside it.
const PATIENCE: Duration = Duration::from_secs(1);
/// First pause after a failed connection; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after failed connections.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pause that calls sit out; in a longer one they fail at once.
const PAUSE_SAT_OUT: Duration = Duration::from_millis(250);
/// A connection that ends sooner counts as failed, or a provider that hangs up on us would be dialled without end.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// A call this old, with nothing at all heard since it was sent, condemns its connection.
const MUTE: Duration = Duration::from_secs(5);

type Sender = SendRequest<Full<Bytes>>;
type Io = TokioIo<Heard<TlsStream<TcpStream>>>;

/// The connections of a lane.
pub(super) struct Pool {
    endpoint: Endpoint,
    settings: LaneSettings,
    clock: Clock,
    tasks: TaskTracker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Nobody waits while there is room.
    waiters: VecDeque<oneshot::Sender<Result<Arc<Conn>, String>>>,
    connecting: usize,
    last_start: Option<Instant>,
    failures: u32,
    not_before: Timestamp,
    last_error: String,
    next_id: u64,
}

/// A connection that takes calls.
struct Slot {
    conn: Arc<Conn>,
    in_flight: usize,
    /// What the peer's SETTINGS allow.
    allowed: usize,
    primed: bool,
}

/// A connection; it winds down when the last reference has gone.
struct Conn {
    id: u64,
    sender: Sender,
    ear: Arc<Ear>,
    proven: AtomicBool,
}

impl Slot {
    fn room(&self, settings: &LaneSettings) -> usize {
        let limit = if self.primed { settings.streams } else { 1 };
        limit.min(self.allowed).saturating_sub(self.in_flight)
    }
}

impl State {
    /// A stream on the emptiest connection.
    fn take(&mut self, settings: &LaneSettings) -> Option<Arc<Conn>> {
        let slots = self.slots.iter_mut().filter(|slot| !slot.conn.sender.is_closed());
        let slot = slots.max_by_key(|slot| slot.room(settings)).filter(|slot| slot.room(settings) > 0)?;
        slot.in_flight += 1;
        Some(Arc::clone(&slot.conn))
    }

    /// Gives a stream to the longest waiter that is still there; false if there is none.
    fn hand(&mut self, conn: Arc<Conn>) -> bool {
        let mut turn = Ok(conn);
        while let Some(waiter) = self.waiters.pop_front() {
            match waiter.send(turn) {
                Ok(()) => return true,
                Err(unwanted) => turn = unwanted,
            }
        }
        false
    }

    fn turn_away(&mut self, reason: &str) {
        for waiter in self.waiters.drain(..) {
            let _gone = waiter.send(Err(reason.to_owned()));
        }
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.conn.id == id)
    }

    /// How much longer no connection may be opened.
    fn pause(&self, now: Timestamp) -> Duration {
        let left = self.not_before.since(now);
        // A machine's clock that was put back must not stop us for longer than any pause.
        if left > PAUSE_MAX { Duration::ZERO } else { left }
    }

    fn fail(&mut self, reason: &str, now: Timestamp) {
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + doubled.mul_f64(rand::random_range(0.5..=1.0));
        reason.clone_into(&mut self.last_error);
    }
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint, settings: LaneSettings, clock: Clock, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { endpoint, settings, clock, tasks, state: Mutex::default() })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn settings(&self) -> &LaneSettings {
        &self.settings
    }

    /// The connections, and the calls under way on them.
    pub(super) fn traffic(&self) -> Traffic {
        let state = self.lock();
        Traffic { connections: state.slots.len(), streams: state.slots.iter().map(|slot| slot.in_flight).sum() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream to send on; the error says why there is none.
    pub(super) async fn permit(self: &Arc<Self>, deadline: Instant) -> Result<Permit, String> {
        let mut turn = {
            let mut state = self.lock();
            if state.waiters.is_empty()
                && let Some(conn) = state.take(&self.settings)
            {
                return Ok(Permit::new(self, conn));
            }
            if state.waiters.len() >= self.settings.waiting {
                return Err("too many calls wait for a free stream".to_owned());
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(sender);
            self.settle(&mut state);
            Turn { pool: self, receiver }
        };
        match timeout_at(deadline, &mut turn.receiver).await {
            Ok(Ok(Ok(conn))) => Ok(Permit::new(self, conn)),
            Ok(Ok(Err(reason))) => Err(reason),
            Ok(Err(_)) => Err("the lane was closed".to_owned()),
            Err(_) => Err("no stream became free in time".to_owned()),
        }
    }

    /// Hands out what room there is; opens a connection for those who still wait, or sends them away if none can be had soon.
    fn settle(self: &Arc<Self>, state: &mut State) {
        while !state.waiters.is_empty()
            && let Some(conn) = state.take(&self.settings)
        {
            let id = conn.id;
            if !state.hand(conn)
                && let Some(slot) = state.slot(id)
            {
                slot.in_flight -= 1;
            }
        }
        if state.waiters.is_empty() {
            return;
        }
        self.grow(state);
        if state.slots.is_empty() && state.connecting == 0 {
            let reason = state.last_error.clone();
            state.turn_away(&reason);
        }
    }

    fn grow(self: &Arc<Self>, state: &mut State) {
        if state.slots.len() + state.connecting >= self.settings.connections {
            return;
        }
        let warming = state.connecting > 0 || state.slots.iter().any(|slot| !slot.primed);
        if warming && state.last_start.is_some_and(|start| start.elapsed() < PATIENCE) {
            return;
        }
        let pause = state.pause(self.clock.now());
        let sit_out = if state.slots.is_empty() { PAUSE_SAT_OUT } else { Duration::ZERO };
        if pause > sit_out {
            return;
        }
        state.connecting += 1;
        state.last_start = Some(Instant::now());
        self.tasks.spawn(connect(Arc::downgrade(self), pause));
    }

    async fn open(&self) -> Result<(Sender, Connection<Io, Full<Bytes>, Spawner>, Arc<Ear>), String> {
        let stream = self.endpoint.dial().await?;
        let ear = stream.ear();
        let first = match self.settings.opening {
            Opening::Primed => 1,
            Opening::Wide => self.settings.streams,
        };
        let (sender, connection) = Builder::new(Spawner(self.tasks.clone()))
            .initial_max_send_streams(first)
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(1 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("HTTP/2 failed: {error}"))?;
        Ok((sender, connection, ear))
    }

    fn adopt(self: &Arc<Self>, sender: Sender, ear: Arc<Ear>, allowed: usize) -> u64 {
        let mut state = self.lock();
        state.connecting = state.connecting.saturating_sub(1);
        state.next_id += 1;
        let id = state.next_id;
        let conn = Arc::new(Conn { id, sender, ear, proven: AtomicBool::new(false) });
        state.slots.push(Slot { conn, in_flight: 0, allowed, primed: self.settings.opening == Opening::Wide });
        self.settle(&mut state);
        id
    }

    fn connect_failed(self: &Arc<Self>, reason: &str) {
        tracing::warn!(host = self.endpoint.authority(), reason, "no connection to the provider");
        let mut state = self.lock();
        state.connecting = state.connecting.saturating_sub(1);
        state.fail(reason, self.clock.now());
        // Whoever waited for this connection hears of its failure now; the next caller starts the next try.
        if state.slots.is_empty() && state.connecting == 0 {
            state.turn_away(reason);
        }
    }

    fn allow(self: &Arc<Self>, id: u64, allowed: usize) {
        let mut state = self.lock();
        if let Some(slot) = state.slot(id) {
            slot.allowed = allowed;
            self.settle(&mut state);
        }
    }

    /// Gives a connection no more calls; those in flight finish on it.
    fn retire(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        let Some(index) = state.slots.iter().position(|slot| slot.conn.id == id) else {
            return;
        };
        let slot = state.slots.swap_remove(index);
        if slot.conn.ear.opened().elapsed() < SHORT_LIFE {
            state.fail("the provider closed the connection", self.clock.now());
        }
        self.settle(&mut state);
    }

    fn retire_if_idle(self: &Arc<Self>, id: u64) {
        let idle = self
            .lock()
            .slot(id)
            .is_some_and(|slot| slot.in_flight == 0 && slot.conn.ear.last_heard().elapsed() >= self.settings.idle);
        if idle {
            self.retire(id);
        }
    }

    fn release(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        if let Some(slot) = state.slot(id) {
            slot.in_flight -= 1;
        }
        if !state.waiters.is_empty() {
            self.settle(&mut state);
        }
    }
}

/// Opens one connection and stays with it until it ends.
async fn connect(pool: Weak<Pool>, pause: Duration) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let Some(strong) = pool.upgrade() else { return };
    let opened = timeout(CONNECT, strong.open()).await.unwrap_or_else(|_| Err("connecting took too long".to_owned()));
    let (sender, connection, ear) = match opened {
        Ok(opened) => opened,
        Err(reason) => return strong.connect_failed(&reason),
    };
    let allowed = connection.current_max_send_streams();
    let idle = strong.settings.idle;
    let id = strong.adopt(sender, Arc::clone(&ear), allowed);
    drop(strong);
    drive(&pool, id, connection, &ear, allowed, idle).await;
    if let Some(pool) = pool.upgrade() {
        pool.retire(id);
    }
}

async fn drive(
    pool: &Weak<Pool>,
    id: u64,
    connection: Connection<Io, Full<Bytes>, Spawner>,
    ear: &Ear,
    mut allowed: usize,
    idle: Duration,
) {
    let mut connection = pin!(connection);
    let mut check = interval((idle / 4).max(Duration::from_millis(1)));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ended = &mut connection => return,
            () = ear.news.notified() => {}
            _ = check.tick() => if let Some(pool) = pool.upgrade() {
                pool.retire_if_idle(id);
            },
        }
        let now_allowed = connection.current_max_send_streams();
        if now_allowed != allowed
            && let Some(pool) = pool.upgrade()
        {
            allowed = now_allowed;
            pool.allow(id, allowed);
        }
    }
}

/// The right to one stream; dropping it gives the stream back.
pub(super) struct Permit {
    pool: Arc<Pool>,
    conn: Arc<Conn>,
    sent_at: Option<Instant>,
}

impl Permit {
    fn new(pool: &Arc<Pool>, conn: Arc<Conn>) -> Self {
        Self { pool: Arc::clone(pool), conn, sent_at: None }
    }

    /// Where to send; hyper's own queue has no bound, so nothing is sent without a permit.
    pub(super) fn sender(&mut self) -> Sender {
        self.sent_at = Some(Instant::now());
        self.conn.sender.clone()
    }

    /// The provider answered: unless it refused our credential, a new connection opens up.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.sent_at = None;
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if refused || self.conn.proven.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut state = self.pool.lock();
        state.failures = 0;
        if let Some(slot) = state.slot(self.conn.id) {
            slot.primed = true;
            self.pool.settle(&mut state);
        }
    }

    /// The connection takes no more calls.
    pub(super) fn retire(&self) {
        self.pool.retire(self.conn.id);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mute =
            self.sent_at.is_some_and(|sent_at| sent_at.elapsed() >= MUTE && self.conn.ear.last_heard() < sent_at);
        if mute {
            tracing::warn!(host = self.pool.endpoint.authority(), "a connection has gone mute");
            self.pool.retire(self.conn.id);
        }
        self.pool.release(self.conn.id);
    }
}

/// A place in the queue. What arrives after its owner has left goes back.
struct Turn<'a> {
    pool: &'a Arc<Pool>,
    receiver: oneshot::Receiver<Result<Arc<Conn>, String>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(Ok(conn)) = self.receiver.try_recv() {
            self.pool.release(conn.id);
        }
    }
}

/// Runs hyper's tasks where shutdown can wait for them.
#[derive(Clone)]
struct Spawner(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
