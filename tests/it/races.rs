//! Races that lose wakes or events in naive code (architecture: details that bite).

use std::time::Duration;

use reveille::{
    domain::{
        feed::Position,
        push::{Meaning, Reply},
    },
    store::{FanOut, Finished, PageEntry, PageRequest, Paged, StoreOptions},
};
use serde_json::json;

use crate::support::world::World;

fn accepted() -> Reply {
    Reply {
        meaning: Meaning::Accepted,
        status: Some(200),
        reason: None,
        provider_id: None,
        retry_after: None,
        bytes: 1,
    }
}

/// A follow and an accept at the same time: whichever is first, the phone reads the event or finds it in the snapshot, and is woken.
#[tokio::test]
async fn a_follow_during_an_accept_misses_nothing() {
    let world = World::start().await;
    for round in 0..20 {
        let feed = format!("order:{round}");
        let phone = world.phone(&format!("phone-{round}")).follows(&[]).await;
        let path = format!("/v1/devices/{}/feeds/{feed}", phone.id);
        let (_, event) = tokio::join!(
            async { world.put(&path, json!(null)).await.expect(200) },
            world.post("/v1/events", json!({"feed": feed, "type": "t", "key": "k", "data": round}))
        );
        let position = event.expect(202)["position"].as_i64().unwrap();
        world.settle().await;
        assert!(phone.received() >= 1, "round {round}: the follower is woken");
        let page = phone.sync().await;
        let follow = page.events().iter().find(|entry| entry["type"] == "reveille.followed").expect("the follow");
        if follow["position"].as_i64().unwrap() < position {
            assert!(page.positions().contains(&position), "round {round}: an event above the follow is on the page");
        } else {
            let snapshot = phone.get(follow["snapshot"].as_str().unwrap()).await.expect(200);
            assert_eq!(snapshot["items"][0]["position"], position, "round {round}: an older one is in the snapshot");
        }
    }
}

/// Pages during accepts: who has read up to N never later sees an event at or below N, and sees all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_during_accepts_skip_nothing() {
    const WRITERS: usize = 4;
    const EVENTS: usize = 60;
    let world = World::start().await;
    world.settings(json!({"confirm": "fetch"})).await;
    let phone = world.phone("pixel").follows(&["a", "b"]).await;
    let key = &world.key;
    let writer = async |number: usize| {
        for index in 0..EVENTS {
            let feed = if (number + index).is_multiple_of(2) { "a" } else { "b" };
            let body = json!({"feed": feed, "type": "t", "data": [number, index]});
            world.call(reqwest::Method::POST, "/v1/events", key, Some(body)).await.expect(202);
        }
    };
    let reader = async {
        let mut seen: Vec<i64> = Vec::new();
        let poller = world.relay().store().poller(&phone.device_token).await.unwrap().unwrap();
        while seen.len() < WRITERS * EVENTS {
            // The store itself, for the API counts a device's polls.
            let after = Some(Position(seen.last().copied().unwrap_or(0)));
            let page = world.relay().store().page(&poller, PageRequest { after, limit: 7 }).await.unwrap();
            let Paged::Page(page) = page else { panic!("a page") };
            let events = page.entries.iter().filter(|entry| matches!(entry, PageEntry::Event(_)));
            for position in events.map(|entry| entry.position().0) {
                assert!(seen.last().is_none_or(|last| *last < position), "{position} after {:?}", seen.last());
                seen.push(position);
            }
            tokio::task::yield_now().await;
        }
        seen
    };
    let (seen, ..) = tokio::join!(reader, writer(0), writer(1), writer(2), writer(3));
    let mut unique = seen.clone();
    unique.dedup();
    assert_eq!(unique.len(), WRITERS * EVENTS);
}

/// A poll between claim and answer: what it has brought is not pushed again, and the answer does not make anything due.
#[tokio::test]
async fn a_fetch_between_claim_and_answer_ends_the_matter() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let claimed = world.claim().await;
    assert_eq!(claimed.len(), 1);
    world.publish("order:42").await;
    assert_eq!(phone.sync().await.feeds().len(), 2);
    for call in claimed {
        let finished = Finished { call, duration: Duration::ZERO, reply: accepted() };
        world.relay().store().finish(finished).await.unwrap();
    }
    world.settle().await;
    world.later(Duration::from_secs(120)).await;
    assert_eq!(phone.received(), 0, "nothing is left to push");
    assert_eq!(world.outcomes().await, ["accepted"]);
}

