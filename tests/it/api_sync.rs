//! Sync: pages, cursors, conditional polls, acknowledgements (contract §5, Polling).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::world::World;

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42", "order:43"]).await;
    let mut positions = Vec::new();
    for n in 0..5 {
        let feed = if n % 2 == 0 { "order:42" } else { "order:43" };
        positions.push(world.publish(feed).await["position"].as_i64().unwrap());
        world.publish("order:1").await;
    }
    let mut read = Vec::new();
    let mut after = phone.cursor();
    loop {
        let page = phone.get(&format!("/v1/sync?limit=2&after={after}")).await.expect(200);
        let events = page["events"].as_array().unwrap();
        read.extend(events.iter().map(|event| event["position"].as_i64().unwrap()));
        after = page["next"].as_str().unwrap().to_owned();
        if page["has_more"] == false {
            assert_eq!(page["through"], positions[4] + 1, "the app's counter");
            break;
        }
        assert_eq!(events.len(), 2);
        assert_eq!(page["through"], events[1]["position"], "the last event's");
    }
    assert_eq!(read, positions);
    let empty = phone.get(&format!("/v1/sync?after={after}")).await.expect(200);
    assert_eq!([&empty["events"], &empty["has_more"]], [&json!([]), &json!(false)]);
    assert!(empty["next"].is_string());
    assert_eq!([&empty["poll"], &empty["push"]], [&json!({"after_s": 900}), &json!({"status": "active"})]);
}

#[tokio::test]
async fn without_a_cursor_everything_retained_comes_after_the_follows() {
    let world = World::start().await;
    world.publish("order:42").await;
    let phone = world.phone("pixel").user("17").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let page = phone.get("/v1/sync").await.expect(200);
    let types: Vec<_> =
        page["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["reveille.followed", "reveille.followed", "reveille.followed", "order.updated"]);
}

#[tokio::test]
async fn a_page_has_its_bounds() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for query in ["limit=0", "limit=501", "limit=-1", "limit=ten", "colour=red", "peek=perhaps"] {
        assert_eq!(phone.get(&format!("/v1/sync?{query}")).await.problem(422), "invalid", "{query}");
    }
    let batch = json!(vec![json!({"feed": "order:42", "type": "t"}); 100]);
    for _ in 0..6 {
        world.post("/v1/events", batch.clone()).await.expect(202);
    }
    let page = phone.get(&format!("/v1/sync?limit=500&after={}", phone.cursor())).await.expect(200);
    assert_eq!([page["events"].as_array().unwrap().len(), usize::from(page["has_more"] == true)], [500, 1]);
    assert_eq!(phone.sync().await.events().len(), 100, "the default");
}

#[tokio::test]
async fn a_page_has_at_most_one_mebibyte() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let event = json!({"feed": "order:42", "type": "t", "data": "d".repeat(65_000)});
    for _ in 0..7 {
        world.post("/v1/events", json!(vec![event.clone(); 3])).await.expect(202);
    }
    let page = phone.sync().await;
    assert_eq!(page.0["has_more"], true);
    assert!((15..=16).contains(&page.events().len()) && page.0.to_string().len() <= 1_048_576);
    assert_eq!(page.events().len() + phone.sync().await.events().len(), 21);
}

#[tokio::test]
async fn an_unchanged_page_is_304_with_all_effects() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    phone.sync().await;
    let first = phone.poll_with(&[]).await;
    assert_eq!(
        [first.header("cache-control"), first.header("vary")],
        [Some("private, no-cache"), Some("Authorization")]
    );
    assert_eq!(first.header("retry-after"), None);
    let tag = first.header("etag").unwrap().to_owned();
    assert!(tag.starts_with("W/\""));

    let elsewhere = world.publish("order:1").await["position"].as_i64().unwrap();
    let same = phone.poll_with(&[("if-none-match", &tag)]).await;
    assert_eq!((same.status, &same.body), (304, &json!("")));
    assert_eq!([same.header("retry-after"), same.header("etag")], [Some("900"), Some(tag.as_str())]);
    assert_eq!([same.header("cache-control"), same.header("vary")], [Some("private, no-cache"), Some("Authorization")]);
    assert_eq!(phone.levels().await[0], elsewhere, "it has been given everything up to the counter");
    for tags in ["*".to_owned(), format!("\"x\", {tag}"), tag[2..].to_owned()] {
        assert_eq!(phone.poll_with(&[("if-none-match", &tags)]).await.status, 304, "{tags}");
    }
    world.publish("order:42").await;
    let changed = phone.poll_with(&[("if-none-match", &tag)]).await;
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    assert_eq!(changed.expect(200)["events"].as_array().unwrap().len(), 1);
    world.settle().await;
    assert_eq!(phone.received(), 0, "that poll has the event, so nobody is woken");
}

