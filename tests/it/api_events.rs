//! Events: accepted, kept as they came, shown with what became of them (contract §5, Events).

use serde_json::{Value, json};

use crate::support::world::World;

async fn status(world: &World, event: &Value) -> Value {
    world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200)
}

#[tokio::test]
async fn an_accepted_event_says_where_it_is() {
    let world = World::start().await;
    let answer = world.post("/v1/events", json!({"feed": "order:42", "type": "order.updated"})).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    let location = answer.header("location").unwrap().to_owned();
    let event = answer.expect(202);
    assert_eq!(location, format!("/v1/events/{}", event["id"].as_str().unwrap()));
    assert!(event["id"].as_str().unwrap().starts_with("evt_"));
    assert_eq!(event["state"], "accepted");
    assert_eq!(event["wake"], json!({"class": "background", "ttl_s": 86400}));
    assert_eq!([&event["key"], &event["op"], &event["data"], &event["href"]], [&Value::Null; 4]);
    let mut shown = world.get(&location).await.expect(200);
    assert_eq!(shown["state"], "settled");
    assert_eq!([&shown["devices"]["targeted"], &shown["devices"]["pending"]], [0, 0]);
    shown["state"] = "accepted".into();
    for (field, value) in event.as_object().unwrap() {
        assert_eq!(shown[field], *value, "{field}");
    }
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_in_order() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let event = |n: usize| json!({"feed": "order:42", "type": format!("t.{n}")});
    let before = world.publish("order:1").await["position"].as_i64().unwrap();
    let mut batch: Vec<Value> = (0..100).map(event).collect();
    batch[3]["feed"] = "order 42".into();
    batch[7]["op"] = "replace".into();
    let answer = world.post("/v1/events", json!(batch)).await;
    assert_eq!(answer.pointers(422), ["/7/op"]);
    batch[7]["op"] = Value::Null;
    batch[99]["type"] = "".into();
    let answer = world.post("/v1/events", json!(batch)).await;
    assert_eq!(answer.pointers(422), ["/3/feed", "/99/type"]);
    assert!(phone.sync().await.events().is_empty());

    let batch: Vec<Value> = (0..100).map(event).collect();
    let answer = world.post("/v1/events", json!(batch)).await;
    assert_eq!(answer.header("location"), None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let items = answer.expect(202)["items"].as_array().unwrap().clone();
    let positions: Vec<i64> = items.iter().map(|item| item["position"].as_i64().unwrap()).collect();
    assert_eq!(positions, (before + 1..=before + 100).collect::<Vec<_>>());
    let page = phone.sync().await;
    assert_eq!(page.positions(), positions);
    assert_eq!(page.events()[99]["type"], "t.99");
    let one = world.post("/v1/events", json!([event(0)])).await.expect(202);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn data_comes_back_as_it_came() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for data in [
        r#"{"z":1,"a":{"y":[1,2.50,-0.0,1E5],"b":null},"big":12345678901234567890123}"#,
        r#""Grüße 👋 \u00e9 \ud83d\udc4b \/ \n""#,
        r#"[{"deep":[[[[[[[[{"end":true}]]]]]]]]},{"dup":1,"dup":2}]"#,
        r#"0.10000000000000000000000001"#,
        r#"{ "spaces" :  [ 1 , 2 ] }"#,
        "false",
    ] {
        let body = format!(r#"{{"feed":"order:42","type":"t","key":"k","data":{data}}}"#);
        let event = world.post_text("/v1/events", &[], body).await.expect(202);
        let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
        let sync = format!("/v1/sync?after={}", phone.cursor());
        phone.sync().await;
        for (path, bearer) in [
            (path.as_str(), &world.key),
            (&sync, &phone.device_token),
            ("/v1/feeds/order:42/events", &world.key),
            ("/v1/sync/snapshot", &phone.device_token),
        ] {
            let request = world.http.get(world.url(path)).bearer_auth(bearer);
            let text = request.send().await.unwrap().text().await.unwrap();
            assert!(text.contains(&format!("\"data\":{data}")), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn everything_said_about_an_event_is_kept() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let alert = json!({"title": "Order 42", "subtitle": "s", "body": "on its way", "title_loc_key": "T", "title_loc_args": ["1"],
        "loc_key": "L", "loc_args": ["a", "b"], "sound": null, "badge": 3, "category": "c", "thread_id": "th",
        "interruption_level": "time-sensitive", "channel_id": "orders", "cancel_on": "never"});
    let body = json!({"feed": "order:42", "type": "order.updated", "key": "order/42", "op": "delete",
        "href": "https://api.example.com/orders/42", "data": {"status": "out"}, "occurred_at": "2026-11-21T13:00:00+01:00",
        "wake": {"class": "alert", "ttl_s": 3600, "alert": alert}});
    let event = world.post("/v1/events", body.clone()).await.expect(202);
    let page = phone.sync().await;
    let synced = &page.events()[0];
    for field in ["feed", "type", "key", "op", "href", "data"] {
        assert_eq!([&event[field], &synced[field]], [&body[field]; 2], "{field}");
    }
    assert_eq!(event["occurred_at"], "2026-11-21T12:00:00.000Z", "all times are UTC");
    assert_eq!([&event["wake"], &synced["wake"]], [&body["wake"]; 2]);
    let defaults = world.alert("order:42", "t").await["wake"]["alert"].clone();
    assert_eq!(defaults, json!({"title": "t", "sound": "default", "cancel_on": "fetch"}));
}

#[tokio::test]
async fn an_alert_reaches_the_screen() {
    let world = World::start().await;
    let pixel = world.phone("pixel").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let alert = json!({"title": "Order 42", "body": "on its way", "loc_key": "L", "loc_args": ["a"], "badge": 3,
        "category": "c", "thread_id": "th", "interruption_level": "active", "channel_id": "orders"});
    let event = json!({"feed": "order:42", "type": "t", "href": "https://example.com/42",
        "wake": {"class": "alert", "ttl_s": 3600, "alert": alert}});
    world.post("/v1/events", event).await.expect(202);
    world.settle().await;
    let apns = &world.sim.pushes().into_iter().find(|push| push.token == iphone.token).unwrap();
    assert_eq!([&apns.headers["apns-push-type"], &apns.headers["apns-priority"]], ["alert", "10"]);
    assert_eq!(
        apns.body["aps"],
        json!({"alert": {"title": "Order 42", "body": "on its way", "loc-key": "L", "loc-args": ["a"]}, "badge": 3,
               "sound": "default", "category": "c", "thread-id": "th", "interruption-level": "active", "mutable-content": 1})
    );
    let data = &pixel.pushes()[0];
    assert_eq!([&data["title"], &data["body"], &data["badge"]], ["Order 42", "on its way", "3"]);
    assert_eq!([&data["channel_id"], &data["href"]], ["orders", "https://example.com/42"]);
    assert!(data.as_object().unwrap().values().all(Value::is_string));
    let fcm = &world.sim.pushes().into_iter().find(|push| push.token == pixel.token).unwrap().body;
    assert_eq!(fcm["android"]["priority"].as_str().unwrap().to_lowercase(), "high");
    assert_eq!(fcm.get("notification"), None);
}

#[tokio::test]
async fn class_none_wakes_nobody_and_is_synced() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let event = json!({"feed": "order:42", "type": "t", "wake": {"class": "none"}});
    let event = world.post("/v1/events", event).await.expect(202);
    world.settle().await;
    assert_eq!(phone.received(), 0);
    assert_eq!(status(&world, &event).await["state"], "settled");
    assert_eq!(phone.sync().await.feeds(), ["order:42"]);
    assert_eq!(status(&world, &event).await["devices"]["fetched"], 1);
}

#[tokio::test]
async fn the_counts_follow_the_phones() {
    let world = World::start().await;
    world.without_pace().await;
    let pixel = world.phone("pixel").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let unserved = world.phone("ipad").ios().with("topic", "com.example.unknown").follows(&["order:42"]).await;
    let event = world.publish("order:42").await;
    let shown = status(&world, &event).await;
    assert_eq!([&shown["state"], &shown["devices"]["pending"]], [&json!("waking"), &json!(3)]);
    pixel.sync().await;
    world.settle().await;
    let shown = status(&world, &event).await;
    assert_eq!(shown["state"], "settled");
    let devices = shown["devices"].as_object().unwrap();
    let counts = json!({"targeted": 3, "pending": 0, "told": 1, "fetched": 1, "acked": 0, "coalesced": 0, "suppressed": 1,
                        "expired": 0, "unreachable": 1});
    for (name, count) in counts.as_object().unwrap() {
        assert_eq!(devices[name], *count, "{name}: {shown:#}");
    }
    assert!(devices["counted_at"].is_string());
    let newer = world.publish("order:42").await;
    world.settle().await;
    assert_eq!(status(&world, &newer).await["devices"]["told"], 2);
    pixel.sync().await;
    pixel.sync().await;
    assert_eq!(status(&world, &newer).await["devices"]["acked"], 1);
    drop((iphone, unserved));
}

#[tokio::test]
async fn attempts_are_found_by_event_device_wake_outcome_and_time() {
    let world = World::start().await;
    world.without_pace().await;
    let pixel = world.phone("pixel").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42", "order:43"]).await;
    world.sim.apns().answer(reveille::sim::Fault::new(reveille::sim::FaultKind::Empty { status: 400 }).times(1));
    let first = world.publish("order:42").await;
    world.settle().await;
    world.clock.advance(std::time::Duration::from_secs(3600));
    let since = world.clock.now().to_string();
    let second = world.alert("order:43", "t").await;
    world.settle().await;
    let found = async |path: &str| world.get(path).await.expect(200)["items"].as_array().unwrap().clone();
    let all = found("/v1/attempts").await;
    assert_eq!(all.len(), 3, "{all:#?}");
    assert_eq!(found(&format!("/v1/attempts?device={}", pixel.id)).await.len(), 1);
    assert_eq!(found(&format!("/v1/attempts?device={}&outcome=accepted", iphone.id)).await, [all[0].clone()]);
    assert_eq!(found(&format!("/v1/attempts?since={since}")).await, [all[0].clone()]);
    assert_eq!(found(&format!("/v1/attempts?wake={}", all[0]["wake"].as_str().unwrap())).await, [all[0].clone()]);
    assert_eq!(found("/v1/attempts?outcome=timeout").await.len(), 0);
    let of = |event: &Value| format!("/v1/events/{}/attempts", event["id"].as_str().unwrap());
    assert_eq!(found(&of(&first)).await.len(), 2);
    assert_eq!(found(&of(&second)).await, [all[0].clone()]);
    let page = world.get("/v1/attempts?limit=2").await.expect(200);
    let next = format!("/v1/attempts?limit=2&cursor={}", page["next"].as_str().unwrap());
    assert_eq!(found(&next).await, [all[2].clone()]);
    for query in ["outcome=fine", "device=x", "since=yesterday", "wake=att_1", "colour=red"] {
        assert_eq!(world.get(&format!("/v1/attempts?{query}")).await.problem(422), "invalid", "{query}");
    }
    assert_eq!(world.get("/v1/events/evt_1").await.problem(404), "not-found");
}
