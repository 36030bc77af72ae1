//! One app's trouble is not another's (contract §8).

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;

use crate::support::world::World;

/// More than one app may have calls under way.
const DEVICES_OF_A: usize = 1_100;
const PUSHES_OF_B: usize = 10;

#[tokio::test]
async fn while_one_apps_provider_hangs_anothers_pushes_all_go_out() {
    let world = World::start().await;
    let registrations = stream::iter(0..DEVICES_OF_A).map(|number| {
        let phone = json!({"installation_id": format!("{number}"), "transport": "fcm", "token": format!("token-{number}"), "feeds": ["a"]});
        world.post("/v1/devices", phone)
    });
    registrations.buffer_unordered(32).for_each(async |answer| drop(answer.expect(201))).await;
    let (_, key) = world.new_app("b").await;
    let put = |path, body| world.call(Method::PUT, path, &key, Some(body));
    put("/v1/credentials/apns", world.sim.apns_credential()).await.expect(201);
    let iphone = json!({"installation_id": "iphone", "transport": "apns", "topic": "com.example.shop", "token": "ab".repeat(32), "feeds": ["b"]});
    world.call(Method::POST, "/v1/devices", &key, Some(iphone)).await.expect(201);

    world.sim.fcm().pause();
    world.publish("a").await;
    let stuck = async || {
        while !matches!(world.relay().dispatcher().step().await.unwrap(), reveille::dispatch::Step::Full) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stuck()).await.expect("A takes all calls that it may have");
    for sent in 1..=PUSHES_OF_B {
        let alert = json!({"class": "alert", "alert": {"title": "on its way"}});
        let event = json!({"feed": "b", "type": "t", "wake": alert});
        world.call(Method::POST, "/v1/events", &key, Some(event)).await.expect(202);
        let arrives = async || {
            while world.sim.apns().received() < sent {
                world.relay().dispatcher().step().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrives()).await.expect("B's push goes out");
    }
    assert!(world.sim.fcm().received() < DEVICES_OF_A, "A is still stuck");
    world.sim.fcm().resume();
    world.settle().await;
    assert_eq!(world.sim.fcm().received(), DEVICES_OF_A);
}
