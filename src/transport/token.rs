//! Proof of who we are: JWTs for Apple, access tokens from Google.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use hyper::header::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;
use url::Url;

use crate::domain::{
    credential::{ApnsCredential, Credential, FcmCredential},
    device::Transport,
    push::Meaning,
    time::{Clock, Timestamp},
};
use crate::metrics::Metrics;

/// Apple wants a token "at least once an hour", and as old as possible.
const APNS_REUSE: Duration = Duration::from_secs(50 * 60);
/// Apple: "no more than once every 20 minutes".
const APNS_LEAST: Duration = Duration::from_secs(20 * 60);
/// What our clock may jump back before the token's `iat` looks like the future.
const APNS_SKEW: Duration = Duration::from_secs(60);
/// The scope that `messages:send` asks for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Google: `exp` is at most an hour after `iat`.
const ASSERTION_S: i64 = 3600;
/// Time for one request to the token endpoint.
const FETCH: Duration = Duration::from_secs(10);
/// Most of the token endpoint's answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
/// A token this young is not thrown away for a 401.
const GOOGLE_LEAST: Duration = Duration::from_secs(5);
/// First pause after a failed fetch; it doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after failed fetches.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoToken {
    /// `Unavailable` or `CredentialFault`.
    pub(super) meaning: Meaning,
    /// Safe to show.
    pub(super) reason: String,
}

