//! Calls to the simulated providers, over real TLS and HTTP/2.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reveille::{
    domain::{
        credential::{AnyTokenUri, Credential},
        device::{Environment, Platform, TokenKind, Transport},
        event::Alert,
        feed::{FeedName, Position},
        id,
        push::{Meaning, Reply, Target, Trigger},
        time::{Clock, Timestamp},
    },
    metrics::Metrics,
    sim::{Fault, FaultKind, Sim, SimClock, SimConfig},
    transport::{LaneKey, TransportConfig, Transports, prove},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

const APNS_TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const FCM_TOKEN: &str = "bk3RNwTe3H0:CI2k_HHwgIpoDKCIZvvDMExUdFQ3P1";

struct World {
    sim: Sim,
    transports: Transports,
    clock: Clock,
    tasks: TaskTracker,
    app: id::AppId,
}

impl World {
    async fn start() -> Self {
        Self::with_timeout(Duration::from_secs(15)).await
    }

    async fn with_timeout(call_timeout: Duration) -> Self {
        let clock = Clock::manual("2026-11-22T00:00:00Z".parse().unwrap());
        let sim_clock = clock.clone();
        let clock_of_sim = SimClock::new(move || sim_clock.now().as_ms());
        let sim = Sim::start(SimConfig { clock: clock_of_sim, ..SimConfig::default() }).await.unwrap();
        let tasks = TaskTracker::new();
        let config = TransportConfig {
            apns_url: Some(sim.apns_url().parse().unwrap()),
            fcm_url: Some(sim.fcm_url().parse().unwrap()),
            extra_ca_pem: Some(sim.ca_pem().as_bytes().to_vec()),
            poll_url: "https://push.example.com/v1/sync".to_owned(),
            call_timeout,
        };
        let transports = Transports::new(config, clock.clone(), Metrics::default(), tasks.clone()).unwrap();
        let app = id::new(clock.now());
        Self { sim, transports, clock, tasks, app }
    }

    fn key(&self, transport: Transport) -> LaneKey {
        LaneKey { app: self.app, transport, name: "default".to_owned(), version: 1 }
    }

    fn credential(&self, transport: Transport) -> Credential {
        let json = match transport {
            Transport::Apns => self.sim.apns_credential(),
            Transport::Fcm => self.sim.fcm_credential(),
        };
        Credential::parse(transport, json.to_string().as_bytes(), AnyTokenUri::Yes).unwrap()
    }

    fn trigger(&self) -> Trigger {
        let now = self.clock.now();
        Trigger {
            wake: id::new(now),
            head: Position(7),
            feed: Some(FeedName::parse("order:42").unwrap()),
            href: None,
            for_user: None,
            alert: None,
            expires_at: now + Duration::from_secs(3600),
        }
    }

    async fn send(&self, transport: Transport) -> Reply {
        self.send_trigger(transport, &self.trigger()).await
    }

    async fn send_trigger(&self, transport: Transport, trigger: &Trigger) -> Reply {
        let (key, credential) = (self.key(transport), self.credential(transport));
        self.transports.send(&key, &credential, &target(transport), trigger).await
    }

    async fn send_many(&self, transport: Transport, count: usize) -> Vec<Reply> {
        let (key, credential, target, trigger) =
            (self.key(transport), self.credential(transport), target(transport), self.trigger());
        let send = || self.transports.send(&key, &credential, &target, &trigger);
        join_all((0..count).map(|_| send())).await
    }
}

fn target(transport: Transport) -> Target {
    let (platform, token, topic) = match transport {
        Transport::Apns => (Platform::Ios, APNS_TOKEN, "com.example.shop"),
        Transport::Fcm => (Platform::Android, FCM_TOKEN, "reveille-sim"),
    };
    Target {
        transport,
        platform,
        token: token.to_owned().into(),
        token_kind: TokenKind::Token,
        environment: Environment::Production,
        topic: topic.to_owned(),
    }
}