#[tokio::test]
async fn the_tag_changes_with_follows_and_belongs_to_one_device() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let twin = world.phone("twin").follows(&["order:42"]).await;
    let tag = phone.get("/v1/sync").await.header("etag").unwrap().to_owned();
    assert_ne!(twin.get("/v1/sync").await.header("etag"), Some(tag.as_str()));
    assert_ne!(phone.get("/v1/sync?limit=5").await.header("etag"), Some(tag.as_str()));
    world.put(&format!("/v1/devices/{}/feeds/order:43", phone.id), Value::Null).await.expect(200);
    assert_ne!(phone.get("/v1/sync").await.header("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn nothing_new_is_204_for_who_prefers_it() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let elsewhere = world.publish("order:1").await["position"].as_i64().unwrap();
    let minimal = phone.poll_with(&[("prefer", "return=minimal")]).await;
    assert_eq!((minimal.status, &minimal.body), (204, &json!("")));
    assert_eq!(minimal.header("retry-after"), Some("900"));
    assert_eq!(phone.levels().await[0], elsewhere);
    world.publish("order:42").await;
    let full = phone.poll_with(&[("prefer", "respond-async, return=minimal")]).await.expect(200);
    assert_eq!(full["events"].as_array().unwrap().len(), 1);
    assert_eq!(phone.poll_with(&[("prefer", "return=representation")]).await.status, 200);
}

#[tokio::test]
async fn a_cursor_belongs_to_its_reader() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let other = world.phone("other").follows(&["order:42"]).await;
    let feed = phone.get("/v1/feeds/order:42/events").await.expect(200)["next"].as_str().unwrap().to_owned();
    let own = phone.cursor();
    let mut forged = own.clone().into_bytes();
    forged[3] = if forged[3] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for cursor in ["", "nonsense", &other.cursor(), &feed, &forged, &format!("{own}AA")] {
        let answer = phone.get(&format!("/v1/sync?after={cursor}")).await;
        assert_eq!(answer.problem(400), "cursor-invalid", "{cursor}");
        assert_eq!(answer.body["snapshot"], "/v1/sync/snapshot");
        let ack = phone.call(Method::POST, "/v1/sync/ack", json!({"cursor": cursor})).await;
        assert_eq!(ack.problem(400), "cursor-invalid");
    }
    for path in ["/v1/feeds/order:42/events", "/v1/feeds/order:43/events"] {
        let answer = world.get(&format!("{path}?after={own}")).await;
        assert_eq!(answer.problem(400), "cursor-invalid");
        assert_eq!(answer.body["snapshot"], path.replace("events", "snapshot"));
    }
    assert_eq!(phone.levels().await[1], other.levels().await[1] - 2, "still as registered");
}

#[tokio::test]
async fn a_cursor_from_a_lost_future_is_told_so() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let (id, token) = (phone.id.clone(), phone.device_token.clone());
    let mut backup = None;
    let world = world.restart_after(async |database| backup = Some(database.copy().await)).await;
    world.publish("order:42").await;
    let page = world.call(Method::GET, "/v1/sync", &token, None).await.expect(200);
    let lost = page["next"].as_str().unwrap().to_owned();
    let world = world.restart_after(async |database| database.go_back_to(&backup.unwrap()).await).await;
    let read = async |path: &str| world.call(Method::GET, path, &token, None).await;
    let ahead = read(&format!("/v1/sync?after={lost}")).await;
    assert_eq!(ahead.problem(410), "cursor-ahead");
    assert_eq!(ahead.body["snapshot"], "/v1/sync/snapshot");
    let ack = world.call(Method::POST, "/v1/sync/ack", &token, Some(json!({"cursor": lost}))).await;
    assert_eq!(ack.problem(410), "cursor-ahead");
    let snapshot = read("/v1/sync/snapshot").await.expect(200);
    read(&format!("/v1/sync?after={}", snapshot["as_of"].as_str().unwrap())).await.expect(200);

    let world = world.restart_after(async |database| database.execute("update node set epoch = epoch + 1").await).await;
    let old = world.call(Method::GET, &format!("/v1/sync?after={lost}"), &token, None).await;
    assert_eq!(old.problem(410), "epoch-changed");
    assert_eq!(old.body["snapshot"], "/v1/sync/snapshot");
    assert_eq!(world.get(&format!("/v1/devices/{id}")).await.expect(200)["id"], *id);
}

