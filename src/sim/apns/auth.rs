//! Judges APNs provider tokens as strictly as the documentation allows Apple to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hyper::header::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::rules::Refusal;
use crate::sim::certs::SigningKey;

/// `iat` may differ from the present by this much.
const LIFE_MS: i64 = 3_600_000;
/// A connection may change its token this often.
const UPDATE_GAP_MS: i64 = 20 * 60_000;
/// Verified tokens remembered for all connections together.
const REMEMBERED_TOKENS: usize = 1024;
/// Tokens a connection may go back to (calls already under way when the token changed).
const TOKENS_PER_CONNECTION: usize = 4;

/// The one key that may sign, and the tokens already checked.
pub(super) struct KeyRing {
    team_id: String,
    key_id: String,
    key: DecodingKey,
    verified: Mutex<HashMap<String, i64>>,
}

/// The provider tokens a connection has used, newest last.
#[derive(Default)]
pub(super) struct Session {
    tokens: Mutex<Vec<Used>>,
}

struct Used {
    token: String,
    issued_ms: i64,
    adopted_ms: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
}

impl KeyRing {
    /// Accepts tokens signed by `key` for `team_id`.
    ///
    /// # Errors
    /// When the public key does not parse.
    pub fn new(team_id: &str, key: &SigningKey) -> anyhow::Result<Self> {
        Ok(Self {
            team_id: team_id.to_owned(),
            key_id: key.key_id.clone(),
            key: DecodingKey::from_ec_pem(key.public_pem.as_bytes())?,
            verified: Mutex::default(),
        })
    }

    /// Checks the `authorization` header of a request on the connection of `session`.
    ///
    /// # Errors
    /// What APNs answers.
    pub fn check(&self, authorization: Option<&HeaderValue>, session: &Session, now_ms: i64) -> Result<(), Refusal> {
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .map(|(_, token)| token)
            .ok_or(Refusal::new(403, "MissingProviderToken"))?;
        let mut used = session.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = used.iter().find(|used| used.token == token) {
            return fresh(known.issued_ms, now_ms);
        }
        let issued_ms = self.verify(token)?;
        fresh(issued_ms, now_ms)?;
        if used.last().is_some_and(|last| now_ms - last.adopted_ms < UPDATE_GAP_MS) {
            return Err(Refusal::new(429, "TooManyProviderTokenUpdates"));
        }
        if used.len() >= TOKENS_PER_CONNECTION {
            used.remove(0);
        }
        used.push(Used { token: token.to_owned(), issued_ms, adopted_ms: now_ms });
        Ok(())
    }

    /// The time of issue of a well-signed token, in milliseconds since the epoch.
    fn verify(&self, token: &str) -> Result<i64, Refusal> {
        const INVALID: Refusal = Refusal::new(403, "InvalidProviderToken");
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(issued_ms) = verified.get(token) {
            return Ok(*issued_ms);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| INVALID)?;
        if header.alg != Algorithm::ES256 || header.kid.as_deref() != Some(self.key_id.as_str()) {
            return Err(INVALID);
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &rules).map_err(|_| INVALID)?.claims;
        if claims.iss != self.team_id {
            return Err(INVALID);
        }
        let issued_ms = claims.iat.saturating_mul(1000);
        if verified.len() >= REMEMBERED_TOKENS {
            verified.clear();
        }
        verified.insert(token.to_owned(), issued_ms);
        Ok(issued_ms)
    }
}

fn fresh(issued_ms: i64, now_ms: i64) -> Result<(), Refusal> {
    match now_ms.saturating_sub(issued_ms) {
        age if age > LIFE_MS => Err(Refusal::new(403, "ExpiredProviderToken")),
        age if age < -LIFE_MS => Err(Refusal::new(403, "InvalidProviderToken")),
        _ => Ok(()),
    }
}
