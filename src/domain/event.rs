//! An event: one entry of a feed, its limits, and the wake it asks for.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Invalid, check_text,
    feed::{FeedKind, FeedName, Position},
    id::{DeviceId, EventId},
    limits,
    time::Timestamp,
};

/// Somebody is watching: a test that arrives later than this is of no use, in seconds.
const TEST_TTL_S: u32 = 300;

/// What an event does to its key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// The key now has this value.
    Upsert,
    /// The key is gone.
    Delete,
}

/// When an alert that has not been sent yet is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CancelOn {
    /// When the device has fetched the event.
    #[default]
    Fetch,
    /// Never.
    Never,
}

/// The visible text of an alert (contract §5, Events; Apple: "Generating a remote notification").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[expect(missing_docs, reason = "the names are Apple's and the contract's")]
pub struct Alert {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtitle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_loc_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_loc_args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loc_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loc_args: Option<Vec<String>>,
    /// `None` is silent.
    #[serde(default = "default_sound")]
    pub sound: Option<String>,
    /// Absolute; the relay never counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub badge: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interruption_level: Option<InterruptionLevel>,
    /// The Android notification channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<String>,
    #[serde(default)]
    pub cancel_on: CancelOn,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn default_sound() -> Option<String> {
    Some("default".to_owned())
}

/// Apple's `interruption-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "Apple's own words")]
pub enum InterruptionLevel {
    Passive,
    Active,
    TimeSensitive,
    Critical,
}

impl Alert {
    fn titled(title: &str, body: &str) -> Self {
        Self {
            title: Some(title.to_owned()),
            subtitle: None,
            body: Some(body.to_owned()),
            title_loc_key: None,
            title_loc_args: None,
            loc_key: None,
            loc_args: None,
            sound: default_sound(),
            badge: None,
            category: None,
            thread_id: None,
            interruption_level: None,
            channel_id: None,
            cancel_on: CancelOn::Fetch,
        }
    }

    fn check(&self, errors: &mut Vec<Invalid>) {
        let shows_text = [&self.title, &self.body, &self.title_loc_key, &self.loc_key].into_iter().any(Option::is_some);
        if !shows_text {
            errors.push(Invalid::new("/wake/alert", "needs a title, body, title_loc_key or loc_key"));
        }
    }
}

/// Of a wake: how loudly it wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Visible text.
    Alert,
    /// Silent.
    Background,
}

impl Class {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Background => "background",
        }
    }
}

/// The class an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WakeClass {
    /// Visible text.
    Alert,
    /// Silent.
    #[default]
    Background,
    /// Nobody is woken.
    None,
}

impl WakeClass {
    /// The class of the levels it raises, if any.
    pub const fn class(self) -> Option<Class> {
        match self {
            Self::Alert => Some(Class::Alert),
            Self::Background => Some(Class::Background),
            Self::None => None,
        }
    }
}

/// The wake an event asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct WakeSpec {
    /// How loudly.
    #[serde(default)]
    pub class: WakeClass,
    /// For how many seconds after acceptance waking is worth while.
    #[schema(minimum = 1, maximum = 2_419_200)]
    #[serde(default = "default_ttl_s")]
    pub ttl_s: u32,
    /// The text, for class `alert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
}

const fn default_ttl_s() -> u32 {
    86_400
}

impl Default for WakeSpec {
    fn default() -> Self {
        Self { class: WakeClass::Background, ttl_s: default_ttl_s(), alert: None }
    }
}

/// One event of `POST /v1/events` as it comes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct EventDraft {
    /// The feed to append to; not `reveille:*`, which is the relay's own.
    #[schema(pattern = "^(?!reveille:)[A-Za-z0-9][A-Za-z0-9._:~@|+=-]{0,127}$", examples("order:42"))]
    feed: String,
    /// The app's own word for what happened; not `reveille.…`.
    #[serde(rename = "type")]
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^(?!reveille\\.)[^\\x00-\\x1f\\x7f-\\x9f]*$",
        examples("order.updated")
    )]
    kind: String,
    /// Whose state it changes: the newest event of a key outlives retention, and is what a snapshot shows.
    #[schema(min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", examples("order/42"))]
    key: Option<String>,
    /// What it does to its key; `upsert` if there is a key and no word of it. Needs a key.
    op: Option<Op>,
    /// Where the app may read more: an absolute URL of at most 2048 bytes. It travels in the push.
    #[schema(format = "uri", max_length = 2048)]
    href: Option<String>,
    /// The app's own JSON, at most 64 KiB; phones get it as it came, pushes never carry it.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
    /// When it happened; when it was accepted if absent.
    #[schema(value_type = Option<Timestamp>)]
    occurred_at: Option<String>,
    /// How to wake the devices that follow the feed.
    #[serde(default)]
    wake: WakeSpec,
}