/// A poll that brings only part of it leaves the rest due.
#[tokio::test]
async fn a_fetch_of_an_older_page_leaves_the_newer_event_due() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.publish("order:42").await;
    let first = phone.get(&format!("/v1/sync?limit=1&after={}", phone.cursor())).await.expect(200);
    assert_eq!(first["has_more"], true);
    world.settle().await;
    assert_eq!(phone.heads(), [first["through"].as_i64().unwrap() + 1]);
}

/// A worker that comes back after its lease cannot overwrite what has been done since.
#[tokio::test]
async fn a_late_worker_cannot_overwrite() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let claimed = world.claim().await;
    world.clock.advance(Duration::from_secs(46));
    world.settle().await;
    assert_eq!(phone.received(), 1, "the same wake goes on as its next try");
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes, ["unknown", "accepted"]);
    for call in claimed {
        let reply = Reply { meaning: Meaning::Unregistered { since: None }, ..accepted() };
        let finished = Finished { call, duration: Duration::ZERO, reply };
        world.relay().store().finish(finished).await.unwrap();
    }
    let attempts = world.attempts().await;
    assert_eq!(attempts[0]["wake"], attempts[1]["wake"]);
    assert_eq!([&attempts[1]["try"], &attempts[0]["try"]], [1, 2]);
    world.publish("order:42").await;
    world.settle().await;
    // The verdict itself is true of the token, so the device is gone; but the wake that was told stays told.
    assert_eq!(phone.seen().await["status"], "gone");
    assert_eq!(phone.received(), 1);
}

/// The same while the next try is under way: a late answer that asks for a repetition does not take the wake from its new owner.
#[tokio::test]
async fn a_late_answer_does_not_take_the_wake_from_its_new_owner() {
    let world = World::start().await;
    world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let store = world.relay().store();
    let late = world.claim().await;
    world.clock.advance(Duration::from_secs(46));
    let owner = world.claim().await;
    assert_eq!([late.len(), owner.len()], [1, 1]);
    let finish = async |calls: Vec<reveille::store::Call>, meaning| {
        for call in calls {
            let reply = Reply { meaning, ..accepted() };
            store.finish(Finished { call, duration: Duration::ZERO, reply }).await.unwrap();
        }
    };
    finish(late, Meaning::Unavailable).await;
    world.clock.advance(Duration::from_secs(30));
    assert!(world.claim().await.is_empty(), "the wake is its owner's until the lease ends");
    finish(owner, Meaning::Accepted).await;
    world.later(Duration::from_secs(500)).await;
    assert_eq!(world.outcomes().await, ["unavailable", "accepted"]);
}

/// An answer about a token that has been replaced meanwhile says nothing about the new one.
#[tokio::test]
async fn a_late_verdict_about_an_old_token_spares_the_new_one() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    let claimed = world.claim().await;
    let renewed = world.phone("pixel").with("token", "a-new-token").follows(&["order:42"]).await;
    assert_eq!(renewed.id, phone.id);
    for call in claimed {
        let reply = Reply { meaning: Meaning::Unregistered { since: None }, ..accepted() };
        let finished = Finished { call, duration: Duration::ZERO, reply };
        world.relay().store().finish(finished).await.unwrap();
    }
    assert_eq!(renewed.seen().await["status"], "active");
    world.settle().await;
    assert_eq!(renewed.received(), 1, "the wake goes to the new token");
}

/// Two registrations whose answers are lost: the token that the phone still holds works until a newer one has arrived.
#[tokio::test]
async fn registrations_whose_answers_are_lost_do_not_lock_the_phone_out() {
    let world = World::start().await;
    let first = world.phone("pixel").follows(&["order:42"]).await;
    let lost = world.phone("pixel").follows(&["order:42"]).await;
    let last = world.phone("pixel").follows(&["order:42"]).await;
    assert_eq!([&lost.id, &last.id], [&first.id, &first.id]);
    world.clock.advance(Duration::from_secs(86_400));
    first.get("/v1/sync").await.expect(200);
    last.get("/v1/sync").await.expect(200);
    world.clock.advance(Duration::from_secs(4 * 60));
    first.get("/v1/sync").await.expect(200);
    world.clock.advance(Duration::from_secs(2 * 60));
    assert_eq!(first.get("/v1/sync").await.problem(401), "unauthorized");
    last.get("/v1/sync").await.expect(200);
}

