//! The check of a stored credential: the provider's word about it, before any phone waits for a push (contract §5).

use reqwest::Method;
use reveille::sim::{Fault, FaultKind, Sim, SimConfig};
use serde_json::{Value, json};

use crate::support::world::{Answer, World};

/// Stores a credential in an app of its own, for a check may be made once only; answers the check.
async fn check(world: &World, transport: &str, credential: Value) -> Answer {
    let (_, key) = world.new_app("checked").await;
    let path = format!("/v1/credentials/{transport}");
    world.call(Method::PUT, &path, &key, Some(credential)).await.expect(201);
    world.call(Method::POST, &format!("{path}/check"), &key, None).await
}

fn credential(sim: &Sim, transport: &str) -> Value {
    if transport == "apns" { sim.apns_credential() } else { sim.fcm_credential() }
}

/// Found in no answer: the lines of the credential's private key.
fn assert_keeps_secrets(report: &Value, credential: &Value) {
    let text = report.to_string();
    for line in credential["private_key"].as_str().unwrap().lines() {
        assert!(!text.contains(line), "{text}");
    }
}

fn status(status: u16, reason: &str) -> FaultKind {
    FaultKind::Status { status, reason: Some(reason.to_owned()), retry_after: None }
}

#[tokio::test]
async fn good_credentials_are_usable_and_no_phone_hears_of_it() {
    let world = World::start().await;
    let apns = world.post("/v1/credentials/apns/check", Value::Null).await.expect(200);
    assert_eq!([&apns["transport"], &apns["name"], &apns["meaning"]], ["apns", "default", "usable"]);
    assert_eq!(apns["ok"], true);
    assert_eq!([&apns["status"], &apns["reason"]], [&json!(400), &json!("BadDeviceToken")]);
    assert!(apns["took_ms"].is_u64() && apns["says"].as_str().unwrap().contains("accepts the credential"), "{apns}");
    let fcm = world.post("/v1/credentials/fcm/default/check", Value::Null).await.expect(200);
    assert_eq!([&fcm["transport"], &fcm["name"], &fcm["meaning"]], ["fcm", "default", "usable"]);
    assert_eq!([&fcm["ok"], &fcm["status"], &fcm["reason"]], [&json!(true), &json!(200), &Value::Null]);
    assert_keeps_secrets(&apns, &world.sim.apns_credential());
    assert_keeps_secrets(&fcm, &world.sim.fcm_credential());
    assert_eq!(world.sim.pushes().len(), 2);
    assert!(world.sim.pushes().iter().all(|push| !push.delivered));
    assert!(world.attempts().await.is_empty());
}

#[tokio::test]
async fn a_key_that_the_provider_does_not_know_is_refused() {
    let world = World::start().await;
    // Well-formed, and nobody's.
    let apns_key = include_str!("../../credentials-example/apns-AuthKey_EXAMPLE123.p8");
    let example: Value = serde_json::from_str(include_str!("../../credentials-example/service-account.json")).unwrap();
    let fcm_key = example["private_key"].as_str().unwrap();
    for (transport, key, http, reason) in [
        ("apns", apns_key, json!(403), "InvalidProviderToken"),
        ("fcm", fcm_key, Value::Null, "the token endpoint answered 400 invalid_grant"),
    ] {
        let mut wrong = credential(&world.sim, transport);
        wrong["private_key"] = key.into();
        let report = check(&world, transport, wrong.clone()).await.expect(200);
        assert_eq!([&report["ok"], &report["meaning"]], [&json!(false), &json!("refused")], "{report}");
        assert_eq!([&report["status"], &report["reason"]], [&http, &json!(reason)], "{report}");
        assert_keeps_secrets(&report, &wrong);
    }
}

