//! Tickets: what a browser shows instead of a device token where it cannot send a header (EventSource, WebSocket). Good for one
//! connection, and not for long.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{Result, Store, db::Word};
use crate::{
    domain::{
        id::{AppId, DeviceId},
        time::Timestamp,
    },
    secret,
};

/// What is told to be a ticket.
pub const TICKET: &str = "tk_";
/// For how long one is good.
const LASTS: Duration = Duration::from_secs(30);

impl Store {
    /// Makes a ticket that stands for a device token, named by its hash. Answers until when it is good.
    pub async fn issue_ticket(&self, app: AppId, device: DeviceId, token: &str) -> Result<(SecretString, Timestamp)> {
        let (ticket, expires_at) = (secret::generate(TICKET), self.inner.clock.now() + LASTS);
        let sql =
            "insert into tickets (ticket_hash, app_id, device_id, token_hash, expires_at) values ($1, $2, $3, $4, $5)";
        let hash = secret::hash(ticket.expose_secret());
        self.db().execute(sql, (hash, Word(app), Word(device), token.to_owned(), expires_at.as_ms())).await?;
        Ok((ticket, expires_at))
    }

    /// Takes a ticket: who shows it next has none. Answers the hash of the token that it stands for.
    pub async fn take_ticket(&self, ticket: &str) -> Result<Option<String>> {
        // Who guesses does not get as far as the writer.
        let known = "select expires_at from tickets where ticket_hash = $1";
        if self.db().fetch_optional::<i64>(known, (secret::hash(ticket),)).await?.is_none() {
            return Ok(None);
        }
        let mut tx = self.db().begin().await?;
        let sql = "delete from tickets where ticket_hash = $1 returning token_hash, expires_at";
        let taken: Option<(String, i64)> = tx.fetch_optional(sql, (secret::hash(ticket),)).await?;
        tx.commit().await?;
        let now = self.inner.clock.now().as_ms();
        Ok(taken.filter(|(_, expires_at)| *expires_at > now).map(|(token, _)| token))
    }
}
