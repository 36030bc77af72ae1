//! How close the relay comes to a bare HTTP/2 client, and what a big feed costs in memory. `cargo bench --bench delivery`
//!
//! One run measures both on the same machine: first a client that only sends (the ceiling), then the real binary from accepted events to
//! recorded attempts. The providers are the simulators, in this process.
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
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reveille::sim::{Sim, SimConfig};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use self::relay::{App, Served};

/// Devices with a feed of their own, each getting one event.
const DEVICES: usize = 5_000;
/// Followers of the small and the big feed.
const FEW: usize = 200;
const MANY: usize = 20_000;
const CEILING_REQUESTS: usize = 50_000;
const CEILING_CONNECTIONS: usize = 4;
/// FCM takes this many streams on a connection.
const STREAMS: usize = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let sim = Sim::start(SimConfig { record_pushes: 0, ..SimConfig::default() }).await.unwrap();
    let served = Served::start(&sim).await;
    let relay = Bench { served: &served, app: served.app(&sim).await };

    let ceiling = ceiling(&sim).await;
    println!("ceiling      bare HTTP/2 client, prebuilt requests      {ceiling:>8.0} pushes/s");

    let many_feeds = relay.many_feeds().await;
    println!(
        "relay        {DEVICES} events, each for one device       {many_feeds:>8.0} events/s accepted, pushed and recorded"
    );
    println!("ratio        relay / ceiling                            {:>8.3}", many_feeds / ceiling);

    let (few, after_few_mib) = relay.one_feed("few", FEW).await;
    let (many, after_many_mib) = relay.one_feed("many", MANY).await;
    println!(
        "one feed     {FEW} followers, one event               {few:>8.0} pushes/s, peak RSS {after_few_mib:.1} MiB"
    );
    println!(
        "one feed     {MANY} followers, one event             {many:>8.0} pushes/s, peak RSS {after_many_mib:.1} MiB"
    );
    println!("ratio        {MANY} followers / ceiling              {:>8.3}", many / ceiling);
    println!("memory       {MANY} against {FEW} followers           {:>+8.1} MiB", after_many_mib - after_few_mib);
}

/// What a client can send that does nothing else, in requests a second.
async fn ceiling(sim: &Sim) -> f64 {
    let url: url::Url = sim.fcm_url().parse().unwrap();
    let token = access_token(sim).await;
    let uri = format!("{url}v1/projects/{}/messages:send", sim.fcm_credential()["project_id"].as_str().unwrap());
    let body = json!({"message": {
        "token": "a-token-of-the-usual-length", "android": {"priority": "NORMAL", "ttl": "86400s", "collapse_key": "reveille"},
        "data": {"v": "1", "wake": "wake_01h455vb4pex5vsknk084sn02q", "head": "1287", "feed": "order:42", "poll": "https://push.example.com/v1/sync"},
    }});
    let body = Bytes::from(body.to_string());
    let connections: Vec<_> = stream::iter(0..CEILING_CONNECTIONS).then(|_| connect(sim, &url)).collect().await;
    let began = Instant::now();
    let senders = connections.into_iter().map(|connection| {
        let (uri, token, body) = (uri.clone(), token.clone(), body.clone());
        tokio::spawn(async move {
            let calls = stream::iter(0..CEILING_REQUESTS / CEILING_CONNECTIONS).map(|_| {
                let request = Request::post(&uri)
                    .header("authorization", &token)
                    .header("content-type", "application/json")
                    .body(Full::new(body.clone()))
                    .unwrap();
                let mut connection = connection.clone();
                async move {
                    let response = connection.send_request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.unwrap();
                }
            });
            calls.buffer_unordered(STREAMS).for_each(|()| async {}).await;
        })
    });
    futures_util::future::join_all(senders).await;
    CEILING_REQUESTS as f64 / began.elapsed().as_secs_f64()
}

async fn connect(sim: &Sim, url: &url::Url) -> http2::SendRequest<Full<Bytes>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// An access token, got as any client gets it.
async fn access_token(sim: &Sim) -> String {
    #[derive(serde::Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        scope: &'a str,
        aud: &'a str,
        iat: i64,
        exp: i64,
    }
    let account = sim.fcm_credential();
    let text = |field: &str| account[field].as_str().unwrap().to_owned();
    let now = jiff::Timestamp::now().as_second();
    let (iss, aud) = (text("client_email"), text("token_uri"));
    let scope = "https://www.googleapis.com/auth/firebase.messaging";
    let claims = Claims { iss: &iss, scope, aud: &aud, iat: now, exp: now + 3600 };
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(text("private_key").as_bytes()).unwrap();
    let assertion =
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), &claims, &key).unwrap();
    let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
    let answer: Value = http.post(aud).form(&form).send().await.unwrap().json().await.unwrap();
    format!("Bearer {}", answer["access_token"].as_str().unwrap())
}

/// A relay with one app, and how its attempts are counted.
struct Bench<'a> {
    served: &'a Served,
    app: App<'a>,
}

impl Bench<'_> {
    /// Events for one device each: from the first request to the last recorded attempt, in events a second.
    async fn many_feeds(&self) -> f64 {
        self.app.register("own", DEVICES, |number| format!("own:{number}")).await;
        let before = self.recorded().await;
        let began = Instant::now();
        let batches: Vec<Value> = (0..DEVICES)
            .collect::<Vec<_>>()
            .chunks(100)
            .map(|chunk| chunk.iter().map(|number| json!({"feed": format!("own:{number}"), "type": "t"})).collect())
            .collect();
        let posts = stream::iter(batches).map(|batch| self.app.post("/v1/events", batch));
        posts.buffer_unordered(4).for_each(|_| async {}).await;
        self.until_recorded(before + DEVICES).await;
        DEVICES as f64 / began.elapsed().as_secs_f64()
    }

    /// One event for many followers: pushes a second from request to last recorded attempt, and the relay's peak memory in MiB.
    async fn one_feed(&self, name: &str, followers: usize) -> (f64, f64) {
        self.app.register(name, followers, |_| format!("feed:{name}")).await;
        let before = self.recorded().await;
        // The kernel forgets the peak of what came before (proc(5), clear_refs).
        std::fs::write(format!("/proc/{}/clear_refs", self.served.pid()), "5").unwrap();
        let began = Instant::now();
        self.app.post("/v1/events", json!({"feed": format!("feed:{name}"), "type": "t"})).await;
        self.until_recorded(before + followers).await;
        let rate = followers as f64 / began.elapsed().as_secs_f64();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.served.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kib: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        (rate, peak_kib / 1024.0)
    }

    async fn until_recorded(&self, count: usize) {
        let began = Instant::now();
        while self.recorded().await < count {
            assert!(began.elapsed() < Duration::from_secs(120), "{} of {count} recorded", self.recorded().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Attempts that are recorded as accepted, by a look at the database from outside.
    async fn recorded(&self) -> usize {
        let url = format!("sqlite:{}?mode=ro", self.served.folder.path().join("reveille.db").display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        let sql = "select count(*) from attempts where outcome = 'accepted'";
        let (count,): (i64,) = sqlx::query_as(sql).fetch_one(&pool).await.unwrap();
        pool.close().await;
        usize::try_from(count).unwrap()
    }
}
