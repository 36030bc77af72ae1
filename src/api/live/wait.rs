//! Polls that wait until there is something (`Prefer: wait`, RFC 7240 §4.3).

use std::time::Duration;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{AUTHORIZATION, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::jittered;
use crate::{
    api::{auth, listen::Peer, page, page::Looked, problem::Result, sync::Look},
    domain::{id::AppId, limits},
    live::{End, Full, Heard, Live, Purpose, Seat, Who},
};

/// One whose place is taken has waited at least so long.
const REPLACED_AFTER: Duration = Duration::from_secs(1);
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// For how long a request would wait. It is only a preference, so what is no number is passed over, and what is too long is cut.
pub fn asked(headers: &HeaderMap) -> Option<u64> {
    let mut waits = page::preferences(headers).filter_map(|preference| {
        let (name, seconds) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds.trim().trim_matches('"').parse().ok())?
    });
    waits.next().map(|seconds: u64| seconds.min(limits::WAIT_S)).filter(|seconds| *seconds > 0)
}

/// What a poll that waits needs of its headers, in a copy: they lie in what has been read of the connection, and keep all of that.
pub fn kept(headers: &HeaderMap) -> HeaderMap {
    let needed = [AUTHORIZATION, IF_NONE_MATCH, PREFER];
    let mut kept = HeaderMap::with_capacity(needed.len());
    for name in needed {
        for value in headers.get_all(&name) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                kept.append(&name, value);
            }
        }
    }
    kept
}

/// A poll that waits, or does not.
pub enum Wait {
    /// It is answered at once: it did not ask for more, or is not one that may wait.
    No,
    /// It would wait, but there is no room.
    Crowded,
    /// It has a seat.
    Seated {
        /// Where it hears of what comes.
        seat: Seat,
        /// Who asks.
        peer: Peer,
        /// When it began.
        began: Instant,
        /// When it is answered in any case.
        until: Instant,
        /// For how long it asked to wait.
        wait_s: u64,
        /// Whether it has looked, and shown its key or token, since it listens.
        is_sure: bool,
    },
}

impl Wait {
    /// Takes a seat for a poll that asks to wait. It sits before it looks, so that nothing falls in between. Of each scope one waits.
    pub async fn begin(live: &Live, headers: &HeaderMap, app: AppId, who: Option<(Who, String)>, peer: Peer) -> Self {
        let Some((wait_s, (who, scope))) = asked(headers).zip(who) else {
            return Self::No;
        };
        let until = Instant::now() + jittered(Duration::from_secs(wait_s));
        let scope = match &who {
            Who::Device(_, token) => format!("{scope} {token}"),
            Who::Key(key) => format!("{scope} {key}"),
        };
        match live.join(app, who, Purpose::Wait(scope)).await {
            Ok(seat) => Self::Seated { seat, peer, began: Instant::now(), until, wait_s, is_sure: false },
            Err(Full) => Self::Crowded,
        }
    }

    /// How it looks.
    pub fn look(&self) -> Look {
        match self {
            Self::No => Look::Once,
            Self::Crowded => Look::Crowded,
            Self::Seated { .. } => Look::Listening,
        }
    }

    /// Whether it is answered with what it has seen.
    pub fn is_over(&self, looked: &Looked) -> bool {
        match self {
            Self::No | Self::Crowded => true,
            Self::Seated { until, .. } => looked.is_news() || Instant::now() >= *until,
        }
    }

    /// It listens from where it has looked. Whether it has missed nothing, and may wait; else it is to look once more.
    pub fn listen(&mut self, looked: &Looked) -> bool {
        let Self::Seated { seat, is_sure, .. } = self else { return false };
        let hears_all = seat.listen(&looked.feeds, looked.through);
        hears_all && std::mem::replace(is_sure, true)
    }

    /// Waits until it is to look again. Whether it is over instead, and answered with what it has seen.
    pub async fn hear(&mut self) -> Result<bool> {
        let Self::Seated { seat, peer, began, until, .. } = self else { return Ok(true) };
        peer.waits();
        match timeout_at(*until, seat.heard()).await {
            Ok(Heard::End(End::Revoked)) => Err(auth::ended()),
            Ok(Heard::End(End::Replaced)) => {
                // Two who take turns at one key would else ask as fast as they can.
                sleep_until(*began + REPLACED_AFTER).await;
                Ok(true)
            }
            Ok(Heard::End(End::TooSlow | End::Stopping)) => Ok(true),
            // One more look says that its cursor leads nowhere; without one, what there is.
            Ok(Heard::End(End::EpochChanged)) => {
                *until = Instant::now();
                Ok(false)
            }
            // Its last look as well: its cursor is to be as new as can be.
            Ok(Heard::Events(_) | Heard::Anew) | Err(_) => Ok(false),
        }
    }

    /// It is answered.
    pub fn end(self, looked: Looked) -> Response {
        let mut response = looked.into_response();
        if let Self::Seated { seat, wait_s, .. } = self {
            seat.may_return();
            if let Ok(applied) = HeaderValue::from_str(&format!("wait={wait_s}")) {
                response.headers_mut().insert(PREFERENCE_APPLIED, applied);
            }
        }
        response
    }
}
