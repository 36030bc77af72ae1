//! One credential's provider: its token, its lanes, and the [`Reply`] to each call.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use hyper::{HeaderMap, Uri, header::RETRY_AFTER};
use rustls::ClientConfig;
use secrecy::SecretString;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use super::{
    TransportConfig, apns,
    dial::Endpoint,
    fcm,
    lane::{Failure, Lane, LaneSettings},
    payload::{self, Mode},
    token::{ApnsToken, ApnsTokens, GoogleToken, NoToken},
    trust,
};
use crate::domain::{
    credential::Credential,
    device::{Environment, Platform, TokenKind, Transport},
    feed::Position,
    id,
    push::{Meaning, Reply, Target, Trigger},
    time::{Clock, Timestamp},
};
use crate::metrics::{Metrics, Traffic};

/// What all providers share.
pub(super) struct Way {
    apns_production: Endpoint,
    apns_sandbox: Endpoint,
    fcm: Endpoint,
    poll_url: String,
    apns_tokens: ApnsTokens,
    http: reqwest::Client,
    clock: Clock,
    metrics: Metrics,
    tasks: TaskTracker,
}

impl Way {
    pub(super) fn new(
        config: TransportConfig,
        clock: Clock,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> anyhow::Result<Self> {
        let tls = trust::client_config(config.extra_ca_pem.as_deref())?;
        let endpoint = |configured: &Option<Url>, usual: &str| -> anyhow::Result<Endpoint> {
            let url = match configured {
                Some(url) => url.clone(),
                None => usual.parse().context("a built-in URL is wrong")?,
            };
            Endpoint::new(&url, &tls).map_err(anyhow::Error::msg)
        };
        Ok(Self {
            apns_production: endpoint(&config.apns_url, apns::host_url(Environment::Production))?,
            apns_sandbox: endpoint(&config.apns_url, apns::host_url(Environment::Sandbox))?,
            fcm: endpoint(&config.fcm_url, fcm::HOST_URL)?,
            poll_url: config.poll_url,
            apns_tokens: ApnsTokens::default(),
            http: token_client(tls)?,
            clock,
            metrics,
            tasks,
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn lane(&self, endpoint: &Endpoint, settings: LaneSettings) -> Lane {
        Lane::new(endpoint.clone(), settings, self.clock.clone(), self.tasks.clone())
    }
}

/// For the token endpoint: a call an hour, so convenience wins.
fn token_client(mut tls: ClientConfig) -> anyhow::Result<reqwest::Client> {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(30));
    client.build().context("the HTTP client cannot be set up")
}

/// A credential at work.
pub(super) enum Provider {
    /// Apple; one lane per world, for a connection belongs to one team, key and environment.
    Apns { token: Arc<ApnsToken>, production: OnceLock<Lane>, sandbox: OnceLock<Lane> },
    /// Google.
    Fcm { token: Arc<GoogleToken>, uri: Uri, lane: Lane },
    /// The credential cannot be used; the words say why.
    Broken(String),
}

/// A call that has ended before anything was heard.
struct Early {
    meaning: Meaning,
    reason: String,
    bytes: usize,
}

impl Provider {
    pub(super) fn new(credential: &Credential, way: &Way) -> Self {
        let made = match credential {
            Credential::Apns(credential) => way.apns_tokens.get(credential).map(|token| Self::Apns {
                token,
                production: OnceLock::new(),
                sandbox: OnceLock::new(),
            }),
            Credential::Fcm(credential) => {
                let uri = way.fcm.uri(&format!("/v1/projects/{}/messages:send", credential.project_id));
                let uri = uri.map_err(|_| "the project id cannot be part of a path".to_owned());
                let token = GoogleToken::new(
                    credential,
                    way.http.clone(),
                    way.clock.clone(),
                    way.metrics.clone(),
                    way.tasks.clone(),
                );
                uri.and_then(|uri| {
                    token.map(|token| Self::Fcm { token, uri, lane: way.lane(&way.fcm, LaneSettings::fcm()) })
                })
            }
        };
        made.unwrap_or_else(Self::Broken)
    }

    /// What goes on in its lanes.
    pub(super) fn traffic(&self) -> Traffic {
        match self {
            Self::Apns { production, sandbox, .. } => {
                let lanes = [production.get(), sandbox.get()].into_iter().flatten();
                lanes.map(Lane::traffic).fold(Traffic::default(), |sum, lane| Traffic {
                    connections: sum.connections + lane.connections,
                    streams: sum.streams + lane.streams,
                })
            }
            Self::Fcm { lane, .. } => lane.traffic(),
            Self::Broken(_) => Traffic::default(),
        }
    }

    pub(super) async fn send(&self, target: &Target, trigger: &Trigger, way: &Way, deadline: Instant) -> Reply {
        self.attempt(target, trigger, Mode::Deliver, way, deadline).await.unwrap_or_else(Early::into_reply)
    }

    /// Sends what no device can receive.
    pub(super) async fn check(&self, credential: &Credential, way: &Way, deadline: Instant) -> Reply {
        let now = way.clock.now();
        let (token, environment, topic) = match credential {
            Credential::Apns(c) => (
                "0".repeat(64),
                c.environments.first().copied().unwrap_or_default(),
                c.topics.first().cloned().unwrap_or_default(),
            ),
            Credential::Fcm(c) => ("reveille-check".to_owned(), Environment::default(), c.project_id.clone()),
        };
        let target = Target {
            transport: credential.transport(),
            platform: if credential.transport() == Transport::Apns { Platform::Ios } else { Platform::Android },
            token: SecretString::from(token),
            token_kind: TokenKind::Token,
            environment,
            topic,
        };
        let trigger = Trigger {
            wake: id::new(now),
            head: Position(0),
            feed: None,
            href: None,
            for_user: None,
            alert: None,
            expires_at: now + Duration::from_secs(60),
        };
        self.attempt(&target, &trigger, Mode::Rehearse, way, deadline).await.unwrap_or_else(Early::into_reply)
    }

    async fn attempt(
        &self,
        target: &Target,
        trigger: &Trigger,
        mode: Mode,
        way: &Way,
        deadline: Instant,
    ) -> Result<Reply, Early> {
        match (self, target.transport) {
            (Self::Apns { token, production, sandbox }, Transport::Apns) => {
                let lane = match target.environment {
                    Environment::Production => {
                        production.get_or_init(|| way.lane(&way.apns_production, LaneSettings::apns()))
                    }
                    Environment::Sandbox => sandbox.get_or_init(|| way.lane(&way.apns_sandbox, LaneSettings::apns())),
                };
                via_apns(token, lane, target, trigger, way, deadline).await
            }
            (Self::Fcm { token, uri, lane }, Transport::Fcm) => {
                let now = way.clock.now();
                let payload = payload::fcm(trigger, &way.poll_url, target, mode, now)
                    .map_err(|error| Early::ours(error.to_string()))?;
                via_fcm(token, lane, uri, payload, way, deadline).await
            }
            (Self::Broken(reason), _) => {
                Err(Early { meaning: Meaning::CredentialFault, reason: reason.clone(), bytes: 0 })
            }
            _ => Err(Early::ours("the credential is for another transport".to_owned())),
        }
    }
}

async fn via_apns(
    token: &ApnsToken,
    lane: &Lane,
    target: &Target,
    trigger: &Trigger,
    way: &Way,
    deadline: Instant,
) -> Result<Reply, Early> {
    let payload = payload::apns(trigger, &way.poll_url).map_err(|error| Early::ours(error.to_string()))?;
    let bytes = payload.counted_bytes;
    let bearer = token.bearer(way.clock.now(), &way.metrics);
    let bearer = bearer.map_err(|reason| Early { meaning: Meaning::CredentialFault, reason, bytes })?;
    let request = apns::request(lane.endpoint(), target, trigger, payload, bearer.clone());
    let request = request.map_err(|reason| Early { meaning: Meaning::OurFault, reason, bytes })?;
    let answer = lane.call(request, deadline).await.map_err(|failure| Early::lost(failure, bytes))?;
    let verdict = apns::read(answer.status, &answer.headers, &answer.body);
    let now = way.clock.now();
    if verdict.meaning == Meaning::StaleToken {
        token.reject(&bearer, now);
    }
    Ok(Reply {
        meaning: verdict.meaning,
        status: Some(answer.status.as_u16()),
        reason: verdict.reason,
        provider_id: verdict.provider_id,
        retry_after: retry_after(&answer.headers, now),
        bytes: bytes_u32(bytes),
    })
}

async fn via_fcm(
    token: &Arc<GoogleToken>,
    lane: &Lane,
    uri: &Uri,
    payload: payload::Payload,
    way: &Way,
    deadline: Instant,
) -> Result<Reply, Early> {
    let bytes = payload.counted_bytes;
    let bearer = token.bearer(deadline).await;
    let bearer = bearer.map_err(|NoToken { meaning, reason }| Early { meaning, reason, bytes })?;
    let request = fcm::request(uri, payload, bearer.clone());
    let answer = lane.call(request, deadline).await.map_err(|failure| Early::lost(failure, bytes))?;
    let verdict = fcm::read(answer.status, &answer.body);
    if verdict.meaning == Meaning::StaleToken {
        token.reject(&bearer);
    }
    Ok(Reply {
        meaning: verdict.meaning,
        status: Some(answer.status.as_u16()),
        reason: verdict.reason,
        provider_id: verdict.provider_id,
        retry_after: retry_after(&answer.headers, way.clock.now()),
        bytes: bytes_u32(bytes),
    })
}

impl Early {
    fn ours(reason: String) -> Self {
        Self { meaning: Meaning::OurFault, reason, bytes: 0 }
    }

    fn lost(failure: Failure, bytes: usize) -> Self {
        match failure {
            Failure::Unreachable(reason) => Self { meaning: Meaning::Unreachable, reason, bytes },
            Failure::Timeout => Self { meaning: Meaning::Timeout, reason: "no answer in time".to_owned(), bytes },
        }
    }

    fn into_reply(self) -> Reply {
        Reply {
            meaning: self.meaning,
            status: None,
            reason: Some(self.reason),
            provider_id: None,
            retry_after: None,
            bytes: bytes_u32(self.bytes),
        }
    }
}

fn bytes_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// `Retry-After` in either form (RFC 9110 §10.2.3); what cannot be read is as good as absent.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((Timestamp::from_ms(0) + date).since(now))
}
