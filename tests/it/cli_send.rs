//! `reveille send`: one event from the command line, and how it fares.

use serde_json::{Value, json};

use crate::support::{cli::Cli, world::World};

#[tokio::test]
async fn an_event_is_sent_and_a_repetition_is_safe() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let cli = Cli::backend(&world);
    let text = cli
        .shown(&["send", "order:42", "order.paid", "--key", "order/42", "--op", "upsert", "--data", "{\"n\": 1.50}"])
        .await;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("accepted  evt_"), "{text}");
    assert_eq!(lines[1..3], ["position  3 in order:42, type order.paid", "wake      background, worth while for 24 h"]);
    let repeat = lines[3].strip_prefix("repeat    ").unwrap();

    let event = phone.sync().await.events()[0].clone();
    assert_eq!([&event["type"], &event["key"], &event["op"]], ["order.paid", "order/42", "upsert"]);
    assert_eq!(event["data"].to_string(), "{\"n\":1.5}");

    let again = ["send", "order:42", "order.paid", "--key", "order/42", "--op", "upsert", "--data", "{\"n\": 1.50}"];
    let repeated: Vec<&str> = again.into_iter().chain(repeat.split(' ')).collect();
    let text = cli.shown(&repeated).await;
    assert!(text.lines().next().unwrap().ends_with("nothing new was stored"), "{text}");
    assert_eq!(phone.sync().await.events().len(), 0, "it was stored once");
    let error =
        cli.refused(1, &[&["send", "order:42", "other"], &repeat.split(' ').collect::<Vec<_>>()[..]].concat()).await;
    assert!(error.contains("422") && error.contains("another body"), "{error}");
}

#[tokio::test]
async fn data_comes_from_a_file_or_stdin_and_json_is_what_the_relay_answers() {
    let world = World::start().await;
    let cli = Cli::backend(&world);
    std::fs::write(cli.folder.path().join("data.json"), "{\"from\": \"file\"}").unwrap();
    let event = cli.json(&["send", "order:42", "--data", "@data.json"]).await;
    assert_eq!(
        (&event["data"], &event["type"], &event["state"]),
        (&json!({"from": "file"}), &json!("note"), &json!("accepted"))
    );
    let stored = world.get(&format!("/v1/events/{}", event["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(stored["data"], event["data"]);
    let said = cli.run_with(&["send", "order:42", "--data", "-", "--json"], "[1, 2]").await;
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap()["data"], json!([1, 2]), "{said:?}");
}

#[tokio::test]
async fn a_title_makes_it_an_alert() {
    let world = World::start().await;
    let text = Cli::backend(&world).shown(&["send", "order:42", "--title", "On its way", "--ttl-s", "600"]).await;
    assert!(text.contains("wake      alert, worth while for 10 min"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_is_named_line_by_line() {
    let world = World::start().await;
    let cli = Cli::backend(&world);
    let error = cli.refused(1, &["send", "*", "reveille.mine"]).await;
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("reveille: the relay at ") && lines[0].contains("422"), "{error}");
    assert!(lines[1].starts_with("  /feed: ") && lines[2].starts_with("  /type: ") && lines.len() == 3, "{error}");

    assert!(cli.refused(2, &["send", "f", "--data", "{oops"]).await.contains("--data is not JSON"));
    assert!(cli.refused(2, &["send", "f", "--data", "@no-such-file"]).await.contains("no-such-file"));
    assert!(cli.refused(2, &["send"]).await.contains("FEED"));
    assert!(Cli::stranger(&world).refused(2, &["send", "f"]).await.contains("REVEILLE_APP_KEY"));
    let narrow = world.new_key(&world.app, &["devices:read"]).await;
    let error = Cli::stranger(&world).with("REVEILLE_APP_KEY", &narrow).refused(4, &["send", "f"]).await;
    assert!(error.contains("events:write"), "{error}");
    let error = cli.refused(5, &["send", "f", "--url", "http://127.0.0.1:1"]).await;
    assert!(error.contains("it is safe to repeat this with --idempotency-key "), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_follows_the_event_until_no_device_is_pending() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.phone("iphone").ios().follows(&["order:42"]).await;
    let cli = Cli::backend(&world);
    let mut wait = cli.start(&["send", "order:42", "--wait"]);
    wait.line("accepted  evt_").await;
    wait.line("at s  state").await;
    let waking = wait.line("waking").await;
    assert_eq!(waking.split_whitespace().skip(1).collect::<Vec<_>>(), ["waking", "2", "2", "0", "0", "0"]);
    phone.sync().await;
    let fetched = wait.line("1 suppressed").await;
    assert_eq!(
        fetched.split_whitespace().skip(1).collect::<Vec<_>>(),
        ["waking", "2", "1", "0", "1", "0", "1", "suppressed"]
    );
    world.settle().await;
    let settled = wait.line("settled").await;
    assert_eq!(settled.split_whitespace().skip(2).take(5).collect::<Vec<_>>(), ["2", "0", "1", "1", "0"]);
    assert_eq!(wait.end().await, (0, vec![]));
}

#[tokio::test]
async fn what_does_not_settle_in_time_is_said() {
    let world = World::start().await;
    world.phone("pixel").follows(&["order:42"]).await;
    let said = Cli::backend(&world).run(&["send", "order:42", "--wait=1", "--json"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not settled after 1 s, 1 pending"), "{said:?}");
    let lines: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["id"], lines[1]["id"]);
    assert_eq!((lines.len(), &lines[1]["devices"]["pending"]), (2, &json!(1)), "once, for nothing moved");
}

#[tokio::test]
async fn a_test_event_goes_to_one_device() {
    let world = World::start().await;
    let (phone, other) = (world.phone("pixel").registers().await, world.phone("other").registers().await);
    let cli = Cli::backend(&world);
    let text = cli.shown(&["send", "--device", "pixel", "--class", "alert"]).await;
    assert!(
        text.contains(&format!("in device:{}, type reveille.test", phone.id)) && !text.contains("repeat"),
        "{text}"
    );
    world.settle().await;
    assert_eq!((phone.received(), other.received()), (1, 0));
    assert!(cli.refused(3, &["send", "--device", "nobody"]).await.contains("there is no device \"nobody\""));
    assert!(cli.refused(2, &["send", "f", "--device", "pixel"]).await.contains("--device"));
}
