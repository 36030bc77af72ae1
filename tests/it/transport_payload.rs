//! What goes over the air, and how large it is.

use std::time::Duration;

use proptest::prelude::*;
use reveille::{
    domain::{
        device::{Environment, Platform, TokenKind, Transport},
        event::{Alert, CancelOn, InterruptionLevel},
        feed::{FeedName, Position},
        push::{Target, Trigger},
        time::Timestamp,
    },
    transport::{
        measure,
        payload::{self, ApnsHeaders, Mode},
    },
};
use serde_json::Value;

const POLL: &str = "https://push.example.com/v1/sync";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn background() -> Trigger {
    Trigger {
        wake: "wake_01kakgxxf7fbrs10h4ep5fzqf7".parse().unwrap(),
        head: Position(1287),
        feed: Some(FeedName::parse("order:42").unwrap()),
        href: None,
        for_user: Some("9f2c41d0".to_owned()),
        alert: None,
        expires_at: now() + Duration::from_millis(3_600_900),
    }
}

fn alert() -> Alert {
    serde_json::from_str(r#"{"title": "Order 42", "body": "Your order is on its way"}"#).unwrap()
}

fn rich_alert() -> Alert {
    Alert {
        title: Some("Order 42".to_owned()),
        subtitle: Some("Shop".to_owned()),
        body: Some("Unterwegs, \"bald\" da".to_owned()),
        title_loc_key: Some("ORDER".to_owned()),
        title_loc_args: Some(vec!["42".to_owned()]),
        loc_key: Some("ON_ITS_WAY".to_owned()),
        loc_args: Some(vec!["42".to_owned(), "ten \"to\" five".to_owned()]),
        sound: None,
        badge: Some(3),
        category: Some("ORDER".to_owned()),
        thread_id: Some("orders".to_owned()),
        interruption_level: Some(InterruptionLevel::TimeSensitive),
        channel_id: Some("orders".to_owned()),
        cancel_on: CancelOn::Never,
    }
}

fn target(platform: Platform, token_kind: TokenKind) -> Target {
    Target {
        transport: Transport::Fcm,
        platform,
        token: "registration-token".to_owned().into(),
        token_kind,
        environment: Environment::Production,
        topic: "shop".to_owned(),
    }
}

fn apns(trigger: &Trigger) -> Value {
    serde_json::from_slice(&payload::apns(trigger, POLL).unwrap().json).unwrap()
}

fn fcm(trigger: &Trigger, target: &Target) -> Value {
    serde_json::from_slice(&payload::fcm(trigger, POLL, target, Mode::Deliver, now()).unwrap().json).unwrap()
}

#[test]
fn apns_background() {
    insta::assert_json_snapshot!(apns(&background()), @r#"
    {
      "aps": {
        "content-available": 1
      },
      "reveille": {
        "feed": "order:42",
        "for": "9f2c41d0",
        "head": "1287",
        "poll": "https://push.example.com/v1/sync",
        "v": "1",
        "wake": "wake_01kakgxxf7fbrs10h4ep5fzqf7"
      }
    }
    "#);
}

#[test]
fn apns_alert() {
    let mut trigger = background();
    trigger.alert = Some(alert());
    trigger.href = Some("https://api.example.com/orders/42".to_owned());
    trigger.for_user = None;
    trigger.feed = None;
    insta::assert_json_snapshot!(apns(&trigger), @r#"
    {
      "aps": {
        "alert": {
          "body": "Your order is on its way",
          "title": "Order 42"
        },
        "mutable-content": 1,
        "sound": "default"
      },
      "reveille": {
        "head": "1287",
        "href": "https://api.example.com/orders/42",
        "poll": "https://push.example.com/v1/sync",
        "v": "1",
        "wake": "wake_01kakgxxf7fbrs10h4ep5fzqf7"
      }
    }
    "#);
    trigger.alert = Some(rich_alert());
    insta::assert_json_snapshot!(apns(&trigger)["aps"], @r#"
    {
      "alert": {
        "body": "Unterwegs, \"bald\" da",
        "loc-args": [
          "42",
          "ten \"to\" five"
        ],
        "loc-key": "ON_ITS_WAY",
        "subtitle": "Shop",
        "title": "Order 42",
        "title-loc-args": [
          "42"
        ],
        "title-loc-key": "ORDER"
      },
      "badge": 3,
      "category": "ORDER",
      "interruption-level": "time-sensitive",
      "mutable-content": 1,
      "thread-id": "orders"
    }
    "#);
}

#[test]
fn fcm_to_android() {
    let mut trigger = background();
    let phone = target(Platform::Android, TokenKind::Token);
    insta::assert_json_snapshot!(fcm(&trigger, &phone), @r#"
    {
      "message": {
        "android": {
          "collapse_key": "reveille",
          "priority": "NORMAL",
          "ttl": "3600s"
        },
        "data": {
          "feed": "order:42",
          "for": "9f2c41d0",
          "head": "1287",
          "poll": "https://push.example.com/v1/sync",
          "v": "1",
          "wake": "wake_01kakgxxf7fbrs10h4ep5fzqf7"
        },
        "token": "registration-token"
      }
    }
    "#);
    trigger.alert = Some(rich_alert());
    insta::assert_json_snapshot!(fcm(&trigger, &phone), @r#"
    {
      "message": {
        "android": {
          "priority": "HIGH",
          "ttl": "3600s"
        },
        "data": {
          "badge": "3",
          "body": "Unterwegs, \"bald\" da",
          "category": "ORDER",
          "channel_id": "orders",
          "feed": "order:42",
          "for": "9f2c41d0",
          "head": "1287",
          "interruption_level": "time-sensitive",
          "loc_args": "[\"42\",\"ten \\\"to\\\" five\"]",
          "loc_key": "ON_ITS_WAY",
          "poll": "https://push.example.com/v1/sync",
          "subtitle": "Shop",
          "thread_id": "orders",
          "title": "Order 42",
          "title_loc_args": "[\"42\"]",
          "title_loc_key": "ORDER",
          "v": "1",
          "wake": "wake_01kakgxxf7fbrs10h4ep5fzqf7"
        },
        "token": "registration-token"
      }
    }
    "#);
}

#[test]
fn fcm_to_a_browser_by_installation_id() {
    insta::assert_json_snapshot!(fcm(&background(), &target(Platform::Web, TokenKind::Fid)), @r#"
    {
      "message": {
        "data": {
          "feed": "order:42",
          "for": "9f2c41d0",
          "head": "1287",
          "poll": "https://push.example.com/v1/sync",
          "v": "1",
          "wake": "wake_01kakgxxf7fbrs10h4ep5fzqf7"
        },
        "fid": "registration-token",
        "webpush": {
          "headers": {
            "TTL": "3600",
            "Urgency": "normal"
          }
        }
      }
    }
    "#);
}

#[test]
fn fcm_to_ios_carries_what_apns_would() {
    let phone = target(Platform::Ios, TokenKind::Token);
    for alert in [None, Some(alert()), Some(rich_alert())] {
        let trigger = Trigger { alert, ..background() };
        let message = fcm(&trigger, &phone);
        assert_eq!(message["message"]["apns"]["payload"], apns(&trigger));
        assert_eq!(message["message"].as_object().unwrap().len(), 2, "token and apns: {message}");
    }
    insta::assert_json_snapshot!(fcm(&background(), &phone)["message"]["apns"]["headers"], @r#"
    {
      "apns-collapse-id": "reveille",
      "apns-expiration": "1795266000",
      "apns-priority": "5",
      "apns-push-type": "background"
    }
    "#);
    let trigger = Trigger { alert: Some(alert()), ..background() };
    insta::assert_json_snapshot!(fcm(&trigger, &phone)["message"]["apns"]["headers"], @r#"
    {
      "apns-collapse-id": "order:42",
      "apns-expiration": "1795266000",
      "apns-priority": "10",
      "apns-push-type": "alert"
    }
    "#);
}

#[test]
fn ttl_is_what_is_left() {
    let phone = target(Platform::Android, TokenKind::Token);
    let mut trigger = background();
    trigger.expires_at = now() - Duration::from_secs(1);
    assert_eq!(fcm(&trigger, &phone)["message"]["android"]["ttl"], "0s");
    trigger.expires_at = now() + Duration::from_secs(90 * 86_400);
    assert_eq!(fcm(&trigger, &phone)["message"]["android"]["ttl"], "2419200s");
}

#[test]
fn a_rehearsal_says_so() {
    let phone = target(Platform::Android, TokenKind::Token);
    let json = payload::fcm(&background(), POLL, &phone, Mode::Rehearse, now()).unwrap().json;
    let message: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(message["validate_only"], true);
}

#[test]
fn alerts_collapse_per_feed() {
    let id = |feed: &str| {
        let feed = Some(FeedName::parse(feed).unwrap());
        let trigger = Trigger { feed, alert: Some(alert()), ..background() };
        ApnsHeaders::of(&trigger).collapse_id.map(|id| id.into_owned())
    };
    assert_eq!(id("order:42").as_deref(), Some("order:42"));
    assert_eq!(id(&"x".repeat(64)), Some("x".repeat(64)));
    let long = id(&"x".repeat(65)).unwrap();
    assert!(long.starts_with('~') && long.len() <= 64, "{long}");
    assert_ne!(Some(long), id(&"x".repeat(66)));
    assert_ne!(id("reveille").as_deref(), Some(payload::BACKGROUND_COLLAPSE), "that is the background's");
    let several = Trigger { feed: None, alert: Some(alert()), ..background() };
    assert_eq!(ApnsHeaders::of(&several).collapse_id, None);
}

#[test]
fn too_large_names_the_largest_field_and_the_boundary_is_exact() {
    let sized = |body_bytes: usize| {
        let body = Some("b".repeat(body_bytes));
        Trigger { alert: Some(Alert { body, ..alert() }), ..background() }
    };
    let room = 4096 - payload::apns(&sized(0), POLL).unwrap().counted_bytes;
    assert_eq!(measure(&sized(room), POLL), Ok(()));
    let error = measure(&sized(room + 1), POLL).unwrap_err();
    assert_eq!((error.limit, error.actual, error.largest.as_str()), (4096, 4097, "body"));
    assert_eq!(error.transport, Transport::Apns);
    // APNs has no channel_id: only FCM is too small for this one.
    let alert = Alert { channel_id: Some("c".repeat(4096)), ..alert() };
    let error = measure(&Trigger { alert: Some(alert), ..background() }, POLL).unwrap_err();
    assert_eq!((error.transport, error.largest.as_str()), (Transport::Fcm, "channel_id"));
}

fn any_alert() -> impl Strategy<Value = Alert> {
    let text = || proptest::option::of(".{0,80}");
    let list = || proptest::option::of(proptest::collection::vec(".{0,20}", 0..4));
    let texts = (text(), text(), text(), text(), list(), text(), list());
    let rest = (text(), proptest::option::of(any::<u32>()), text(), text(), text());
    (texts, rest).prop_map(|((title, subtitle, body, title_loc_key, title_loc_args, loc_key, loc_args), rest)| {
        let (sound, badge, category, thread_id, channel_id) = rest;
        let (interruption_level, cancel_on) = (Some(InterruptionLevel::Passive), CancelOn::Fetch);
        Alert {
            title,
            subtitle,
            body,
            title_loc_key,
            title_loc_args,
            loc_key,
            loc_args,
            sound,
            badge,
            category,
            thread_id,
            interruption_level,
            channel_id,
            cancel_on,
        }
    })
}

fn any_trigger() -> impl Strategy<Value = Trigger> {
    let feed = proptest::option::of("[A-Za-z0-9][A-Za-z0-9._:~@|+=-]{0,127}");
    (feed, proptest::option::of(any_alert()), proptest::option::of(".{0,200}"), 0..i64::MAX).prop_map(
        |(feed, alert, href, head)| {
            let feed = feed.map(|feed| FeedName::parse(&feed).unwrap());
            Trigger { feed, alert, href, head: Position(head), ..background() }
        },
    )
}

proptest! {
    #[test]
    fn what_is_counted_is_what_is_sent(trigger in any_trigger()) {
        let built = payload::apns(&trigger, POLL).unwrap();
        prop_assert_eq!(built.counted_bytes, built.json.len());
        let apns_bytes = built.counted_bytes;

        let built = payload::fcm(&trigger, POLL, &target(Platform::Android, TokenKind::Token), Mode::Deliver, now()).unwrap();
        let message: Value = serde_json::from_slice(&built.json).unwrap();
        let data = message["message"]["data"].as_object().unwrap();
        let bytes: usize = data.iter().map(|(name, value)| name.len() + value.as_str().unwrap().len()).sum();
        prop_assert_eq!(built.counted_bytes, bytes);
        prop_assert_eq!(measure(&trigger, POLL).is_ok(), apns_bytes.max(bytes) <= 4096);

        let built = payload::fcm(&trigger, POLL, &target(Platform::Ios, TokenKind::Token), Mode::Deliver, now()).unwrap();
        let message: Value = serde_json::from_slice(&built.json).unwrap();
        prop_assert_eq!(built.counted_bytes, message["message"]["apns"]["payload"].to_string().len());
    }

    #[test]
    fn collapse_ids_fit(trigger in any_trigger()) {
        let headers = ApnsHeaders::of(&trigger);
        prop_assert!(headers.collapse_id.is_none_or(|id| id.len() <= 64));
    }
}
