//! The JSON that goes over the air, and how large it is (contract §6). Pure.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use serde::{Serialize, Serializer, ser::SerializeMap};
use sha2::{Digest, Sha256};

use crate::domain::{
    device::{Platform, TokenKind, Transport},
    event::{Alert, Class, InterruptionLevel},
    limits,
    push::{Target, Trigger},
    time::Timestamp,
};

/// The collapse id and key of every background push: only the newest matters.
pub const BACKGROUND_COLLAPSE: &str = "reveille";

/// Longest `apns-collapse-id` (Apple: "Sending notification requests to APNs").
pub const COLLAPSE_BYTES: usize = 64;

/// A trigger that no provider would take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the push is {actual} bytes for {transport}, at most {limit} are allowed; its largest field is {largest:?}")]
pub struct TooLarge {
    /// What is allowed, in bytes.
    pub limit: usize,
    /// What it would be, in bytes.
    pub actual: usize,
    /// The name of the field that takes the most room.
    pub largest: String,
    /// The provider that would refuse it.
    pub transport: Transport,
}

/// A body ready to be sent.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The JSON.
    pub json: Vec<u8>,
    /// What the provider counts against its limit, in bytes: APNs the whole payload, FCM keys and values of `data`.
    pub counted_bytes: usize,
}

/// Refuses a trigger that is over the limit of any transport; the caller gives the worst case (long head, a user).
pub fn measure(trigger: &Trigger, poll_url: &str) -> Result<(), TooLarge> {
    let apns_bytes = json_bytes(&apns_payload(trigger, poll_url));
    let fcm_bytes = data_bytes(&data(trigger, poll_url));
    for (transport, actual) in [(Transport::Apns, apns_bytes), (Transport::Fcm, fcm_bytes)] {
        if actual > limits::PUSH_BYTES {
            let largest = data(trigger, poll_url).into_iter().max_by_key(|(_, value)| value.len());
            let largest = largest.map(|(name, _)| name.to_owned()).unwrap_or_default();
            return Err(TooLarge { limit: limits::PUSH_BYTES, actual, largest, transport });
        }
    }
    Ok(())
}

/// The body of `POST /3/device/<token>`.
pub fn apns(trigger: &Trigger, poll_url: &str) -> Result<Payload, serde_json::Error> {
    let json = serde_json::to_vec(&apns_payload(trigger, poll_url))?;
    Ok(Payload { counted_bytes: json.len(), json })
}

/// The body of `messages:send`; `mode` says whether it is a rehearsal.
pub fn fcm(
    trigger: &Trigger,
    poll_url: &str,
    target: &Target,
    mode: Mode,
    now: Timestamp,
) -> Result<Payload, serde_json::Error> {
    let address = target.token.expose_secret();
    let (token, fid) = match target.token_kind {
        TokenKind::Token => (Some(address), None),
        TokenKind::Fid => (None, Some(address)),
    };
    let mut message = Message { token, fid, data: None, android: None, webpush: None, apns: None };
    let class = trigger.class();
    let left_s = trigger.expires_at.since(now).as_secs().min(u64::from(limits::TTL_S));
    let counted_bytes;
    if target.platform == Platform::Ios {
        // FCM would merge `data` into the APNs payload: it would arrive twice, and be twice as large.
        let payload = apns_payload(trigger, poll_url);
        counted_bytes = json_bytes(&payload);
        message.apns = Some(ViaApns { headers: ApnsHeaders::of(trigger), payload });
    } else {
        let fields = data(trigger, poll_url);
        counted_bytes = data_bytes(&fields);
        message.data = Some(Fields(fields));
    }
    match target.platform {
        Platform::Ios => {}
        Platform::Android => {
            message.android = Some(Android {
                priority: if class == Class::Alert { "HIGH" } else { "NORMAL" },
                ttl: format!("{left_s}s"),
                collapse_key: (class == Class::Background).then_some(BACKGROUND_COLLAPSE),
            });
        }
        Platform::Web => {
            let urgency = if class == Class::Alert { "high" } else { "normal" };
            message.webpush = Some(WebPush { headers: WebPushHeaders { ttl_s: left_s.to_string(), urgency } });
        }
    }
    let json = serde_json::to_vec(&Send { validate_only: mode == Mode::Rehearse, message })?;
    Ok(Payload { json, counted_bytes })
}

