//! The timeline: what it tells, in which order, and who may read it (contract §7).

use std::time::Duration;

use reqwest::Method;
use reveille::sim::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::support::{phone::Phone, world::World};

const SECOND: Duration = Duration::from_secs(1);

/// One page: its rows, and the cursor of the next.
async fn page(world: &World, device: &str, query: &str) -> (Vec<Value>, Option<String>) {
    let page = world.get(&format!("/v1/devices/{device}/timeline{query}")).await.expect(200);
    (page["items"].as_array().unwrap().clone(), page["next"].as_str().map(str::to_owned))
}

/// All rows on one page.
async fn rows(phone: &Phone<'_>) -> Vec<Value> {
    let (rows, next) = page(phone.world, &phone.id, "?limit=500").await;
    assert_eq!(next, None);
    rows
}

/// All rows page by page, without the present.
async fn by_pages(phone: &Phone<'_>, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (rows, next) = page(phone.world, &phone.id, &format!("?limit={limit}{cursor}")).await;
        let told: Vec<_> = rows.into_iter().filter(|row| row["kind"] != "state").collect();
        assert!(told.len() <= limit);
        all.extend(told);
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn fields<'a>(rows: &'a [Value], names: &[&str]) -> Vec<Vec<&'a Value>> {
    rows.iter().map(|row| names.iter().map(|name| &row[*name]).collect()).collect()
}

fn of_kind(rows: Vec<Value>, kind: &str) -> Vec<Value> {
    rows.into_iter().filter(|row| row["kind"] == kind).collect()
}

fn said(row: &Value) -> &str {
    row["says"].as_str().unwrap()
}

async fn quiet_event(world: &World, feed: &str) {
    let event = json!({"feed": feed, "type": "t", "wake": {"class": "none"}});
    world.post("/v1/events", event).await.expect(202);
}

