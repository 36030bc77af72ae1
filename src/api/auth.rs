//! Who is calling: operator, app key, or device; and how often they may.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Api,
    listen::Peer,
    problem::{self, Problem, Result},
};
use crate::{
    domain::{
        id::{AppId, DeviceId},
        key::Scope,
        limits,
    },
    secret,
    store::{Device, KeyHolder, Poller},
    transport::LaneKey,
};

/// Whose requests are counted before all are forgotten that have calmed down.
const COUNTED: usize = 100_000;

/// Who is calling.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The holder of the operator key, and the app in whose stead they ask.
    Operator(Option<AppId>),
    /// The holder of an app key.
    Key(KeyHolder),
    /// A device.
    Device(Box<Device>),
}

impl Caller {
    /// The operator, or 403.
    pub fn operator(&self) -> Result<()> {
        match self {
            Self::Operator(_) => Ok(()),
            _ => Err(Problem::new(problem::FORBIDDEN, "this route takes the operator key")),
        }
    }

    /// The app of a key that has one of `scopes`, or that the operator has named; or 403 naming the first scope.
    pub fn app(&self, scopes: &[Scope]) -> Result<AppId> {
        let holder = match self {
            Self::Key(holder) => holder,
            Self::Operator(Some(app)) => return Ok(*app),
            Self::Operator(None) => {
                return Err(Problem::new(
                    problem::FORBIDDEN,
                    "this route takes an app key, or Reveille-App with the operator key",
                ));
            }
            Self::Device(_) => return Err(Problem::new(problem::FORBIDDEN, "this route takes an app key")),
        };
        let has = |wanted: &Scope| holder.scopes.iter().any(|scope| scope.covers(*wanted));
        if scopes.iter().any(has) {
            return Ok(holder.app);
        }
        let wanted = scopes.first().map_or("", |scope| scope.as_str());
        Err(Problem::new(problem::MISSING_SCOPE, format!("the app key lacks the scope {wanted}")).with("scope", wanted))
    }

    /// The device, or 403.
    pub fn device(self) -> Result<Device> {
        match self {
            Self::Device(device) => Ok(*device),
            Self::Operator(_) | Self::Key(_) => Err(not_a_device()),
        }
    }
}

/// The answer to one who is no device.
pub fn not_a_device() -> Problem {
    Problem::new(problem::FORBIDDEN, "this route takes a device token")
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let secret = bearer(&parts.headers);
        match api.caller(&parts.headers).await? {
            Some(Caller::Operator(_)) => Ok(Caller::Operator(api.named_app(parts).await?)),
            Some(caller) => Ok(caller),
            None => Err(api.limiters.failed_authentication(address(parts), secret.is_some())),
        }
    }
}

impl FromRequestParts<Api> for Poller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        match bearer(&parts.headers) {
            Some(secret) if secret.expose_secret().starts_with(DEVICE_TOKEN) => {
                let poller = api.store.poller(secret.expose_secret()).await?;
                poller.ok_or_else(|| api.failed_authentication(parts))
            }
            // Whoever else it is may not poll.
            _ => Box::pin(Caller::from_request_parts(parts, api)).await.and_then(|_| Err(not_a_device())),
        }
    }
}

/// By which the operator names the app in whose stead they ask (contract §4).
pub const REVEILLE_APP: HeaderName = HeaderName::from_static("reveille-app");
/// What device tokens begin with.
const DEVICE_TOKEN: &str = "dt_";

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim().to_owned().into())
}

/// How the device token that a request shows is stored.
pub fn token_hash(headers: &HeaderMap) -> Option<String> {
    let secret = bearer(headers).filter(|secret| secret.expose_secret().starts_with(DEVICE_TOKEN))?;
    Some(secret::hash(secret.expose_secret()))
}

/// The answer to one whose key or token has ended while they waited.
pub fn ended() -> Problem {
    Problem::new(problem::UNAUTHORIZED, "the key or token has ended")
}

fn address(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().and_then(Peer::ip)
}

impl Api {
    /// The answer to a key or token that is not good.
    pub fn failed_authentication(&self, parts: &Parts) -> Problem {
        self.limiters.failed_authentication(address(parts), true)
    }

