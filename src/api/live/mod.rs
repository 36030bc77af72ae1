//! Live channels beside the push: polls that wait, server-sent events and WebSockets, one cursor for all (contract §5, decision 14).

mod diary;
mod line;
pub mod socket;
pub mod stream;
pub mod ticket;
pub mod wait;

use std::time::Duration;

use axum::{extract::FromRequestParts, http::request::Parts};
use rand::RngExt as _;

use super::{
    Api, auth,
    problem::{self, Problem, Result},
};
use crate::{
    live::Full,
    store::{Poller, TICKET},
};

/// When there may be room again.
const ROOM_AFTER: Duration = Duration::from_secs(30);

/// A device that connects, by its token or by a ticket in its stead.
pub struct Caller {
    poller: Poller,
    /// The hash of its token.
    token: String,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let token = match (auth::token_hash(&parts.headers), ticket(parts)) {
            (None, Some(ticket)) => api.store.take_ticket(&ticket).await?,
            (None, None) => {
                // Whoever else it is may not listen.
                let no_device = super::auth::Caller::from_request_parts(parts, api).await;
                return Err(no_device.err().unwrap_or_else(auth::not_a_device));
            }
            (token, _) => token,
        };
        let poller = match &token {
            Some(token) => api.store.poller_of(token).await?,
            None => None,
        };
        match poller.zip(token) {
            Some((poller, token)) => Ok(Self { poller, token }),
            None => Err(api.failed_authentication(parts)),
        }
    }
}

/// The ticket in the query of a request.
fn ticket(parts: &Parts) -> Option<String> {
    let pairs = url::form_urlencoded::parse(parts.uri.query()?.as_bytes());
    pairs
        .into_iter()
        .find(|(name, _)| name == "ticket")
        .map(|(_, ticket)| ticket.into_owned())
        .filter(|ticket| ticket.starts_with(TICKET))
}

impl From<Full> for Problem {
    fn from(_: Full) -> Self {
        Self::new(problem::CONNECTIONS_FULL, problem::CONNECTIONS_FULL.help).retry_after(jittered(ROOM_AFTER))
    }
}

/// As long, up to a tenth more or less, so that many who have begun at once do not end at once.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.9..1.1))
}
