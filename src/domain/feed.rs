//! Feeds and positions.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A feed's name: 1–128 of `A-Za-z0-9 . _ : ~ @ | + = -`, starting with a letter or digit (contract §2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, examples("order:42"), pattern = "^[A-Za-z0-9][A-Za-z0-9._:~@|+=-]{0,127}$")]
pub struct FeedName(String);

/// Who may write to a feed and follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// Any other: followed and unfollowed by request.
    Plain,
    /// `user:*` and `device:*`: follow from registration only.
    Own,
    /// `reveille:*`: written by the relay only.
    Relay,
}

impl FeedName {
    /// The longest name, in characters (all ASCII).
    pub const MAX_CHARS: usize = 128;

    /// Checks a name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let chars = name.chars().count();
        if chars == 0 || chars > Self::MAX_CHARS {
            return Err(format!("a feed name has 1 to {} characters, this one has {chars}", Self::MAX_CHARS));
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(format!("a feed name starts with a letter or digit, {name:?} does not"));
        }
        match name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._:~@|+=-".contains(*c)) {
            Some(other) => {
                Err(format!("a feed name is made of A-Z a-z 0-9 . _ : ~ @ | + = -, {other:?} is none of them"))
            }
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The feed of a user's devices; an error if `user` cannot be part of a name.
    pub fn of_user(user: &str) -> Result<Self, String> {
        Self::parse(&format!("user:{user}"))
    }

    /// The feed of one device.
    pub fn of_device(device: super::id::DeviceId) -> Self {
        Self(format!("device:{device}"))
    }

    /// The feed that tells of alarms.
    pub fn of_alarms() -> Self {
        Self("reveille:alarms".to_owned())
    }

    /// Who may write and follow it.
    pub fn kind(&self) -> FeedKind {
        match self.0.split_once(':') {
            Some(("user" | "device", _)) => FeedKind::Own,
            Some(("reveille", _)) => FeedKind::Relay,
            _ => FeedKind::Plain,
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FeedName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name)
    }
}

impl From<FeedName> for String {
    fn from(name: FeedName) -> Self {
        name.0
    }
}

/// A place in an app's order: strictly increasing, assigned at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u64, examples(1287))]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_table() {
        for good in ["order:42", "user:17", "a", "9", "A.b_c:d~e@f|g+h=i-j", &"x".repeat(128)] {
            assert!(FeedName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ":a", "-a", "a b", "a/b", "ä", "a*", &"x".repeat(129)] {
            assert!(FeedName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(FeedName::parse("user:1").unwrap().kind(), FeedKind::Own);
        assert_eq!(FeedName::parse("reveille:alarms"), Ok(FeedName::of_alarms()));
        assert_eq!(FeedName::of_alarms().kind(), FeedKind::Relay);
        assert_eq!(FeedName::parse("users:1").unwrap().kind(), FeedKind::Plain);
    }
}