fn alert() -> Alert {
    serde_json::from_str(r#"{"title": "Order 42", "body": "Your order is on its way"}"#).unwrap()
}

fn meanings(replies: &[Reply], meaning: Meaning) -> usize {
    replies.iter().filter(|reply| reply.meaning == meaning).count()
}

#[tokio::test]
async fn a_push_arrives_at_apns() {
    let world = World::start().await;
    let mut trigger = world.trigger();
    for (alert, kind, priority) in [(None, "background", "5"), (Some(alert()), "alert", "10")] {
        trigger.alert = alert;
        let reply = world.send_trigger(Transport::Apns, &trigger).await;
        assert_eq!((reply.meaning, reply.status), (Meaning::Accepted, Some(200)), "{reply:?}");
        assert_eq!(reply.provider_id, Some(trigger.wake.uuid().to_string()));
        let push = world.sim.pushes().pop().unwrap();
        assert!(push.delivered);
        assert_eq!(push.headers["apns-push-type"], kind);
        assert_eq!(push.headers["apns-priority"], priority);
        assert_eq!(push.headers["apns-topic"], "com.example.shop");
        assert_eq!(push.headers["apns-expiration"], trigger.expires_at.as_s().to_string());
        assert_eq!(push.trigger().unwrap()["wake"], trigger.wake.to_string());
        assert_eq!(usize::try_from(reply.bytes).unwrap(), push.body.to_string().len());
    }
}

#[tokio::test]
async fn a_push_arrives_at_fcm_for_every_platform() {
    let world = World::start().await;
    let (key, credential, trigger) = (world.key(Transport::Fcm), world.credential(Transport::Fcm), world.trigger());
    for platform in [Platform::Android, Platform::Ios, Platform::Web] {
        for token_kind in [TokenKind::Token, TokenKind::Fid] {
            let target = Target { platform, token_kind, ..target(Transport::Fcm) };
            let reply = world.transports.send(&key, &credential, &target, &trigger).await;
            assert_eq!((reply.meaning, reply.status), (Meaning::Accepted, Some(200)), "{platform:?} {reply:?}");
            let push = world.sim.pushes().pop().unwrap();
            assert_eq!(reply.provider_id, Some(push.id));
            assert!(push.delivered);
        }
    }
    assert_eq!(world.sim.google_tokens_issued(), 1);
}

#[tokio::test]
async fn what_the_provider_says_is_understood() {
    let world = World::start().await;
    let (key, credential) = (world.key(Transport::Apns), world.credential(Transport::Apns));
    let since = Timestamp::from_ms(1_795_000_000_123);
    world.sim.apns().dead_token(APNS_TOKEN, Some(since.as_ms()));
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Unregistered { since: Some(since) });
    world.sim.apns().clear();
    let wrong_topic = Target { topic: "com.example.other".to_owned(), ..target(Transport::Apns) };
    let reply = world.transports.send(&key, &credential, &wrong_topic, &world.trigger()).await;
    assert_ne!(reply.meaning, Meaning::Accepted, "{reply:?}");

    world.sim.fcm().dead_token(FCM_TOKEN, None);
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Unregistered { since: None });
    world.sim.fcm().clear();
    world.sim.fcm().answer(Fault::new(FaultKind::Html502).times(1));
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Unavailable);
    let (status, retry_after) = (429, Some("30".to_owned()));
    let reason = Some("QUOTA_EXCEEDED".to_owned());
    world.sim.fcm().answer(Fault::new(FaultKind::Status { status, reason, retry_after }).times(1));
    let reply = world.send(Transport::Fcm).await;
    assert_eq!((reply.meaning, reply.retry_after), (Meaning::Throttled, Some(Duration::from_secs(30))));
}

#[tokio::test]
async fn a_credential_can_be_checked_without_a_device() {
    let world = World::start().await;
    let check = async |transport| {
        let credential = world.credential(transport);
        assert_eq!(prove(&credential), Ok(()));
        world.transports.check(&world.key(transport), &credential).await
    };
    let reply = check(Transport::Fcm).await;
    assert!(matches!(reply.meaning, Meaning::Accepted | Meaning::AmbiguousToken), "{reply:?}");
    let reply = check(Transport::Apns).await;
    assert!(matches!(reply.meaning, Meaning::Accepted | Meaning::AmbiguousToken), "{reply:?}");
}