/// Whether FCM is to deliver a message or only to check it (`validate_only`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deliver it.
    Deliver,
    /// Check it.
    Rehearse,
}

/// The APNs headers that depend on the trigger; the same sent to Apple and through FCM.
#[derive(Debug, Clone, Serialize)]
pub struct ApnsHeaders<'a> {
    /// `alert` or `background`.
    #[serde(rename = "apns-push-type")]
    pub push_type: &'static str,
    /// Background "always 5; 10 is an error".
    #[serde(rename = "apns-priority")]
    pub priority: &'static str,
    /// Seconds since the epoch; left out, FCM would set 30 days.
    #[serde(rename = "apns-expiration")]
    pub expiration: String,
    /// At most [`COLLAPSE_BYTES`].
    #[serde(rename = "apns-collapse-id", skip_serializing_if = "Option::is_none")]
    pub collapse_id: Option<Cow<'a, str>>,
}

impl<'a> ApnsHeaders<'a> {
    /// The headers for `trigger`.
    pub fn of(trigger: &'a Trigger) -> Self {
        let (push_type, priority) = match trigger.class() {
            Class::Alert => ("alert", "10"),
            Class::Background => ("background", "5"),
        };
        let expiration = trigger.expires_at.as_s().max(0).to_string();
        Self { push_type, priority, expiration, collapse_id: collapse_id(trigger) }
    }
}

/// An alert collapses per feed. A hashed name starts with `~`, which no feed name does, and the background's own id is hashed
/// too, so that two feeds never share an id.
fn collapse_id(trigger: &Trigger) -> Option<Cow<'_, str>> {
    if trigger.class() == Class::Background {
        return Some(Cow::Borrowed(BACKGROUND_COLLAPSE));
    }
    let feed = trigger.feed.as_ref()?.as_str();
    if feed.len() <= COLLAPSE_BYTES && feed != BACKGROUND_COLLAPSE {
        return Some(Cow::Borrowed(feed));
    }
    Some(Cow::Owned(format!("~{}", BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(feed.as_bytes())))))
}

type Field<'a> = (&'static str, Cow<'a, str>);

/// A JSON object of strings, in order.
struct Fields<'a>(Vec<Field<'a>>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn trigger_fields<'a>(trigger: &'a Trigger, poll_url: &'a str) -> Vec<Field<'a>> {
    let mut fields = Vec::with_capacity(8);
    fields.push(("v", Cow::Borrowed("1")));
    fields.push(("wake", Cow::Owned(trigger.wake.to_string())));
    fields.push(("head", Cow::Owned(trigger.head.to_string())));
    push_some(&mut fields, "feed", trigger.feed.as_ref().map(|feed| feed.as_str()));
    push_some(&mut fields, "for", trigger.for_user.as_deref());
    fields.push(("poll", Cow::Borrowed(poll_url)));
    push_some(&mut fields, "href", trigger.href.as_deref());
    fields
}

/// FCM's `data`: the trigger's fields, and beside them an alert's.
fn data<'a>(trigger: &'a Trigger, poll_url: &'a str) -> Vec<Field<'a>> {
    let mut fields = trigger_fields(trigger, poll_url);
    if let Some(alert) = &trigger.alert {
        push_alert(&mut fields, alert);
    }
    fields
}

