//! `reveille why`: the timeline for people, from the real binary.

use std::time::Duration;

use reveille::sim::FaultKind;
use serde_json::Value;

use crate::support::{cli::Cli, phone::Phone, world::World};

async fn shown(world: &World, arguments: &[&str]) -> String {
    Cli::backend(world).shown(&[&["why"], arguments].concat()).await
}

/// A phone that missed its push and then lost its token.
async fn unlucky(world: &World) -> Phone<'_> {
    let phone = world.phone("b7e6").ios().user("17").follows(&["order:42"]).await;
    world.sim.apns().lose(1);
    world.publish("order:42").await;
    world.settle().await;
    world.publish("order:42").await;
    world.settle().await;
    world.sim.apns().dead_token(&phone.token, None);
    world.later(Duration::from_secs(60)).await;
    phone
}

#[tokio::test]
async fn it_says_why_in_plain_lines() {
    let world = World::start().await;
    let phone = unlucky(&world).await;
    let text = shown(&world, &[&phone.id]).await;
    let lines: Vec<&str> = text.lines().collect();
    for (line, expected) in [
        (0, format!("device    {}, installation b7e6", phone.id)),
        (1, "user      17".to_owned()),
        (2, "platform  ios, apns, com.example.shop, production".to_owned()),
        (3, "status    gone: Unregistered".to_owned()),
        (4, "fetched   up to 3, and came back with 3".to_owned()),
    ] {
        assert_eq!(lines[line], expected);
    }
    let now = text.find("now       gone since").expect("the present");
    let past = text.find("when (UTC)").expect("the past");
    assert!(now < past);
    let kinds: Vec<&str> =
        lines.iter().filter(|line| line.starts_with("2026-")).map(|line| line[29..39].trim()).collect();
    assert_eq!(kinds, ["status", "attempt", "deferred", "event", "attempt", "event", "registered"]);
    let attempt = lines.iter().find(|line| line.contains("attempt")).unwrap();
    assert!(
        attempt.starts_with("2026-09-21 14:14:20 ") && attempt[41..].starts_with("sent: APNs rejected it"),
        "{attempt}"
    );
    for line in &lines {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(!text.contains('\u{1b}'), "no terminal, no colours");
}

#[tokio::test]
async fn an_installation_will_do_and_json_is_what_the_relay_gives() {
    let world = World::start().await;
    let phone = unlucky(&world).await;
    let url = world.url("/");
    let text = shown(&world, &["b7e6", "--limit", "2", "--json", "--url", &url]).await;
    let shown: Value = serde_json::from_str(&text).unwrap();
    let page = world.get(&format!("/v1/devices/{}/timeline?limit=2", phone.id)).await.expect(200);
    assert_eq!(shown, page);
    assert!(page["next"].is_string());
}

#[tokio::test]
async fn a_phone_that_is_up_to_date_has_nothing_waiting() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..30 {
        world.publish("order:42").await;
    }
    phone.sync().await;
    let text = shown(&world, &["pixel"]).await;
    assert!(text.contains("now       nothing waits") && text.contains("There is more; --limit"), "{text}");
    assert!(text.contains("suppressed: already fetched"), "{text}");
    assert!(text.contains("user      nobody is signed in"), "{text}");
}

#[tokio::test]
async fn a_provider_has_no_say_about_the_terminal() {
    let world = World::start().await;
    let phone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let odd = FaultKind::Status { status: 400, reason: Some("Odd\u{1b}[2J\nword".into()), retry_after: None };
    world.sim.apns().answer(odd);
    world.publish("order:42").await;
    world.settle().await;
    let text = shown(&world, &[&phone.id]).await;
    assert!(text.contains("400 Odd\u{fffd}[2J\u{fffd}word") && !text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn what_cannot_be_answered_is_said() {
    let world = World::start().await;
    let unknown = "dev_01jd0000000000000000000000";
    let backend = Cli::backend(&world);
    for device in [unknown, "no-such-installation"] {
        let error = backend.refused(3, &["why", device]).await;
        assert!(error.contains(&format!("there is no device {device:?}")), "{error}");
    }
    let error = Cli::stranger(&world).refused(2, &["why", unknown]).await;
    assert!(error.contains("REVEILLE_APP_KEY") && error.contains("--key-file"), "{error}");
    let error = Cli::stranger(&world).with("REVEILLE_APP_KEY", "rk_wrong").refused(4, &["why", unknown]).await;
    assert!(error.contains("does not know this app key"), "{error}");
    let narrow = world.new_key(&world.app, &["events:write"]).await;
    let error = Cli::stranger(&world).with("REVEILLE_APP_KEY", &narrow).refused(4, &["why", unknown]).await;
    assert!(error.contains("403") && error.contains("devices:read"), "{error}");
    let error = backend.refused(5, &["why", unknown, "--url", "http://127.0.0.1:1"]).await;
    assert!(error.contains("the relay at http://127.0.0.1:1 cannot be reached"), "{error}");
    let error = backend.refused(5, &["why", unknown, "--url", &world.url("").replace("http:", "https:")]).await;
    assert!(error.contains("may speak http, not https"), "{error}");
    let error = backend.refused(2, &["why", unknown, "--url", "127.0.0.1:8080"]).await;
    assert!(error.contains("flag --url") && error.contains("http:// or https://"), "{error}");
    assert!(!error.contains("public_url"), "{error}");
}

#[tokio::test]
async fn who_has_tried_too_many_keys_is_told_when_to_try_again() {
    let world = World::start().await;
    for _ in 0..10 {
        world.call(reqwest::Method::GET, "/v1/me", "rk_wrong", None).await.expect(401);
    }
    let cli = Cli::stranger(&world).with("REVEILLE_APP_KEY", "rk_wrong");
    let error = cli.refused(1, &["why", "pixel"]).await;
    assert!(error.contains("429") && error.contains("too many failed authentications; try again in "), "{error}");
}

#[tokio::test]
async fn the_key_may_lie_in_a_file_and_no_configuration_is_needed() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let cli = Cli::nowhere();
    std::fs::write(cli.folder.path().join("app.key"), format!("{}\n", world.key)).unwrap();
    let text = cli.shown(&["why", &phone.id, "--key-file", "app.key", "--url", &world.url("")]).await;
    assert!(text.contains("registered: a new installation"), "{text}");
}
