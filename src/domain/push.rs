//! What goes over the air, to whom, and what came back.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    device::{Environment, Platform, TokenKind, Transport},
    event::{Alert, Class},
    feed::{FeedName, Position},
    id::WakeId,
    time::Timestamp,
};

/// One wake's push: carries no state, only "poll, there is something new" (contract §6). Fixed when claimed; retries repeat it.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The wake; its UUID is the `apns-id`.
    pub wake: WakeId,
    /// The position up to which there is news.
    pub head: Position,
    /// The one feed involved; `None` if several are.
    pub feed: Option<FeedName>,
    /// The event's link, if it has one.
    pub href: Option<String>,
    /// Eight hex digits that tell the app for which user this is.
    pub for_user: Option<String>,
    /// The visible text of an alert; `None` makes it a background push.
    pub alert: Option<Alert>,
    /// Until when the provider may keep it.
    pub expires_at: Timestamp,
}

impl Trigger {
    /// The class this trigger wakes in.
    pub fn class(&self) -> Class {
        if self.alert.is_some() { Class::Alert } else { Class::Background }
    }
}

/// The addressee, as registered.
#[derive(Debug, Clone)]
pub struct Target {
    /// The provider.
    pub transport: Transport,
    /// The operating system behind the token.
    pub platform: Platform,
    /// The push token; never logged, never returned.
    pub token: SecretString,
    /// What kind of FCM target the token is.
    pub token_kind: TokenKind,
    /// The APNs environment.
    pub environment: Environment,
    /// The APNs topic that the credential was picked by.
    pub topic: String,
}

/// One call's answer. Every call ends in one, whatever happened, so an attempt without an outcome cannot be expressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the answer means for wake, device and credential.
    pub meaning: Meaning,
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// The provider's own word (APNs `reason`, FCM `errorCode` or `status`), or ours for trouble on the way.
    pub reason: Option<String>,
    /// The provider's id of the message (`apns-id`, FCM `name`).
    pub provider_id: Option<String>,
    /// `Retry-After`, already read from either form.
    pub retry_after: Option<Duration>,
    /// Size of the payload that was sent.
    pub bytes: u32,
}

/// What an answer means. The reaction table (APNs: "Handling notification responses from APNs"; FCM: "ErrorCode" reference) maps into this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The provider took it.
    Accepted,
    /// The token is dead: APNs 410, FCM `UNREGISTERED`.
    Unregistered {
        /// When the provider confirmed it (APNs only).
        since: Option<Timestamp>,
    },
    /// The token is dead here, but the fault may be ours, such as a wrong environment: `BadDeviceToken`, `DeviceTokenNotForTopic`,
    /// `SENDER_ID_MISMATCH`, `INVALID_ARGUMENT` on the token.
    AmbiguousToken,
    /// The provider doubts the token in words that nobody has documented, such as a 410 without a known reason.
    DoubtfulToken,
    /// Too many pushes: 429.
    Throttled,
    /// The provider is in trouble: 5xx.
    Unavailable,
    /// No connection, or it broke before an answer.
    Unreachable,
    /// No answer in time; it may have arrived.
    Timeout,
    /// Our provider token or access token has run out; a fresh one will do.
    StaleToken,
    /// The credential or its configuration is wrong; the device is not to blame.
    CredentialFault,
    /// We sent what may not be sent; repeating it is useless.
    OurFault,
}

/// How an attempt ended, as the contract says it (§7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The provider took it.
    Accepted,
    /// The provider refused it.
    Rejected,
    /// The provider wants fewer.
    Throttled,
    /// The provider or the way to it is in trouble.
    Unavailable,
    /// No answer within the call timeout.
    Timeout,
    /// The relay died during the call.
    Unknown,
}

impl Outcome {
    /// Every way an attempt can end.
    pub const ALL: [Self; 6] =
        [Self::Accepted, Self::Rejected, Self::Throttled, Self::Unavailable, Self::Timeout, Self::Unknown];

    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

impl Meaning {
    /// One of each word.
    pub const WORDS: [Self; 11] = [
        Self::Accepted,
        Self::Unregistered { since: None },
        Self::AmbiguousToken,
        Self::DoubtfulToken,
        Self::Throttled,
        Self::Unavailable,
        Self::Unreachable,
        Self::Timeout,
        Self::StaleToken,
        Self::CredentialFault,
        Self::OurFault,
    ];

    /// A word for it, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unregistered { .. } => "unregistered",
            Self::AmbiguousToken => "ambiguous_token",
            Self::DoubtfulToken => "doubtful_token",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::StaleToken => "stale_token",
            Self::CredentialFault => "credential_fault",
            Self::OurFault => "our_fault",
        }
    }

    /// The outcome that is recorded for it.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Accepted => Outcome::Accepted,
            Self::Throttled => Outcome::Throttled,
            Self::Unavailable | Self::Unreachable => Outcome::Unavailable,
            Self::Timeout => Outcome::Timeout,
            Self::Unregistered { .. }
            | Self::AmbiguousToken
            | Self::DoubtfulToken
            | Self::StaleToken
            | Self::CredentialFault
            | Self::OurFault => Outcome::Rejected,
        }
    }
}