fn push_alert<'a>(fields: &mut Vec<Field<'a>>, alert: &'a Alert) {
    push_some(fields, "title", alert.title.as_deref());
    push_some(fields, "subtitle", alert.subtitle.as_deref());
    push_some(fields, "body", alert.body.as_deref());
    push_some(fields, "title_loc_key", alert.title_loc_key.as_deref());
    push_list(fields, "title_loc_args", alert.title_loc_args.as_deref());
    push_some(fields, "loc_key", alert.loc_key.as_deref());
    push_list(fields, "loc_args", alert.loc_args.as_deref());
    push_some(fields, "sound", alert.sound.as_deref());
    if let Some(badge) = alert.badge {
        fields.push(("badge", Cow::Owned(badge.to_string())));
    }
    push_some(fields, "category", alert.category.as_deref());
    push_some(fields, "thread_id", alert.thread_id.as_deref());
    push_some(fields, "interruption_level", alert.interruption_level.map(level_word));
    push_some(fields, "channel_id", alert.channel_id.as_deref());
}

fn push_some<'a>(fields: &mut Vec<Field<'a>>, name: &'static str, value: Option<&'a str>) {
    if let Some(value) = value {
        fields.push((name, Cow::Borrowed(value)));
    }
}

fn push_list(fields: &mut Vec<Field<'_>>, name: &'static str, list: Option<&[String]>) {
    if let Some(list) = list {
        fields.push((name, Cow::Owned(serde_json::json!(list).to_string())));
    }
}

const fn level_word(level: InterruptionLevel) -> &'static str {
    match level {
        InterruptionLevel::Passive => "passive",
        InterruptionLevel::Active => "active",
        InterruptionLevel::TimeSensitive => "time-sensitive",
        InterruptionLevel::Critical => "critical",
    }
}

fn data_bytes(fields: &[Field<'_>]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[derive(Serialize)]
struct ApnsPayload<'a> {
    aps: Aps<'a>,
    reveille: Fields<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Aps<'a> {
    Background {
        #[serde(rename = "content-available")]
        content_available: u8,
    },
    Alert(AlertAps<'a>),
}

/// Apple: "Generating a remote notification".
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct AlertAps<'a> {
    alert: AlertText<'a>,
    mutable_content: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interruption_level: Option<InterruptionLevel>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct AlertText<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtitle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title_loc_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title_loc_args: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loc_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loc_args: Option<&'a [String]>,
}

fn apns_payload<'a>(trigger: &'a Trigger, poll_url: &'a str) -> ApnsPayload<'a> {
    let aps = match &trigger.alert {
        None => Aps::Background { content_available: 1 },
        Some(alert) => Aps::Alert(AlertAps {
            alert: AlertText {
                title: alert.title.as_deref(),
                subtitle: alert.subtitle.as_deref(),
                body: alert.body.as_deref(),
                title_loc_key: alert.title_loc_key.as_deref(),
                title_loc_args: alert.title_loc_args.as_deref(),
                loc_key: alert.loc_key.as_deref(),
                loc_args: alert.loc_args.as_deref(),
            },
            mutable_content: 1,
            sound: alert.sound.as_deref(),
            badge: alert.badge,
            category: alert.category.as_deref(),
            thread_id: alert.thread_id.as_deref(),
            interruption_level: alert.interruption_level,
        }),
    };
    ApnsPayload { aps, reveille: Fields(trigger_fields(trigger, poll_url)) }
}

#[derive(Serialize)]
struct Send<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    validate_only: bool,
    message: Message<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Fields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    android: Option<Android>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webpush: Option<WebPush>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apns: Option<ViaApns<'a>>,
}

#[derive(Serialize)]
struct Android {
    priority: &'static str,
    ttl: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse_key: Option<&'static str>,
}

#[derive(Serialize)]
struct WebPush {
    headers: WebPushHeaders,
}

#[derive(Serialize)]
struct WebPushHeaders {
    #[serde(rename = "TTL")]
    ttl_s: String,
    #[serde(rename = "Urgency")]
    urgency: &'static str,
}

/// What FCM passes on to Apple. `apns-topic` is FCM's own business, and whether it takes an `apns-id` is not documented.
#[derive(Serialize)]
struct ViaApns<'a> {
    headers: ApnsHeaders<'a>,
    payload: ApnsPayload<'a>,
}

/// The length of a value's JSON, without keeping it.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            self.0 += buffer.len();
            Ok(buffer.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Strings, numbers and maps with string keys always serialise, and counting never fails; were it otherwise, nothing may pass.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}