#[tokio::test]
async fn a_restart_changes_nothing_for_a_phone() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let (token, cursor) = (phone.device_token.clone(), phone.cursor());
    let event = world.publish("order:42").await;
    let world = world.restart().await;
    world.settle().await;
    assert_eq!(world.outcomes().await, ["accepted"], "it is woken for what was accepted before");
    let page = world.call(Method::GET, &format!("/v1/sync?after={cursor}"), &token, None).await.expect(200);
    assert_eq!(page["events"][0]["id"], event["id"]);
}

#[tokio::test]
async fn coming_back_acknowledges_and_nothing_goes_backwards() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let [start, _] = phone.levels().await;
    let first = phone.cursor();
    let e1 = world.publish("order:42").await["position"].as_i64().unwrap();
    phone.sync().await;
    assert_eq!(phone.levels().await, [e1, start]);
    let e2 = world.publish("order:42").await["position"].as_i64().unwrap();
    phone.sync().await;
    assert_eq!(phone.levels().await, [e2, e1]);
    phone.get(&format!("/v1/sync?after={first}&limit=1")).await.expect(200);
    phone.get("/v1/sync?limit=1").await.expect(200);
    assert_eq!(phone.levels().await, [e2, e1], "nothing goes backwards");
    let ack = |body: Value| phone.call(Method::POST, "/v1/sync/ack", body);
    ack(json!({"cursor": phone.cursor()})).await.expect(204);
    assert_eq!(phone.levels().await, [e2, e2]);
    ack(json!({"cursor": first})).await.expect(204);
    assert_eq!(phone.levels().await, [e2, e2]);

    let e3 = world.publish("order:42").await["position"].as_i64().unwrap();
    world.settle().await;
    let wake = phone.pushes()[0]["wake"].clone();
    ack(json!({"wake": wake})).await.expect(204);
    assert_eq!(phone.levels().await, [e3, e3]);
    ack(json!({"wake": "wake_00000000000000000000000000"})).await.expect(204);
    for body in [json!({}), json!({"wake": wake, "cursor": first}), json!({"wake": 5}), json!({"position": 5})] {
        assert_eq!(ack(body).await.problem(422), "invalid");
    }
    assert_eq!(world.post("/v1/sync/ack", json!({"cursor": first})).await.problem(403), "forbidden");
}

#[tokio::test]
async fn a_foreign_wake_acknowledges_nothing() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let other = world.phone("other").follows(&["order:42"]).await;
    let before = other.levels().await;
    world.publish("order:42").await;
    world.settle().await;
    let wake = &phone.pushes()[0]["wake"];
    other.call(Method::POST, "/v1/sync/ack", json!({"wake": wake})).await.expect(204);
    assert_eq!(other.levels().await, before);
    let named = format!("/v1/sync?wake={}&after={}", wake.as_str().unwrap(), other.cursor());
    assert_eq!(other.get(&named).await.expect(200)["events"].as_array().unwrap().len(), 1);
    other.get("/v1/sync?wake=nonsense").await.expect(200);
}

#[tokio::test]
async fn where_acks_confirm_a_fetch_is_not_enough() {
    let world = World::start().await;
    world.settings(json!({"confirm": "ack"})).await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    phone.sync().await;
    world.settle().await;
    assert_eq!(phone.received(), 1, "fetched, but not acknowledged");
    world.clock.advance(std::time::Duration::from_secs(60));
    world.publish("order:42").await;
    phone.sync().await;
    phone.call(Method::POST, "/v1/sync/ack", json!({"cursor": phone.cursor()})).await.expect(204);
    world.settle().await;
    assert_eq!(phone.received(), 1);
}

#[tokio::test]
async fn peeking_moves_nothing() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let before = phone.levels().await;
    world.publish("order:42").await;
    for path in ["/v1/sync?peek=true", "/v1/feeds/order:42/events?peek=true"] {
        assert!(!phone.get(path).await.expect(200)["events"].as_array().unwrap().is_empty());
        assert_eq!(phone.levels().await, before);
    }
    world.settle().await;
    assert_eq!(phone.received(), 1, "it is still to be woken");
}

#[tokio::test]
async fn a_phone_that_polls_too_often_is_told_to_wait() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let other = world.phone("other").follows(&["order:42"]).await;
    let mut polls = 0;
    let refused = loop {
        let answer = phone.get("/v1/sync").await;
        if answer.status != 200 {
            break answer;
        }
        polls += 1;
        assert!(polls < 60, "never refused");
    };
    assert!(polls >= 20, "{polls}: a burst of 20 is free");
    assert_eq!(refused.problem(429), "rate-limited");
    assert!((1..=60).contains(&refused.header("retry-after").unwrap().parse::<u32>().unwrap()));
    other.get("/v1/sync").await.expect(200);
}
