//! Erasing users: nothing leads back to them, nobody else notices (contract §5, Devices).

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Method;
use reveille::{
    domain::push::{Meaning, Reply},
    sim::{Fault, FaultKind},
    store::{FanOut, Finished, StoreOptions},
};
use serde_json::{Value, json};

use crate::support::{
    phone::hex_token,
    world::{Answer, World},
};

const DAY: Duration = Duration::from_secs(86_400);
const MOMENT: Duration = Duration::from_millis(1);

/// What nobody else has ever written.
const MARKER: &str = "m4rk3r-of-the-one-who-leaves";

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Listens to all that the relay says on this thread, as long as the answer lives.
    fn listen(&self) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
        let log = self.clone();
        let filter = "info,sqlx=trace,tower_http=trace,reveille=trace,reveille::sim=off";
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log.clone()).finish();
        // A lone listener is not asked about what other tests say first, and then never hears of it; so it is not alone.
        (tracing::Dispatch::new(tracing_subscriber::registry()), tracing::subscriber::set_default(subscriber))
    }
}

/// Tables with rows in which this column has this value.
async fn rows_by(world: &World, column: &str, value: &str) -> Vec<String> {
    let tables = world.database().tables_with(column).await;
    assert!(tables.len() > 3, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let sql = format!("select count(*) from {table} where {column} = '{value}'");
        if world.database().count(&sql).await > 0 {
            found.push(table);
        }
    }
    found
}