    /// Whose key or token a request shows, if anybody's.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>> {
        match bearer(headers) {
            None => Ok(None),
            Some(secret) => self.recognise(secret.expose_secret()).await,
        }
    }

    /// Whose device token a request shows, if any's, as polls need it.
    pub async fn poller(&self, headers: &HeaderMap) -> Result<Option<Poller>> {
        match bearer(headers) {
            Some(secret) => Ok(self.store.poller(secret.expose_secret()).await?),
            None => Ok(None),
        }
    }

    async fn recognise(&self, secret: &str) -> Result<Option<Caller>> {
        if secret.starts_with(DEVICE_TOKEN) {
            return Ok(self.store.device_holder(secret).await?.map(|device| Caller::Device(Box::new(device))));
        }
        if secret.starts_with("rk_") {
            return Ok(self.store.key_holder(secret).await?.map(Caller::Key));
        }
        let operator = self.operator_key.as_ref().is_some_and(|key| secret::same(key.expose_secret(), secret));
        Ok(operator.then_some(Caller::Operator(None)))
    }

    /// The app that a request of the operator's names, if any.
    async fn named_app(&self, parts: &Parts) -> Result<Option<AppId>> {
        let Some(name) = parts.headers.get(REVEILLE_APP) else {
            return Ok(None);
        };
        let app: Option<AppId> = name.to_str().ok().and_then(|name| name.parse().ok());
        let app = app.ok_or_else(|| Problem::not_found("app"))?;
        self.settings(app).await.map(|_| Some(app))
    }
}

/// How often things may happen (contract §4).
pub struct Limiters {
    failures: DefaultKeyedRateLimiter<IpAddr>,
    polls: DefaultKeyedRateLimiter<DeviceId>,
    checks: DefaultKeyedRateLimiter<LaneKey>,
}

impl Default for Limiters {
    fn default() -> Self {
        let per_minute = |count: u32| Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN));
        let burst = NonZeroU32::new(limits::POLLS_BURST).unwrap_or(NonZeroU32::MIN);
        let checks = per_minute(limits::CREDENTIAL_CHECKS_PER_MINUTE).allow_burst(NonZeroU32::MIN);
        Self {
            failures: RateLimiter::keyed(per_minute(limits::FAILED_AUTHENTICATIONS_PER_MINUTE)),
            polls: RateLimiter::keyed(per_minute(limits::POLLS_PER_MINUTE).allow_burst(burst)),
            checks: RateLimiter::keyed(checks),
        }
    }
}

impl Limiters {
    /// The answer to a failed authentication: 401, or 429 when there have been too many.
    fn failed_authentication(&self, address: Option<IpAddr>, gave_secret: bool) -> Problem {
        if !gave_secret {
            return Problem::new(problem::UNAUTHORIZED, "the request has no Authorization: Bearer header");
        }
        let Some(address) = address else {
            return Problem::new(problem::UNAUTHORIZED, "the key or token is not valid");
        };
        if self.failures.len() > COUNTED {
            self.failures.retain_recent();
        }
        match self.failures.check_key(&address) {
            Ok(()) => Problem::new(problem::UNAUTHORIZED, "the key or token is not valid"),
            Err(until) => too_many("failed authentications", until.wait_time_from(self.failures.clock().now())),
        }
    }

    /// Counts a poll of a device; 429 if there are too many.
    pub fn poll(&self, device: DeviceId) -> Result<()> {
        if self.polls.len() > COUNTED {
            self.polls.retain_recent();
        }
        let checked = self.polls.check_key(&device);
        checked.map_err(|until| too_many("polls", until.wait_time_from(self.polls.clock().now())))
    }

    /// Counts a check of a credential; 429 if the last one of this version was only just.
    pub fn check(&self, credential: &LaneKey) -> Result<()> {
        if self.checks.len() > COUNTED {
            self.checks.retain_recent();
        }
        let checked = self.checks.check_key(credential);
        checked.map_err(|until| too_many("checks of this credential", until.wait_time_from(self.checks.clock().now())))
    }
}

fn too_many(what: &str, pause: Duration) -> Problem {
    Problem::new(problem::RATE_LIMITED, format!("too many {what}")).retry_after(pause)
}
