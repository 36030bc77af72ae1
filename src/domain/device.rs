//! A device: an app installation that can be woken, and how it registers.

use std::{fmt, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{
    Invalid, check_text,
    feed::{FeedKind, FeedName},
    limits,
};

/// A device that has been silent for so long is stale (contract §5).
const STALE_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// Firebase, Best practices for registration token management: on Android, FCM considers tokens expired after 270 days of inactivity; for
/// other platforms there is no such rule.
const EXPIRED_AFTER: Duration = Duration::from_secs(270 * 86_400);

/// The provider that reaches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Apple Push Notification service.
    Apns,
}

impl Transport {
    /// Every provider.
    pub const ALL: [Self; 2] = [Self::Fcm, Self::Apns];

    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fcm => "fcm",
            Self::Apns => "apns",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The operating system behind the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// iOS and its kin.
    Ios,
    /// Android.
    Android,
    /// A browser.
    Web,
}

/// Which of Apple's two worlds a token belongs to; tokens are not interchangeable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// `api.push.apple.com`.
    #[default]
    Production,
    /// `api.sandbox.push.apple.com`.
    Sandbox,
}

impl Environment {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

/// What an FCM target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A registration token.
    #[default]
    Token,
    /// A Firebase installation id.
    Fid,
}

/// Whether a device can be pushed to (contract §5, Devices).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// Nothing speaks against it.
    Active,
    /// The provider gave doubtful answers: one probe a day.
    Quarantined,
    /// 30 days without a sign of life: no background wakes.
    Stale,
    /// The provider said so: no pushes until it registers again.
    Gone,
}

impl DeviceStatus {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Stale => "stale",
            Self::Gone => "gone",
        }
    }

    /// What a device becomes that has shown no sign of life for so long, and why; `None` if that changes nothing.
    pub fn after_silence(
        self,
        transport: Transport,
        platform: Platform,
        silence: Duration,
    ) -> Option<(Self, &'static str)> {
        match (self, transport, platform) {
            (Self::Gone, ..) => None,
            (_, Transport::Fcm, Platform::Android) if silence >= EXPIRED_AFTER => Some((
                Self::Gone,
                "no sign of life for 270 days: Google drops Android registrations inactive for so long",
            )),
            (Self::Active, ..) if silence >= STALE_AFTER => Some((Self::Stale, "no sign of life for 30 days")),
            (Self::Active | Self::Quarantined | Self::Stale, ..) => None,
        }
    }
}

/// A field of a request that may be absent, `null`, or a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Given<T> {
    /// Leave it as it is.
    #[default]
    Absent,
    /// Take it away.
    Null,
    /// Set it.
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

/// `POST /v1/devices` as it comes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RegistrationDraft {
    /// The app installation, as the app names it; the same one again is the same device.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    installation_id: String,
    transport: Transport,
    /// `ios` for `apns` and `android` for `fcm` if absent.
    platform: Option<Platform>,
    /// The push token, as the provider gave it to the app; hexadecimal digits for `apns`.
    #[schema(value_type = String, min_length = 1, max_length = 4096, pattern = "^[!-~]*$")]
    token: SecretString,
    #[serde(default)]
    token_kind: TokenKind,
    /// For `apns` only; `production` if absent.
    environment: Option<Environment>,
    /// The APNs topic, or the Firebase project's id; if absent, whichever credential fits.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    topic: Option<String>,
    /// Who is signed in: unchanged if absent, nobody if null. Follows the feed `user:{user}`.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 120, pattern = "^[A-Za-z0-9._:~@|+=-]*$")]
    user: Given<String>,
    /// The whole set of feeds to follow beside the device's and its user's; unchanged if absent.
    #[schema(max_items = 200, value_type = Option<Vec<FollowableFeed>>)]
    feeds: Option<Vec<String>>,
    /// Of the app.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    app_version: Option<String>,
    /// Name and version.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    os: Option<String>,
    /// BCP 47.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    locale: Option<String>,
}

/// A feed that a device may follow by request: not `user:*` or `device:*`, which follow from registration.
#[derive(ToSchema)]
#[schema(value_type = String, examples("order:42"), pattern = "^(?!(user|device):)[A-Za-z0-9][A-Za-z0-9._:~@|+=-]{0,127}$")]
#[expect(dead_code, reason = "a name in the description of the API")]
pub struct FollowableFeed(String);

