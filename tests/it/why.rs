//! `reveille why`: the timeline for people, from the real binary.

use std::{path::Path, process::Output, time::Duration};

use reveille::sim::FaultKind;
use serde_json::Value;

use crate::support::{phone::Phone, world::World};

/// Runs it beside the world, which goes on answering.
async fn why(arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.arg("why").args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn shown(world: &World, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let url = world.url("");
    let variables = [("REVEILLE_APP_KEY", world.key.as_str()), ("REVEILLE_PUBLIC_URL", url.as_str())];
    let output = why(arguments, &variables, folder.path()).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = why(arguments, variables, folder.path()).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
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
    let (url, unknown) = (world.url(""), "dev_01jd0000000000000000000000");
    let key = ("REVEILLE_APP_KEY", world.key.as_str());
    for device in [unknown, "no-such-installation"] {
        let error = refused(&[device, "--url", &url], &[key]).await;
        assert!(error.contains(&format!("there is no device {device:?}")), "{error}");
    }
    let error = refused(&[unknown, "--url", &url], &[]).await;
    assert!(error.contains("REVEILLE_APP_KEY") && error.contains("--key-file"), "{error}");
    let error = refused(&[unknown, "--url", &url], &[("REVEILLE_APP_KEY", "rk_wrong")]).await;
    assert!(error.contains("does not know this app key"), "{error}");
    let narrow = world.new_key(&world.app, &["events:write"]).await;
    let error = refused(&[unknown, "--url", &url], &[("REVEILLE_APP_KEY", &narrow)]).await;
    assert!(error.contains("403") && error.contains("devices:read"), "{error}");
    let error = refused(&[unknown, "--url", "http://127.0.0.1:1"], &[key]).await;
    assert!(error.contains("the relay at http://127.0.0.1:1 cannot be reached"), "{error}");
}

#[tokio::test]
async fn the_key_may_lie_in_a_file_and_no_configuration_is_needed() {
    let world = World::start().await;
    let phone = world.phone("pixel").registers().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.key"), format!("{}\n", world.key)).unwrap();
    let output = why(&[&phone.id, "--key-file", "app.key", "--url", &world.url("")], &[], folder.path()).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("registered: a new installation"), "{text}");
}
