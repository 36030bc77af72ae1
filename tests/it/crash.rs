//! kill -9 in the middle of traffic, with the real binary: nothing that was accepted is lost.

use std::{collections::BTreeSet, time::Duration};

use reveille::sim::{FaultKind, Sim, SimConfig};
use serde_json::json;

use crate::support::{
    served::{Served, free_port, within},
    world::without_pace,
};

const LEASE_S: u64 = 3;
const PHONES: usize = 12;

/// An event that the relay has accepted.
#[derive(Debug)]
struct Event {
    writer: usize,
    position: i64,
    id: String,
}

async fn set_up(served: &Served, sim: &Sim) -> (String, Vec<(String, String)>) {
    let key = served.app_with(sim, without_pace()).await;
    let mut phones = Vec::new();
    for number in 0..PHONES {
        let phone = json!({
            "installation_id": format!("phone-{number}"), "transport": "fcm", "token": format!("token-{number}"),
            "feeds": [format!("order:{}", number % 4)],
        });
        let phone = served.post("/v1/devices", &key, phone).await;
        let text = |field: &str| phone[field].as_str().unwrap().to_owned();
        phones.push((text("id"), text("device_token")));
    }
    (key, phones)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_of_traffic_loses_nothing() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    // Answers that take their time, so that calls are under way when the relay dies.
    sim.fcm().delay(Duration::from_millis(300));
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut served = Served::start(folder.path(), &sim, port, LEASE_S).await;
    let (key, phones) = set_up(&served, &sim).await;

    let mut accepted: Vec<Event> = Vec::new();
    for round in 0..3 {
        let writers = (0..4).map(|writer| {
            let (served, key) = (&served, &key);
            async move {
                let mut accepted: Vec<Event> = Vec::new();
                loop {
                    let event = json!({"feed": format!("order:{writer}"), "type": "t", "data": {"round": round}});
                    let Some((status, event)) = served.try_post("/v1/events", key, &event).await else {
                        return accepted;
                    };
                    assert_eq!(status, 202);
                    let id = event["id"].as_str().unwrap().to_owned();
                    accepted.push(Event { writer, position: event["position"].as_i64().unwrap(), id });
                }
            }
        });
        let killer = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            served.kill();
        };
        let (batches, ()) = tokio::join!(futures_util::future::join_all(writers), killer);
        accepted.extend(batches.into_iter().flatten());
        if round == 1 {
            // The provider answers nothing while the relay is away and comes back.
            sim.fcm().answer(reveille::sim::Fault::from(FaultKind::Reset).times(3));
        }
        served = Served::start(folder.path(), &sim, port, LEASE_S).await;
    }
    assert!(accepted.len() > 30, "there was traffic: {}", accepted.len());

    // Every device with news is told within lease + 5 s.
    let newest: Vec<_> =
        (0..4).filter_map(|writer| accepted.iter().rev().find(|event| event.writer == writer)).collect();
    within(Duration::from_secs(LEASE_S + 5), "every device is told", async || {
        for event in &newest {
            let status = served.get(&format!("/v1/events/{}", event.id), &key).await;
            if status["devices"]["told"] != PHONES / 4 {
                return None;
            }
        }
        Some(())
    })
    .await;

    // Every accepted event is read by polling, in order and once.
    for (number, (_, device_token)) in phones.iter().enumerate() {
        let read = read_all(&served, device_token).await;
        assert!(read.is_sorted_by(|a, b| a < b), "positions are unique and in order");
        let read: BTreeSet<i64> = read.into_iter().collect();
        let mine = accepted.iter().filter(|event| event.writer == number % 4);
        let lost: Vec<_> = mine.filter(|event| !read.contains(&event.position)).collect();
        assert!(lost.is_empty(), "accepted and never read: {lost:?}");
    }
    let positions: BTreeSet<i64> = accepted.iter().map(|event| event.position).collect();
    assert_eq!(positions.len(), accepted.len(), "no position was given twice");

    // What was under way when the relay died reads `unknown`, and nothing stays open.
    let unknown = served.get("/v1/attempts?outcome=unknown&limit=500", &key).await;
    assert!(!unknown["items"].as_array().unwrap().is_empty(), "calls were under way when the relay died");
    within(Duration::from_secs(10), "no attempt stays open", async || {
        let attempts = served.get("/v1/attempts?limit=500", &key).await;
        attempts["items"].as_array().unwrap().iter().all(|attempt| attempt["outcome"].is_string()).then_some(())
    })
    .await;
}

/// The positions of all events that a phone reads from the beginning, page by page.
async fn read_all(served: &Served, device_token: &str) -> Vec<i64> {
    let mut positions = Vec::new();
    let mut after = String::new();
    loop {
        let page = served.get(&format!("/v1/sync?limit=500{after}"), device_token).await;
        let events = page["events"].as_array().unwrap().iter().filter(|event| event["type"] == "t");
        positions.extend(events.map(|event| event["position"].as_i64().unwrap()));
        if page["has_more"] == false {
            return positions;
        }
        after = format!("&after={}", page["next"].as_str().unwrap());
    }
}
