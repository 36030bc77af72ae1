//! `reveille listen`: a device's feeds in the terminal, read as a phone reads them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{cli::Cli, world::World};

async fn keyed(world: &World, key: &str, data: Value) -> Value {
    let event = json!({"feed": "order:42", "type": "order.updated", "key": key, "op": "upsert", "data": data});
    world.post("/v1/events", event).await.expect(202)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throw_away_device_reads_state_and_events_and_is_gone_in_the_end() {
    let world = World::start().await;
    keyed(&world, "order/42", json!({"status": "packed"})).await;
    let mut listen = Cli::backend(&world).start(&[
        "listen",
        "--register",
        "my-terminal",
        "--feed",
        "order:42",
        "--user",
        "17",
        "--every-s",
        "1",
    ]);
    listen.aside("Registered dev_").await;
    let state = listen.line("order/42").await;
    assert!(state.contains("state") && state.contains(r#"{"status":"packed"}"#), "{state}");
    let device = world.get("/v1/devices?installation_id=my-terminal").await.expect(200)["items"][0].clone();
    assert_eq!((&device["user"], &device["feeds"][0]), (&json!("17"), &json!("order:42")));

    let event = keyed(&world, "order/42", json!({"status": "delivered"})).await;
    let line = listen.line("delivered").await;
    assert!(
        line.contains(&format!("{}  order:42          order.updated       upsert  order/42", event["position"])),
        "{line}"
    );
    world.settle().await;
    assert_eq!(world.attempts().await, Vec::<Value>::new(), "nobody is pushed to for it");

    let (code, left) = listen.interrupt().await;
    assert_eq!((code, left), (0, vec!["Deleted the device.".to_owned()]));
    let gone = world.get("/v1/devices?installation_id=my-terminal").await.expect(200);
    assert_eq!(gone["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_device_is_never_taken_over() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let error = Cli::backend(&world).refused(1, &["listen", "--register", "pixel"]).await;
    assert!(error.contains("has a device already"), "{error}");
    phone.sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_device_token_it_goes_on_from_a_cursor_and_moves_levels_unless_it_peeks() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let (before, levels) = (phone.cursor(), phone.levels().await);
    let first = world.publish("order:42").await;
    let cli = Cli::stranger(&world).with("REVEILLE_DEVICE_TOKEN", &phone.device_token);
    let arguments = ["listen", "--after", &before, "--json", "--every-s", "1"];
    let mut peek = cli.start(&[&arguments[..], &["--peek"]].concat());
    let shown: Value = serde_json::from_str(&peek.line("evt_").await).unwrap();
    assert_eq!(shown["id"], first["id"]);
    assert_eq!(phone.levels().await, levels, "nothing has moved");
    assert_eq!(peek.interrupt().await.0, 0);

    let cli = Cli::stranger(&world);
    std::fs::write(cli.folder.path().join("device.token"), &phone.device_token).unwrap();
    let mut listen = cli.start(&[&arguments[..], &["--token-file", "device.token"]].concat());
    listen.line("evt_").await;
    let second = world.publish("order:42").await;
    assert!(listen.line("evt_").await.contains(second["id"].as_str().unwrap()));
    let (code, left) = listen.interrupt().await;
    assert_eq!(code, 0);
    let cursor = left.last().unwrap().strip_prefix("To go on from here: --after ").unwrap().to_owned();
    assert_eq!(json!(phone.levels().await[0]), second["position"], "the relay takes the device to be up to date");
    let page =
        world.call(Method::GET, &format!("/v1/sync?after={cursor}"), &phone.device_token, None).await.expect(200);
    assert_eq!(page["events"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follow_is_shown_with_the_state_of_its_feed() {
    let world = World::start().await;
    keyed(&world, "order/42", json!("now followed")).await;
    let phone = world.phone("pixel").registers().await;
    let cli = Cli::stranger(&world).with("REVEILLE_DEVICE_TOKEN", &phone.device_token);
    let mut listen = cli.start(&["listen", "--every-s", "1"]);
    listen.line("Polling").await;
    // Whether this is in its snapshot or in a page, when it is shown the snapshot has been read.
    let own = json!({"feed": format!("device:{}", phone.id), "type": "t", "key": "k", "data": "by now it reads"});
    world.post("/v1/events", own).await.expect(202);
    listen.line("by now it reads").await;
    world.put(&format!("/v1/devices/{}/feeds/order:42", phone.id), json!({})).await.expect(200);
    listen.line("reveille.followed").await;
    assert!(listen.line("now followed").await.contains("state"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_leads_nowhere_leads_to_the_snapshot() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    keyed(&world, "order/42", json!("kept")).await;
    let cli = Cli::stranger(&world).with("REVEILLE_DEVICE_TOKEN", &phone.device_token);
    let mut listen = cli.start(&["listen", "--after", "nonsense", "--every-s", "1"]);
    let told = listen.aside("400 Bad Request").await;
    assert!(told.contains("starting from the snapshot"), "{told}");
    assert!(listen.line("kept").await.contains("state"));
    keyed(&world, "order/42", json!("after it")).await;
    listen.line("after it").await;
    assert_eq!(listen.interrupt().await.0, 0);
}

#[tokio::test]
async fn what_cannot_be_listened_to_is_refused() {
    let world = World::start().await;
    let cli = Cli::stranger(&world);
    assert!(cli.refused(2, &["listen", "--json"]).await.contains("REVEILLE_DEVICE_TOKEN"));
    let wrong = Cli::stranger(&world).with("REVEILLE_DEVICE_TOKEN", "dt_wrong");
    assert!(wrong.refused(4, &["listen", "--json"]).await.contains("does not know this device token"));
    let away = wrong.with("REVEILLE_PUBLIC_URL", "http://127.0.0.1:1");
    assert!(away.refused(5, &["listen", "--json"]).await.contains("cannot be reached"));
    assert!(cli.refused(2, &["listen", "--feed", "f"]).await.contains("--register"));
    let narrow = world.new_key(&world.app, &["devices:write"]).await;
    let error =
        Cli::stranger(&world).with("REVEILLE_APP_KEY", &narrow).refused(4, &["listen", "--register", "x"]).await;
    assert!(error.contains("devices:read"), "{error}");
}