#[tokio::test]
async fn what_the_provider_answers_is_reported_as_it_is() {
    let world = World::start().await;
    for (transport, fault, ok, meaning, http, reason) in [
        ("apns", status(503, "ServiceUnavailable"), false, "unavailable", Some(503), Some("ServiceUnavailable")),
        ("apns", status(429, "TooManyRequests"), false, "throttled", Some(429), Some("TooManyRequests")),
        ("apns", status(403, "Forbidden"), false, "refused", Some(403), Some("Forbidden")),
        ("apns", status(400, "TopicDisallowed"), false, "refused", Some(400), Some("TopicDisallowed")),
        ("apns", status(410, "Unregistered"), true, "usable", Some(410), Some("Unregistered")),
        ("apns", status(400, "PayloadEmpty"), false, "unclear", Some(400), Some("PayloadEmpty")),
        ("fcm", status(400, "INVALID_ARGUMENT:message.token"), true, "usable", Some(400), Some("INVALID_ARGUMENT")),
        ("fcm", status(503, "UNAVAILABLE"), false, "unavailable", Some(503), Some("UNAVAILABLE")),
        ("fcm", status(429, "QUOTA_EXCEEDED"), false, "throttled", Some(429), Some("QUOTA_EXCEEDED")),
        ("fcm", FaultKind::Html502, false, "unavailable", Some(502), None),
    ] {
        let faults = if transport == "apns" { world.sim.apns() } else { world.sim.fcm() };
        faults.answer(Fault::new(fault.clone()).times(1));
        let report = check(&world, transport, credential(&world.sim, transport)).await.expect(200);
        assert_eq!([&report["ok"], &report["meaning"]], [&json!(ok), &json!(meaning)], "{fault:?}: {report}");
        assert_eq!([&report["status"], &report["reason"]], [&json!(http), &json!(reason)], "{fault:?}");
        assert!(report["says"].as_str().unwrap().ends_with('.'), "{report}");
        assert!(faults.queued().is_empty(), "the fault befell the check: {fault:?}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_refuses_is_named_by_its_word() {
    let world = World::start().await;
    world.sim.google_oauth().answer(status(400, "invalid_grant"));
    let report = check(&world, "fcm", world.sim.fcm_credential()).await.expect(200);
    assert_eq!(
        [&report["ok"], &report["meaning"], &report["status"]],
        [&json!(false), &json!("refused"), &Value::Null]
    );
    assert!(report["reason"].as_str().unwrap().contains("invalid_grant"), "{report}");
    assert_eq!(world.sim.fcm().received(), 0, "without a token nothing is asked");
}

#[tokio::test]
async fn an_access_token_that_ran_out_says_nothing_about_the_credential() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    assert_eq!(phone.received(), 1);
    world.clock.advance(std::time::Duration::from_secs(60));
    world.sim.google_expire_tokens();
    let report = world.post("/v1/credentials/fcm/check", Value::Null).await.expect(200);
    assert_eq!([&report["ok"], &report["meaning"]], [&json!(true), &json!("usable")], "{report}");
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_no_fault_of_the_relay() {
    let world = World::start().await;
    let gone = Sim::start(SimConfig::default()).await.unwrap();
    let mut fcm = world.sim.fcm_credential();
    fcm["token_uri"] = gone.fcm_credential()["token_uri"].clone();
    gone.stop().await;
    world.sim.apns().answer(FaultKind::Reset);
    for (transport, credential, meaning, reason) in [
        ("fcm", fcm, "unavailable", "no connection to the token endpoint"),
        ("apns", world.sim.apns_credential(), "unreachable", "the connection broke"),
    ] {
        let report = check(&world, transport, credential.clone()).await.expect(200);
        assert_eq!([&report["ok"], &report["status"]], [&json!(false), &Value::Null], "{report}");
        assert_eq!(report["meaning"], meaning, "{report}");
        assert!(report["reason"].as_str().unwrap().contains(reason), "{report}");
        assert_keeps_secrets(&report, &credential);
    }
}

#[tokio::test]
async fn who_may_check_what_and_how_often() {
    let world = World::start().await;
    for unknown in ["/v1/credentials/apns/other/check", "/v1/credentials/mqtt/check", "/v1/credentials/mqtt/a/check"] {
        assert_eq!(world.post(unknown, Value::Null).await.problem(404), "not-found", "{unknown}");
    }
    let (_, foreign) = world.new_app("neighbour").await;
    let path = "/v1/credentials/apns/check";
    assert_eq!(world.call(Method::POST, path, &foreign, None).await.problem(404), "not-found");
    let narrow = world.new_key(&world.app, &["events:read", "devices:write"]).await;
    let answer = world.call(Method::POST, path, &narrow, None).await;
    assert_eq!((answer.problem(403), &answer.body["scope"]), ("missing-scope", &json!("credentials:write")));
    assert_eq!(world.post("/v1/credentials/apns/default", Value::Null).await.problem(405), "method-not-allowed");
    assert_eq!(world.sim.pushes().len(), 0);

    world.post(path, Value::Null).await.expect(200);
    let again = world.post("/v1/credentials/apns/default/check", Value::Null).await;
    assert_eq!(again.problem(429), "rate-limited");
    let pause_s: u64 = again.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&pause_s), "{pause_s}");
    world.post("/v1/credentials/fcm/check", Value::Null).await.expect(200);
    world.put("/v1/credentials/apns", world.sim.apns_credential()).await.expect(200);
    world.post(path, Value::Null).await.expect(200);
    assert_eq!(world.sim.pushes().len(), 3, "the one that came too soon was not asked about");
}

#[tokio::test]
async fn no_credential_is_called_check() {
    let world = World::start().await;
    let answer = world.put("/v1/credentials/apns/check", world.sim.apns_credential()).await;
    assert_eq!(answer.problem(405), "method-not-allowed");
}