/// A registration whose every field has been checked.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The app installation, as the app names it.
    pub installation_id: String,
    /// The provider.
    pub transport: Transport,
    /// The operating system.
    pub platform: Platform,
    /// The push token; `None` leaves it as it is, which only a patch does.
    pub token: Option<SecretString>,
    /// What kind of FCM target the token is.
    pub token_kind: TokenKind,
    /// The APNs environment.
    pub environment: Environment,
    /// APNs topic, or Firebase project id; `None` = whichever credential fits.
    pub topic: Option<String>,
    /// Who is signed in.
    pub user: Given<String>,
    /// The whole explicit set of feeds, if given.
    pub feeds: Option<Vec<FeedName>>,
    /// Of the app.
    pub app_version: Option<String>,
    /// Name and version.
    pub os: Option<String>,
    /// BCP 47.
    pub locale: Option<String>,
}

impl RegistrationDraft {
    /// Checks every field and names each that is wrong.
    pub fn check(self) -> Result<Registration, Vec<Invalid>> {
        use secrecy::ExposeSecret;
        let mut errors = Vec::new();
        check_text("/installation_id", &self.installation_id, limits::SHORT_TEXT_CHARS, &mut errors);
        check_token("/token", self.transport, self.token.expose_secret(), &mut errors);
        if let Given::Value(user) = &self.user {
            check_user("/user", user, &mut errors);
        }
        if self.transport == Transport::Apns && self.token_kind == TokenKind::Fid {
            errors.push(Invalid::new("/token_kind", "\"fid\" is for transport \"fcm\" only"));
        }
        if self.transport == Transport::Fcm && self.environment.is_some() {
            errors.push(Invalid::new("/environment", "is for transport \"apns\" only"));
        }
        let platform = self.platform.unwrap_or(match self.transport {
            Transport::Apns => Platform::Ios,
            Transport::Fcm => Platform::Android,
        });
        if self.transport == Transport::Apns && platform != Platform::Ios {
            errors.push(Invalid::new("/platform", "transport \"apns\" reaches platform \"ios\" only"));
        }
        for (pointer, value) in
            [("/topic", &self.topic), ("/app_version", &self.app_version), ("/os", &self.os), ("/locale", &self.locale)]
        {
            if let Some(value) = value {
                check_text(pointer, value, limits::SHORT_TEXT_CHARS, &mut errors);
            }
        }
        let feeds = self.feeds.map(|feeds| check_feeds(&feeds, &mut errors));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Registration {
            installation_id: self.installation_id,
            transport: self.transport,
            platform,
            token: Some(self.token),
            token_kind: self.token_kind,
            environment: self.environment.unwrap_or_default(),
            topic: self.topic,
            user: self.user,
            feeds,
            app_version: self.app_version,
            os: self.os,
            locale: self.locale,
        })
    }
}

/// `PATCH /v1/devices/{id}` and `/v1/devices/me`: what is given replaces what is there.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct DevicePatch {
    /// The push token.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 4096, pattern = "^[!-~]*$")]
    pub token: Option<SecretString>,
    /// What kind of FCM target the token is.
    pub token_kind: Option<TokenKind>,
    /// The APNs environment.
    pub environment: Option<Environment>,
    /// APNs topic, or Firebase project id.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub topic: Given<String>,
    /// Of the app.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub app_version: Given<String>,
    /// Name and version.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub os: Given<String>,
    /// BCP 47.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub locale: Given<String>,
    /// Who is signed in; with an app key only.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 120, pattern = "^[A-Za-z0-9._:~@|+=-]*$")]
    pub user: Given<String>,
    /// The whole explicit set of feeds; with an app key only.
    #[schema(max_items = 200, value_type = Option<Vec<FollowableFeed>>)]
    pub feeds: Option<Vec<String>>,
}

