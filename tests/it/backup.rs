//! Backups and epochs: whoever restores a copy silences no phone from its lost future (contract §5, Polling).

use std::process::{Command, Output};

use reqwest::Method;

use serde_json::Value;

use crate::support::world::World;

fn reveille(arguments: &[&str], url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command
        .args(arguments)
        .args(["--database-url", url])
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[tokio::test]
async fn a_new_epoch_ends_every_cursor_of_before() {
    let world = World::start().await;
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let (token, cursor) = (phone.device_token.clone(), phone.cursor());
    let url = world.database().url();
    let world = world
        .restart_after(async |_| {
            let output = reveille(&["epoch", "bump"], &url);
            assert!(output.status.success(), "{}", said(&output));
        })
        .await;
    let old = world.call(Method::GET, &format!("/v1/sync?after={cursor}"), &token, None).await;
    assert_eq!(old.problem(410), "epoch-changed");
    let page = world.call(Method::GET, "/v1/sync", &token, None).await.expect(200);
    let path = format!("/v1/sync?after={}", page["next"].as_str().unwrap());
    world.call(Method::GET, &path, &token, None).await.expect(200);
}

#[tokio::test]
async fn a_backup_of_a_relay_at_work_is_whole_and_known_as_one() {
    let world = World::on_sqlite().await;
    let (url, file) = (world.database().url(), world.folder().join("backup.db"));
    let phone = world.phone("pixel").follows(&["order:42"]).await;
    let token = phone.device_token.clone();
    world.publish("order:42").await;
    let output = reveille(&["backup", file.to_str().unwrap()], &url);
    assert!(output.status.success(), "{}", said(&output));

    world.publish("order:42").await;
    let lost = phone.sync().await.0;
    let events = |page: &Value| {
        page["events"].as_array().unwrap().iter().filter(|event| event["type"] == "order.updated").count()
    };
    assert_eq!(events(&lost), 2);
    let lost = lost["next"].as_str().unwrap().to_owned();

    let world = world.restart_after(async |database| database.replace_by(&file)).await;
    let come_with = async |world: &World, cursor: &str| {
        world.call(Method::GET, &format!("/v1/sync?after={cursor}"), &token, None).await
    };
    let old = come_with(&world, &lost).await;
    assert_eq!(old.problem(410), "epoch-changed");
    assert_eq!(old.body["snapshot"], "/v1/sync/snapshot");
    let page = world.call(Method::GET, "/v1/sync", &token, None).await.expect(200);
    assert_eq!(events(&page), 1, "as it was when it was copied");
    let kept = page["next"].as_str().unwrap().to_owned();

    let world = world.restart_after(async |_| {}).await;
    assert_eq!(come_with(&world, &kept).await.status, 200, "one epoch per restoration");
    let world = world.restart_after(async |database| database.replace_by(&file)).await;
    assert_eq!(come_with(&world, &kept).await.problem(410), "epoch-changed", "the second has its own");
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.db");
    let refused = |url: &str, why: &str| {
        let output = reveille(&["backup", file.to_str().unwrap()], url);
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
    };
    refused(&format!("sqlite:{}", folder.path().join("nothing.db").display()), "there is no database");
    refused("postgres://postgres@127.0.0.1/x", "pg_dump");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no half of a file");
    std::fs::write(&file, "mine").unwrap();
    let world = World::on_sqlite().await;
    refused(&world.database().url(), "exists already");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let output = reveille(&["epoch", "bump"], &format!("sqlite:{}", folder.path().join("nothing.db").display()));
    assert!(!output.status.success() && said(&output).contains("there is no database"), "{}", said(&output));
}
