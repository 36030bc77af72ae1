//! The ceiling: what a client can push that does nothing else, over bare HTTP/2 connections with requests that are made already.

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2, http::request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reveille::sim::Sim;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const REQUESTS: usize = 60_000;
/// To each provider.
const CONNECTIONS: usize = 2;
/// FCM takes this many streams on a connection.
const STREAMS: usize = 100;

/// Pushes a second, half of them to each provider.
pub async fn measure(sim: &Sim) -> f64 {
    let (fcm, apns) = (fcm(sim).await, apns(sim));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push((connect(sim, &fcm.0).await, fcm.clone()));
        connections.push((connect(sim, &apns.0).await, apns.clone()));
    }
    let each = REQUESTS / connections.len();
    // Apple allows one stream until the first request has been answered.
    for (connection, prepared) in &connections {
        push(connection.clone(), prepared.clone()).await;
    }
    let began = Instant::now();
    let senders = connections.into_iter().map(|(connection, prepared)| {
        tokio::spawn(async move {
            let calls = stream::iter(0..each).map(|_| push(connection.clone(), prepared.clone()));
            calls.buffer_unordered(STREAMS).for_each(|()| async {}).await;
        })
    });
    futures_util::future::try_join_all(senders).await.unwrap();
    let rate = REQUESTS as f64 / began.elapsed().as_secs_f64();
    println!("ceiling      bare HTTP/2 client, prebuilt requests      {rate:>8.0} pushes/s");
    rate
}

async fn push(mut connection: http2::SendRequest<Full<Bytes>>, (_, head, body): Prepared) {
    let request = Request::from_parts(head, Full::new(body));
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
}

/// Where to, and the request: its head and its body.
pub type Prepared = (url::Url, request::Parts, Bytes);

async fn fcm(sim: &Sim) -> Prepared {
    let url: url::Url = sim.fcm_url().parse().unwrap();
    let uri = format!("{url}v1/projects/{}/messages:send", sim.fcm_credential()["project_id"].as_str().unwrap());
    let body = json!({"message": {
        "token": "a-token-of-the-usual-length", "android": {"priority": "NORMAL", "ttl": "86400s", "collapse_key": "reveille"},
        "data": {"v": "1", "wake": "wake_01h455vb4pex5vsknk084sn02q", "head": "1287", "feed": "order:42", "poll": "https://push.example.com/v1/sync"},
    }});
    let head = Request::post(uri)
        .header("authorization", fcm_token(sim).await)
        .header("content-type", "application/json")
        .body(())
        .unwrap()
        .into_parts();
    (url, head.0, Bytes::from(body.to_string()))
}

/// A push to APNs.
pub fn apns(sim: &Sim) -> Prepared {
    let url: url::Url = sim.apns_url().parse().unwrap();
    let credential = sim.apns_credential();
    let text = |field: &str| credential[field].as_str().unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(text("key_id").to_owned());
    let claims = json!({"iss": text("team_id"), "iat": jiff::Timestamp::now().as_second()});
    let key = jsonwebtoken::EncodingKey::from_ec_pem(text("private_key").as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let body = json!({
        "aps": {"content-available": 1}, "reveille": {"v": 1, "wake": "wake_01h455vb4pex5vsknk084sn02q",
        "head": 1287, "feed": "order:42", "poll": "https://push.example.com/v1/sync"},
    });
    let head = Request::post(format!("{url}3/device/{}", "cd".repeat(32)))
        .header("authorization", format!("bearer {token}"))
        .header("apns-topic", "com.example.shop")
        .header("apns-push-type", "background")
        .header("apns-priority", "5")
        .header("apns-expiration", (jiff::Timestamp::now().as_second() + 3600).to_string())
        .header("apns-collapse-id", "reveille")
        .body(())
        .unwrap()
        .into_parts();
    (url, head.0, Bytes::from(body.to_string()))
}

async fn connect(sim: &Sim, url: &url::Url) -> http2::SendRequest<Full<Bytes>> {
    let mut tls = tls(sim);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Trusts the simulators.
pub fn tls(sim: &Sim) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    tls.with_root_certificates(roots).with_no_client_auth()
}

/// An access token, got as any client gets it.
async fn fcm_token(sim: &Sim) -> String {
    let account = sim.fcm_credential();
    let text = |field: &str| account[field].as_str().unwrap().to_owned();
    let (now, aud) = (jiff::Timestamp::now().as_second(), text("token_uri"));
    let claims = json!({
        "iss": text("client_email"), "scope": "https://www.googleapis.com/auth/firebase.messaging", "aud": aud,
        "iat": now, "exp": now + 3600,
    });
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(text("private_key").as_bytes()).unwrap();
    let assertion =
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), &claims, &key).unwrap();
    let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
    let answer: Value = http.post(aud).form(&form).send().await.unwrap().json().await.unwrap();
    format!("Bearer {}", answer["access_token"].as_str().unwrap())
}