/// Proves that a credential's key parses and signs; the error is safe to show.
pub fn prove(credential: &Credential) -> Result<(), String> {
    match credential {
        Credential::Apns(credential) => {
            let token = ApnsToken::new(credential)?;
            token.mint(Timestamp::from_ms(0)).map(drop)
        }
        Credential::Fcm(credential) => {
            let key = rsa_key(credential)?;
            assertion(credential, &key, Timestamp::from_ms(0)).map(drop)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bearer(word: &str, token: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(&format!("{word} {token}")).map_err(|_| "the token cannot be a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The provider token of one (team, key); the same for all connections.
pub(super) struct ApnsToken {
    team_id: String,
    key_id: String,
    key: EncodingKey,
    minted: Mutex<Option<Minted>>,
}

struct Minted {
    bearer: HeaderValue,
    at: Timestamp,
}

#[derive(Serialize)]
struct ApnsClaims<'a> {
    iss: &'a str,
    iat: i64,
}

impl ApnsToken {
    pub(super) fn new(credential: &ApnsCredential) -> Result<Self, String> {
        let key = EncodingKey::from_ec_pem(credential.private_key.expose_secret().as_bytes())
            .map_err(|_| "the private key is not a PEM-encoded P-256 key as Apple gives it (.p8)".to_owned())?;
        let (team_id, key_id) = (credential.team_id.clone(), credential.key_id.clone());
        Ok(Self { team_id, key_id, key, minted: Mutex::new(None) })
    }

    /// The `authorization` header; minted at most every 50 minutes. Signing takes microseconds, so whoever comes meanwhile waits.
    pub(super) fn bearer(&self, now: Timestamp, metrics: &Metrics) -> Result<HeaderValue, String> {
        let mut minted = lock(&self.minted);
        if let Some(minted) = &*minted
            && now.since(minted.at) < APNS_REUSE
            && minted.at <= now + APNS_SKEW
        {
            return Ok(minted.bearer.clone());
        }
        let bearer = self.mint(now);
        metrics.token_refreshed(Transport::Apns, if bearer.is_ok() { "ok" } else { "failed" });
        let bearer = bearer?;
        *minted = Some(Minted { bearer: bearer.clone(), at: now });
        Ok(bearer)
    }

    /// The provider called `used` stale: the next call mints another, unless this one is too young for that.
    pub(super) fn reject(&self, used: &HeaderValue, now: Timestamp) {
        let mut minted = lock(&self.minted);
        if minted.as_ref().is_some_and(|minted| minted.bearer == *used && now.since(minted.at) >= APNS_LEAST) {
            *minted = None;
        }
    }

    fn mint(&self, now: Timestamp) -> Result<HeaderValue, String> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.key_id.clone());
        let claims = ApnsClaims { iss: &self.team_id, iat: now.as_s() };
        let token = jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| "the private key does not sign with ES256".to_owned())?;
        bearer("bearer", &token)
    }
}

/// One [`ApnsToken`] per (team, key), however many credentials hold that key: Apple counts them together.
#[derive(Default)]
pub(super) struct ApnsTokens {
    known: Mutex<HashMap<[u8; 32], Weak<ApnsToken>>>,
}

impl ApnsTokens {
    pub(super) fn get(&self, credential: &ApnsCredential) -> Result<Arc<ApnsToken>, String> {
        let mut digest = Sha256::new();
        for part in [&credential.team_id, &credential.key_id, credential.private_key.expose_secret()] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let mut known = lock(&self.known);
        let id: [u8; 32] = digest.finalize().into();
        if let Some(token) = known.get(&id).and_then(Weak::upgrade) {
            return Ok(token);
        }
        known.retain(|_, token| token.strong_count() > 0);
        let token = Arc::new(ApnsToken::new(credential)?);
        known.insert(id, Arc::downgrade(&token));
        Ok(token)
    }
}

/// The access token of one service account.
pub(super) struct GoogleToken {
    credential: FcmCredential,
    key: EncodingKey,
    http: reqwest::Client,
    clock: Clock,
    metrics: Metrics,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// Tells those who wait that a fetch has ended.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    token: Option<Access>,
    fetching: bool,
    failures: u32,
    failed: Option<(NoToken, Timestamp)>,
}

struct Access {
    bearer: HeaderValue,
    fetched_at: Timestamp,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl State {
    /// The last failure, while it is too early to try again.
    fn too_early(&self, now: Timestamp) -> Option<NoToken> {
        let (failure, not_before) = self.failed.as_ref()?;
        let left = not_before.since(now);
        (!left.is_zero() && left <= PAUSE_MAX).then(|| failure.clone())
    }

    fn take_in(&mut self, fetched: Result<Access, NoToken>, now: Timestamp) {
        self.fetching = false;
        match fetched {
            Ok(access) => {
                *self = Self { token: Some(access), ..Self::default() };
            }
            Err(failure) => {
                let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
                self.failures = self.failures.saturating_add(1);
                self.failed = Some((failure, now + pause));
            }
        }
    }
}

impl GoogleToken {
    pub(super) fn new(
        credential: &FcmCredential,
        http: reqwest::Client,
        clock: Clock,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, String> {
        let key = rsa_key(credential)?;
        let credential = credential.clone();
        Ok(Arc::new(Self {
            credential,
            key,
            http,
            clock,
            metrics,
            tasks,
            state: Mutex::default(),
            ended: watch::Sender::new(()),
        }))
    }

    /// The `authorization` header. While a token serves, its successor is fetched in the background; without one, all callers wait
    /// for the same fetch.
    pub(super) async fn bearer(self: &Arc<Self>, deadline: Instant) -> Result<HeaderValue, NoToken> {
        loop {
            let mut ended = {
                let now = self.clock.now();
                let mut state = lock(&self.state);
                let too_early = state.too_early(now);
                let serving = state.token.as_ref().filter(|token| now < token.expires_at);
                let due = serving.is_none_or(|token| now >= token.renew_at);
                let serving = serving.map(|token| token.bearer.clone());
                if due && !state.fetching && too_early.is_none() {
                    state.fetching = true;
                    self.tasks.spawn(Arc::clone(self).renew());
                }
                match (serving, too_early) {
                    (Some(bearer), _) => return Ok(bearer),
                    (None, Some(failure)) if !state.fetching => return Err(failure),
                    (None, _) => self.ended.subscribe(),
                }
            };
            if timeout_at(deadline, ended.changed()).await.is_err() {
                let reason = "the token endpoint did not answer in time".to_owned();
                return Err(NoToken { meaning: Meaning::Unavailable, reason });
            }
        }
    }

    /// The provider refused `used`: the next call fetches another, unless this one is too young for that.
    pub(super) fn reject(&self, used: &HeaderValue) {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        if state
            .token
            .as_ref()
            .is_some_and(|token| token.bearer == *used && now.since(token.fetched_at) >= GOOGLE_LEAST)
        {
            state.token = None;
        }
    }

    async fn renew(self: Arc<Self>) {
        let fetched = match tokio::time::timeout(FETCH, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(unavailable("the token endpoint did not answer in time")),
        };
        self.metrics.token_refreshed(Transport::Fcm, if fetched.is_ok() { "ok" } else { "failed" });
        if let Err(failure) = &fetched {
            tracing::warn!(account = self.credential.client_email, reason = failure.reason, "no access token");
        }
        lock(&self.state).take_in(fetched, self.clock.now());
        self.ended.send_replace(());
    }

    async fn fetch(&self) -> Result<Access, NoToken> {
        let now = self.clock.now();
        let assertion = assertion(&self.credential, &self.key, now).map_err(fault)?;
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
        let sent = self.http.post(self.credential.token_uri.clone()).form(&form).send().await;
        let mut response = sent.map_err(|error| unavailable(words(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(words(&error)))? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(unavailable("the token endpoint's answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return access(&body, now);
        }
        let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
        let word = refusal.map_or_else(String::new, |refusal| format!(" {}", refusal.word()));
        let reason = format!("the token endpoint answered {}{word}", status.as_u16());
        if status.is_client_error() && !matches!(status.as_u16(), 408 | 429) {
            Err(fault(reason))
        } else {
            Err(unavailable(reason))
        }
    }
}

fn unavailable(reason: impl Into<String>) -> NoToken {
    NoToken { meaning: Meaning::Unavailable, reason: reason.into() }
}

fn fault(reason: impl Into<String>) -> NoToken {
    NoToken { meaning: Meaning::CredentialFault, reason: reason.into() }
}

/// What went wrong on the way, without URL or body.
fn words(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "the token endpoint did not answer in time"
    } else if error.is_connect() {
        "no connection to the token endpoint"
    } else {
        "the connection to the token endpoint broke"
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Refusal {
    /// The error's word, if it is one: whatever else stands there is not repeated.
    fn word(&self) -> &str {
        let is_word = self.error.len() <= 64 && self.error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if is_word { &self.error } else { "" }
    }
}

/// Reads a grant; the token is renewed after 80 % of its life.
fn access(body: &[u8], now: Timestamp) -> Result<Access, NoToken> {
    let granted: Granted =
        serde_json::from_slice(body).map_err(|_| unavailable("the token endpoint's answer is not a token"))?;
    let life_s = granted.expires_in.unwrap_or(3599).clamp(10, 86_400);
    let bearer = bearer("Bearer", &granted.access_token).map_err(unavailable)?;
    let renew_at = now + Duration::from_secs(life_s * 4 / 5);
    Ok(Access { bearer, fetched_at: now, renew_at, expires_at: now + Duration::from_secs(life_s) })
}

#[derive(Serialize)]
struct GoogleClaims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a Url,
    iat: i64,
    exp: i64,
}

fn rsa_key(credential: &FcmCredential) -> Result<EncodingKey, String> {
    EncodingKey::from_rsa_pem(credential.private_key.expose_secret().as_bytes())
        .map_err(|_| "the private key is not a PEM-encoded RSA key as Google gives it".to_owned())
}

fn assertion(credential: &FcmCredential, key: &EncodingKey, now: Timestamp) -> Result<String, String> {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(credential.private_key_id.clone());
    let iat = now.as_s();
    let claims = GoogleClaims {
        iss: &credential.client_email,
        scope: SCOPE,
        aud: &credential.token_uri,
        iat,
        exp: iat + ASSERTION_S,
    };
    jsonwebtoken::encode(&header, &claims, key).map_err(|_| "the private key does not sign with RS256".to_owned())
}