/// An event whose every field has been checked, before it has a place in the order.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The feed it is appended to.
    pub feed: FeedName,
    /// The app's own word for what happened.
    pub kind: String,
    /// The key whose state it changes.
    pub key: Option<String>,
    /// How it changes the key.
    pub op: Option<Op>,
    /// Where the app may read more.
    pub href: Option<String>,
    /// The app's own JSON, kept as it came.
    pub data: Option<Box<RawValue>>,
    /// When it happened, if the backend says so.
    pub occurred_at: Option<Timestamp>,
    /// The wake it asks for.
    pub wake: WakeSpec,
}

impl NewEvent {
    /// An event in a device's own feed that only shows that it arrives.
    pub fn test(device: DeviceId, class: Class) -> Self {
        let (class, alert) = match class {
            Class::Background => (WakeClass::Background, None),
            Class::Alert => (WakeClass::Alert, Some(Alert::titled("Test", "Your pushes arrive."))),
        };
        Self {
            feed: FeedName::of_device(device),
            kind: "reveille.test".to_owned(),
            key: None,
            op: None,
            href: None,
            data: None,
            occurred_at: None,
            wake: WakeSpec { class, ttl_s: TEST_TTL_S, alert },
        }
    }
}

impl EventDraft {
    /// Checks every field and names each that is wrong.
    pub fn check(self) -> Result<NewEvent, Vec<Invalid>> {
        let mut errors = Vec::new();
        let feed = FeedName::parse(&self.feed).and_then(|feed| match feed.kind() {
            FeedKind::Relay => Err(format!("{feed:?} is written by the relay only", feed = feed.as_str())),
            FeedKind::Plain | FeedKind::Own => Ok(feed),
        });
        let feed = feed.map_err(|detail| errors.push(Invalid::new("/feed", detail))).ok();
        check_text("/type", &self.kind, limits::SHORT_TEXT_CHARS, &mut errors);
        if self.kind.starts_with("reveille.") {
            errors.push(Invalid::new("/type", "types that start with \"reveille.\" are the relay's own"));
        }
        if let Some(key) = &self.key {
            check_text("/key", key, limits::KEY_CHARS, &mut errors);
        }
        if self.op.is_some() && self.key.is_none() {
            errors.push(Invalid::new("/op", "needs a key to work on"));
        }
        if let Some(href) = &self.href {
            check_href(href, &mut errors);
        }
        let data = self.data.filter(|data| data.get() != "null");
        if let Some(data) = &data
            && data.get().len() > limits::DATA_BYTES
        {
            let detail = format!("must be at most {} bytes of JSON, is {}", limits::DATA_BYTES, data.get().len());
            errors.push(Invalid::too_large("/data", detail));
        }
        let occurred_at = self.occurred_at.map(|text| text.parse::<Timestamp>());
        if let Some(Err(detail)) = &occurred_at {
            errors.push(Invalid::new("/occurred_at", detail));
        }
        check_wake(&self.wake, &mut errors);
        match feed {
            Some(feed) if errors.is_empty() => Ok(NewEvent {
                feed,
                kind: self.kind,
                op: self.key.is_some().then(|| self.op.unwrap_or(Op::Upsert)),
                key: self.key,
                href: self.href,
                data,
                occurred_at: occurred_at.and_then(Result::ok),
                wake: self.wake,
            }),
            _ => Err(errors),
        }
    }
}

fn check_href(href: &str, errors: &mut Vec<Invalid>) {
    if href.len() > limits::HREF_BYTES {
        errors.push(Invalid::new("/href", format!("must be at most {} bytes, is {}", limits::HREF_BYTES, href.len())));
    } else if url::Url::parse(href).is_err() {
        errors.push(Invalid::new("/href", "must be an absolute URL"));
    }
}

fn check_wake(wake: &WakeSpec, errors: &mut Vec<Invalid>) {
    if wake.ttl_s == 0 || wake.ttl_s > limits::TTL_S {
        errors.push(Invalid::new("/wake/ttl_s", format!("must be 1 to {} seconds, is {}", limits::TTL_S, wake.ttl_s)));
    }
    match (wake.class, &wake.alert) {
        (WakeClass::Alert, None) => errors.push(Invalid::new("/wake/alert", "class \"alert\" needs an alert")),
        (WakeClass::Alert, Some(alert)) => alert.check(errors),
        (_, Some(_)) => errors.push(Invalid::new("/wake/alert", "is for class \"alert\" only")),
        (_, None) => {}
    }
}

/// An event with its place in the order: what is stored, and what a poll shows.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its place in the app's order.
    pub position: Position,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it happened: as the backend said, else when it was accepted.
    pub occurred_at: Timestamp,
    /// What the backend said.
    pub content: NewEvent,
}

impl Event {
    /// Until when waking for it is worth while.
    pub fn expires_at(&self) -> Timestamp {
        self.accepted_at + std::time::Duration::from_secs(u64::from(self.content.wake.ttl_s))
    }
}
