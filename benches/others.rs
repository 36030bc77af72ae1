//! Beside what others push with, to the same simulators: firebase-admin and node-apn in a loop, and hyper-util's pooled client. None of them
//! keeps anything; the relay has every event and every attempt on the disk. `cargo bench --bench others`; it takes Node.js and npm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench says what went wrong by failing"
)]

mod relay;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use self::relay::{Served, ceiling};

const PUSHES: usize = 30_000;
const IN_FLIGHT: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    install(folder.path());
    let mut ceilings = vec![ceiling::measure(&sim).await];
    let (mut relay, mut firebase, mut node_apn, mut pooled) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // In turn, so that what else the machine does weighs on all alike.
    for _ in 0..2 {
        relay.push(through_the_relay(&sim).await);
        firebase.push(with_node(&sim, folder.path(), "firebase-admin").await);
        node_apn.push(with_node(&sim, folder.path(), "node-apn").await);
        pooled.push(with_the_pooled_client(&sim).await);
        ceilings.push(ceiling::measure(&sim).await);
    }
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let (ceiling, relay) = (mean(&ceilings), mean(&relay));
    let mut json = json!({"bench": "others", "ceiling_per_s": ceiling, "relay_per_s": relay});
    println!(
        "reveille         durable, SQLite                     {relay:>8.0} pushes/s   {:.3} of the ceiling",
        relay / ceiling
    );
    for (name, rates) in [("firebase-admin", firebase), ("node-apn", node_apn), ("hyper-util pool", pooled)] {
        let rate = mean(&rates);
        println!(
            "{name:<16} {IN_FLIGHT} in flight, keeps nothing         {rate:>8.0} pushes/s   the relay makes {:.2} times as many",
            relay / rate
        );
        json[name] = json!(rate);
    }
    println!("{json}");
}

/// Events accepted before, half of them for iPhones: from the first push to the last.
async fn through_the_relay(sim: &Sim) -> f64 {
    let mut served = Served::new(sim).await;
    served.serve("api").await;
    let app = served.app(sim).await;
    for transport in ["fcm", "apns"] {
        app.seed(transport, PUSHES / 2, &format!("'{transport}:' || i")).await;
    }
    let feeds = ["fcm", "apns"].into_iter().flat_map(|of| (1..=PUSHES / 2).map(move |i| format!("{of}:{i}")));
    app.post_to(feeds).await;
    let received = || sim.fcm().received() + sim.apns().received();
    let first = received();
    served.serve("api,dispatch,janitor").await;
    while received() == first {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let began = Instant::now();
    while received() < first + PUSHES {
        assert!(began.elapsed() < Duration::from_secs(60), "it takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(served.recorded().await, PUSHES);
    let rate = PUSHES as f64 / began.elapsed().as_secs_f64();
    served.kill();
    served.database.discard().await;
    rate
}

fn install(folder: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/others");
    for file in ["package.json", "package-lock.json", "push.mjs"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let flags = ["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let installed = Command::new("npm").args(flags).current_dir(folder).stdout(Stdio::null()).status();
    assert!(installed.expect("npm is installed").success());
}

async fn with_node(sim: &Sim, folder: &Path, library: &str) -> f64 {
    let task = json!({
        "library": library, "fcm_url": sim.fcm_url(), "apns_url": sim.apns_url(), "ca_pem": sim.ca_pem(),
        "fcm_credential": sim.fcm_credential(), "apns_credential": sim.apns_credential(), "pushes": PUSHES, "in_flight": IN_FLIGHT,
    });
    let (file, script) = (folder.join("task.json"), folder.join("push.mjs"));
    std::fs::write(&file, task.to_string()).unwrap();
    let before = sim.fcm().received() + sim.apns().received();
    let ran = tokio::task::spawn_blocking(move || Command::new("node").arg(script).arg(file).output().unwrap());
    let ran = ran.await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    // Its warm-up is 500 pushes; with repetitions there would be more.
    assert_eq!(sim.fcm().received() + sim.apns().received() - before, PUSHES + 500);
    let said: Value = serde_json::from_slice(&ran.stdout).unwrap();
    said["pushes_per_s"].as_f64().unwrap()
}

/// The client that a library takes which brings no connections of its own, with its connector as it is.
async fn with_the_pooled_client(sim: &Sim) -> f64 {
    let tls = ceiling::tls(sim);
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let (_, head, body) = ceiling::apns(sim);
    let (client, head) = (Arc::new(client), Arc::new(head));
    let push = async |_| {
        let request = Request::from_parts((*head).clone(), Full::new(body.clone()));
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    };
    push(0).await;
    let began = Instant::now();
    stream::iter(1..=PUSHES).map(push).buffer_unordered(IN_FLIGHT).for_each(|()| async {}).await;
    PUSHES as f64 / began.elapsed().as_secs_f64()
}
