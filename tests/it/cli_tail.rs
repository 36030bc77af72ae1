//! `reveille tail`: what happens in an app while it happens.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use reveille::sim::FaultKind;
use serde_json::Value;

use crate::support::{cli::Cli, world::World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_shown_once_in_their_order_as_they_come() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let mut tail = Cli::backend(&world).start(&["tail"]);
    assert!(tail.line("2026-09-21 (UTC)").await.len() < 20, "the day, once");
    let registered = tail.line("registered").await;
    assert!(
        registered.starts_with("14:13:20  pixel             registered  registered: a new installation"),
        "{registered}"
    );

    world.clock.advance(Duration::from_secs(2));
    world.publish("order:42").await;
    let event = tail.line("order:42").await;
    assert!(event.starts_with("14:13:22  order:42          event       event 3 in order:42"), "{event}");
    world.settle().await;
    tail.line("attempt").await;
    world.clock.advance(Duration::from_secs(1));
    phone.sync().await;
    tail.line("polled").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (code, left) = tail.interrupt().await;
    assert_eq!((code, left), (0, vec![]), "nothing is shown twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_shown_when_it_begins_and_when_it_has_ended() {
    let world = World::start().await;
    world.phone("pixel").follows(&["order:42"]).await;
    let mut tail = Cli::backend(&world).start(&["tail", "--json", "--kind", "attempt"]);
    world.sim.fcm().pause();
    world.publish("order:42").await;
    let (settled, shown) = tokio::join!(world.settle(), async {
        let begun: Value = serde_json::from_str(&tail.line("attempt").await).unwrap();
        assert_eq!(begun["outcome"], Value::Null, "{begun}");
        world.sim.fcm().resume();
        let ended: Value = serde_json::from_str(&tail.line("attempt").await).unwrap();
        (begun, ended)
    });
    let ((), (begun, ended)) = (settled, shown);
    assert_eq!((&begun["id"], ended["outcome"].as_str()), (&ended["id"], Some("accepted")));
    assert_eq!(ended["installation_id"], "pixel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_begins_where_it_is_told_and_lives_on_when_the_relay_is_away() {
    let world = World::start().await;
    for number in 0..15 {
        world.publish(&format!("order:{number}")).await;
        world.clock.advance(Duration::from_secs(10));
    }
    let cli = Cli::backend(&world);
    let mut tail = cli.start(&["tail", "--since", "2026-09-21T14:13:20Z"]);
    for number in 0..15 {
        tail.line(&format!("in order:{number} ")).await;
    }
    let mut tail = cli.start(&["tail", "--kind", "event"]);
    let first = tail.line("event").await;
    assert!(first.contains("in order:5 "), "the last ten: {first}");
    world.sim.fcm().answer(FaultKind::Reset);
    let world = world.restart().await;
    drop(world);
    tail.aside("cannot be reached").await;
    assert_eq!(tail.interrupt().await.0, 0);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let world = World::start().await;
    let cli = Cli::backend(&world);
    assert!(cli.refused(2, &["tail", "--since", "yesterday"]).await.contains("15m or 2h"));
    assert!(cli.refused(2, &["tail", "--kind", "all"]).await.contains("registered"));
    assert!(cli.refused(5, &["tail", "--url", "http://127.0.0.1:1"]).await.contains("cannot be reached"));
    let narrow = world.new_key(&world.app, &["events:write"]).await;
    let error = Cli::stranger(&world).with("REVEILLE_APP_KEY", &narrow).refused(4, &["tail"]).await;
    assert!(error.contains("devices:read"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_nobody_reads_any_more() {
    let world = World::start().await;
    world.phone("pixel").registers().await;
    let cli = Cli::backend(&world);
    let mut tail = cli.command(&["tail"]);
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = tail.stdout(Stdio::piped()).spawn().unwrap();
        let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
        assert!(first.unwrap().unwrap().contains("(UTC)"));
        child.wait().unwrap()
    });
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("although nothing more happens");
    assert_eq!(ended.unwrap().code(), Some(0));
}
