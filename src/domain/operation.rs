//! Operations: what goes on after its request, as erasures do (contract §5, Devices).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    feed::{FeedKind, FeedName},
    id::DeviceId,
    limits,
};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Takes away all that there is of a user.
    EraseUser,
    /// Takes away a feed's events and follows.
    EraseFeed,
    /// Takes away what a deleted device has left behind.
    EraseDevice,
}

/// Whether an operation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Something is left to do.
    Running,
    /// Nothing is left, also not in the files.
    Done,
}

/// Who or what is erased.
#[derive(Clone, PartialEq, Eq)]
pub enum Subject {
    /// A user, by a name that can be one.
    User(FeedName),
    /// A feed that is followed by request.
    Feed(FeedName),
    /// A device that has been deleted.
    Device(DeviceId),
}

impl Subject {
    /// The user of this name.
    pub fn user(name: &str) -> Result<Self, String> {
        let chars = name.chars().count();
        if chars == 0 || chars > limits::USER_CHARS {
            return Err(format!("a user has 1 to {} characters, this one has {chars}", limits::USER_CHARS));
        }
        FeedName::of_user(name).map(Self::User)
    }

    /// The feed of this name; feeds that belong to somebody go with their owner.
    pub fn feed(name: &str) -> Result<Self, String> {
        let feed = FeedName::parse(name)?;
        match (feed.kind(), name.split_once(':')) {
            (FeedKind::Plain, _) => Ok(Self::Feed(feed)),
            (FeedKind::Relay, _) => {
                Err(format!("{name:?} is the relay's own; its events go when their retention ends"))
            }
            (FeedKind::Own, Some(("user", user))) => {
                Err(format!("{name:?} goes with its user: DELETE /v1/users/{user}"))
            }
            (FeedKind::Own, owner) => {
                let device = owner.map_or("{id}", |(_, device)| device);
                Err(format!("{name:?} goes with its device: DELETE /v1/devices/{device}"))
            }
        }
    }

    /// What is done about it.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::User(_) => OperationKind::EraseUser,
            Self::Feed(_) => OperationKind::EraseFeed,
            Self::Device(_) => OperationKind::EraseDevice,
        }
    }

    /// The name it is kept under while the erasure runs.
    pub fn name(&self) -> String {
        match self {
            Self::User(feed) => feed.as_str().split_once(':').map_or("", |(_, user)| user).to_owned(),
            Self::Feed(feed) => feed.to_string(),
            Self::Device(device) => device.to_string(),
        }
    }

    /// The subject that was kept under `name`.
    pub fn kept(kind: OperationKind, name: &str) -> Result<Self, String> {
        match kind {
            OperationKind::EraseUser => Self::user(name),
            OperationKind::EraseFeed => Self::feed(name),
            OperationKind::EraseDevice => name.parse().map(Self::Device).map_err(|error| format!("{name:?}: {error}")),
        }
    }
}

/// A subject is what the log must not know.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind())
    }
}

/// What an erasure has taken away so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the words of the contract")]
pub struct Removed {
    pub devices: u64,
    pub device_tokens: u64,
    pub follows: u64,
    pub events: u64,
    pub attempts: u64,
    pub timeline: u64,
    pub idempotency_keys: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_by_table() {
        assert_eq!(Subject::user("17").unwrap().name(), "17");
        assert_eq!(Subject::user("user:17").unwrap().name(), "user:17");
        assert_eq!(Subject::feed("order:42").unwrap().name(), "order:42");
        for (refused, way) in [
            (Subject::feed("user:17"), "DELETE /v1/users/17"),
            (Subject::feed("device:dev_1"), "DELETE /v1/devices/dev_1"),
            (Subject::feed("reveille:alarms"), "retention"),
            (Subject::feed("a b"), "feed name"),
            (Subject::user("a b"), "feed name"),
            (Subject::user(""), "1 to 120"),
            (Subject::user(&"x".repeat(121)), "1 to 120"),
        ] {
            let detail = refused.unwrap_err();
            assert!(detail.contains(way), "{detail}");
        }
    }

    #[test]
    fn a_subject_is_found_again_and_not_told() {
        let device = Subject::Device(crate::domain::id::new(crate::domain::time::Timestamp::from_ms(1)));
        for subject in [Subject::user("user:me").unwrap(), Subject::feed("order:42").unwrap(), device] {
            assert_eq!(Subject::kept(subject.kind(), &subject.name()), Ok(subject.clone()));
            assert!(!format!("{subject:?}").contains(&subject.name()));
        }
    }
}
