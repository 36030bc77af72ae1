//! `reveille devices` and `reveille events`: who is there, and what has come of what was posted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{cli::Cli, world::World};

#[tokio::test]
async fn devices_are_listed_with_how_they_stand() {
    let world = World::start().await;
    world.phone("pixel").user("17").with("app_version", "4.2.0").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42", "order:43"]).await;
    world.sim.apns().dead_token(&iphone.token, None);
    world.publish("order:43").await;
    world.settle().await;
    let cli = Cli::backend(&world);
    let table = cli.shown(&["devices"]).await;
    let lines: Vec<&str> = table.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        words(lines[0]),
        ["installation", "device", "status", "user", "platform", "seen", "fetched", "feeds", "version"]
    );
    let pixel = words(lines.iter().find(|line| line.starts_with("pixel")).unwrap());
    assert_eq!((pixel[2].as_str(), pixel[3].as_str(), pixel[4].as_str()), ("active", "17", "android"), "{table}");
    let iphone_line = words(lines.iter().find(|line| line.starts_with("iphone")).unwrap());
    assert_eq!((iphone_line[1].as_str(), iphone_line[2].as_str()), (iphone.id.as_str(), "gone"), "{table}");
    assert!(!table.contains(&iphone.token) && !table.contains('\u{1b}'), "{table}");

    let names = |page: Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["installation_id"].as_str().unwrap().to_owned())
            .collect()
    };
    for (filter, expected) in [
        (&["--user", "17"][..], &["pixel"][..]),
        (&["--status", "gone"], &["iphone"]),
        (&["--feed", "order:43"], &["iphone"]),
        (&["--installation-id", "pixel"], &["pixel"]),
        (&["--user", "nobody"], &[]),
    ] {
        assert_eq!(names(cli.json(&[&["devices"], filter].concat()).await), expected, "{filter:?}");
    }
    let page = cli.json(&["devices", "--limit", "1"]).await;
    assert_eq!(page, world.get("/v1/devices?limit=1").await.expect(200), "as the relay gives it");
    let text = cli.shown(&["devices", "--limit", "1"]).await;
    let next = text.lines().last().unwrap().strip_prefix("There may be more: --cursor ").unwrap();
    assert_ne!(names(cli.json(&["devices", "--cursor", next]).await), names(page));
    assert!(cli.shown(&["devices", "--user", "nobody"]).await.contains("There is no such device."));
    assert!(cli.refused(2, &["devices", "--status", "well"]).await.contains("quarantined"));
}

#[tokio::test]
async fn events_are_listed_with_how_far_they_have_come() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    world.phone("iphone").ios().follows(&["order:42"]).await;
    world.publish("order:42").await;
    world.settle().await;
    phone.sync().await;
    let waiting = world.publish("order:42").await;
    world.publish("elsewhere").await;
    world.clock.advance(Duration::from_secs(1));

    let cli = Cli::backend(&world);
    let table = cli.shown(&["events", "--feed", "order:42"]).await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..3], ["position", "feed", "type"]);
    assert_eq!(rows.len(), 3, "{table}");
    let (newest, oldest) = (&rows[1], &rows[2]);
    assert_eq!((newest[0], newest[1], newest[2]), (&*waiting["position"].to_string(), "order:42", "order.updated"));
    assert!(newest.contains(&"waking") && oldest.contains(&"settled"), "{table}");

    let page = cli.json(&["events"]).await;
    let items = page["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["feed"], &page["next"]), (3, &json!("elsewhere"), &Value::Null));
    for item in items {
        let mut whole = world.get(&format!("/v1/events/{}", item["id"].as_str().unwrap())).await.expect(200);
        whole["devices"]["counted_at"] = item["devices"]["counted_at"].clone();
        assert_eq!(*item, whole);
    }
    let first = cli.json(&["events", "--limit", "1"]).await;
    let second = cli.json(&["events", "--limit", "1", "--cursor", first["next"].as_str().unwrap()]).await;
    assert_eq!(second["items"][0]["id"], items[1]["id"]);
    assert!(cli.shown(&["events", "--feed", "none"]).await.contains("There is no such event."));
}
