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
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
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
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let port = url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
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
    sim.apns().answer(Fault::new(FaultKind::Delay(Duration::from_millis(100))).times(1));
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
    sim.apns().answer(Fault::new(FaultKind::Delay(Duration::from_millis(300))).times(1));
    let slow = push(&sim, &call, &mut send);
    while sim.apns().received() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sim.apns().answer(Fault::new(FaultKind::GoAway { reason: Some("Shutdown".to_owned()) }).times(1));
    let refused = push(&sim, &call, &mut send).await.unwrap_err();
    assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
    let late = send.clone().ready().await;
    assert_eq!(slow.await.unwrap().status(), 200);
    drop((late, send));
    let ended = tokio::time::timeout(Duration::from_secs(2), driver).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    let heard = heard.lock().unwrap();
    let words = br#"{"reason":"Shutdown"}"#;
    assert!(heard.windows(words.len()).any(|window| window == words), "the debug data of GOAWAY");
}

#[tokio::test]
async fn fcm_says_goaway_in_one_word() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let bearer = fcm::access(&sim).await;
    let reason = Some("session_timeout".to_owned());
    sim.fcm().answer(Fault::new(FaultKind::GoAway { reason }).times(1));
    let (send, connection, heard) = connect(&sim, &sim.fcm_url()).await;
    let driver = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let url = format!("{}/v1/projects/reveille-sim/messages:send", sim.fcm_url());
    let request = Request::post(url).header("authorization", format!("Bearer {bearer}"));
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let message = json!({"message": {"token": "phone", "data": {"head": "1"}}});
    body.send_data(message.to_string().into(), true).unwrap();
    assert_eq!(answer.await.unwrap_err().reason(), Some(h2::Reason::REFUSED_STREAM));
    drop((send, body));
    let ended = tokio::time::timeout(Duration::from_secs(2), driver).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert!(heard.lock().unwrap().windows(15).any(|window| window == b"session_timeout"));
    assert!(sim.pushes().iter().all(|push| !push.delivered && push.status == 0));
}
