//! What is wrong with an event is said by name, and limits hold at their boundary (contract §§5, 6, 9).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::World;

fn with(field: &str, value: Value) -> Value {
    let mut event = json!({"feed": "order:42", "type": "t"});
    event[field] = value;
    event
}

#[tokio::test]
async fn each_wrong_field_is_named() {
    let world = World::start().await;
    let alert = |alert: Value| with("wake", json!({"class": "alert", "alert": alert}));
    for (event, pointer) in [
        (with("feed", json!("order 42")), "/feed"),
        (with("feed", json!("")), "/feed"),
        (with("feed", json!(":42")), "/feed"),
        (with("feed", json!("f".repeat(129))), "/feed"),
        (with("feed", json!("reveille:alarms")), "/feed"),
        (with("feed", json!(42)), "/feed"),
        (json!({"type": "t"}), "/feed"),
        (json!({"feed": "order:42"}), "/type"),
        (with("type", json!("")), "/type"),
        (with("type", json!("t".repeat(256))), "/type"),
        (with("type", json!("reveille.followed")), "/type"),
        (with("key", json!("")), "/key"),
        (with("key", json!("k".repeat(256))), "/key"),
        (with("key", json!(["k"])), "/key"),
        (with("op", json!("replace")), "/op"),
        (with("op", json!("delete")), "/op"),
        (with("href", json!("/orders/42")), "/href"),
        (with("href", json!(format!("https://example.com/{}", "h".repeat(2048)))), "/href"),
        (with("occurred_at", json!("yesterday")), "/occurred_at"),
        (with("occurred_at", json!(1_790_000_000)), "/occurred_at"),
        (with("colour", json!("red")), "/colour"),
        (with("wake", json!("alert")), "/wake"),
        (with("wake", json!({"class": "loud"})), "/wake/class"),
        (with("wake", json!({"ttl_s": 0})), "/wake/ttl_s"),
        (with("wake", json!({"ttl_s": 2_419_201})), "/wake/ttl_s"),
        (with("wake", json!({"ttl_s": -1})), "/wake/ttl_s"),
        (with("wake", json!({"ttl_s": "3600"})), "/wake/ttl_s"),
        (with("wake", json!({"class": "alert"})), "/wake/alert"),
        (with("wake", json!({"alert": {"title": "t"}})), "/wake/alert"),
        (with("wake", json!({"gap_s": 1})), "/wake/gap_s"),
        (alert(json!({"sound": "default"})), "/wake/alert"),
        (alert(json!({"title": "t", "badge": -1})), "/wake/alert/badge"),
        (alert(json!({"title": "t", "interruption_level": "loud"})), "/wake/alert/interruption_level"),
        (alert(json!({"title": "t", "loc_args": [1]})), "/wake/alert/loc_args/0"),
        (alert(json!({"title": "t", "cancel_on": "read"})), "/wake/alert/cancel_on"),
        (alert(json!({"title": "t", "colour": "red"})), "/wake/alert/colour"),
    ] {
        let answer = world.post("/v1/events", event.clone()).await;
        assert_eq!(answer.pointers(422), [pointer], "{event}: {}", answer.body);
        assert_eq!(answer.problem(422), "invalid");
        let field = pointer.rsplit('/').find(|part| part.parse::<u32>().is_err()).unwrap();
        assert!(answer.body["detail"].as_str().unwrap().contains(field), "{}", answer.body);
    }
    let several = json!({"feed": "", "type": "", "key": "", "href": "x"});
    assert_eq!(world.post("/v1/events", several).await.pointers(422), ["/feed", "/type", "/key", "/href"]);
    assert_eq!(world.publish("order:42").await["position"], 1, "nothing was appended");
}

