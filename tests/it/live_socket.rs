//! WebSockets, subprotocol `reveille.v1`: its states, frames and close codes.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::{live::Socket, served::within, world::World};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_socket_tells_what_a_poll_would_and_takes_acknowledgements() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let before = world.publish("order:42").await;
    let mut socket = phone.subscribed().await;
    let first = socket.next().await.unwrap();
    assert_eq!((&first["type"], &first["event"]["id"]), (&json!("event"), &before["id"]));
    assert_eq!(first["event"], phone.sync().await.events()[0]);
    let told = socket.next().await.unwrap();
    assert_eq!(
        (&told["type"], &told["after_s"], &told["push"]),
        (&json!("poll"), &json!(900), &json!({"status": "active"}))
    );
    let after = world.publish("order:42").await;
    let second = socket.event().await;
    assert_eq!(second["event"]["id"], after["id"]);
    let position = after["position"].as_i64().unwrap();
    within(SOON, "it counts as fetched", async || (phone.levels().await[0] == position).then_some(())).await;
    assert!(phone.levels().await[1] < position);
    socket.say(json!({"type": "ack", "cursor": second["id"]})).await;
    within(SOON, "it is acknowledged", async || (phone.levels().await[1] == position).then_some(())).await;
}

#[tokio::test]
async fn what_was_acknowledged_last_is_noted_and_a_close_is_answered() {
    let world = World::start().await;
    world.settings(json!({"confirm": "ack"})).await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut socket = phone.subscribed().await;
    let event = world.publish("order:42").await;
    let told = socket.event().await;
    socket.say(json!({"type": "ack", "cursor": told["id"]})).await;
    assert_eq!(socket.close().await, 1000);
    let position = event["position"].as_i64().unwrap();
    within(SOON, "it is acknowledged", async || (phone.levels().await[1] == position).then_some(())).await;
    world.later(Duration::from_secs(5)).await;
    assert_eq!(phone.received(), 0);
}

#[tokio::test]
async fn a_socket_goes_on_where_another_ended() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut socket = phone.subscribed().await;
    world.publish("order:42").await;
    let id = socket.event().await["id"].clone();
    drop(socket);
    let event = world.publish("order:42").await;
    let mut socket = phone.socket().await;
    socket.say(json!({"type": "subscribe", "after": id})).await;
    assert_eq!(socket.event().await["event"]["id"], event["id"]);
}

#[tokio::test]
async fn a_thin_socket_says_only_that_there_is_something() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    phone.sync().await;
    let mut socket = phone.socket().await;
    socket.say(json!({"type": "subscribe", "thin": true})).await;
    let event = world.publish("order:42").await;
    assert_eq!(socket.next().await.unwrap(), json!({"type": "head", "head": event["position"]}));
}

#[tokio::test]
async fn frames_out_of_turn_and_nonsense_end_it() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let cursor = phone.cursor();
    let subscribe = json!({"type": "subscribe", "after": cursor}).to_string();
    let foreign = world.phone("phone-2").registers().await.cursor();
    let cases: [(&str, Vec<Message>); 8] = [
        ("no JSON", vec![Message::text("hello")]),
        ("no frame", vec![Message::text(r#"{"type":"publish"}"#)]),
        ("an unknown field", vec![Message::text(r#"{"type":"subscribe","feed":"order:42"}"#)]),
        ("binary", vec![Message::binary(vec![1, 2, 3])]),
        ("an ack first", vec![Message::text(json!({"type": "ack", "cursor": cursor}).to_string())]),
        ("subscribed twice", vec![Message::text(&subscribe), Message::text(&subscribe)]),
        ("a cursor of another device", vec![Message::text(json!({"type": "subscribe", "after": foreign}).to_string())]),
        (
            "a foreign ack",
            vec![Message::text(&subscribe), Message::text(json!({"type": "ack", "cursor": foreign}).to_string())],
        ),
    ];
    for (what, messages) in cases {
        let mut socket = phone.socket().await;
        for message in messages {
            socket.send(message).await;
        }
        assert_eq!(socket.closed().await, 4400, "{what}");
    }
    let mut socket = phone.socket().await;
    socket.send(Message::text("x".repeat(5000))).await;
    assert!(matches!(socket.closed().await, 0 | 1009), "longer than a frame may be");
}

#[tokio::test]
async fn a_socket_is_closed_with_the_reason() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let cursor = phone.cursor();
    let mut socket = phone.subscribed().await;
    world.publish("order:42").await;
    socket.event().await;
    world.tidy_after(Duration::from_secs(9 * 86_400)).await;
    let mut late = phone.socket().await;
    late.say(json!({"type": "subscribe", "after": cursor})).await;
    let resync = json!({"type": "resync", "reason": "cursor-expired", "snapshot": "/v1/sync/snapshot"});
    assert_eq!(late.next().await.unwrap(), resync);
    assert_eq!(late.closed().await, 4410);

    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let mut first = phone.socket().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(phone.socket().await);
    }
    assert_eq!(first.closed().await, 4409);
    drop(others);

    let mut socket = phone.subscribed().await;
    socket.next().await.unwrap();
    world.delete(&format!("/v1/devices/{}", phone.id)).await.expect(204);
    assert_eq!(tokio::time::timeout(Duration::from_secs(1), socket.closed()).await, Ok(4401));

    let phone = world.phone("phone-2").registers().await;
    let mut socket = phone.subscribed().await;
    socket.next().await.unwrap();
    drop(phone);
    let (code, ()) = tokio::join!(socket.closed(), world.stop());
    assert_eq!(code, 1001);
}

#[tokio::test]
async fn what_is_no_socket_of_ours_is_refused() {
    let world = World::start().await;
    let phone = world.phone("phone-1").follows(&["order:42"]).await;
    let plain = phone.get("/v1/sync/ws").await;
    assert_eq!(plain.problem(426), "websocket-expected");
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let url = world.url("/v1/sync/ws");
    let status = async |token: Option<&str>, protocol: Option<&str>| match Socket::open(&url, token, protocol).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    };
    let token = Some(phone.device_token.as_str());
    assert_eq!(status(token, None).await, 426);
    assert_eq!(status(token, Some("graphql-ws")).await, 426);
    assert_eq!(status(token, Some("graphql-ws, reveille.v1")).await, 101);
    assert_eq!(status(None, Some("reveille.v1")).await, 401);
    assert_eq!(status(Some("dt_wrong"), Some("reveille.v1")).await, 401);
    assert_eq!(status(Some(&world.key), Some("reveille.v1")).await, 403);
    let ticket = phone.call(Method::POST, "/v1/sync/ticket", None).await.expect(201)["ticket"].clone();
    let url = world.url(&format!("/v1/sync/ws?ticket={}", ticket.as_str().unwrap()));
    assert!(Socket::open(&url, None, Some("reveille.v1")).await.is_ok());
    assert!(Socket::open(&url, None, Some("reveille.v1")).await.is_err(), "once");
}
