//! The loop in real time, with the real binary, from outside.

use std::time::{Duration, Instant};

use reveille::sim::{Fault, FaultKind, Sim, SimConfig};
use serde_json::{Value, json};

use crate::support::served::{Served, free_port, within};

/// A phone of the app, and the heads that it has been pushed.
struct Phone<'a> {
    sim: &'a Sim,
    token: String,
}

impl Phone<'_> {
    fn heads(&self) -> Vec<i64> {
        let pushes = self.sim.pushes();
        let mine = pushes.iter().filter(|push| push.token == self.token && push.delivered);
        mine.map(|push| push.trigger().unwrap()["head"].parse().unwrap()).collect()
    }
}

async fn register<'a>(served: &Served, sim: &'a Sim, key: &str, name: &str, feed: &str) -> (Phone<'a>, Value) {
    let token = format!("token-of-{name}");
    let body = json!({"installation_id": name, "transport": "fcm", "token": token, "feeds": [feed]});
    (Phone { sim, token }, served.post("/v1/devices", key, body).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_re_wakes_and_retries_come_at_their_time() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), &sim, free_port(), 45).await;
    let pace = |gap_s: u32, rewake_s: &[u32]| {
        let class = json!({"gap_s": gap_s, "budget": {"burst": 50, "refill_s": 1}, "rewake_s": rewake_s});
        json!({"wake": {"android": {"background": class}}})
    };
    let (coalescing, insistent) =
        (served.app_with(&sim, pace(2, &[])).await, served.app_with(&sim, pace(0, &[2, 3])).await);
    let (bursty, bursty_body) = register(&served, &sim, &coalescing, "bursty", "f").await;
    let (silent, _) = register(&served, &sim, &insistent, "silent", "s").await;
    let (awake, awake_body) = register(&served, &sim, &insistent, "awake", "a").await;
    let (unlucky, _) = register(&served, &sim, &insistent, "unlucky", "u").await;

    let kind = FaultKind::Status { status: 503, reason: None, retry_after: Some("3".to_owned()) };
    sim.fcm().answer(Fault::new(kind).to_token(&unlucky.token).times(1));
    let token = |body: &Value| body["device_token"].as_str().unwrap().to_owned();
    let event = |feed: &str| json!({"feed": feed, "type": "t"});
    let soon = Duration::from_secs(10);
    served.post("/v1/events", &insistent, event("a")).await;
    within(soon, "the push that is answered", async || (!awake.heads().is_empty()).then_some(())).await;
    served.get("/v1/sync", &token(&awake_body)).await;

    let began = Instant::now();
    for feed in ["s", "u"] {
        served.post("/v1/events", &insistent, event(feed)).await;
    }
    let first = served.post("/v1/events", &coalescing, event("f")).await["position"].as_i64().unwrap();
    within(soon, "the first of many", async || (!bursty.heads().is_empty()).then_some(())).await;
    let others = served.post("/v1/events", &coalescing, (0..59).map(|_| event("f")).collect()).await;
    let last = others["items"][58]["position"].as_i64().unwrap();

    within(soon, "the third wake", async || (silent.heads().len() == 3).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_secs(5), "the list counts from the wake before");
    within(soon, "the repeated wake", async || (!unlucky.heads().is_empty()).then_some(())).await;
    assert_eq!(bursty.heads(), [first, last]);
    assert_eq!(awake.heads().len(), 1);
    assert!(silent.heads().iter().all(|head| *head == silent.heads()[0]));
    let page = served.get("/v1/sync?limit=500", &token(&bursty_body)).await;
    let events = page["events"].as_array().unwrap().iter().filter(|event| event["type"] == "t");
    assert_eq!(events.count(), 60);
}
