//! The simulators keep the providers' rules, seen through plain HTTP clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Response, StatusCode, Version};
use reveille::sim::{Fault, FaultKind, Sim, SimClock, SimConfig};
use serde_json::{Value, json};

const TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn client(sim: &Sim) -> Client {
    let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
    Client::builder().tls_certs_only([ca]).build().unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}

fn jwt(sim: &Sim, iat_s: i64, change: impl FnOnce(&mut Header)) -> String {
    let credential = sim.apns_credential();
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(text(&credential, "key_id"));
    change(&mut header);
    let key = EncodingKey::from_ec_pem(text(&credential, "private_key").as_bytes()).unwrap();
    jsonwebtoken::encode(&header, &json!({"iss": credential["team_id"], "iat": iat_s}), &key).unwrap()
}

fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A right background push, to be spoilt or repeated. Each new one has a provider token of its own.
#[derive(Clone)]
struct ApnsCall {
    token: String,
    headers: BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

impl ApnsCall {
    fn new(sim: &Sim) -> Self {
        let headers = [
            ("authorization", format!("bearer {}", jwt(sim, now_s(), |_| {}))),
            ("apns-topic", "com.example.shop".to_owned()),
            ("apns-push-type", "background".to_owned()),
            ("apns-priority", "5".to_owned()),
            ("apns-expiration", "0".to_owned()),
        ];
        let body = json!({"aps": {"content-available": 1}, "reveille": {"v": "1", "head": "7"}});
        Self {
            token: TOKEN.to_owned(),
            headers: headers.into(),
            body: body.to_string().into(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    async fn send(self, sim: &Sim, client: &Client) -> reqwest::Result<Response> {
        let mut request = client
            .post(format!("{}/3/device/{}", sim.apns_url(), self.token))
            .body(self.body);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.send().await
    }

    async fn refused(self, sim: &Sim) -> (u16, Value) {
        let answer = self.send(sim, &client(sim)).await.unwrap();
        assert!(answer.headers().contains_key("apns-id"));
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn apns_takes_a_right_push_and_the_phone_hears_it() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let mut phone = sim.subscribe(TOKEN);
    let id = "9f7a1b52-8a0e-4b5c-9d4f-0123456789ab";
    let answer = ApnsCall::new(&sim)
        .with("apns-id", id)
        .send(&sim, &client(&sim))
        .await
        .unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.headers()["apns-id"], id);
    let heard = phone.recv().await.unwrap();
    assert_eq!(heard.trigger().unwrap()["head"], "7");
    assert_eq!(heard.headers["apns-priority"], "5");
    assert!(!heard.headers.contains_key("authorization"));
    let pushes = sim.pushes();
    assert_eq!(
        (
            pushes.len(),
            pushes[0].id.as_str(),
            pushes[0].status,
            pushes[0].delivered
        ),
        (1, id, 200, true)
    );
    sim.stop().await;
}

#[tokio::test]
async fn apns_refuses_what_apple_refuses() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let call = || ApnsCall::new(&sim);
    let large = json!({"aps": {"content-available": 1}, "x": "x".repeat(4096)})
        .to_string()
        .into_bytes();
    let alert = json!({"aps": {"content-available": 1, "alert": "no"}})
        .to_string()
        .into_bytes();
    let cases = [
        (
            call().with("apns-id", "9F7A1B52-8A0E-4B5C-9D4F-0123456789AB"),
            400,
            "BadMessageId",
        ),
        (call().with("apns-topic", ""), 400, "MissingTopic"),
        (call().with("apns-topic", "com.example.other"), 400, "TopicDisallowed"),
        (call().with("apns-collapse-id", "c".repeat(65)), 400, "BadCollapseId"),
        (call().with("apns-priority", "10"), 400, "BadPriority"),
        (call().with("apns-priority", "7"), 400, "BadPriority"),
        (call().with("apns-push-type", "silent"), 400, "InvalidPushType"),
        (call().with("apns-expiration", "tomorrow"), 400, "BadExpirationDate"),
        (
            ApnsCall {
                token: "not-hex".to_owned(),
                ..call()
            },
            400,
            "BadDeviceToken",
        ),
        (
            ApnsCall {
                token: String::new(),
                ..call()
            },
            400,
            "MissingDeviceToken",
        ),
        (
            ApnsCall {
                body: Vec::new(),
                ..call()
            },
            400,
            "PayloadEmpty",
        ),
        (ApnsCall { body: large, ..call() }, 413, "PayloadTooLarge"),
        (ApnsCall { body: alert, ..call() }, 400, "InvalidPushType"),
    ];
    let expected = cases.len();
    for (call, status, reason) in cases {
        assert_eq!(call.refused(&sim).await, (status, json!({ "reason": reason })));
    }
    let get = client(&sim)
        .get(format!("{}/3/device/{TOKEN}", sim.apns_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (get.status().as_u16(), get.json::<Value>().await.unwrap()),
        (405, json!({"reason": "MethodNotAllowed"}))
    );
    assert_eq!(sim.apns().received(), expected + 1);
    assert!(sim.pushes().iter().all(|push| !push.delivered));
}

#[tokio::test]
async fn apns_judges_provider_tokens_strictly() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let good = jwt(&sim, now_s(), |_| {});
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let spoilt: String = signature.chars().rev().collect();
    let cases = [
        (String::new(), "MissingProviderToken"),
        ("Basic abc".to_owned(), "MissingProviderToken"),
        ("bearer abc".to_owned(), "InvalidProviderToken"),
        (format!("bearer {good}="), "InvalidProviderToken"),
        (format!("bearer {signed}.{spoilt}"), "InvalidProviderToken"),
        (
            format!("bearer {}", jwt(&sim, now_s(), |header| header.kid = None)),
            "InvalidProviderToken",
        ),
        (
            format!("bearer {}", jwt(&sim, now_s() - 3700, |_| {})),
            "ExpiredProviderToken",
        ),
    ];
    for (authorization, reason) in cases {
        let refused = ApnsCall::new(&sim)
            .with("authorization", authorization)
            .refused(&sim)
            .await;
        assert_eq!(refused, (403, json!({ "reason": reason })));
    }
    // The old one may come back, a second new one within 20 minutes may not.
    let client = client(&sim);
    let mut answers = Vec::new();
    for iat_s in [now_s(), now_s() - 5, now_s()] {
        let bearer = format!("bearer {}", jwt(&sim, iat_s, |header| header.typ = None));
        let bearer = if iat_s == now_s() {
            format!("bearer {good}")
        } else {
            bearer
        };
        let answer = ApnsCall::new(&sim)
            .with("authorization", bearer)
            .send(&sim, &client)
            .await
            .unwrap();
        answers.push(answer.status().as_u16());
    }
    assert_eq!(answers, [200, 429, 200]);
}

#[tokio::test]
async fn a_removed_app_is_told_with_its_time_until_it_is_back() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    sim.apns().dead_token(TOKEN, Some(1_700_000_000_123));
    let gone = json!({"reason": "Unregistered", "timestamp": 1_700_000_000_123_i64});
    assert_eq!(ApnsCall::new(&sim).refused(&sim).await, (410, gone));
    sim.apns().revive_token(TOKEN);
    assert_eq!(
        ApnsCall::new(&sim).send(&sim, &client(&sim)).await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn an_expired_provider_token_expires_by_the_simulators_own_clock() {
    let now_ms = Arc::new(AtomicI64::new(now_s() * 1000));
    let clock = SimClock::new({
        let now_ms = Arc::clone(&now_ms);
        move || now_ms.load(Ordering::Relaxed)
    });
    let sim = Sim::start(SimConfig {
        clock,
        ..SimConfig::default()
    })
    .await
    .unwrap();
    let (first, client) = (ApnsCall::new(&sim), client(&sim));
    let bearer = first.headers["authorization"].clone();
    assert_eq!(first.send(&sim, &client).await.unwrap().status(), 200);
    now_ms.fetch_add(3_601_000, Ordering::Relaxed);
    let late = ApnsCall::new(&sim)
        .with("authorization", bearer)
        .send(&sim, &client)
        .await
        .unwrap();
    assert_eq!(late.json::<Value>().await.unwrap()["reason"], "ExpiredProviderToken");
    let fresh = format!("bearer {}", jwt(&sim, now_s() + 3600, |_| {}));
    assert_eq!(
        ApnsCall::new(&sim)
            .with("authorization", fresh)
            .send(&sim, &client)
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn faults_befall_whom_and_as_often_as_asked() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let (client, call) = (client(&sim), ApnsCall::new(&sim));
    let mut phone = sim.subscribe(TOKEN);
    let throttle = || FaultKind::Status {
        status: 429,
        reason: Some("TooManyRequests".to_owned()),
        retry_after: Some("7".to_owned()),
    };
    sim.apns().answer(Fault::new(throttle()).to_token(&"ab".repeat(32)));
    sim.apns().answer(Fault::new(throttle()).to_token(TOKEN).times(1));
    sim.apns().answer(Fault::new(FaultKind::Html502).times(1));
    sim.apns().answer(Fault::new(FaultKind::Reset).times(1));
    sim.apns().answer(Fault::new(FaultKind::Empty { status: 500 }).times(1));
    sim.apns().answer(Fault::new(FaultKind::Lost).times(1));
    let throttled = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!(
        (
            throttled.status().as_u16(),
            throttled.headers()["retry-after"].as_bytes()
        ),
        (429, b"7".as_slice())
    );
    let html = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!(
        (html.status().as_u16(), html.headers()["content-type"].as_bytes()),
        (502, b"text/html".as_slice())
    );
    assert!(call.clone().send(&sim, &client).await.is_err(), "reset");
    let empty = call.clone().send(&sim, &client).await.unwrap();
    assert_eq!((empty.status().as_u16(), empty.bytes().await.unwrap().len()), (500, 0));
    assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    assert!(phone.try_recv().is_err(), "lost");
    assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    assert!(phone.try_recv().is_ok());
    assert_eq!(sim.apns().queued().len(), 1);
}

#[tokio::test]
async fn a_paused_provider_has_the_push_and_holds_its_answer() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let mut phone = sim.subscribe(TOKEN);
    sim.apns().pause();
    let (call, client) = (ApnsCall::new(&sim), client(&sim));
    let sending = call.send(&sim, &client);
    tokio::pin!(sending);
    tokio::select! {
        _ = &mut sending => panic!("answered while paused"),
        heard = phone.recv() => assert!(heard.is_some()),
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut sending)
            .await
            .is_err()
    );
    assert_eq!(sim.apns().received(), 1);
    sim.apns().resume();
    assert_eq!(sending.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_black_hole_answers_nobody_and_a_share_is_lost() {
    let sim = Sim::start(SimConfig {
        record_pushes: 200,
        ..SimConfig::default()
    })
    .await
    .unwrap();
    let (client, call) = (client(&sim), ApnsCall::new(&sim));
    sim.apns().answer(Fault::new(FaultKind::BlackHole).times(1));
    let hole = tokio::time::timeout(Duration::from_millis(200), call.clone().send(&sim, &client)).await;
    assert!(hole.is_err());
    sim.forget_pushes();
    sim.apns().lose_share(30, 42);
    for _ in 0..100 {
        assert_eq!(call.clone().send(&sim, &client).await.unwrap().status(), 200);
    }
    let lost = sim.pushes().iter().filter(|push| !push.delivered).count();
    assert!((15..=45).contains(&lost), "{lost} of 100");
}

mod wire {
    //! What only an HTTP/2 library shows.

    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, ready};

    use h2::client::SendRequest;
    use hyper::Request;
    use hyper::body::Bytes;
    use rustls::pki_types::pem::PemObject as _;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::net::TcpStream;
    use tokio_rustls::client::TlsStream;

    use super::*;

    type Heard = Arc<Mutex<Vec<u8>>>;

    /// A connection that keeps what it reads: no client library shows the debug data of an orderly GOAWAY.
    struct Tap(TlsStream<TcpStream>, Heard);

    impl AsyncRead for Tap {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
            self.1.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Tap {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    async fn connect(sim: &Sim, url: &str) -> (SendRequest<Bytes>, h2::client::Connection<Tap>, Heard) {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let port = url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        let heard = Heard::default();
        let (send, connection) = h2::client::handshake(Tap(tls, Arc::clone(&heard))).await.unwrap();
        (send, connection, heard)
    }

    fn push(sim: &Sim, call: &ApnsCall, send: &mut SendRequest<Bytes>) -> h2::client::ResponseFuture {
        let call = call.clone();
        let mut request = Request::post(format!("{}/3/device/{}", sim.apns_url(), call.token));
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(call.body.into(), true).unwrap();
        answer
    }

    #[tokio::test]
    async fn apns_opens_up_after_the_first_good_authentication() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let call = ApnsCall::new(&sim);
        let (send, mut connection, _) = connect(&sim, &sim.apns_url()).await;
        sim.apns()
            .answer(Fault::new(FaultKind::Delay(Duration::from_millis(100))).times(1));
        // Two at once, before the client has seen the SETTINGS.
        let mut send = send.ready().await.unwrap();
        let (first, second) = (push(&sim, &call, &mut send), push(&sim, &call, &mut send));
        let (first, second, seen) = {
            let both = async { tokio::join!(first, second) };
            tokio::pin!(both);
            let (first, second) = tokio::select! {
                both = &mut both => both,
                ended = &mut connection => panic!("{ended:?}"),
            };
            (first, second, connection.max_concurrent_send_streams())
        };
        let answer = first.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.body().is_end_stream(), "END_STREAM comes with the headers");
        assert_eq!(second.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
        assert_eq!(sim.apns().refused_streams(), 1);
        let running = tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_millis(200), &mut connection).await;
            connection.max_concurrent_send_streams()
        });
        assert!(seen == 1 || seen == 1000, "{seen}");
        assert_eq!(running.await.unwrap(), 1000);
    }

    #[tokio::test]
    async fn a_new_connection_announces_one_stream() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let (_send, mut connection, _) = connect(&sim, &sim.apns_url()).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), &mut connection).await;
        assert_eq!(connection.max_concurrent_send_streams(), 1);
        let (_send, mut connection, _) = connect(&sim, &sim.fcm_url()).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), &mut connection).await;
        assert_eq!(connection.max_concurrent_send_streams(), 100);
    }

    #[tokio::test]
    async fn goaway_says_why_refuses_one_stream_and_lets_the_others_finish() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let call = ApnsCall::new(&sim);
        let (send, connection, heard) = connect(&sim, &sim.apns_url()).await;
        let driver = tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        assert_eq!(push(&sim, &call, &mut send).await.unwrap().status(), 200);
        sim.apns()
            .answer(Fault::new(FaultKind::Delay(Duration::from_millis(300))).times(1));
        let slow = push(&sim, &call, &mut send);
        while sim.apns().received() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sim.apns().answer(
            Fault::new(FaultKind::GoAway {
                reason: Some("Shutdown".to_owned()),
            })
            .times(1),
        );
        let refused = push(&sim, &call, &mut send).await.unwrap_err();
        assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
        let late = send.clone().ready().await;
        assert_eq!(slow.await.unwrap().status(), 200);
        drop((late, send));
        let ended = tokio::time::timeout(Duration::from_secs(2), driver)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_ok(), "{ended:?}");
        let heard = heard.lock().unwrap();
        let words = br#"{"reason":"Shutdown"}"#;
        assert!(
            heard.windows(words.len()).any(|window| window == words),
            "the debug data of GOAWAY"
        );
    }
}