/// Has the janitor finish an erasure; answers it as it is then shown.
async fn finish(world: &World, operation: &Value) -> Value {
    while world.relay().janitor().step().await.unwrap() {}
    let done = world.get(&format!("/v1/operations/{}", operation["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(done["state"], "done");
    assert!(done["finished_at"].is_string());
    done
}

async fn erase_user(world: &World, user: &str) -> Value {
    let answer = world.delete(&format!("/v1/users/{user}")).await;
    assert_eq!(answer.header("location").unwrap(), format!("/v1/operations/{}", answer.body["id"].as_str().unwrap()));
    answer.expect(202)
}

/// Everything that has a marker's place, filled with it, and pushed, polled, forgotten and found again.
async fn live(world: &World) -> Vec<String> {
    let token = format!("token-{MARKER}");
    let pixel = world.phone(&format!("pixel-{MARKER}")).user(MARKER).with("app_version", MARKER).with("os", MARKER);
    let pixel = pixel.with("locale", MARKER).with("token", format!("old-{token}")).follows(&["news"]).await;
    let iphone = world.phone(MARKER).ios().user(MARKER).follows(&["news"]).await;
    let event = |feed: &str, class: &str| {
        let alert = (class == "alert").then(|| json!({"title": MARKER, "body": MARKER}));
        json!({
            "feed": feed, "type": MARKER, "key": format!("key-{MARKER}"), "data": {"of": MARKER.repeat(300)},
            "href": format!("https://api.example.com/{MARKER}"), "wake": {"class": class, "ttl_s": 3600, "alert": alert},
        })
    };
    let user_feed = format!("user:{MARKER}");
    for round in 0..6 {
        for (feed, class) in [(user_feed.clone(), "background"), (user_feed.clone(), "alert")] {
            let key = format!("request-{round}-{class}-{MARKER}");
            world
                .post_text("/v1/events", &[("idempotency-key", &key)], event(&feed, class).to_string())
                .await
                .expect(202);
        }
        world.post("/v1/events", event(&format!("device:{}", pixel.id), "background")).await.expect(202);
        world.publish("news").await;
        world.settle().await;
        pixel.sync().await;
        world.tidy_after(DAY / 2).await;
    }
    world.post("/v1/events", json!({"feed": user_feed, "type": MARKER})).await.expect(202);
    // A push token is replaced, a tablet goes on to somebody else, and retention drops what is old.
    let renewed = world.phone(&format!("pixel-{MARKER}")).with("token", token.clone()).follows(&["news"]).await;
    let tablet = world.phone("tablet").user(MARKER).follows(&["news"]).await;
    world.post("/v1/events", event(&user_feed, "alert")).await.expect(202);
    world.settle().await;
    // A call to the tablet is under way when it changes hands, and is never heard of again.
    world.clock.advance(DAY);
    world.post("/v1/events", event(&user_feed, "alert")).await.expect(202);
    assert!(world.claim().await.iter().any(|call| call.device.to_string() == tablet.id));
    world.phone("tablet").user("next").follows(&["news"]).await;
    world.tidy_after(DAY * 8).await;
    let key = format!("last-request-{MARKER}");
    let last = event(&user_feed, "background").to_string();
    world.post_text("/v1/events", &[("idempotency-key", &key)], last).await.expect(202);
    world.settle().await;
    assert!(renewed.received() > 0 && pixel.received() > 0 && iphone.received() > 0 && tablet.received() > 0);
    let [marker, hex] = [MARKER.to_owned(), hex_token(MARKER)];
    vec![marker, hex, token, renewed.id, iphone.id]
}

#[tokio::test]
async fn nothing_leads_back_to_an_erased_user() {
    let log = Log::default();
    let _listening = log.listen();
    let world = World::start().await;
    let mut others = Vec::new();
    for number in 0..40 {
        others.push(world.phone(&format!("other-{number}")).user(&format!("u{number}")).follows(&["news"]).await);
    }
    let texts = live(&world).await;
    world.publish("news").await;
    let mut pages = Vec::new();
    for other in &others {
        pages.push(other.get("/v1/sync").await.expect(200)["events"].clone());
    }
    let before = world.database().traces(&texts).await;
    for text in &texts {
        assert!(before.iter().any(|found| found.starts_with(text)), "the search finds what is there: {text}");
    }

    let operation = erase_user(&world, MARKER).await;
    let operation = finish(&world, &operation).await;
    assert_eq!(world.database().traces(&texts).await, BTreeSet::new());
    assert!(!operation.to_string().contains(MARKER));
    assert_eq!([&operation["kind"], &operation["removed"]["devices"]], [&json!("erase-user"), &json!(2)]);
    for counted in ["device_tokens", "follows", "events", "attempts", "timeline", "idempotency_keys"] {
        assert!(operation["removed"][counted].as_u64().unwrap() > 0, "{counted}: {operation:#}");
    }
    for device in &texts[3..] {
        assert_eq!(rows_by(&world, "device_id", device).await, [""; 0]);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("/v1/users/{user}"), "the log is on");
    for text in texts.iter().take(3) {
        let line = log.lines().find(|line| line.contains(text));
        assert_eq!(line, None, "the log knows {text}");
    }
    for (other, page) in others.iter().zip(pages) {
        assert_eq!(other.get("/v1/sync").await.expect(200)["events"], page, "nobody else has noticed");
    }
}

#[tokio::test]
async fn a_user_of_another_app_is_somebody_else() {
    let world = World::start().await;
    let (_, key) = world.new_app("rival").await;
    let call = async |method, path: &str, body| world.call(method, path, &key, body).await;
    let mut phone = world.phone("theirs").user("17").body();
    phone["feeds"] = json!(["order:42"]);
    let theirs = call(Method::POST, "/v1/devices", Some(phone)).await.expect(201);
    world.phone("pixel").user("17").follows(&["order:42"]).await;
    for feed in ["user:17", "order:42"] {
        call(Method::POST, "/v1/events", Some(json!({"feed": feed, "type": "t"}))).await.expect(202);
        world.publish(feed).await;
    }

    let operation = erase_user(&world, "17").await;
    assert_eq!([&operation["state"], &operation["removed"]["devices"]], [&json!("done"), &json!(1)]);
    let feed = world.delete("/v1/feeds/order:42").await.expect(202);
    assert_eq!([&feed["state"], &feed["removed"]["events"]], [&json!("done"), &json!(1)]);

    let shown = call(Method::GET, &format!("/v1/devices/{}", theirs["id"].as_str().unwrap()), None).await.expect(200);
    assert_eq!(shown["feeds"], theirs["feeds"]);
    let token = theirs["device_token"].as_str().unwrap();
    let page = world.call(Method::GET, "/v1/sync", token, None).await.expect(200);
    let feeds: Vec<_> = page["events"].as_array().unwrap().iter().filter(|e| e["type"] == "t").collect();
    assert_eq!(feeds.len(), 2);
    // What goes on in one app is not shown to another.
    let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
    assert_eq!(call(Method::GET, &path, None).await.problem(404), "not-found");
}

#[tokio::test]
async fn whoever_is_unknown_is_erased_at_once_and_what_cannot_be_is_refused() {
    let world = World::start().await;
    for path in ["/v1/users/nobody", "/v1/feeds/no:feed", "/v1/users/nobody"] {
        let operation = world.delete(path).await.expect(202);
        assert_eq!(operation["state"], "done", "{path}");
        assert!(operation["removed"].as_object().unwrap().values().all(|count| count == 0), "{path}");
        let shown = world.get(&format!("/v1/operations/{}", operation["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(shown, operation);
    }
    for (path, way) in [
        ("/v1/feeds/user:17", "DELETE /v1/users/17"),
        ("/v1/feeds/device:dev_1", "DELETE /v1/devices/dev_1"),
        ("/v1/feeds/reveille:alarms", "retention"),
        ("/v1/feeds/a%20b", "feed name"),
        ("/v1/users/a%20b", "feed name"),
        (&format!("/v1/users/{}", "x".repeat(121)), "120"),
    ] {
        let answer = world.delete(path).await;
        assert_eq!(answer.problem(422), "invalid", "{path}");
        assert!(answer.body["detail"].as_str().unwrap().contains(way), "{path}: {}", answer.body);
    }
    for path in ["/v1/operations/op_01h2xcejqtf2nbrexx3vqjhp41", "/v1/operations/17"] {
        assert_eq!(world.get(path).await.problem(404), "not-found");
    }
}

#[tokio::test]
async fn erasing_takes_devices_write_and_looking_takes_either() {
    let world = World::start().await;
    let key = async |scope: &str| world.new_key(&world.app, &[scope]).await;
    let (reader, writer, stranger) = (key("devices:read").await, key("devices:write").await, key("events:write").await);
    for path in ["/v1/users/17", "/v1/feeds/order:42"] {
        let erase = async |key: &str| world.call(Method::DELETE, path, key, None).await;
        let refused = |answer: Answer| {
            assert_eq!(
                [answer.problem(403), answer.body["scope"].as_str().unwrap()],
                ["missing-scope", "devices:write"]
            )
        };
        refused(erase(&reader).await);
        refused(erase(&stranger).await);
        let operation = erase(&writer).await.expect(202);
        let shown = format!("/v1/operations/{}", operation["id"].as_str().unwrap());
        for key in [&reader, &writer] {
            world.call(Method::GET, &shown, key, None).await.expect(200);
        }
        assert_eq!(world.call(Method::GET, &shown, &stranger, None).await.problem(403), "missing-scope");
    }
}

#[tokio::test]
async fn who_comes_back_after_the_request_stays() {
    let world = World::with(StoreOptions { fanout_chunk: 2, ..StoreOptions::default() }).await;
    world.without_pace().await;
    let mut phones = Vec::new();
    for name in ["first", "second", "third", "last"] {
        phones.push(world.phone(name).user("17").follows(&["news"]).await);
    }
    for _ in 0..4 {
        world.publish(&format!("device:{}", phones[3].id)).await;
        world.alert("user:17", "before").await;
        world.settle().await;
    }
    // The next wake of the last phone is to be repeated.
    let unavailable = FaultKind::Status { status: 503, reason: None, retry_after: Some("60".into()) };
    world.sim.fcm().answer(Fault::new(unavailable).to_token(&phones[3].token).times(1));
    world.alert("user:17", "waits").await;
    world.settle().await;
    let begun = erase_user(&world, "17").await;
    assert_eq!([&begun["state"], &begun["removed"]["follows"]], [&json!("running"), &json!(6)]);

    // One whose follows are gone already, and one that has not been touched yet.
    world.clock.advance(MOMENT);
    let first = world.phone("first").user("17").follows(&["news"]).await;
    let last = world.phone("last").user("17").follows(&["news"]).await;
    let newcomer = world.phone("newcomer").ios().user("17").follows(&[]).await;
    assert_eq!([&first.id, &last.id], [&phones[0].id, &phones[3].id]);
    let after = world.publish("user:17").await["position"].as_i64().unwrap();
    let news = world.publish("news").await["position"].as_i64().unwrap();
    let pushed = [&first, &last, &newcomer].map(|phone| phone.received());
    let done = finish(&world, &begun).await;
    assert_eq!([&done["removed"]["devices"], &done["removed"]["events"]], [2, 9]);
    for phone in [&first, &last] {
        let left = ["device_tokens", "follows", "levels", "timeline"];
        assert_eq!(rows_by(&world, "device_id", &phone.id).await, left);
    }

    while world.relay().store().fan_out(None, 500).await.unwrap() != FanOut::Idle {}
    world.settle().await;
    world.later(Duration::from_secs(600)).await;
    assert_eq!(first.heads()[pushed[0]..], [news], "one wake for what is new, none for what is gone");
    assert_eq!(last.heads()[pushed[1]..], [news], "nothing is repeated that is gone");
    assert_eq!(newcomer.heads()[pushed[2]..], [after]);
    for phone in [&first, &last] {
        let page = phone.sync().await;
        assert_eq!(page.feeds(), ["user:17", "news"]);
        let anew = page.events().iter().find(|event| event["feed"] == "user:17").unwrap();
        assert_eq!(anew["type"], "reveille.followed", "the user's feed begins anew");
        assert_eq!(page.positions()[page.positions().len() - 2..], [after, news]);
    }
    assert_eq!(newcomer.sync().await.positions(), [after]);
    world.publish("user:17").await;
    assert_eq!(last.sync().await.feeds(), ["user:17"]);
}

#[tokio::test]
async fn a_call_under_way_to_an_erased_device_ends_harmlessly() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").follows(&["news"]).await;
    world.publish("news").await;
    let calls = world.claim().await;
    assert_eq!(calls.len(), 1);
    erase_user(&world, "17").await;
    for (call, meaning) in calls.iter().zip([Meaning::Accepted, Meaning::Unavailable]) {
        let reply = Reply { meaning, status: Some(200), reason: None, provider_id: None, retry_after: None, bytes: 1 };
        world.relay().store().finish(Finished { call: call.clone(), duration: MOMENT, reply }).await.unwrap();
    }
    assert_eq!(rows_by(&world, "device_id", &phone.id).await, [""; 0]);
    assert_eq!(world.next_due().await, None);
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized");
}

#[tokio::test]
async fn a_deleted_device_leaves_its_attempts_only() {
    let world = World::with(StoreOptions { fanout_chunk: 2, ..StoreOptions::default() }).await;
    world.without_pace().await;
    let phone = world.phone("pixel").follows(&["news"]).await;
    for _ in 0..3 {
        world.publish(&format!("device:{}", phone.id)).await;
        world.publish("news").await;
        world.settle().await;
        phone.sync().await;
    }
    world.delete(&format!("/v1/devices/{}", phone.id)).await.expect(204);
    assert_eq!(phone.get("/v1/sync").await.problem(401), "unauthorized");
    while world.relay().janitor().step().await.unwrap() {}
    assert_eq!(rows_by(&world, "device_id", &phone.id).await, ["attempts"]);
    assert_eq!(rows_by(&world, "feed", &format!("device:{}", phone.id)).await, [""; 0]);
    assert_eq!(rows_by(&world, "feed", "news").await, ["events"], "the events of others stay");
}
