//! `reveille check` from outside: a relay behind a proxy that speaks TLS, and how long its certificate lasts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    cli::Cli,
    world::{MASTER_KEY, World},
};

/// Ends TLS in front of a relay, with a certificate that is good for so many days; answers its URL and its authority.
async fn proxy(to: String, days: i64) -> (String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let span = Duration::from_secs(days.unsigned_abs() * 86_400);
    let now = SystemTime::now();
    server.not_after = (if days < 0 { now - span } else { now + span }).into();
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let mut outer = acceptor.accept(stream).await.ok()?;
                let mut inner = TcpStream::connect(to).await.ok()?;
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
            });
        }
    });
    (url, authority)
}

/// What is found about the relay that phones reach by this certificate.
async fn found(days: i64) -> Vec<(String, String, String)> {
    let world = World::start().await;
    let inner = world.url("");
    let (public, authority) = proxy(inner.trim_start_matches("http://").to_owned(), days).await;
    let cli = Cli::nowhere()
        .with("REVEILLE_LISTEN", inner.trim_start_matches("http://"))
        .with("REVEILLE_PUBLIC_URL", &public)
        .with("REVEILLE_MASTER_KEY", MASTER_KEY)
        .with("REVEILLE_APNS_URL", &world.sim.apns_url())
        .with("REVEILLE_FCM_URL", &world.sim.fcm_url())
        .with("REVEILLE_EXTRA_CA", "ca.pem")
        .with("SSL_CERT_FILE", "authority.pem");
    std::fs::write(cli.folder.path().join("ca.pem"), world.sim.ca_pem()).unwrap();
    std::fs::write(cli.folder.path().join("authority.pem"), authority).unwrap();
    let said = cli.run(&["check", "--json"]).await;
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter().filter(|one| one["area"] == "relay");
    findings.map(|one| (text(&one["about"]), text(&one["verdict"]), text(&one["says"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_lasts_is_named_with_its_last_day() {
    let found = found(80).await;
    let brief: Vec<_> = found.iter().map(|(about, verdict, _)| (about.as_str(), verdict.as_str())).collect();
    assert_eq!(brief[..3], [("relay", "ok"), ("certificate", "ok"), ("public URL", "ok")], "{found:#?}");
    assert!(found[1].2.contains("is good until "), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ends_soon_is_a_warning_and_one_that_has_ended_a_failure() {
    let soon = found(7).await;
    assert_eq!((soon[1].0.as_str(), soon[1].1.as_str()), ("certificate", "warning"), "{soon:#?}");
    assert!(soon[1].2.contains("ends in 6 d"), "{soon:#?}");
    let ended = found(-1).await;
    let public = ended.iter().find(|(about, ..)| about == "public URL").unwrap();
    assert!(public.1 == "failed" && public.2.contains("expired"), "{ended:#?}");
}