#[tokio::test]
async fn malformed_json_is_400_and_a_wrong_shape_422() {
    let world = World::start().await;
    for body in ["", "{", "{\"feed\":", "not json", "{\"feed\":\"a\",\"type\":\"t\"} {}", "[{]", "{\"feed\":\"\u{1}\"}"]
    {
        assert_eq!(world.post_text("/v1/events", &[], body).await.problem(400), "malformed-json", "{body}");
    }
    let bytes = world.http.post(world.url("/v1/events")).bearer_auth(&world.key);
    let bytes = bytes.body(b"{\"feed\":\"a\",\"type\":\"\xff\"}".to_vec());
    assert_eq!(world.send(bytes).await.problem(400), "malformed-json", "not UTF-8");
    for body in ["null", "7", "\"text\"", "[[]]", "[7]"] {
        assert_eq!(world.post_text("/v1/events", &[], body).await.problem(422), "invalid", "{body}");
    }
    let event = json!({"feed": "order:42", "type": "t"});
    assert_eq!(world.post("/v1/events", json!([])).await.problem(422), "invalid");
    assert_eq!(world.post("/v1/events", json!(vec![event.clone(); 101])).await.problem(422), "invalid");
    assert_eq!(world.post("/v1/events", json!([event, 7])).await.pointers(422), ["/1"]);
}

#[tokio::test]
async fn data_and_body_have_their_limits_to_the_byte() {
    let world = World::start().await;
    let text = |bytes: usize| json!("d".repeat(bytes - 2));
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.post("/v1/events", with("data", text(65_536))).await.expect(202);
    assert_eq!(phone.sync().await.events()[0]["data"], text(65_536));
    for bytes in [65_537, 71_680] {
        let answer = world.post("/v1/events", with("data", text(bytes))).await;
        assert_eq!(answer.problem(413), "too-large");
        assert_eq!(answer.pointers(413), ["/data"]);
    }
    let batch = json!([with("key", json!("k")), with("data", text(65_537))]);
    assert_eq!(world.post("/v1/events", batch).await.pointers(413), ["/1/data"]);

    let padded = |bytes: usize| {
        let event = json!({"feed": "order:42", "type": "t"}).to_string();
        format!("{event}{}", " ".repeat(bytes - event.len()))
    };
    world.post_text("/v1/events", &[], padded(262_144)).await.expect(202);
    let answer = world.post_text("/v1/events", &[], padded(262_145)).await;
    assert_eq!(answer.problem(413), "too-large");
    assert_eq!(answer.body["limit"], 262_144);
    let frame = |_| Ok::<_, std::io::Error>(hyper::body::Frame::data(hyper::body::Bytes::from(vec![b' '; 65_536])));
    let chunks = http_body_util::StreamBody::new(futures_util::stream::iter((0..5).map(frame)));
    let chunked = world.http.post(world.url("/v1/events")).bearer_auth(&world.key);
    let chunked = chunked.body(reqwest::Body::wrap(chunks));
    assert_eq!(world.send(chunked).await.problem(413), "too-large", "without Content-Length too");
}

#[tokio::test]
async fn a_push_that_no_provider_would_take_is_refused_before_it_is_accepted() {
    let world = World::start().await;
    let alert = |body: usize| {
        json!({"feed": "order:42", "type": "t",
               "wake": {"class": "alert", "alert": {"title": "Order 42", "body": "b".repeat(body)}}})
    };
    let answer = world.post("/v1/events", alert(5120)).await;
    assert_eq!(answer.problem(422), "trigger-too-large");
    assert_eq!([&answer.body["limit"], &answer.body["field"]], [&json!(4096), &json!("body")]);
    assert!(answer.body["actual"].as_u64().unwrap() > 5120);
    let over = answer.body["actual"].as_u64().unwrap() as usize - 4096;
    assert_eq!(world.post("/v1/events", alert(5120 - over + 1)).await.body["actual"], 4097);
    let phones = [
        world.phone("pixel").user("17").follows(&["order:42"]).await,
        world.phone("iphone").ios().user("17").follows(&["order:42"]).await,
    ];
    world.post("/v1/events", alert(5120 - over)).await.expect(202);
    world.settle().await;
    assert_eq!(phones.each_ref().map(|phone| phone.received()), [1, 1], "what is accepted, providers take");
    let long_href = with("href", json!(format!("https://example.com/{}", "h".repeat(2000))));
    world.post("/v1/events", long_href).await.expect(202);
}

