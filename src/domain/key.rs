//! App keys and what they may do.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an app key may do (contract §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Append events, and read their status.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Read feeds.
    #[serde(rename = "events:read")]
    EventsRead,
    /// Register and change devices.
    #[serde(rename = "devices:write")]
    DevicesWrite,
    /// Look at devices.
    #[serde(rename = "devices:read")]
    DevicesRead,
    /// Change provider credentials.
    #[serde(rename = "credentials:write")]
    CredentialsWrite,
    /// Everything within the app.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::DevicesWrite => "devices:write",
            Self::DevicesRead => "devices:read",
            Self::CredentialsWrite => "credentials:write",
            Self::Admin => "admin",
        }
    }

    /// Whether a key that holds `self` may do what needs `wanted`.
    pub fn covers(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
