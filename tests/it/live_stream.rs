//! Server-sent events: what a poll would bring, pushed down one answer.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{live::Stream, served::within, world::World};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stream_tells_what_a_poll_would_and_goes_on_with_what_comes() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let before = world.publish("order:42").await;
    let mut stream = phone.stream().await;
    let first = stream.next().await.unwrap();
    assert_eq!((first.event.as_str(), &first.data["id"]), ("event", &before["id"]));
    let polled = phone.sync().await;
    assert_eq!(first.data, polled.events()[0], "the same event in the same words");

    let told = stream.next().await.unwrap();
    assert_eq!((told.event.as_str(), told.id.is_some()), ("poll", true));
    assert_eq!(told.data, json!({"after_s": 900, "push": {"status": "active"}}));

    world.publish("order:41").await;
    let after = world.publish("order:42").await;
    let second = stream.next().await.unwrap();
    assert_eq!((second.event.as_str(), &second.data["id"]), ("event", &after["id"]));
    let position = after["position"].as_i64().unwrap();
    within(SOON, "it counts as fetched", async || (phone.levels().await[0] == position).then_some(())).await;

    // Its ids are cursors of polls.
    let page = phone.get(&format!("/v1/sync?after={}", first.id.unwrap())).await.expect(200);
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(page["events"][0]["id"], after["id"]);
}

#[tokio::test]
async fn data_with_line_breaks_comes_whole() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = phone.caught_up().await;
    let body = "{\"feed\": \"order:42\", \"type\": \"t\", \"data\": {\n  \"lines\": [1,\r\n 2]\n}}";
    world.post_text("/v1/events", &[("content-type", "application/json")], body).await.expect(202);
    assert_eq!(stream.event().await.data["data"], json!({"lines": [1, 2]}));
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_has_come() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = phone.caught_up().await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(world.publish("order:42").await["id"].clone());
    }
    let first = stream.event().await;
    assert_eq!(first.data["id"], sent[0]);
    drop(stream);
    sent.push(world.publish("order:42").await["id"].clone());
    // The header goes before the query, as browsers send the URL of the beginning again.
    let id = first.id.unwrap();
    let mut stream = phone.stream_of(&format!("?after={}", phone.cursor()), &[("last-event-id", &id)]).await;
    for id in &sent[1..] {
        assert_eq!(stream.event().await.data["id"], *id);
    }
    let [_, acked] = phone.levels().await;
    assert!(acked > 0, "to come back with a cursor acknowledges it");
}

#[tokio::test]
async fn more_than_a_page_comes_in_order() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let batch: Vec<Value> = (0..100).map(|number| json!({"feed": "order:42", "type": format!("t{number}")})).collect();
    for _ in 0..3 {
        world.post("/v1/events", json!(batch)).await.expect(202);
    }
    let mut stream = phone.stream().await;
    let mut seen = Vec::new();
    for _ in 0..300 {
        seen.push(stream.next().await.unwrap().data["position"].as_i64().unwrap());
    }
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert_eq!(stream.next().await.unwrap().event, "poll");
    // More at once than is kept for a connection is read when it gets there.
    world.post("/v1/events", json!(batch)).await.expect(202);
    for number in 0..100 {
        assert_eq!(stream.event().await.data["type"], format!("t{number}"));
    }
}

#[tokio::test]
async fn a_feed_that_is_followed_meanwhile_comes_with_its_events_and_one_that_is_left_does_not() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:41"]).await;
    phone.sync().await;
    let mut stream = phone.caught_up().await;
    let path = format!("/v1/devices/{}/feeds/order:42", phone.id);
    world.put(&path, json!({})).await.expect(200);
    let event = world.publish("order:42").await;
    let followed = stream.event().await.data;
    assert_eq!((&followed["type"], &followed["feed"]), (&json!("reveille.followed"), &json!("order:42")));
    assert_eq!(stream.event().await.data["id"], event["id"]);
    let path = format!("/v1/devices/{}/feeds/order:41", phone.id);
    world.delete(&path).await.expect(204);
    world.publish("order:41").await;
    let event = world.publish("order:42").await;
    assert_eq!(stream.event().await.data["id"], event["id"]);
}

#[tokio::test]
async fn a_thin_stream_says_only_that_there_is_something() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let before = world.publish("order:42").await;
    let mut stream = phone.stream_of("?thin=true", &[]).await;
    let sent = stream.next().await.unwrap();
    assert_eq!((sent.event.as_str(), sent.id, sent.data), ("event", None, json!({"head": before["position"]})));
    let after = world.publish("order:42").await;
    assert_eq!(stream.next().await.unwrap().data, json!({"head": after["position"]}));
    assert!(phone.levels().await[0] < before["position"].as_i64().unwrap(), "nothing was given");
    assert_eq!(phone.sync().await.events().len(), 2);
}

#[tokio::test]
async fn what_lies_no_more_after_a_cursor_is_told_in_the_stream_which_ends() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let cursor = phone.cursor();
    world.publish("order:42").await;
    world.tidy_after(Duration::from_secs(9 * 86_400)).await;
    let mut stream = phone.stream_of(&format!("?after={cursor}"), &[]).await;
    let resync = stream.next().await.unwrap();
    assert_eq!(resync.event, "resync");
    assert_eq!(resync.data, json!({"reason": "cursor-expired", "snapshot": "/v1/sync/snapshot"}));
    assert_eq!(stream.next().await, None);
    // "Position first, then state": the snapshot says where to go on.
    let as_of = phone.get("/v1/sync/snapshot").await.expect(200)["as_of"].as_str().unwrap().to_owned();
    let event = world.publish("order:42").await;
    let mut stream = phone.stream_of(&format!("?after={as_of}"), &[]).await;
    assert_eq!(stream.event().await.data["id"], event["id"]);
}

