//! `reveille migrate-store`: an installation moves from SQLite to PostgreSQL, and its phones notice nothing.

use std::process::{Command, Output};

use reqwest::Method;
use reveille::{
    config::{Config, Flags},
    domain::time::Clock,
    relay::{Background, Relay},
    store::StoreOptions,
};
use serde_json::{Value, json};

use crate::support::{
    database::{Database, server},
    world::{MASTER_KEY, World},
};

fn migrate(from: &Database, to: &Database) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["migrate-store", "--from", &from.url(), "--to", &to.url()]).env_clear().output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

async fn refuses_to_serve(database: &Database, why: &str) {
    let env = |name: &str| match name {
        "REVEILLE_LISTEN" => Some("127.0.0.1:0".to_owned()),
        "REVEILLE_DATABASE_URL" => Some(database.url()),
        "REVEILLE_MASTER_KEY" => Some(MASTER_KEY.to_owned()),
        _ => None,
    };
    let config = Config::load(&Flags::default(), env, std::path::Path::new("")).unwrap();
    let started = Relay::start(&config, Clock::default(), StoreOptions::default(), Background::Stepped).await;
    let error = format!("{:#}", started.err().expect("it does not serve this"));
    assert!(error.contains(why), "{error}");
}

#[tokio::test]
async fn phones_notice_nothing_of_a_move() {
    server();
    let world = World::on_sqlite().await;
    let phone = world.phone("pixel").user("17").follows(&["order:42"]).await;
    let iphone = world.phone("iphone").ios().follows(&["order:42"]).await;
    let keyed =
        json!({"feed": "order:42", "type": "order.updated", "key": "42", "data": {"text": "a\u{0}b, ü, \"quoted\""}});
    let post = async |world: &World| {
        world.post_text("/v1/events", &[("idempotency-key", "once")], keyed.to_string()).await.expect(202)
    };
    let accepted = post(&world).await;
    world.alert("order:42", "on its way").await;
    world.settle().await;
    let page = phone.sync().await.0;
    let (token, cursor) = (phone.device_token.clone(), page["next"].as_str().unwrap().to_owned());
    let waiting = world.publish("order:42").await;
    let timeline = format!("/v1/devices/{}/timeline", iphone.id);
    let history = async |world: &World| {
        let rows = world.get(&timeline).await.expect(200)["items"].as_array().unwrap().clone();
        rows.into_iter().map(|row| json!([row["at"], row["kind"], row["says"]])).collect::<Vec<_>>()
    };
    let before = history(&world).await;

    let folder = tempfile::tempdir().unwrap();
    let target = Database::empty(folder.path()).await;
    let world = world
        .moves_to(target, async |from, to| {
            let output = migrate(from, to);
            assert!(output.status.success(), "{}", said(&output));
            for table in from.tables_with("app_id").await {
                let rows = from.count(&format!("select count(*) from {table}")).await;
                assert_eq!(to.count(&format!("select count(*) from {table}")).await, rows, "{table}");
            }
            assert!(said(&migrate(from, to)).contains("finished already"));
        })
        .await;
    assert_eq!(history(&world).await, before, "the past is the same");
    assert_eq!(post(&world).await["position"], accepted["position"], "requests are recognised");
    let read = async |cursor: &str| {
        world.call(Method::GET, &format!("/v1/sync?after={cursor}"), &token, None).await.expect(200)
    };
    let page = read(&cursor).await;
    let ids =
        |page: &Value| page["events"].as_array().unwrap().iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&page), [waiting["id"].clone()], "the cursor is good, and brings what it has not seen");
    let next = world.publish("order:42").await;
    assert_eq!(next["position"].as_i64(), waiting["position"].as_i64().map(|position| position + 1));
    world.later(std::time::Duration::from_secs(120)).await;
    assert!(world.outcomes().await.iter().all(|outcome| outcome == "accepted"), "credentials and tokens came along");
}

#[tokio::test]
async fn a_move_that_was_broken_off_goes_on_and_nobody_serves_half_of_it() {
    server();
    let world = World::on_sqlite().await;
    world.phone("pixel").follows(&["order:42"]).await;
    for _ in 0..3 {
        world.publish("order:42").await;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = Database::empty(folder.path()).await;
    let world = world
        .moves_to(target, async |from, to| {
            assert!(migrate(from, to).status.success());
            // As if it had ended in the middle of the events, with what comes after them still to be done.
            to.execute(
                "delete from events where position > (select min(position) from events); delete from node;
                 update moves set finished_at = null;
                 update moves set last_row = 1 where name = 'events'; update moves set last_row = 0 where name = 'node'",
            )
            .await;
            refuses_to_serve(to, "was broken off").await;
            let output = migrate(from, to);
            assert!(output.status.success(), "{}", said(&output));
        })
        .await;
    assert_eq!(world.database().count("select count(*) from events").await, 3);
    assert_eq!(world.publish("order:42").await["position"], 6, "three events and two follows were before");
}

#[tokio::test]
async fn what_is_not_empty_or_not_the_same_is_refused() {
    server();
    let world = World::on_sqlite().await;
    world.publish("order:42").await;
    let folder = tempfile::tempdir().unwrap();
    let used = Database::of(folder.path()).await;
    let output = migrate(world.database(), &used);
    assert!(!output.status.success() && said(&output).contains("stop it first"), "{}", said(&output));
    let world = world.stopped().await;
    let output = migrate(world.database(), &used);
    assert!(
        !output.status.success() && said(&output).contains("the target is not empty: node has rows"),
        "{}",
        said(&output)
    );
    used.discard();

    let folder = tempfile::tempdir().unwrap();
    let target = Database::empty(folder.path()).await;
    assert!(migrate(world.database(), &target).status.success());
    target.execute("update events set kind = 'other'; update moves set finished_at = null").await;
    let output = migrate(world.database(), &target);
    assert!(
        !output.status.success() && said(&output).contains("events is not the same on both sides"),
        "{}",
        said(&output)
    );
    refuses_to_serve(&target, "was broken off").await;
    target.discard();
    let backwards = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["migrate-store", "--from", &target.url(), "--to", &world.database().url()])
        .output()
        .unwrap();
    assert!(!backwards.status.success() && said(&backwards).contains("a move begins at sqlite:PATH"));
}