/// Takes out what differs from run to run.
fn steady(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let changing = ["duration_ms", "provider_id", "bytes"].contains(&name.as_str());
                *member = if changing { json!("[…]") } else { steady(member.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = steady(item.take())),
        Value::String(text) => {
            for prefix in ["dev_", "evt_", "wake_", "att_", "mom_"] {
                while let Some(start) =
                    text.find(prefix).filter(|start| !text[*start..].starts_with(&format!("{prefix}…")))
                {
                    text.replace_range(start + prefix.len()..start + prefix.len() + 26, "…");
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    value
}

#[tokio::test]
async fn the_rows_look_like_this() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    let wake = world.attempts().await[0]["wake"].as_str().unwrap().to_owned();
    world.clock.advance(SECOND * 2);
    phone.get(&format!("/v1/sync?wake={wake}")).await.expect(200);
    world.publish("order:42").await;
    phone.get("/v1/sync").await.expect(200);
    world.clock.advance(SECOND);
    world.publish("order:42").await;
    world.settle().await;
    world.publish("order:42").await;
    world.settle().await;
    world.clock.advance(SECOND * 60);
    world.sim.apns().dead_token(&phone.token, None);
    world.settle().await;
    insta::assert_json_snapshot!("timeline", steady(json!(rows(&phone).await)));
}

#[tokio::test]
async fn what_has_not_been_fetched_is_told_first() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.alert("order:42", "Order 42").await;
    world.settle().await;
    world.sim.fcm().answer(Fault::new(FaultKind::Status { status: 503, reason: None, retry_after: Some("30".into()) }));
    world.publish("order:42").await;
    world.settle().await;
    let (rows, _) = page(&world, &phone.id, "").await;
    insta::assert_json_snapshot!("timeline_state", steady(json!(rows[..2])));
    assert_ne!(rows[2]["kind"], "state");
    phone.sync().await;
    world.settle().await;
    assert_ne!(page(&world, &phone.id, "").await.0[0]["kind"], "state", "nothing is left to tell");
}

/// A life with all kinds of rows, several of them at the same moment.
async fn live(phone: &Phone<'_>) {
    let world = phone.world;
    for round in 0..4 {
        world.publish("order:42").await;
        world.settle().await;
        quiet_event(world, "order:42").await;
        world.alert("order:43", "Order 43").await;
        world.publish("order:42").await;
        world.later(SECOND * 70).await;
        if round % 2 == 0 {
            phone.sync().await;
        }
    }
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42", "order:43"]).await;
    live(&phone).await;
    let all: Vec<_> = rows(&phone).await.into_iter().filter(|row| row["kind"] != "state").collect();
    for kind in ["registered", "event", "deferred", "attempt", "polled"] {
        assert!(all.iter().any(|row| row["kind"] == kind), "{kind}");
    }
    assert!(all.iter().any(|row| row["decision"] == "coalesced"));
    assert!(all.is_sorted_by(|newer, older| newer["at"].as_str() >= older["at"].as_str()));
    for limit in [1, 2, 3, 7, all.len(), 500] {
        assert_eq!(by_pages(&phone, limit).await, all, "in pages of {limit}");
    }
}

#[tokio::test]
async fn what_happens_while_somebody_reads_is_on_no_later_page() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42", "order:43"]).await;
    live(&phone).await;
    let before: Vec<_> = rows(&phone).await.into_iter().filter(|row| row["kind"] != "state").collect();
    let (first, next) = page(&world, &phone.id, "?limit=5").await;
    live(&phone).await;
    let (rest, end) = page(&world, &phone.id, &format!("?limit=500&cursor={}", next.unwrap())).await;
    assert_eq!(end, None);
    let told: Vec<_> = first.into_iter().filter(|row| row["kind"] != "state").chain(rest).collect();
    assert_eq!(told, before);
}

#[tokio::test]
async fn events_that_wake_nobody_do_not_show_and_hide_nothing() {
    let world = World::start().await;
    world.publish("order:42").await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let position = world.publish("order:42").await["position"].clone();
    world.publish("order:43").await;
    for _ in 0..60 {
        quiet_event(&world, "order:42").await;
    }
    let events = of_kind(rows(&phone).await, "event");
    assert_eq!(fields(&events, &["position", "feed"]), [[&position, &json!("order:42")]]);
    assert_eq!(of_kind(by_pages(&phone, 1).await, "event"), events, "however many lie above");
}

#[tokio::test]
async fn what_waited_out_the_gap_is_deferred_and_then_coalesced() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..4 {
        world.publish("order:42").await;
        world.settle().await;
    }
    world.later(SECOND * 60).await;
    let rows = rows(&phone).await;
    let deferred = of_kind(rows.clone(), "deferred");
    assert_eq!(deferred.len(), 1, "only a change of the reason is a row");
    assert_eq!(fields(&deferred, &["decision", "reason", "until"]), [["deferred", "gap", "2026-09-21T14:14:20.000Z"]]);
    assert!(said(&deferred[0]).starts_with("deferred: gap, until 2026-09-21T14:14:20.000Z"));
    let wakes: Vec<_> = of_kind(rows.clone(), "attempt").iter().map(|row| row["wake"].clone()).collect();
    let expected = [(1, json!(null)), (1, json!("coalesced")), (1, json!("coalesced")), (0, json!(null))];
    let [newest, third, second, first] = of_kind(rows, "event").try_into().unwrap();
    for (event, (wake, decision)) in
        [(first, &expected[0]), (second, &expected[1]), (third, &expected[2]), (newest, &expected[3])]
    {
        let announced = if decision.is_null() && *wake == 1 { &wakes[1] } else { &wakes[0] };
        assert_eq!([&event["wake"], &event["decision"]], [announced, decision], "{}", said(&event));
    }
}

#[tokio::test]
async fn a_retry_is_an_attempt_of_the_same_wake_and_no_new_decision() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let busy = FaultKind::Status { status: 503, reason: Some("UNAVAILABLE".into()), retry_after: Some("30".into()) };
    world.sim.fcm().answer(Fault::new(busy).times(1));
    world.publish("order:42").await;
    world.settle().await;
    world.later(SECOND * 30).await;
    let attempts = of_kind(rows(&phone).await, "attempt");
    assert_eq!(fields(&attempts, &["try", "decision"]), [[&json!(2), &json!(null)], [&json!(1), &json!("sent")]]);
    assert_eq!(attempts[0]["wake"], attempts[1]["wake"]);
    assert!(said(&attempts[1]).contains("deferred: retry, until 2026-09-21T14:13:50.000Z"), "{}", said(&attempts[1]));
    assert!(said(&attempts[0]).starts_with("sent again, try 2: FCM accepted it"), "{}", said(&attempts[0]));
}

