//! Devices: registration, patches, lists, users (contract §5, Devices).

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{phone::hex_token, world::World};

#[tokio::test]
async fn a_new_installation_is_201_and_a_known_one_200() {
    let world = World::start().await;
    let body = world.phone("pixel").user("17").with("feeds", json!(["order:42"])).body();
    let made = world.post("/v1/devices", body.clone()).await.expect(201);
    assert!(made["id"].as_str().unwrap().starts_with("dev_"));
    assert!(made["device_token"].as_str().unwrap().starts_with("dt_"));
    assert_eq!([&made["status"], &made["transport"], &made["platform"]], ["active", "fcm", "android"]);
    assert_eq!(made["user"], "17");
    assert_eq!(made["feeds"], json!(["order:42", "user:17", format!("device:{}", made["id"].as_str().unwrap())]));
    assert_eq!(made["poll"]["url"], world.url("/v1/sync"));
    assert_eq!([&made["poll"]["after_s"], &made["poll"]["reset"]], [&json!(900), &json!(true)]);
    let known = world.post("/v1/devices", body).await.expect(200);
    assert_eq!([&known["id"], &known["feeds"]], [&made["id"], &made["feeds"]]);
    assert_eq!(known["poll"]["reset"], false);
    assert_ne!(known["device_token"], made["device_token"]);
}

#[tokio::test]
async fn platforms_have_defaults() {
    let world = World::start().await;
    let iphone = world.phone("iphone").ios().registers().await.registered;
    assert_eq!([&iphone["platform"], &iphone["environment"]], ["ios", "production"]);
    let on_fcm = world.phone("iphone-fcm").with("platform", "ios").registers().await.registered;
    assert_eq!([&on_fcm["platform"], &on_fcm["transport"], &on_fcm["token_kind"]], ["ios", "fcm", "token"]);
    let fid = world.phone("fid").with("token_kind", "fid").registers().await.registered;
    assert_eq!(fid["token_kind"], "fid");
}

#[tokio::test]
async fn the_push_token_is_never_returned() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").registers().await;
    let shown = [phone.registered.clone(), phone.seen().await, world.get("/v1/devices").await.expect(200)];
    let me = phone.call(Method::PATCH, "/v1/devices/me", json!({})).await.expect(200);
    let patched = phone.call(Method::PATCH, "/v1/devices/me", json!({"token": "a-new-token"})).await.expect(200);
    assert_ne!(patched["token_fingerprint"], me["token_fingerprint"]);
    for answer in shown.iter().chain([&me, &patched]) {
        let text = answer.to_string();
        assert!(!text.contains(&phone.token) && !text.contains("a-new-token"), "{text}");
    }
    assert!(shown[1]["token_fingerprint"].is_string());
    assert!(shown[1].get("device_token").is_none() && me.get("device_token").is_none());
}