#[tokio::test]
async fn a_refused_access_token_is_replaced() {
    let world = World::start().await;
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    world.clock.advance(Duration::from_secs(60));
    world.sim.google_expire_tokens();
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::StaleToken);
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    assert_eq!(world.sim.google_tokens_issued(), 2);
    // A token that has only just come is not thrown away: no storm on the token endpoint.
    world.sim.google_expire_tokens();
    assert_eq!(meanings(&world.send_many(Transport::Fcm, 50).await, Meaning::StaleToken), 50);
    assert_eq!(world.sim.google_tokens_issued(), 2);
}

#[tokio::test]
async fn an_old_access_token_serves_while_its_successor_is_fetched() {
    let world = World::start().await;
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    world.clock.advance(Duration::from_secs(3000));
    world.sim.google_oauth().pause();
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    world.sim.google_oauth().resume();
    while world.sim.google_tokens_issued() < 2 {
        assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    }
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
    assert_eq!(world.sim.google_tokens_issued(), 2);
}

#[tokio::test]
async fn one_access_token_for_200_calls_at_once() {
    let world = World::start().await;
    world.sim.google_oauth().delay(Duration::from_millis(100));
    let replies = world.send_many(Transport::Fcm, 200).await;
    assert_eq!(meanings(&replies, Meaning::Accepted), 200);
    assert_eq!(world.sim.google_oauth().received(), 1);
}

#[tokio::test]
async fn trouble_with_the_token_endpoint_is_told_apart() {
    let world = World::start().await;
    let (status, reason, retry_after) = (400, Some("invalid_grant".to_owned()), None);
    world.sim.google_oauth().answer(Fault::new(FaultKind::Status { status, reason, retry_after }).times(1));
    let replies = world.send_many(Transport::Fcm, 20).await;
    assert_eq!(meanings(&replies, Meaning::CredentialFault), 20);
    assert_eq!(replies[0].reason.as_deref(), Some("the token endpoint answered 400 invalid_grant"));
    assert_eq!(world.sim.google_oauth().received(), 1, "the failure holds for a second");
    world.clock.advance(Duration::from_secs(2));
    let (status, reason, retry_after) = (503, None, None);
    world.sim.google_oauth().answer(Fault::new(FaultKind::Status { status, reason, retry_after }).times(1));
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Unavailable);
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(world.send(Transport::Fcm).await.meaning, Meaning::Accepted);
}

#[tokio::test]
async fn a_provider_token_is_renewed_and_never_too_often() {
    let world = World::start().await;
    // The simulator, like Apple, takes at most one new token in 20 minutes on a connection, and none older than an hour.
    for _ in 0..12 {
        assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Accepted);
        world.clock.advance(Duration::from_secs(10 * 60));
    }
    let (status, retry_after) = (403, None);
    let reason = Some("ExpiredProviderToken".to_owned());
    world.sim.apns().answer(Fault::new(FaultKind::Status { status, reason, retry_after }).times(5));
    for _ in 0..5 {
        assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::StaleToken);
    }
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Accepted);
    assert_eq!(world.sim.apns().connections(), 1);
}

#[tokio::test]
async fn a_burst_at_a_new_apns_connection_waits_until_it_is_primed() {
    let world = World::start().await;
    let replies = world.send_many(Transport::Apns, 2000).await;
    assert_eq!(meanings(&replies, Meaning::Accepted), 2000);
    assert_eq!(world.sim.apns().refused_streams(), 0, "nobody was refused for coming too early");
    assert!(world.sim.apns().connections() <= 8);
}

#[tokio::test]
async fn a_burst_at_fcm_keeps_to_100_streams() {
    let world = World::start().await;
    world.sim.fcm().delay(Duration::from_millis(20));
    let replies = world.send_many(Transport::Fcm, 500).await;
    assert_eq!(meanings(&replies, Meaning::Accepted), 500, "{:?}", replies.iter().find(|r| r.status != Some(200)));
    let connections = world.sim.fcm().connections();
    assert!((2..=17).contains(&connections), "several, and one of reqwest's: {connections}");
}

