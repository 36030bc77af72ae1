//! Google's token endpoint: a signed assertion of the service account for an access token.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::sim::SimClock;
use crate::sim::certs::SigningKey;

/// Where every Google library believes the token endpoint to be; some write it into `aud` whatever `token_uri` says.
const GOOGLE_TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Either lets its bearer send.
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"];
/// Google refuses assertions that live longer.
const ASSERTION_LIFE_S: i64 = 3600;
/// How far the clocks may differ.
const CLOCK_SKEW_S: i64 = 300;
/// Access tokens remembered; more than any test needs at once.
const OUTSTANDING_TOKENS: usize = 10_000;

/// The service account and the access tokens it was given.
pub(super) struct TokenEndpoint {
    client_email: String,
    audiences: [String; 2],
    key: DecodingKey,
    life: Duration,
    clock: SimClock,
    issued: AtomicUsize,
    /// Access token → when it ends, milliseconds since the epoch.
    outstanding: Mutex<HashMap<String, i64>>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    scope: String,
    aud: String,
    iat: i64,
    exp: i64,
}

/// An OAuth error: 400, or 401 where Google says so, with `error` and `error_description`.
type Refused = (u16, Value);

impl TokenEndpoint {
    /// `own_url` is where this endpoint is served; access tokens are good for `life`.
    ///
    /// # Errors
    /// When the public key does not parse.
    pub fn new(
        client_email: String,
        own_url: String,
        key: &SigningKey,
        life: Duration,
        clock: SimClock,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client_email,
            audiences: [own_url, GOOGLE_TOKEN_URL.to_owned()],
            key: DecodingKey::from_rsa_pem(key.public_pem.as_bytes())?,
            life,
            clock,
            issued: AtomicUsize::new(0),
            outstanding: Mutex::default(),
        })
    }

    /// Answers a form.
    pub fn answer(&self, form: &[u8]) -> (u16, Value) {
        match self.grant(form) {
            Ok(body) => (200, body),
            Err(refused) => refused,
        }
    }

    fn grant(&self, form: &[u8]) -> Result<Value, Refused> {
        let form: HashMap<_, _> = url::form_urlencoded::parse(form).into_owned().collect();
        if form.get("grant_type").map(String::as_str) != Some(GRANT_TYPE) {
            return Err(refused("unsupported_grant_type", "Invalid grant_type"));
        }
        let assertion =
            form.get("assertion").ok_or_else(|| refused("invalid_request", "Missing required parameter: assertion"))?;
        self.check(assertion)?;
        let token = format!("ya29.sim-{}", uuid::Uuid::new_v4().simple());
        let now_ms = self.clock.now_ms();
        let mut outstanding = self.outstanding();
        if outstanding.len() >= OUTSTANDING_TOKENS {
            outstanding.retain(|_, ends_ms| *ends_ms > now_ms);
        }
        if outstanding.len() >= OUTSTANDING_TOKENS {
            outstanding.clear();
        }
        let life_ms = i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX);
        outstanding.insert(token.clone(), now_ms.saturating_add(life_ms));
        self.issued.fetch_add(1, Ordering::Relaxed);
        Ok(json!({ "access_token": token, "expires_in": self.life.as_secs(), "token_type": "Bearer" }))
    }

    fn check(&self, assertion: &str) -> Result<(), Refused> {
        let grant = |description: &str| refused("invalid_grant", description);
        let mut rules = Validation::new(Algorithm::RS256);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(assertion, &self.key, &rules)
            .map_err(|_| grant("Invalid JWT Signature."))?
            .claims;
        if claims.iss != self.client_email {
            return Err(grant("Invalid grant: account not found"));
        }
        if !self.audiences.contains(&claims.aud) {
            return Err(grant("Invalid JWT: Failed audience check."));
        }
        let now_s = self.clock.now_ms() / 1000;
        let timely = claims.iat <= now_s + CLOCK_SKEW_S
            && claims.exp > now_s
            && claims.exp > claims.iat
            && claims.exp - claims.iat <= ASSERTION_LIFE_S;
        if !timely {
            return Err(grant(
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
                 Check your iat and exp values in the JWT claim.",
            ));
        }
        if claims.scope.split(' ').any(|scope| SCOPES.contains(&scope)) {
            Ok(())
        } else {
            Err(refused("invalid_scope", "Invalid OAuth scope or ID token audience provided."))
        }
    }

    /// Whether `token` was issued here and still holds.
    pub fn holds(&self, token: &str) -> bool {
        self.outstanding().get(token).is_some_and(|ends_ms| *ends_ms > self.clock.now_ms())
    }

    /// Ends all access tokens now.
    pub fn expire_all(&self) {
        self.outstanding().clear();
    }

    /// How many were issued so far.
    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }

    fn outstanding(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: &str, description: &str) -> Refused {
    (400, json!({ "error": error, "error_description": description }))
}