mod fcm {
    //! Google's side.

    use super::*;

    fn assertion(sim: &Sim, change: impl FnOnce(&mut Value)) -> String {
        let account = sim.fcm_credential();
        let mut claims = json!({
            "iss": account["client_email"], "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": account["token_uri"], "iat": now_s(), "exp": now_s() + 3600,
        });
        change(&mut claims);
        let key = EncodingKey::from_rsa_pem(text(&account, "private_key").as_bytes()).unwrap();
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
    }

    async fn grant(sim: &Sim, assertion: &str) -> (u16, Value) {
        let form = [("grant_type", GRANT), ("assertion", assertion)];
        let url = text(&sim.fcm_credential(), "token_uri");
        let answer = client(sim).post(url).form(&form).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn access(sim: &Sim) -> String {
        let (status, body) = grant(sim, &assertion(sim, |_| {})).await;
        assert_eq!(status, 200, "{body}");
        text(&body, "access_token")
    }

    async fn send(sim: &Sim, client: &Client, bearer: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/v1/projects/reveille-sim/messages:send", sim.fcm_url());
        let answer = client.post(url).bearer_auth(bearer).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    fn trigger(token: &str) -> Value {
        json!({"message": {"token": token, "data": {"v": "1", "head": "9"}, "android": {"priority": "NORMAL", "ttl": "60s"}}})
    }

    #[tokio::test]
    async fn google_gives_tokens_for_good_assertions_only() {
        let sim = Sim::start(SimConfig {
            google_token_life: Duration::from_secs(90),
            ..SimConfig::default()
        })
        .await
        .unwrap();
        let (status, body) = grant(&sim, &assertion(&sim, |_| {})).await;
        assert_eq!(
            (status, &body["expires_in"], &body["token_type"]),
            (200, &json!(90), &json!("Bearer"))
        );
        let google = assertion(&sim, |claims| {
            claims["aud"] = json!("https://oauth2.googleapis.com/token")
        });
        assert_eq!(grant(&sim, &google).await.0, 200);
        let wrong: [fn(&mut Value); 4] = [
            |claims| claims["aud"] = json!("https://example.com/token"),
            |claims| claims["iss"] = json!("someone@example.com"),
            |claims| claims["exp"] = json!(now_s() - 10),
            |claims| claims["exp"] = json!(now_s() + 7200),
        ];
        for change in wrong {
            let (status, body) = grant(&sim, &assertion(&sim, change)).await;
            assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
        }
        let scope = assertion(&sim, |claims| {
            claims["scope"] = json!("https://www.googleapis.com/auth/drive")
        });
        assert_eq!(grant(&sim, &scope).await.1["error"], "invalid_scope");
        assert_eq!(grant(&sim, "abc").await.1["error"], "invalid_grant");
        assert_eq!(sim.google_tokens_issued(), 2);
    }

    #[tokio::test]
    async fn fcm_takes_both_spellings_over_both_protocols() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let bearer = access(&sim).await;
        let mut phone = sim.subscribe("phone");
        let ca = reqwest::Certificate::from_pem(sim.ca_pem().as_bytes()).unwrap();
        let old = Client::builder().tls_certs_only([ca]).http1_only().build().unwrap();
        let snake = json!({"message": {"token": "phone", "data": {"head": "1"}, "android": {"collapse_key": "sync"}}});
        let camel = json!({"message": {"fid": "phone", "data": {"head": "2"}, "android": {"collapseKey": "sync"}}});
        for (client, body) in [(client(&sim), snake), (old, camel)] {
            let (status, answer) = send(&sim, &client, &bearer, &body).await;
            assert_eq!(status, 200, "{answer}");
            assert!(text(&answer, "name").starts_with("projects/reveille-sim/messages/0:"));
        }
        assert_eq!(phone.recv().await.unwrap().trigger().unwrap()["head"], "1");
        assert_eq!(phone.recv().await.unwrap().trigger().unwrap()["head"], "2");
        let dry = json!({"validateOnly": true, "message": {"token": "phone"}});
        let (_, answer) = send(&sim, &client(&sim), &bearer, &dry).await;
        assert_eq!(
            answer,
            json!({"name": "projects/reveille-sim/messages/fake_message_id"})
        );
        assert!(phone.try_recv().is_err());
    }

    #[tokio::test]
    async fn fcm_answers_errors_as_google_words_them() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let (client, bearer) = (client(&sim), access(&sim).await);
        let (status, body) = send(&sim, &client, "stale", &trigger("phone")).await;
        assert_eq!((status, &body["error"]["status"]), (401, &json!("UNAUTHENTICATED")));

        sim.fcm().dead_token("phone", None);
        let (status, body) = send(&sim, &client, &bearer, &trigger("phone")).await;
        assert_eq!((status, &body["error"]["status"]), (404, &json!("NOT_FOUND")));
        assert_eq!(body["error"]["details"][0]["errorCode"], "UNREGISTERED");
        assert_eq!(
            body["error"]["details"][0]["@type"],
            "type.googleapis.com/google.firebase.fcm.v1.FcmError"
        );

        let (status, body) = send(&sim, &client, &bearer, &trigger("invalid")).await;
        assert_eq!(
            (status, &body["error"]["details"][1]["fieldViolations"][0]["field"]),
            (400, &json!("message.token"))
        );

        let large = json!({"message": {"token": "phone", "data": {"x": "x".repeat(4096)}}});
        let (status, body) = send(&sim, &client, &bearer, &large).await;
        assert_eq!((status, &body["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
        assert_eq!(body["error"].get("details"), None);

        let wrong = [
            json!({"message": {"token": "phone", "topic": "news"}}),
            json!({"message": {"data": {}}}),
            json!({"message": {"token": "phone", "data": {"head": 9}}}),
            json!({"message": {"token": "phone", "data": {"from": "me"}}}),
            json!({"message": {"token": "phone", "data": {"google.x": "me"}}}),
            json!({"message": {"token": "phone", "time_to_live": 5}}),
            json!({"message": {"token": "phone", "android": {"ttl": 60}}}),
            json!({"message": {"token": "phone", "android": {"priority": "URGENT"}}}),
        ];
        for message in wrong {
            let (status, body) = send(&sim, &client, &bearer, &message).await;
            assert_eq!(
                (status, &body["error"]["status"]),
                (400, &json!("INVALID_ARGUMENT")),
                "{message}"
            );
            assert!(
                body["error"]["details"][0]["fieldViolations"][0]["field"].is_string(),
                "{body}"
            );
        }

        sim.google_expire_tokens();
        assert_eq!(send(&sim, &client, &bearer, &trigger("phone")).await.0, 401);
    }

    #[tokio::test]
    async fn fcm_faults_carry_googles_words() {
        let sim = Sim::start(SimConfig::default()).await.unwrap();
        let (client, bearer) = (client(&sim), access(&sim).await);
        let cases = [
            (429, "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"),
            (503, "UNAVAILABLE", "UNAVAILABLE"),
            (500, "INTERNAL", "INTERNAL"),
            (403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED"),
            (401, "THIRD_PARTY_AUTH_ERROR", "UNAUTHENTICATED"),
        ];
        for (status, reason, canonical) in cases {
            let fault = FaultKind::Status {
                status,
                reason: Some(reason.to_owned()),
                retry_after: None,
            };
            sim.fcm().answer(Fault::new(fault).times(1));
            let (answered, body) = send(&sim, &client, &bearer, &trigger("phone")).await;
            assert_eq!((answered, &body["error"]["status"]), (status, &json!(canonical)));
            assert_eq!(body["error"]["details"][0]["errorCode"], reason);
        }
        sim.fcm().answer(Fault::new(FaultKind::Reset).times(1));
        let url = format!("{}/v1/projects/reveille-sim/messages:send?alt=json", sim.fcm_url());
        assert!(
            client
                .post(&url)
                .bearer_auth(&bearer)
                .json(&trigger("phone"))
                .send()
                .await
                .is_err()
        );
        assert_eq!(
            client
                .post(&url)
                .bearer_auth(&bearer)
                .json(&trigger("phone"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
}

#[tokio::test]
async fn the_control_api_takes_the_same_faults() {
    let any = "127.0.0.1:0".parse().unwrap();
    let sim = Sim::start(SimConfig {
        control_listen: Some(any),
        ..SimConfig::default()
    })
    .await
    .unwrap();
    let (control, http) = (sim.control_url().unwrap(), Client::new());
    let about: Value = http.get(&control).send().await.unwrap().json().await.unwrap();
    assert_eq!(about["apns_url"], sim.apns_url());
    for fault in about["faults"].as_array().unwrap() {
        let fault = json!({"provider": "fcm", "token": "nobody", "count": 1, "fault": fault});
        let answer = http
            .post(format!("{control}/faults"))
            .json(&fault)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{fault}");
    }
    assert_eq!(sim.fcm().queued().len(), about["faults"].as_array().unwrap().len());
    let fault = json!({"provider": "apns", "token": TOKEN, "count": 1, "fault": {"status": {"status": 410}}});
    http.post(format!("{control}/faults"))
        .json(&fault)
        .send()
        .await
        .unwrap();
    assert_eq!(ApnsCall::new(&sim).refused(&sim).await.0, 410);
    let pushes: Value = http
        .get(format!("{control}/pushes?token={TOKEN}"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&pushes[0]["provider"], &pushes[0]["status"]),
        (&json!("apns"), &json!(410))
    );
    let stats: Value = http
        .get(format!("{control}/stats"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(stats["apns"]["received"], 1);
    assert_eq!(
        http.delete(format!("{control}/faults")).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        http.delete(format!("{control}/pushes")).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!((sim.fcm().queued().len(), sim.pushes().len()), (0, 0));
    let wrong = json!({"provider": "apns", "fault": {"explode": {}}});
    assert_eq!(
        http.post(format!("{control}/faults"))
            .json(&wrong)
            .send()
            .await
            .unwrap()
            .status(),
        422
    );
}