#[tokio::test]
async fn a_goaway_loses_nothing() {
    for transport in [Transport::Apns, Transport::Fcm] {
        let world = World::start().await;
        let faults = if transport == Transport::Apns { world.sim.apns() } else { world.sim.fcm() };
        assert_eq!(world.send(transport).await.meaning, Meaning::Accepted);
        for _ in 0..5 {
            faults.answer(Fault::new(FaultKind::GoAway { reason: None }).times(1));
            let replies = world.send_many(transport, 200).await;
            let other = replies.iter().find(|reply| reply.meaning != Meaning::Accepted);
            assert_eq!(meanings(&replies, Meaning::Accepted), 200, "{transport}: {other:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_is_not_repeated() {
    let world = World::start().await;
    world.sim.apns().answer(Fault::new(FaultKind::Reset).times(1));
    let reply = world.send(Transport::Apns).await;
    assert_eq!((reply.meaning, reply.status), (Meaning::Unreachable, None), "{reply:?}");
    assert_eq!(world.sim.apns().received(), 1);
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Accepted);
}

#[tokio::test]
async fn a_black_hole_ends_with_the_call_timeout() {
    let world = World::with_timeout(Duration::from_millis(400)).await;
    for transport in [Transport::Apns, Transport::Fcm] {
        let faults = if transport == Transport::Apns { world.sim.apns() } else { world.sim.fcm() };
        assert_eq!(world.send(transport).await.meaning, Meaning::Accepted);
        faults.answer(Fault::new(FaultKind::BlackHole).times(10));
        let started = Instant::now();
        let replies = world.send_many(transport, 10).await;
        assert_eq!(meanings(&replies, Meaning::Timeout), 10, "{transport}: {replies:?}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(390) && took < Duration::from_millis(900), "{took:?}");
        assert_eq!(world.send(transport).await.meaning, Meaning::Accepted, "the streams were given back");
    }
}

#[tokio::test]
async fn a_connection_that_has_gone_mute_is_replaced() {
    let world = World::with_timeout(Duration::from_millis(5200)).await;
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Accepted);
    world.sim.apns().pause();
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Timeout);
    world.sim.apns().resume();
    assert_eq!(world.send(Transport::Apns).await.meaning, Meaning::Accepted);
    assert_eq!(world.sim.apns().connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_ends_in_a_reply_whatever_happens() {
    let world = World::with_timeout(Duration::from_millis(700)).await;
    for transport in [Transport::Apns, Transport::Fcm] {
        let faults = if transport == Transport::Apns { world.sim.apns() } else { world.sim.fcm() };
        for round in 0..6 {
            for _ in 0..10 {
                faults.answer(Fault::new(FaultKind::Reset).times(1));
                faults.answer(Fault::new(FaultKind::GoAway { reason: Some("Shutdown".to_owned()) }).times(1));
                faults.answer(Fault::new(FaultKind::BlackHole).times(1));
                faults.answer(Fault::new(FaultKind::Delay(Duration::from_millis(5))).times(3));
            }
            let replies = world.send_many(transport, 400).await;
            let odd =
                |reply: &&Reply| !matches!(reply.meaning, Meaning::Accepted | Meaning::Timeout | Meaning::Unreachable);
            assert_eq!(replies.iter().find(odd), None, "{transport} {round}");
            faults.clear();
            world.clock.advance(Duration::from_secs(31));
        }
        let replies = world.send_many(transport, 300).await;
        assert_eq!(meanings(&replies, Meaning::Accepted), 300, "{transport}: no stream was lost for good");
    }
}

#[tokio::test]
async fn a_silent_token_endpoint_ends_with_the_call_timeout() {
    let world = World::with_timeout(Duration::from_millis(300)).await;
    world.sim.google_oauth().pause();
    let reply = world.send(Transport::Fcm).await;
    assert_eq!(reply.meaning, Meaning::Unavailable, "{reply:?}");
}

#[tokio::test]
async fn a_provider_that_is_down_is_known_at_once_and_found_again() {
    let World { sim, transports, clock, app, tasks } = World::start().await;
    let (identity, listen) = (sim.identity(), sim.apns_url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
    let credential = Credential::parse(Transport::Apns, sim.apns_credential().to_string().as_bytes(), AnyTokenUri::No);
    let credential = credential.unwrap();
    let world_clock = clock.clone();
    let trigger = Trigger {
        wake: id::new(clock.now()),
        head: Position(1),
        feed: None,
        href: None,
        for_user: None,
        alert: None,
        expires_at: clock.now() + Duration::from_secs(60),
    };
    let key = LaneKey { app, transport: Transport::Apns, name: "default".to_owned(), version: 1 };
    let send = || transports.send(&key, &credential, &TARGET, &trigger);
    static TARGET: std::sync::LazyLock<Target> = std::sync::LazyLock::new(|| target(Transport::Apns));

    assert_eq!(send().await.meaning, Meaning::Accepted);
    sim.stop().await;
    for _ in 0..20 {
        let started = Instant::now();
        let reply = send().await;
        assert_eq!(reply.meaning, Meaning::Unreachable, "{reply:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    let config = SimConfig {
        apns_listen: ([127, 0, 0, 1], listen).into(),
        identity: Some(Arc::clone(&identity)),
        clock: SimClock::new(move || world_clock.now().as_ms()),
        ..SimConfig::default()
    };
    let sim = Sim::start(config).await.unwrap();
    clock.advance(Duration::from_secs(31));
    assert_eq!(send().await.meaning, Meaning::Accepted);
    assert_eq!(sim.apns().connections(), 1);

    transports.close();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.expect("all tasks end after close");
}

#[tokio::test]
async fn a_new_version_of_a_credential_takes_over() {
    let world = World::start().await;
    let credential = world.credential(Transport::Apns);
    for version in 1..=3 {
        let key = LaneKey { version, ..world.key(Transport::Apns) };
        let reply = world.transports.send(&key, &credential, &target(Transport::Apns), &world.trigger()).await;
        assert_eq!(reply.meaning, Meaning::Accepted);
    }
    assert_eq!(world.sim.apns().connections(), 3);
    world.transports.retire(world.app, Transport::Apns, "default");
    world.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), world.tasks.wait()).await.expect("its connections end");
}

#[tokio::test]
async fn a_credential_that_cannot_sign_is_told() {
    let world = World::start().await;
    let mut json = world.sim.apns_credential();
    json["private_key"] = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n".into();
    let broken = Credential::parse(Transport::Apns, json.to_string().as_bytes(), AnyTokenUri::No).unwrap();
    assert!(prove(&broken).is_err());
    let (key, target) = (world.key(Transport::Apns), target(Transport::Apns));
    let reply = world.transports.send(&key, &broken, &target, &world.trigger()).await;
    assert_eq!(reply.meaning, Meaning::CredentialFault);
    json = world.sim.fcm_credential();
    json["private_key"] = "not a key".into();
    let broken = Credential::parse(Transport::Fcm, json.to_string().as_bytes(), AnyTokenUri::Yes).unwrap();
    assert_eq!(prove(&broken), Err("the private key is not a PEM-encoded RSA key as Google gives it".to_owned()));
}

#[tokio::test]
async fn a_server_that_we_do_not_trust_gets_nothing() {
    let world = World::start().await;
    let config = TransportConfig {
        apns_url: Some(world.sim.apns_url().parse().unwrap()),
        fcm_url: None,
        extra_ca_pem: None,
        poll_url: String::new(),
        call_timeout: Duration::from_secs(5),
    };
    let transports = Transports::new(config, world.clock.clone(), Metrics::default(), world.tasks.clone()).unwrap();
    let (key, credential) = (world.key(Transport::Apns), world.credential(Transport::Apns));
    let reply = transports.send(&key, &credential, &target(Transport::Apns), &world.trigger()).await;
    assert_eq!(reply.meaning, Meaning::Unreachable);
    assert!(reply.reason.unwrap().contains("TLS failed"));
    assert_eq!(world.sim.apns().received(), 0);
}
