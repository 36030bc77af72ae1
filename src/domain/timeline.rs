//! What a device's timeline tells beside events and attempts (contract §7), and its words.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    device::DeviceStatus,
    event::Class,
    feed::Position,
    id::{AttemptId, MomentId, WakeId},
    policy::{DeferReason, DropReason},
    time::Timestamp,
};

/// One line. Where it happened and when is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Moment {
    /// The backend registered or changed the device.
    Registered {
        /// What is new about it.
        change: Registered,
    },
    /// A wake waits; stored when the reason changes.
    Deferred {
        /// In which class.
        class: Class,
        /// Up to where there is news.
        head: Position,
        /// Why.
        reason: DeferReason,
        /// When it is looked at again.
        until: Timestamp,
    },
    /// A wake came to an end without a call.
    Dropped {
        /// In which class.
        class: Class,
        /// Up to where it would have announced news.
        head: Position,
        /// Why.
        reason: DropReason,
    },
    /// The device came.
    Polled {
        /// It has been given everything up to here.
        fetched: Position,
        /// It came back with everything up to here.
        acked: Position,
        /// The push that brought it, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wake: Option<WakeId>,
    },
    /// Its status changed.
    Status {
        /// To this.
        status: DeviceStatus,
        /// In the provider's or the relay's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What is new about a registered device; the weightiest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Registered {
    /// The installation was unknown.
    Created,
    /// Somebody else is signed in, or nobody: what waited for the one before has ended.
    UserChanged,
    /// It has another push token, environment or topic.
    TokenChanged,
    /// Nothing that matters for waking it.
    Same,
}

/// What has been decided about a wake, in the words of contract §7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decided {
    /// A provider was called.
    Sent,
    /// A wake for something newer took it along.
    Coalesced,
    /// It waits.
    Deferred,
    /// It is not needed.
    Suppressed,
    /// It is not possible, or not worth while.
    Skipped,
}

impl Decided {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Coalesced => "coalesced",
            Self::Deferred => "deferred",
            Self::Suppressed => "suppressed",
            Self::Skipped => "skipped",
        }
    }
}

impl DeferReason {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Budget => "budget",
            Self::Rewake => "rewake",
            Self::AlertStored => "alert stored",
            Self::Quarantined => "quarantined",
            Self::ProviderDown => "provider down",
            Self::CallUnderWay => "call under way",
            Self::Online => "online",
        }
    }
}

impl DropReason {
    /// What it means that a wake ends for this reason.
    pub const fn decided(self) -> Decided {
        match self {
            Self::AlreadyFetched | Self::Online | Self::AlreadyTold => Decided::Suppressed,
            Self::Unanswered | Self::Expired | Self::Gone | Self::Stale | Self::NoCredential | Self::Unfollowed => {
                Decided::Skipped
            }
        }
    }

    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyFetched => "already fetched",
            Self::Online => "online",
            Self::AlreadyTold => "already told",
            Self::Unanswered => "unanswered",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Stale => "stale",
            Self::NoCredential => "no credential",
            Self::Unfollowed => "unfollowed",
        }
    }
}

/// Where a page of a timeline ends: what comes next is older than each of these, every one in the order of its own source.
///
/// A clock that is set back may cost the order between sources, but neither a row nor its uniqueness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of moments.
    pub moment: MomentId,
    /// Of attempts.
    pub attempt: AttemptId,
    /// Of events.
    pub event: Position,
}

impl Place {
    /// Before the newest row.
    pub fn newest() -> Self {
        let last = Uuid::max();
        Self { moment: MomentId::from_uuid(last), attempt: AttemptId::from_uuid(last), event: Position(i64::MAX) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.moment, self.attempt, self.event)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(moment), Some(attempt), Some(event), None) => Ok(Self {
                moment: moment.parse().map_err(drop)?,
                attempt: attempt.parse().map_err(drop)?,
                event: Position(event.parse().map_err(drop)?),
            }),
            _ => Err(()),
        }
    }
}

/// Where a page of an app's activity ends. Its moments are read by their time, which their ids need not follow to the millisecond: who
/// writes one may have looked at the clock before another and made the id after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityPlace {
    /// When the last moment was.
    pub at: Timestamp,
    /// The last of each source.
    pub last: Place,
}

impl ActivityPlace {
    /// Before the newest row.
    pub fn newest() -> Self {
        Self { at: Timestamp::from_ms(i64::MAX), last: Place::newest() }
    }
}

impl fmt::Display for ActivityPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_ms(), self.last)
    }
}

impl FromStr for ActivityPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at_ms, last) = text.split_once('.').ok_or(())?;
        Ok(Self { at: Timestamp::from_ms(at_ms.parse().map_err(drop)?), last: last.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let place = Place { moment: id::new(NOW), attempt: id::new(NOW), event: Position(9) };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!(Place::newest().to_string().parse(), Ok(Place::newest()));
        let place = ActivityPlace { at: NOW, last: place };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!(place.last.to_string().parse::<ActivityPlace>(), Err(()));
        let place = place.last;
        for bad in ["", "..", "1", "mom_x.att_y.9", &format!("{place}.1"), &place.to_string().replace("mom_", "dev_")] {
            assert_eq!(bad.parse::<Place>(), Err(()), "{bad}");
        }
    }
}
