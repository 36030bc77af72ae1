//! The main job: event → push → recorded attempt → poll.

use std::time::Duration;

use serde_json::json;

use crate::support::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_event_wakes_the_followers_and_the_poll_has_the_truth() {
    let world = World::start().await;
    let android = world.phone("pixel").user("17").follows(&["order:42"]).await;
    let ios = world.phone("iphone").ios().follows(&["order:42"]).await;
    let stranger = world.phone("stranger").follows(&["order:43"]).await;

    let event = world
        .post(
            "/v1/events",
            json!({"feed": "order:42", "type": "order.updated", "key": "order/42", "data": {"status": "packed"}}),
        )
        .await
        .expect(202);
    world.settle().await;

    assert_eq!([android.received(), ios.received(), stranger.received()], [1, 1, 0]);
    let push = &android.pushes()[0];
    assert_eq!(push["v"], "1");
    assert_eq!(push["feed"], "order:42");
    assert_eq!(push["head"], event["position"].to_string());
    assert_eq!(push["for"], android.registered["for"]);
    assert_eq!(push["poll"], world.url("/v1/sync"));
    assert!(!json!(world.sim.pushes().iter().map(|p| &p.body).collect::<Vec<_>>()).to_string().contains("packed"));
    assert_eq!(ios.pushes()[0].get("for"), None);

    assert_eq!(world.outcomes().await, ["accepted", "accepted"]);
    let status = world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(status["state"], "settled");
    assert_eq!([&status["devices"]["targeted"], &status["devices"]["told"], &status["devices"]["fetched"]], [2, 2, 0]);

    let page = android.sync().await;
    assert_eq!(page.feeds(), ["order:42"]);
    assert_eq!(page.events()[0]["data"], json!({"status": "packed"}));
    assert_eq!(page.events()[0]["position"], event["position"]);
    assert_eq!(android.sync().await.events().len(), 0);
    assert!(stranger.sync().await.events().is_empty());
    let status = world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200);
    assert_eq!([&status["devices"]["fetched"], &status["devices"]["acked"]], [1, 1]);
}

#[tokio::test]
async fn all_pushes_lost_and_every_event_is_still_read() {
    let world = World::start().await;
    let phones =
        [world.phone("pixel").follows(&["order:42"]).await, world.phone("iphone").ios().follows(&["order:42"]).await];
    world.sim.fcm().lose(1000);
    world.sim.apns().lose(1000);
    for _ in 0..30 {
        world.publish("order:42").await;
        world.settle().await;
    }
    for phone in phones {
        assert_eq!(phone.received(), 0);
        assert_eq!(phone.sync().await.feeds().len(), 30);
    }
}

#[tokio::test]
async fn a_phone_that_has_polled_already_is_not_woken() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    assert_eq!(phone.sync().await.feeds(), ["order:42"]);
    world.settle().await;
    assert_eq!(phone.received(), 0);
    assert!(world.attempts().await.is_empty());
}

#[tokio::test]
async fn what_comes_during_a_call_makes_one_more_wake() {
    let world = World::start().await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.sim.fcm().pause();
    world.publish("order:42").await;
    world.relay().dispatcher().step().await.unwrap();
    let mut last = 0;
    for _ in 0..5 {
        last = world.publish("order:42").await["position"].as_i64().unwrap();
    }
    world.sim.fcm().resume();
    world.settle().await;
    assert_eq!(phone.heads(), [last - 5, last]);
}

#[tokio::test]
async fn a_provider_in_trouble_gets_the_same_wake_again() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    use reveille::sim::{Fault, FaultKind};
    let unavailable = |after: Option<&str>| {
        let kind = FaultKind::Status { status: 503, reason: None, retry_after: after.map(str::to_owned) };
        Fault::new(kind).times(1)
    };
    world.sim.fcm().answer(unavailable(Some("3")));
    world.sim.apns().answer(unavailable(Some("3")));
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!([phone.received(), iphone.received()], [0, 0]);
    world.later(SECOND * 2).await;
    assert_eq!([phone.received(), iphone.received()], [0, 0]);
    world.later(SECOND).await;
    assert_eq!([phone.received(), iphone.received()], [1, 1]);

    let attempts = world.attempts().await;
    assert_eq!(attempts.len(), 4);
    for device in [&phone.id, &iphone.id] {
        let mine: Vec<_> = attempts.iter().filter(|attempt| attempt["device"] == **device).collect();
        assert_eq!(mine[0]["wake"], mine[1]["wake"]);
        assert_eq!([&mine[1]["try"], &mine[0]["try"]], [1, 2]);
        assert_eq!([&mine[1]["outcome"], &mine[0]["outcome"]], ["unavailable", "accepted"]);
        assert_eq!(mine[1]["status"], 503);
        assert!(mine[1]["retry_at"].is_string());
    }
    let ids: Vec<_> =
        world.sim.pushes().into_iter().filter(|push| push.token == iphone.token).map(|push| push.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1], "apns-id is the same for every retry");
}

#[tokio::test]
async fn a_wake_that_nobody_takes_in_time_expires() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let credential = world.sim.fcm_credential();
    world.delete("/v1/credentials/fcm").await.expect(204);
    world.publish("order:42").await;
    world.settle().await;
    assert!(world.attempts().await.is_empty(), "no credential, no call");
    world.put("/v1/credentials/fcm", credential).await.expect(201);
    assert_eq!(phone.sync().await.feeds().len(), 1);

    world.sim.fcm().answer(reveille::sim::FaultKind::Status {
        status: 503,
        reason: None,
        retry_after: Some("50".into()),
    });
    let wake = json!({"class": "background", "ttl_s": 60});
    let event = world.post("/v1/events", json!({"feed": "order:42", "type": "t", "wake": wake})).await.expect(202);
    world.settle().await;
    for _ in 0..4 {
        world.later(SECOND * 25).await;
    }
    assert_eq!(world.outcomes().await, ["unavailable", "unavailable"]);
    let status = world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(status["state"], "settled");
    assert_eq!(status["devices"]["expired"], 1);
    assert_eq!(phone.sync().await.feeds().len(), 1, "the poll still has it");
}

#[tokio::test]
async fn waiting_alerts_go_one_per_feed_newest_text_first_come() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:1", "order:2"]).await;
    world.sim.apns().pause();
    world.publish("order:9").await;
    for (feed, title) in [("order:1", "packed"), ("order:2", "paid"), ("order:1", "on its way")] {
        world.alert(feed, title).await;
    }
    world.sim.apns().resume();
    world.settle().await;
    let titles: Vec<_> = (world.sim.pushes().iter())
        .filter(|push| push.token == phone.token)
        .map(|push| push.body["aps"]["alert"]["title"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(titles, ["paid", "on its way"]);
}

#[tokio::test]
async fn a_device_can_be_tested_in_either_class() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().registers().await;
    let path = format!("/v1/devices/{}/test", phone.id);
    for class in ["background", "alert"] {
        let answer = world.post(&path, json!({"class": class})).await;
        assert!(answer.header("location").unwrap().starts_with("/v1/events/evt_"));
        let event = answer.expect(202);
        assert_eq!([&event["type"], &event["feed"]], ["reveille.test", &format!("device:{}", phone.id)]);
        world.settle().await;
    }
    assert_eq!(phone.received(), 2);
    assert_eq!(phone.sync().await.events().len(), 2);
    assert_eq!(world.post(&path, json!({"class": "none"})).await.problem(422), "invalid");
    let foreign = "/v1/devices/dev_01h455vb4pex5vsknk084sn02q/test";
    assert_eq!(world.post(foreign, json!({"class": "alert"})).await.problem(404), "not-found");
}