impl DevicePatch {
    /// Checks every field against the device's transport; answers the feeds, parsed.
    pub fn check(&self, transport: Transport) -> Result<Option<Vec<FeedName>>, Vec<Invalid>> {
        use secrecy::ExposeSecret;
        let mut errors = Vec::new();
        if let Some(token) = &self.token {
            check_token("/token", transport, token.expose_secret(), &mut errors);
        }
        if transport == Transport::Apns && self.token_kind == Some(TokenKind::Fid) {
            errors.push(Invalid::new("/token_kind", "\"fid\" is for transport \"fcm\" only"));
        }
        if transport == Transport::Fcm && self.environment.is_some() {
            errors.push(Invalid::new("/environment", "is for transport \"apns\" only"));
        }
        for (pointer, value) in
            [("/topic", &self.topic), ("/app_version", &self.app_version), ("/os", &self.os), ("/locale", &self.locale)]
        {
            if let Given::Value(value) = value {
                check_text(pointer, value, limits::SHORT_TEXT_CHARS, &mut errors);
            }
        }
        if let Given::Value(user) = &self.user {
            check_user("/user", user, &mut errors);
        }
        let feeds = self.feeds.as_ref().map(|feeds| check_feeds(feeds, &mut errors));
        if errors.is_empty() { Ok(feeds) } else { Err(errors) }
    }
}

/// Refuses a user that cannot name a feed.
fn check_user(pointer: &str, user: &str, errors: &mut Vec<Invalid>) {
    let chars = user.chars().count();
    if chars == 0 || chars > limits::USER_CHARS {
        errors.push(Invalid::new(pointer, format!("must have 1 to {} characters, has {chars}", limits::USER_CHARS)));
    } else if let Err(detail) = FeedName::of_user(user) {
        errors.push(Invalid::new(pointer, format!("must be able to follow \"user:\" in a feed's name: {detail}")));
    }
}

fn check_token(pointer: &str, transport: Transport, token: &str, errors: &mut Vec<Invalid>) {
    let chars = token.chars().count();
    if chars == 0 || chars > limits::PUSH_TOKEN_CHARS {
        errors.push(Invalid::new(
            pointer,
            format!("must have 1 to {} characters, has {chars}", limits::PUSH_TOKEN_CHARS),
        ));
    } else if !token.bytes().all(|b| b.is_ascii_graphic()) {
        errors.push(Invalid::new(pointer, "must be printable ASCII without spaces"));
    } else if transport == Transport::Apns && !token.bytes().all(|b| b.is_ascii_hexdigit()) {
        errors.push(Invalid::new(pointer, "an APNs token is written in hexadecimal digits"));
    }
}

fn check_feeds(names: &[String], errors: &mut Vec<Invalid>) -> Vec<FeedName> {
    if names.len() > limits::EXPLICIT_FEEDS {
        let detail =
            format!("a device follows at most {} feeds explicitly, here are {}", limits::EXPLICIT_FEEDS, names.len());
        errors.push(Invalid::new("/feeds", detail));
        return Vec::new();
    }
    let mut feeds: Vec<FeedName> = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match followable(name) {
            Ok(feed) if feeds.contains(&feed) => {}
            Ok(feed) => feeds.push(feed),
            Err(detail) => errors.push(Invalid::new(format!("/feeds/{index}"), detail)),
        }
    }
    feeds
}

/// A feed that may be followed by request.
pub fn followable(name: &str) -> Result<FeedName, String> {
    let feed = FeedName::parse(name)?;
    match feed.kind() {
        FeedKind::Plain | FeedKind::Relay => Ok(feed),
        FeedKind::Own => Err(format!("{name:?} follows from registration and cannot be followed or left by request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_by_table() {
        use DeviceStatus::{Active, Gone, Quarantined, Stale};
        use Platform::{Android, Ios, Web};
        use Transport::{Apns, Fcm};
        for (transport, platform, status, days, expected) in [
            (Fcm, Android, Active, 29, None),
            (Fcm, Android, Active, 30, Some(Stale)),
            (Apns, Ios, Active, 30, Some(Stale)),
            (Fcm, Android, Quarantined, 30, None),
            (Fcm, Android, Stale, 269, None),
            (Fcm, Android, Active, 270, Some(Gone)),
            (Fcm, Android, Quarantined, 270, Some(Gone)),
            (Fcm, Android, Stale, 270, Some(Gone)),
            (Fcm, Android, Gone, 270, None),
            (Fcm, Ios, Stale, 270, None),
            (Fcm, Web, Stale, 270, None),
            (Apns, Ios, Stale, 3650, None),
            (Apns, Ios, Gone, 3650, None),
        ] {
            let silence = Duration::from_secs(days * 86_400);
            let becomes = status.after_silence(transport, platform, silence).map(|(status, _)| status);
            assert_eq!(becomes, expected, "{transport} {platform:?} {status:?} {days} days");
        }
    }
}
