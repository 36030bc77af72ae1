//! How many polls are answered a second: nothing new, one event, a page of a hundred. `cargo bench --bench poll`
//!
//! The ceiling, in the same run: a bare route that hashes a bearer token and answers with as many bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench says what went wrong by failing"
)]

mod relay;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use futures_util::{StreamExt, stream};
use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::relay::{
    App, Served,
    load::{self, Client, Measured},
};

const DEVICES: usize = 10_000;
const CLIENTS: usize = 64;
/// In more time a fast machine would poll for a device more often than it may (contract §8: 20 at once).
const TIME: Duration = Duration::from_secs(2);
const PAGE: usize = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

/// A device, as it polls.
struct Phone {
    token: String,
    path: String,
    etag: String,
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let mut served = Served::new(&sim).await;
    served.serve("api").await;
    let app = served.app(&sim).await;
    app.post_to((0..DEVICES).map(|_| "news".to_owned()).take(PAGE)).await;
    let tokens: Vec<String> =
        stream::iter(0..DEVICES).map(|number| register(&app, number)).buffered(32).collect().await;
    let phones = {
        let mut phones = Vec::new();
        let mut client = Client::connect(served.port).await;
        for token in tokens {
            // What it follows is told once; from then on nothing is new.
            let (_, _, body) = client.send(load::request("GET", "/v1/sync", &token, "")).await;
            let page: Value = serde_json::from_slice(&body).unwrap();
            let path = format!("/v1/sync?after={}", page["next"].as_str().unwrap());
            let (_, headers, _) = client.send(load::request("GET", &path, &token, "")).await;
            phones.push(Phone { token, path, etag: headers["etag"].to_str().unwrap().to_owned() });
        }
        Arc::new(phones)
    };
    let phone = |phones: &Arc<Vec<Phone>>, client: usize, number: usize| (client + number * CLIENTS) % phones.len();

    let bare = async |status: StatusCode, body: &'static str| {
        let router = Router::new().route(
            "/v1/sync",
            get(async move |headers: HeaderMap| {
                let hash = Sha256::digest(headers["authorization"].as_bytes());
                assert_ne!(hash[..], [0; 32]);
                load::answer(status, body)
            }),
        );
        let phones = Arc::clone(&phones);
        load::beside(router, async |port| {
            load::run(port, CLIENTS, TIME, status, move |client, number| {
                let phone = &phones[phone(&phones, client, number)];
                load::request("GET", "/v1/sync", &phone.token, "")
            })
            .await
        })
        .await
    };
    // The machine may have other work beside this: each ceiling is taken before and after what it is compared with.
    let before = bare(StatusCode::NOT_MODIFIED, "").await;
    let of = Arc::clone(&phones);
    let nothing = load::run(served.port, CLIENTS, TIME, StatusCode::NOT_MODIFIED, move |client, number| {
        let phone = &of[phone(&of, client, number)];
        let mut request = load::request("GET", &phone.path, &phone.token, "");
        request.headers_mut().insert("if-none-match", phone.etag.parse().unwrap());
        request
    })
    .await;
    let bare_304 = before.and(bare(StatusCode::NOT_MODIFIED, "").await);
    app.post_to((0..DEVICES).map(|number| format!("own:{number}"))).await;
    let before = bare(StatusCode::OK, ONE_EVENT).await;
    let of = Arc::clone(&phones);
    let one = load::run(served.port, CLIENTS, TIME, StatusCode::OK, move |client, number| {
        let phone = &of[phone(&of, client, number)];
        load::request("GET", &format!("{}&peek=true", phone.path), &phone.token, "")
    })
    .await;
    let bare_page = before.and(bare(StatusCode::OK, ONE_EVENT).await);
    let key = app.key.clone();
    let page = load::run(served.port, CLIENTS, TIME, StatusCode::OK, move |_, _| {
        load::request("GET", "/v1/feeds/news/events?limit=100", &key, "")
    })
    .await;
    let line = |name: &str, Measured { per_s, times }: &Measured, ceiling: &Measured| {
        println!(
            "{name:<26} {per_s:>8.0} polls/s   p50 {:>5.1} ms   p99 {:>5.1} ms   {:.3} of the bare route",
            times.share(0.5),
            times.share(0.99),
            per_s / ceiling.per_s
        );
    };
    line("bare route, 304", &bare_304, &bare_304);
    line("bare route, one event", &bare_page, &bare_page);
    line("nothing new (304)", &nothing, &bare_304);
    line("one event", &one, &bare_page);
    line("a page of 100", &page, &bare_page);
    let json = json!({
        "bench": "poll", "database": served.database.kind(), "bare_304_per_s": bare_304.per_s, "bare_page_per_s": bare_page.per_s,
        "nothing_per_s": nothing.per_s, "nothing_ratio": nothing.per_s / bare_304.per_s,
        "one_per_s": one.per_s, "one_ratio": one.per_s / bare_page.per_s, "page_of_100_per_s": page.per_s,
    });
    println!("{json}");
    served.kill();
    served.database.discard().await;
}

/// As long as a page with one event.
const ONE_EVENT: &str = concat!(
    r#"{"events":[{"id":"evt_01kare5bqte2r9m2r4j3p6a5tn","position":10101,"feed":"own:4711","type":"t","key":null,"op":null,"href":null,"#,
    r#""data":null,"occurred_at":"2026-11-22T18:00:00.000Z","accepted_at":"2026-11-22T18:00:00.000Z"}],"#,
    r#""next":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","through":10101,"has_more":false,"poll":{"after_s":60},"push":{"status":"active"}}"#
);

async fn register(app: &App<'_>, number: usize) -> String {
    let body = json!({
        "installation_id": format!("phone-{number}"), "transport": "fcm", "token": format!("token-{number}"),
        "feeds": [format!("own:{number}")],
    });
    let device = app.post("/v1/devices", body).await;
    device["device_token"].as_str().or(device["token"].as_str()).unwrap().to_owned()
}