#[tokio::test]
async fn names_at_their_limits_are_taken() {
    let world = World::start().await;
    for event in [
        with("feed", json!("f".repeat(128))),
        with("feed", json!("0._:~@|+=-Z")),
        with("feed", json!("user:17")),
        with("type", json!("t".repeat(255))),
        with("key", json!("ü".repeat(255))),
        with("wake", json!({"ttl_s": 2_419_200})),
        with("data", Value::Null),
        with("key", Value::Null),
    ] {
        world.post("/v1/events", event).await.expect(202);
    }
    let odd = "/v1/feeds/0._:~@%7C+=-Z/events";
    assert_eq!(world.get(odd).await.expect(200)["events"][0]["feed"], "0._:~@|+=-Z");
    assert_eq!(
        world.call(Method::GET, "/v1/feeds/order%2042/events", &world.key, None).await.problem(404),
        "not-found"
    );
}

/// A character that SQLite keeps and PostgreSQL cannot.
#[tokio::test]
async fn a_nul_is_refused_or_matches_nothing_wherever_it_comes() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").follows(&["order:42"]).await;
    let nul = "a\u{0}b";
    let event = |field: &str, value: Value| {
        let mut event = json!({"feed": "order:42", "type": "t", "key": "k"});
        event[field] = value;
        event
    };
    let alert = |field: &str| {
        let mut alert = json!({"title": "t", "body": "b"});
        alert[field] = nul.into();
        json!({"class": "alert", "alert": alert})
    };
    let kept = world.post("/v1/events", event("data", json!({nul: nul}))).await.expect(202);
    let page = phone.sync().await;
    let data = &page.events().iter().find(|entry| entry["id"] == kept["id"]).unwrap()["data"];
    assert_eq!(*data, json!({nul: nul}), "data is the app's own");
    let mut answers = Vec::new();
    for field in ["feed", "type", "key", "href"] {
        answers.push((field.to_owned(), world.post("/v1/events", event(field, nul.into())).await));
    }
    for field in ["title", "body", "sound", "image", "title_loc_key", "channel_id", "category"] {
        answers.push((field.to_owned(), world.post("/v1/events", event("wake", alert(field))).await));
    }
    for field in ["installation_id", "token", "topic", "user", "app_version", "os", "locale"] {
        let body = world.phone("other").with(field, nul).body();
        answers.push((field.to_owned(), world.post("/v1/devices", body).await));
    }
    for path in [
        "/v1/devices?user=a%00b",
        "/v1/devices?installation_id=a%00b",
        "/v1/devices?feed=a%00b",
        "/v1/devices?cursor=a%00b",
        "/v1/devices/a%00b",
        "/v1/events/a%00b",
        "/v1/attempts?wake=a%00b",
        "/v1/attempts?cursor=a%00b",
        "/v1/feeds/a%00b/events",
        "/v1/feeds/a%00b/snapshot?page=a%00b",
        "/v1/credentials/fcm/a%00b",
    ] {
        answers.push((path.to_owned(), world.get(path).await));
    }
    for path in ["/v1/users/a%00b", "/v1/feeds/a%00b", "/v1/devices/a%00b", "/v1/credentials/fcm/a%00b"] {
        answers.push((path.to_owned(), world.delete(path).await));
    }
    answers.push(("app".into(), world.operator(reqwest::Method::POST, "/v1/apps", json!({"name": nul})).await));
    let failed: Vec<_> = answers.iter().filter(|(_, answer)| answer.status >= 500).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
