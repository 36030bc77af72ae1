//! Ten causes that the relay can know: each is named in the first three rows of the device's timeline (contract §7).

use std::{pin::Pin, time::Duration};

use reveille::sim::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::support::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn answers(status: u16, reason: &str) -> Fault {
    Fault::new(FaultKind::Status { status, reason: Some(reason.to_owned()), retry_after: None })
}

async fn publish(world: &World, class: &str, ttl_s: u32) {
    let mut wake = json!({"class": class, "ttl_s": ttl_s});
    if class == "alert" {
        wake["alert"] = json!({"title": "Order 42"});
    }
    world.post("/v1/events", json!({"feed": "f", "type": "order.updated", "wake": wake})).await.expect(202);
}

/// Brings a device into a state; answers its id.
type Produce = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = String> + 'a>>;

/// One cause: how it comes about, what a row must say, and fields that the same row must have.
struct Cause {
    name: &'static str,
    produce: Produce,
    says: &'static str,
    fields: Value,
}

/// What only one cause may say of itself.
const WORDS: [&str; 10] = [
    "dead token",
    "wrong topic",
    "provider key",
    "throttled by the provider",
    "out of budget",
    "suppressed: already fetched",
    "user changed",
    "skipped: expired",
    "provider down",
    "the push was lost, the phone is offline, or the app was closed",
];