#[tokio::test]
async fn feeds_given_are_the_whole_set_and_omitted_unchanged() {
    let world = World::start().await;
    let pixel = || world.phone("pixel");
    let first = pixel().user("17").follows(&["order:42", "order:43"]).await;
    let own = format!("device:{}", first.id);
    let unchanged = pixel().with("feeds", Value::Null).registers().await.registered;
    assert_eq!(unchanged["feeds"], json!(["order:42", "order:43", "user:17", own]));
    assert_eq!(unchanged["user"], "17", "an omitted user is unchanged");
    let changed = pixel().follows(&["order:43", "order:44"]).await.registered;
    assert_eq!(changed["feeds"], json!(["order:43", "order:44", "user:17", own]));
    assert_eq!(pixel().follows(&[]).await.registered["feeds"], json!(["user:17", own]));
    let logged_out = pixel().with("user", Value::Null).registers().await.registered;
    assert_eq!(logged_out["user"], Value::Null);
    assert_eq!(logged_out["feeds"], json!([own]));
    assert!(logged_out.get("for").is_none());
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_named() {
    let world = World::start().await;
    let feeds: Vec<String> = (0..201).map(|n| format!("order:{n}")).collect();
    for (field, value, pointer) in [
        ("installation_id", json!(""), "/installation_id"),
        ("transport", json!("pigeon"), "/transport"),
        ("platform", json!("symbian"), "/platform"),
        ("token", json!(""), "/token"),
        ("token", json!("with space"), "/token"),
        ("token_kind", json!("guess"), "/token_kind"),
        ("environment", json!("production"), "/environment"),
        ("user", json!(""), "/user"),
        ("user", json!("u".repeat(121)), "/user"),
        ("user", json!("a b"), "/user"),
        ("user", json!(17), "/user"),
        ("feeds", json!(["order:42", "order 43"]), "/feeds/1"),
        ("feeds", json!(["user:18"]), "/feeds/0"),
        ("feeds", json!(["device:dev_1"]), "/feeds/0"),
        ("feeds", json!(["f".repeat(129)]), "/feeds/0"),
        ("feeds", json!(feeds), "/feeds"),
        ("feeds", json!("order:42"), "/feeds"),
        ("colour", json!("red"), "/colour"),
    ] {
        let answer = world.post("/v1/devices", world.phone("pixel").with(field, value.clone()).body()).await;
        assert_eq!(answer.pointers(422), [pointer], "{field} {value}: {}", answer.body);
    }
    let ios = |field: &str, value: &str| world.phone("iphone").ios().with(field, value).body();
    for (body, pointer) in [
        (ios("token", "not hexadecimal"), "/token"),
        (ios("token_kind", "fid"), "/token_kind"),
        (ios("platform", "android"), "/platform"),
        (ios("environment", "staging"), "/environment"),
        (json!({"transport": "fcm", "token": "t"}), "/installation_id"),
    ] {
        let answer = world.post("/v1/devices", body).await;
        assert_eq!(answer.pointers(422), [pointer], "{}", answer.body);
    }
    assert_eq!(world.get("/v1/devices").await.expect(200)["items"], json!([]));
    world.phone("longest").user(&"u".repeat(120)).registers().await;
}

#[tokio::test]
async fn the_cursor_of_a_known_installation_is_what_it_acknowledged() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    phone.sync().await;
    phone.sync().await;
    world.publish("order:42").await;
    let again = world.phone("pixel").follows(&["order:42"]).await;
    assert_eq!(again.registered["poll"]["reset"], false);
    assert_eq!(again.sync().await.feeds(), ["order:42"], "the second one only");
    assert_eq!(again.sync().await.events().len(), 0);
}

#[tokio::test]
async fn a_push_token_moves_to_the_installation_that_shows_it() {
    let world = World::start().await;
    let before = world.phone("pixel").follows(&["order:42"]).await;
    let after = world.phone("pixel-2").with("token", before.token.clone()).follows(&["order:42"]).await;
    assert_ne!(after.id, before.id);
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(after.received(), 1, "one push, not two");
    assert_eq!(before.seen().await["status"], "gone");
    assert_eq!(before.sync().await.0["push"], json!({"status": "gone", "register": true}));
}

#[tokio::test]
async fn another_user_gets_nothing_of_the_one_before() {
    let world = World::start().await;
    let before = world.phone("pixel").user("17").follows(&["order:42", "news"]).await;
    world.sim.fcm().pause();
    world.alert("order:42", "for 17").await;
    world.publish("user:17").await;
    let after = world.phone("pixel").user("18").follows(&["news"]).await;
    world.sim.fcm().resume();
    assert_eq!(after.id, before.id);
    assert_eq!(after.registered["feeds"], json!(["news", "user:18", format!("device:{}", after.id)]));
    assert_eq!(after.registered["poll"]["reset"], true);
    assert_ne!(after.registered["for"], before.registered["for"]);
    assert_eq!(before.get("/v1/sync").await.problem(401), "unauthorized");
    world.settle().await;
    assert_eq!(after.received(), 0, "nothing old is pushed");
    assert_eq!(after.sync().await.events().len(), 0, "nothing old is synced");
    assert_eq!(after.get("/v1/feeds/user:17/events").await.problem(404), "not-found");
    for feed in ["order:42", "user:17", "news", "user:18"] {
        world.publish(feed).await;
    }
    world.settle().await;
    assert_eq!(after.sync().await.feeds(), ["news", "user:18"]);
    assert_eq!(after.pushes()[0]["for"], after.registered["for"]);
    let omitted = world.phone("pixel").user("19").with("feeds", Value::Null).registers().await.registered;
    assert_eq!(omitted["feeds"], json!(["user:19", format!("device:{}", after.id)]), "explicit feeds are dropped");
}