/// A fan-out in chunks, with a follow, an unfollow and a poll in its middle.
#[tokio::test]
async fn a_fan_out_goes_in_chunks_and_meets_what_happens_meanwhile() {
    const CHUNK: u32 = 4;
    let world = World::with(StoreOptions { fanout_chunk: CHUNK, ..StoreOptions::default() }).await;
    let mut phones = Vec::new();
    for number in 0..18 {
        phones.push(world.phone(&format!("phone-{number}")).follows(&["news"]).await);
    }
    phones.sort_by(|a, b| a.id.cmp(&b.id));
    let event = world.publish("news").await;
    let path = format!("/v1/events/{}", event["id"].as_str().unwrap());
    let store = world.relay().store();
    let status = world.get(&path).await.expect(200);
    assert_eq!(status["state"], "accepted");
    assert_eq!([&status["devices"]["pending"], &status["devices"]["unreachable"]], [18, 0]);
    assert_eq!(due(&world).await, 0, "the accept itself takes no follower of a big feed");

    store.fan_out(None, 500).await.unwrap();
    assert_eq!(due(&world).await, CHUNK as usize, "one transaction takes one chunk");
    // Meanwhile a phone polls before its chunk, one leaves, and one comes.
    assert_eq!(phones[10].sync().await.feeds(), ["news"]);
    world.delete(&format!("/v1/devices/{}/feeds/news", phones[12].id)).await.expect(204);
    let late = world.phone("late").follows(&["news"]).await;
    store.fan_out(None, 500).await.unwrap();
    assert_eq!(due(&world).await, 2 * CHUNK as usize);
    while store.fan_out(None, 500).await.unwrap() != FanOut::Idle {}
    assert_eq!(due(&world).await, 16, "neither who has polled, nor who has left, nor who has come since");

    world.settle().await;
    for (index, phone) in phones.iter().enumerate() {
        let expected = usize::from(index != 10 && index != 12);
        assert_eq!(phone.received(), expected, "phone {index}");
    }
    assert_eq!(late.received(), 0, "it came after the event");
    assert!(late.sync().await.feeds().is_empty());
    let status = world.get(&path).await.expect(200);
    assert_eq!(status["state"], "settled");
    assert_eq!([&status["devices"]["targeted"], &status["devices"]["told"]], [17, 16]);
    assert_eq!(status["devices"]["suppressed"], 1);
}

/// A phone that comes to follow during the fan-out is not part of it: the event is older than its follow.
#[tokio::test]
async fn a_follow_during_the_fan_out_takes_no_part_in_it() {
    let world = World::with(StoreOptions { fanout_chunk: 2, ..StoreOptions::default() }).await;
    for number in 0..4 {
        world.phone(&format!("phone-{number}")).follows(&["news"]).await;
    }
    // Registered before the event and last in the order of the chunks, so that its chunk is still to come.
    let phone = world.phone("follower").follows(&[]).await;
    world.alert("news", "older than the follow").await;
    world.relay().store().fan_out(None, 500).await.unwrap();
    world.put(&format!("/v1/devices/{}/feeds/news", phone.id), json!(null)).await.expect(200);
    while world.relay().store().fan_out(None, 500).await.unwrap() != FanOut::Idle {}
    let alerts = count(&world, "select count(*) from levels where class = 'alert'").await;
    assert_eq!(alerts, 4, "one for each that followed when it was accepted");
    world.settle().await;
    assert!(
        phone.pushes().iter().all(|push| push.get("title").is_none()),
        "it is woken to look, and shown no old alert"
    );
    assert_eq!(phone.received(), 1);
}

/// How many devices have a wake due.
async fn due(world: &World) -> usize {
    count(world, "select count(*) from levels where due_at is not null").await
}

/// What a look at the database from outside counts.
async fn count(world: &World, sql: &'static str) -> usize {
    let count = world.database().count(sql).await;
    usize::try_from(count).unwrap()
}