#[tokio::test]
async fn registrations_say_what_they_change() {
    let world = World::start().await;
    let phone = world.phone("pixel").user("17").registers().await;
    world.phone("pixel").user("17").registers().await;
    world.phone("pixel").user("17").with("token", "fresh").registers().await;
    world.phone("pixel").with("token", "fresh").with("user", json!(null)).registers().await;
    let path = format!("/v1/devices/{}", phone.id);
    world.patch(&path, json!({"locale": "de-DE"})).await.expect(200);
    world.patch(&path, json!({"user": "18"})).await.expect(200);
    let changes = |rows: Vec<Value>| -> Vec<Value> { rows.iter().map(|row| row["change"].clone()).collect() };
    let registered = of_kind(rows(&phone).await, "registered");
    assert_eq!(changes(registered), ["user_changed", "user_changed", "token_changed", "same", "created"]);

    world.phone("other").with("token", "fresh").registers().await;
    let told = rows(&phone).await;
    assert_eq!(fields(&told[..2], &["kind", "status"]), [["state", "gone"], ["status", "gone"]]);
    assert!(told[..2].iter().all(|row| said(row).contains("token moved to another installation")), "{told:#?}");
    world.phone("pixel").with("token", "another").registers().await;
    let told = rows(&phone).await;
    assert_eq!(fields(&told[..1], &["kind", "status", "reason"]), [["status", "active", "registered again"]]);
    assert_eq!(told[1]["change"], "token_changed");
}

#[tokio::test]
async fn a_doubtful_device_and_its_poll_are_told() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let doubt = FaultKind::Status { status: 410, reason: Some("NotSoSure".into()), retry_after: None };
    world.sim.apns().answer(Fault::new(doubt).times(1));
    world.publish("order:42").await;
    world.settle().await;
    let told = rows(&phone).await;
    assert_eq!(fields(&told[..1], &["kind", "status", "reason"]), [["state", "quarantined", "NotSoSure"]]);
    assert!(said(&told[0]).contains("one probe a day"), "{}", said(&told[0]));
    phone.sync().await;
    let told = of_kind(rows(&phone).await, "status");
    assert_eq!(fields(&told, &["status", "reason"]), [["active", "it polled"], ["quarantined", "NotSoSure"]]);
}

#[tokio::test]
async fn who_may_read_it_and_how_much() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let path = format!("/v1/devices/{}/timeline", phone.id);
    let (foreign, _) = world.new_app("other").await;
    let foreign = world.new_key(&foreign, &["devices:read"]).await;
    assert_eq!(world.call(Method::GET, &path, &foreign, None).await.problem(404), "not-found");
    assert_eq!(phone.get(&path).await.problem(403), "forbidden");
    let key = world.new_key(&world.app, &["events:read"]).await;
    let refused = world.call(Method::GET, &path, &key, None).await;
    assert_eq!(refused.problem(403), "missing-scope");
    assert_eq!(refused.body["scope"], "devices:read");
    for query in ["?limit=0", "?limit=501", "?before=1"] {
        assert_eq!(world.get(&format!("{path}{query}")).await.problem(422), "invalid", "{query}");
    }
    assert_eq!(world.get(&format!("{path}?cursor=1287")).await.problem(400), "cursor-invalid");
    for _ in 0..60 {
        world.publish(&format!("device:{}", phone.id)).await;
    }
    assert_eq!(of_kind(page(&world, &phone.id, "").await.0, "event").len(), 50);
}

#[tokio::test]
async fn a_device_is_found_by_its_installation() {
    let world = World::start().await;
    let phone = world.phone("b7e6").user("17").registers().await;
    world.phone("c8f7").user("17").registers().await;
    let found = async |query: &str| {
        let items = world.get(&format!("/v1/devices?{query}")).await.expect(200)["items"].take();
        items.as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("installation_id=b7e6").await, [phone.id.as_str()]);
    assert_eq!(found("installation_id=b7e6&user=17&status=active").await, [phone.id.as_str()]);
    for none in [
        "installation_id=b7e6&user=18",
        "installation_id=b7e6&status=gone",
        "installation_id=b7e6&feed=f",
        "installation_id=x",
    ] {
        assert!(found(none).await.is_empty(), "{none}");
    }
}