#[tokio::test]
async fn a_device_may_change_its_own_things_only() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().user("17").follows(&["order:42"]).await;
    let me = "/v1/devices/me";
    let new = json!({"token": hex_token("new"), "environment": "sandbox", "topic": "com.example.shop",
                     "app_version": "4.3.0", "os": "ios 21", "locale": "de-CH"});
    let changed = phone.call(Method::PATCH, me, new.clone()).await.expect(200);
    for field in ["environment", "topic", "app_version", "os", "locale"] {
        assert_eq!(changed[field], new[field], "{field}");
    }
    assert_eq!([&changed["user"], &changed["feeds"]], [&phone.registered["user"], &phone.registered["feeds"]]);
    for forbidden in
        [json!({"user": "18"}), json!({"user": null}), json!({"feeds": []}), json!({"os": "x", "feeds": []})]
    {
        assert_eq!(phone.call(Method::PATCH, me, forbidden).await.problem(403), "forbidden");
    }
    assert_eq!(phone.call(Method::PATCH, me, json!({"status": "active"})).await.pointers(422), ["/status"]);
    assert_eq!(phone.call(Method::PATCH, me, json!({"token": ""})).await.pointers(422), ["/token"]);
    let cleared = phone.call(Method::PATCH, me, json!({"os": null, "app_version": null})).await.expect(200);
    assert_eq!(
        [&cleared["os"], &cleared["app_version"], &cleared["locale"]],
        [&Value::Null, &Value::Null, &json!("de-CH")]
    );

    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(world.sim.pushes()[0].token, hex_token("new"));
    phone.call(Method::DELETE, me, None).await.expect(204);
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized");
    assert_eq!(world.get(&format!("/v1/devices/{}", phone.id)).await.problem(404), "not-found");
}

#[tokio::test]
async fn the_backend_may_change_and_delete_a_device() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").follows(&["order:42"]).await;
    let path = format!("/v1/devices/{}", phone.id);
    let changed = world.patch(&path, json!({"feeds": ["order:43"], "locale": "fr"})).await.expect(200);
    assert_eq!(changed["feeds"], json!(["order:43", "user:17", format!("device:{}", phone.id)]));
    phone.get("/v1/sync").await.expect(200);
    world.patch(&path, json!({"user": "18"})).await.expect(200);
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized", "a change of user ends the tokens");
    world.delete(&path).await.expect(204);
    assert_eq!(world.delete(&path).await.problem(404), "not-found");
    world.publish("order:43").await;
    world.settle().await;
    assert_eq!(phone.received(), 0);
}

#[tokio::test]
async fn devices_are_listed_by_user_feed_and_status() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for (name, user, feed) in [("a", "17", "order:1"), ("b", "17", "order:2"), ("c", "18", "order:2")] {
        ids.push(world.phone(name).user(user).follows(&[feed]).await.id);
    }
    let list = async |query: &str| {
        let page = world.get(&format!("/v1/devices?{query}")).await.expect(200);
        let ids: Vec<_> =
            page["items"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect();
        (ids, page["next"].clone())
    };
    let sorted = |wanted: &[usize]| {
        let mut wanted: Vec<_> = wanted.iter().map(|index| ids[*index].clone()).collect();
        wanted.sort();
        wanted
    };
    assert_eq!(list("user=17").await.0, sorted(&[0, 1]));
    assert_eq!(list("feed=order:2").await.0, sorted(&[1, 2]));
    assert_eq!(list("feed=user:18").await.0, sorted(&[2]));
    assert_eq!(list("user=17&feed=order:2&status=active").await.0, sorted(&[1]));
    assert!(list("status=gone").await.0.is_empty());
    let (first, next) = list("limit=2").await;
    let (rest, end) = list(&format!("limit=2&cursor={}", next.as_str().unwrap())).await;
    assert_eq!([first, rest].concat(), sorted(&[0, 1, 2]));
    assert_eq!(end, Value::Null);
    for query in ["status=asleep", "limit=0", "limit=501", "limit=many", "colour=red"] {
        assert_eq!(world.get(&format!("/v1/devices?{query}")).await.problem(422), "invalid", "{query}");
    }
}