#[tokio::test]
async fn an_epoch_that_begins_ends_streams_and_old_cursors() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let cursor = phone.cursor();
    let world = world.restart_after(async |database| database.execute("update node set epoch = epoch + 1").await).await;
    let url = world.url(&format!("/v1/sync/stream?after={cursor}"));
    let mut stream = Stream::of(world.http.get(url).bearer_auth(&phone_token(&world).await).send().await.unwrap());
    let resync = stream.next().await.unwrap();
    assert_eq!((resync.event.as_str(), &resync.data["reason"]), ("resync", &json!("epoch-changed")));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn what_a_stream_is_asked_with_is_checked() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let status = async |query: &str| phone.get(&format!("/v1/sync/stream{query}")).await;
    assert_eq!(status("?after=nonsense").await.problem(400), "cursor-invalid");
    for ping in ["29", "301", "often"] {
        assert_eq!(status(&format!("?ping={ping}")).await.problem(422), "invalid");
    }
    assert_eq!(status("?thick=true").await.problem(422), "invalid");
    assert_eq!(world.get("/v1/sync/stream").await.problem(403), "forbidden");
    let nobody = world.send(world.http.get(world.url("/v1/sync/stream"))).await;
    assert_eq!(nobody.problem(401), "unauthorized");
    let wrong = world.call(Method::GET, "/v1/sync/stream", "dt_wrong", None).await;
    assert_eq!(wrong.problem(401), "unauthorized");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = phone.caught_up().await;
    world.delete(&format!("/v1/devices/{}", phone.id)).await.expect(204);
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(ended.expect("within a second"), None);

    let phone = world.phone("phone-2").user("ann").registers().await;
    let mut stream = phone.caught_up().await;
    world.phone("phone-2").user("bob").registers().await;
    world.publish("user:ann").await;
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(ended.expect("within a second"), None, "who signs in after her is not told of hers");

    let phone = world.phone("phone-3").registers().await;
    let mut stream = phone.caught_up().await;
    world.operator(Method::DELETE, &format!("/v1/apps/{}", world.app), None).await.expect(204);
    let ended = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert_eq!(ended.expect("within a second"), None);
}

#[tokio::test]
async fn of_one_device_four_streams_are_open_and_the_oldest_makes_room() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(phone.caught_up().await);
    }
    let mut oldest = streams.remove(0);
    let last = oldest.next().await.unwrap();
    assert!(last.event == "poll" && last.data["after_s"].as_i64().unwrap() >= 54, "not at once: {last:?}");
    assert_eq!(oldest.next().await, None);
    let event = world.publish("order:42").await;
    for mut stream in streams {
        assert_eq!(stream.event().await.data["id"], event["id"]);
    }
}

#[tokio::test]
async fn a_relay_that_ends_says_when_to_poll() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut stream = phone.caught_up().await;
    drop(phone);
    let ended = async move { (stream.next().await, stream.next().await) };
    let ((last, none), ()) = tokio::join!(ended, world.stop());
    let last = last.unwrap();
    assert_eq!(last.event, "poll");
    assert!((1..=5).contains(&last.data["after_s"].as_i64().unwrap()));
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_ticket_opens_one_stream_of_its_device() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let answer = phone.call(Method::POST, "/v1/sync/ticket", None).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let ticket = answer.expect(201)["ticket"].as_str().unwrap().to_owned();
    let open = async |ticket: &str| {
        let url = world.url(&format!("/v1/sync/stream?ticket={ticket}&after={}", phone.cursor()));
        world.http.get(url).send().await.unwrap()
    };
    let mut stream = Stream::of(open(&ticket).await);
    let event = world.publish("order:42").await;
    assert_eq!(stream.event().await.data["id"], event["id"]);
    assert_eq!(open(&ticket).await.status(), 401, "once");

    let late = phone.call(Method::POST, "/v1/sync/ticket", None).await.expect(201)["ticket"].clone();
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(open(late.as_str().unwrap()).await.status(), 401, "for 30 seconds");
    assert_eq!(open("tk_wrong").await.status(), 401);
    assert_eq!(world.post("/v1/sync/ticket", json!({})).await.problem(403), "forbidden");
}

#[tokio::test]
async fn pages_of_any_origin_may_listen() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    for (method, path) in [("GET", "/v1/sync"), ("GET", "/v1/sync/stream"), ("POST", "/v1/sync/ack")] {
        let preflight = world.http.request(Method::OPTIONS, world.url(path)).header("origin", "https://shop.example");
        let preflight = preflight
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,last-event-id,prefer");
        let answer = world.send(preflight).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{path}");
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("last-event-id"), "{allowed}");
    }
    let polled = phone.poll_with(&[("origin", "https://shop.example")]).await;
    assert_eq!(polled.header("access-control-allow-origin"), Some("*"));
    assert!(polled.header("access-control-expose-headers").unwrap().contains("etag"));
    assert_eq!(polled.header("vary"), Some("Authorization"));
    // What a backend does is nothing for browsers.
    let posted =
        world.http.post(world.url("/v1/events")).bearer_auth(&world.key).header("origin", "https://shop.example");
    let posted = world.send(posted.json(&json!({"feed": "order:42", "type": "t"}))).await;
    assert_eq!(posted.header("access-control-allow-origin"), None);
}

/// A fresh token of the only phone.
async fn phone_token(world: &World) -> String {
    world.phone("phone-1").registers().await.device_token
}