fn causes() -> Vec<Cause> {
    let cause = |name, produce, says, fields| Cause { name, produce, says, fields };
    vec![
        cause(
            "dead token, APNs",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.clock.advance(SECOND);
                    world.sim.apns().dead_token(&phone.token, None);
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "dead token",
            json!({"kind": "state", "status": "gone", "reason": "Unregistered"}),
        ),
        cause(
            "dead token, FCM, and news since",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.sim.fcm().dead_token(&phone.token, None);
                    for class in ["background", "alert", "background", "alert"] {
                        publish(world, class, 3600).await;
                        world.settle().await;
                    }
                    phone.id
                })
            },
            "dead token",
            json!({"kind": "state", "status": "gone", "reason": "UNREGISTERED"}),
        ),
        cause(
            "wrong topic, says the provider of the credential",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.sim.apns().answer(answers(400, "TopicDisallowed"));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "wrong topic",
            json!({"kind": "attempt", "outcome": "rejected", "status": 400, "reason": "TopicDisallowed"}),
        ),
        cause(
            "wrong topic, says the provider of the token",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.clock.advance(SECOND);
                    world.sim.apns().answer(answers(400, "DeviceTokenNotForTopic"));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "wrong topic",
            json!({"kind": "state", "reason": "DeviceTokenNotForTopic"}),
        ),
        cause(
            "wrong topic, so that no credential serves the device",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().with("topic", "com.example.other").follows(&["f"]).await;
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "wrong topic",
            json!({"kind": "state", "decision": "skipped", "reason": "no credential"}),
        ),
        cause(
            "expired provider key, APNs",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.sim.apns().answer(answers(403, "ExpiredProviderToken"));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "expired provider key",
            json!({"kind": "attempt", "outcome": "rejected", "status": 403, "reason": "ExpiredProviderToken"}),
        ),
        cause(
            "revoked provider key, FCM",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.sim.google_oauth().answer(answers(400, "invalid_grant"));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "expired or revoked provider key",
            json!({"kind": "attempt", "outcome": "rejected", "status": null}),
        ),
        cause(
            "throttled by the provider",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.sim.fcm().answer(answers(429, "QUOTA_EXCEEDED").times(1));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "throttled by the provider",
            json!({"kind": "state", "decision": "deferred", "reason": "retry"}),
        ),
        cause(
            "out of budget",
            |world| {
                Box::pin(async {
                    world.settings(json!({"wake": {"ios": {"background": {"gap_s": 0}}}})).await;
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    for _ in 0..3 {
                        world.publish("f").await;
                        world.settle().await;
                    }
                    phone.id
                })
            },
            "out of budget",
            json!({"kind": "state", "decision": "deferred", "reason": "budget", "until": "2026-09-21T14:43:20.000Z"}),
        ),
        cause(
            "just polled",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.publish("f").await;
                    phone.sync().await;
                    world.settle().await;
                    phone.id
                })
            },
            "suppressed: already fetched",
            json!({"kind": "dropped", "class": "background", "decision": "suppressed", "reason": "already fetched"}),
        ),
        cause(
            "user rebound",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").user("17").follows(&["f"]).await;
                    world.publish("f").await;
                    world.phone("pixel").user("18").follows(&["f"]).await;
                    world.settle().await;
                    phone.id
                })
            },
            "user changed",
            json!({"kind": "registered", "change": "user_changed"}),
        ),
        cause(
            "expired, in the background",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    publish(world, "background", 60).await;
                    world.later(SECOND * 61).await;
                    phone.id
                })
            },
            "skipped: expired",
            json!({"kind": "state", "class": "background", "decision": "skipped", "reason": "expired"}),
        ),
        cause(
            "expired, an alert",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    publish(world, "alert", 60).await;
                    world.later(SECOND * 61).await;
                    phone.id
                })
            },
            "skipped: expired",
            json!({"kind": "state", "class": "alert", "decision": "skipped", "reason": "expired"}),
        ),
        cause(
            "provider down",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.sim.fcm().answer(answers(503, "UNAVAILABLE"));
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "provider down",
            json!({"kind": "attempt", "outcome": "unavailable", "status": 503, "reason": "UNAVAILABLE"}),
        ),
        cause(
            "provider down, and left alone",
            |world| {
                Box::pin(async {
                    world.sim.fcm().answer(answers(503, "UNAVAILABLE"));
                    for name in 0..10 {
                        world.phone(&format!("other-{name}")).follows(&["other"]).await;
                    }
                    world.publish("other").await;
                    world.settle().await;
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.publish("f").await;
                    world.relay().dispatcher().step().await.unwrap();
                    phone.id
                })
            },
            "deferred: provider down",
            json!({"kind": "state", "decision": "deferred", "reason": "provider down"}),
        ),
        cause(
            "provider not to be reached",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.sim.apns().answer(FaultKind::Reset);
                    world.publish("f").await;
                    world.settle().await;
                    phone.id
                })
            },
            "provider down",
            json!({"kind": "attempt", "outcome": "unavailable", "status": null}),
        ),
        cause(
            "told, but not fetched",
            |world| {
                Box::pin(async {
                    let phone = world.phone("pixel").follows(&["f"]).await;
                    world.sim.fcm().lose(2);
                    world.publish("f").await;
                    world.settle().await;
                    world.later(SECOND * 600).await;
                    phone.id
                })
            },
            "told 2 times, last at 2026-09-21T14:23:20.000Z, and not fetched: the push was lost",
            json!({"kind": "state", "decision": "sent", "reason": "not fetched", "wakes": 2, "until": "2026-09-21T15:23:20.000Z"}),
        ),
        cause(
            "an alert told, but not fetched",
            |world| {
                Box::pin(async {
                    let phone = world.phone("iphone").ios().follows(&["f"]).await;
                    world.sim.apns().lose(1);
                    publish(world, "alert", 3600).await;
                    world.settle().await;
                    phone.id
                })
            },
            "no more wakes",
            json!({"kind": "state", "class": "alert", "decision": "sent", "reason": "not fetched", "wakes": 1, "until": null}),
        ),
    ]
}

/// Everything that is asserted comes from the relay's own record, over its API; the providers tell it nothing but their answers.
#[tokio::test]
async fn causes_by_table() {
    for Cause { name, produce, says, fields } in causes() {
        let world = World::start().await;
        let device = produce(&world).await;
        let page = world.get(&format!("/v1/devices/{device}/timeline")).await.expect(200);
        let first: Vec<_> = page["items"].as_array().unwrap().iter().take(3).collect();
        let has = |row: &Value| fields.as_object().unwrap().iter().all(|(field, value)| row[field] == *value);
        assert!(first.iter().any(|row| has(row)), "{name}: no row has {fields}\n{first:#?}");
        assert!(
            first.iter().any(|row| row["says"].as_str().unwrap().contains(says)),
            "{name}: no row says {says:?}\n{first:#?}"
        );
        let named: Vec<_> = WORDS
            .into_iter()
            .filter(|words| first.iter().any(|row| row["says"].as_str().unwrap().contains(words)))
            .collect();
        assert_eq!(named.len(), 1, "{name} is taken for {named:?}\n{first:#?}");
    }
}
