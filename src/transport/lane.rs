//! Our own HTTP/2 lane to a provider: several connections, a permit per stream, room from the peer's live SETTINGS.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::{Body as _, Bytes, Incoming},
};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::{
    dial::Endpoint,
    pool::{Permit, Pool},
};
use crate::{domain::time::Clock, metrics::Traffic};

/// Most of an answer's body that is read, in bytes.
const BODY_BYTES: usize = 64 * 1024;

/// How a lane behaves towards its provider.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    /// Connections open at once.
    pub connections: usize,
    /// Streams on one connection, whatever the peer would allow.
    pub streams: usize,
    /// What a new connection may carry before the peer has said what it allows.
    pub opening: Opening,
    /// Calls that may wait for a free stream.
    pub waiting: usize,
    /// A connection without a call for this long is closed.
    pub idle: Duration,
    /// Says of an answer that its connection is used up.
    pub ends_connection: fn(StatusCode, &[u8]) -> bool,
}

/// What a new connection may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// One stream until the first call has been authenticated (Apple: "Sending notification requests to APNs").
    Primed,
    /// As many as the cap.
    Wide,
}

impl LaneSettings {
    /// For APNs: 1000 streams have been seen, connections last hours to days.
    pub fn apns() -> Self {
        Self {
            connections: 8,
            streams: 1000,
            opening: Opening::Primed,
            waiting: 65_536,
            idle: Duration::from_secs(3600),
            ends_connection: super::apns::ends_connection,
        }
    }

    /// For FCM: more than 100 streams are answered with GOAWAY; Google itself closes what is idle for 4 minutes.
    pub fn fcm() -> Self {
        Self {
            connections: 16,
            streams: 100,
            opening: Opening::Wide,
            waiting: 65_536,
            idle: Duration::from_secs(600),
            ends_connection: |_, _| false,
        }
    }
}

/// The way to one host with one credential. Cheap to clone; the connections go when the last clone and call have gone.
#[derive(Clone)]
pub struct Lane {
    pool: Arc<Pool>,
}

/// What the provider answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or as much of it as came in time.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection, or it broke; the words are for people.
    Unreachable(String),
    /// It was sent, and no answer came before the deadline.
    Timeout,
}

/// Why one exchange has no answer.
enum Lost {
    /// The provider has certainly not seen to it.
    Untouched(String),
    /// It may have.
    Unknown(String),
    Timeout,
}

impl Lane {
    /// A lane that connects when it is first used; its tasks are counted by `tasks`.
    pub fn new(endpoint: Endpoint, settings: LaneSettings, clock: Clock, tasks: TaskTracker) -> Self {
        Self { pool: Pool::new(endpoint, settings, clock, tasks) }
    }

    /// Its connections, and the calls under way on them.
    pub fn traffic(&self) -> Traffic {
        self.pool.traffic()
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        self.pool.endpoint()
    }

    /// One exchange, over at `deadline`. A request that the provider has certainly not seen is sent again at once, twice at most: refused
    /// on one connection and then caught in its closing.
    pub async fn call(&self, mut request: Request<Full<Bytes>>, deadline: Instant) -> Result<Answer, Failure> {
        let mut repeats = 2;
        loop {
            let spare = request.clone();
            let permit = self.pool.permit(deadline).await.map_err(Failure::Unreachable)?;
            match self.exchange(permit, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Untouched(_)) if repeats > 0 => repeats -= 1,
                Err(Lost::Untouched(reason) | Lost::Unknown(reason)) => return Err(Failure::Unreachable(reason)),
                Err(Lost::Timeout) => return Err(Failure::Timeout),
            }
            request = spare;
        }
    }

    async fn exchange(
        &self,
        mut permit: Permit,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Answer, Lost> {
        let mut sender = permit.sender();
        let response = match timeout_at(deadline, sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                let returned = error.take_message().is_some();
                return Err(lost(&error.into_error(), returned));
            }
            Err(_) => return Err(Lost::Timeout),
        };
        drop(sender);
        let (parts, body) = response.into_parts();
        permit.answered(parts.status);
        let body = if body.is_end_stream() { Bytes::new() } else { read(body, deadline).await };
        if (self.pool.settings().ends_connection)(parts.status, &body) {
            permit.retire();
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Whether a broken exchange may have reached the provider.
fn lost(error: &hyper::Error, returned: bool) -> Lost {
    let reset = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    // A stream hears of a GOAWAY only if it lies beyond the last one the peer will process; one below it ends with an I/O error.
    let untouched = reset.is_some_and(|error| {
        let reason = error.reason();
        (error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR))
            || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
    });
    let words = match reset.and_then(h2::Error::reason) {
        Some(reason) => format!("the connection broke: {}", reason.description()),
        None => "the connection broke".to_owned(),
    };
    if returned || untouched { Lost::Untouched(words) } else { Lost::Unknown(words) }
}

/// Reads what comes before the deadline, and no more than [`BODY_BYTES`]: the status alone already says what to do.
async fn read(mut body: Incoming, deadline: Instant) -> Bytes {
    let mut whole: Vec<u8> = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let Ok(chunk) = frame.into_data() else { break };
        let room = BODY_BYTES - whole.len();
        if whole.is_empty() && chunk.len() <= room && body.is_end_stream() {
            return chunk;
        }
        whole.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if whole.len() == BODY_BYTES {
            break;
        }
    }
    whole.into()
}
