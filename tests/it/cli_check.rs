//! `reveille check`: what would go wrong, found before the first start and beside a running relay.

use std::os::unix::fs::PermissionsExt as _;

use reveille::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use crate::support::{
    cli::Cli,
    database::Database,
    served::free_port,
    world::{MASTER_KEY, OPERATOR_KEY, World},
};

/// What was found about something.
fn found<'a>(report: &'a Value, about: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["about"] == about)
        .unwrap_or_else(|| panic!("nothing about {about:?} in {report:#}"))
}

fn verdict<'a>(report: &'a Value, about: &str) -> &'a str {
    found(report, about)["verdict"].as_str().unwrap()
}

async fn checked(cli: &Cli, code: i32, arguments: &[&str]) -> Value {
    let said = cli.run(&[&["check", "--json"], arguments].concat()).await;
    assert_eq!(said.code, code, "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["ok"], code == 0);
    report
}

/// Someone who is about to serve with simulated providers.
fn newcomer(sim: &Sim) -> Cli {
    let cli = Cli::nowhere();
    std::fs::write(cli.folder.path().join("ca.pem"), sim.ca_pem()).unwrap();
    cli.with("REVEILLE_LISTEN", &format!("127.0.0.1:{}", free_port()))
        .with("REVEILLE_APNS_URL", &sim.apns_url())
        .with("REVEILLE_FCM_URL", &sim.fcm_url())
        .with("REVEILLE_EXTRA_CA", "ca.pem")
}

/// Someone with the settings of a running relay.
fn beside(world: &World) -> Cli {
    newcomer(&world.sim)
        .with("REVEILLE_LISTEN", world.url("").trim_start_matches("http://"))
        .with("REVEILLE_MASTER_KEY", MASTER_KEY)
        .with("REVEILLE_OPERATOR_KEY", OPERATOR_KEY)
        .with("REVEILLE_DATABASE_URL", &world.database().url())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_start_it_says_what_is_missing_and_makes_nothing() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let cli = newcomer(&sim);
    let files = || std::fs::read_dir(cli.folder.path()).unwrap().count();
    let report = checked(&cli, 6, &[]).await;
    assert_eq!(verdict(&report, "master key"), "failed");
    assert!(found(&report, "master key")["todo"].as_str().unwrap().contains("reveille init"));
    assert_eq!(verdict(&report, "operator key"), "warning");
    assert_eq!(files(), 1);

    cli.shown(&["init"]).await;
    let report = checked(&cli, 0, &[]).await;
    for (about, expected) in [
        ("settings", "ok"),
        ("master key", "ok"),
        ("operator key", "ok"),
        ("master.key", "ok"),
        ("operator.key", "ok"),
        ("public URL", "warning"),
        ("extra CA", "ok"),
        ("SQLite", "ok"),
        ("APNs", "ok"),
        ("FCM", "ok"),
        ("relay", "not_checked"),
        ("credentials", "not_checked"),
        ("clock", "ok"),
    ] {
        assert_eq!(verdict(&report, about), expected, "{about}: {report:#}");
    }
    assert!(found(&report, "relay")["todo"].as_str().unwrap().contains("reveille serve"));
    assert_eq!(files(), 4, "nothing was made");

    let people = cli.run(&["check"]).await;
    assert!(
        people.out.contains("\n  ok           master key       there is one")
            && people.out.contains("→ start it with `reveille serve`"),
        "{}",
        people.out
    );
    assert!(people.out.lines().all(|line| line.chars().count() <= 100), "{}", people.out);
    assert!(people.out.trim_end().ends_with("2 not checked"), "{}", people.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_on_this_machine_is_found() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let cli = newcomer(&sim);
    cli.shown(&["init"]).await;
    let file = |name: &str| cli.folder.path().join(name);
    std::fs::set_permissions(file("master.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let report = checked(&cli, 0, &[]).await;
    assert_eq!(verdict(&report, "master.key"), "warning");
    assert!(found(&report, "master.key")["todo"].as_str().unwrap().starts_with("chmod 600 "));

    let report = checked(&cli, 6, &["--database-url", "sqlite:no/such/folder/reveille.db"]).await;
    assert!(found(&report, "SQLite")["says"].as_str().unwrap().contains("there is no folder"));
    std::fs::write(file("other.db"), "this is no database, whatever it is called, and it is long enough").unwrap();
    assert_eq!(verdict(&checked(&cli, 6, &["--database-url", "sqlite:other.db"]).await, "SQLite"), "failed");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let report = checked(&cli, 6, &["--listen", "192.0.2.1:8080"]).await;
    assert_eq!(verdict(&report, "relay"), "failed", "an address of another machine");
    drop(taken);
    let report = checked(&cli, 6, &["--apns-url", "https://127.0.0.1:1", "--fcm-url", "https://127.0.0.1:1"]).await;
    assert_eq!((verdict(&report, "APNs"), verdict(&report, "clock")), ("failed", "not_checked"));
    let report = checked(&cli, 0, &["--apns-url", "https://127.0.0.1:1"]).await;
    assert_eq!(
        (verdict(&report, "APNs"), verdict(&report, "FCM")),
        ("warning", "ok"),
        "not everybody pushes over both"
    );

    assert!(cli.refused(2, &["check", "--url", "127.0.0.1:8080"]).await.contains("http:// or https://"));
    let misspelt = newcomer(&sim).with("REVEILLE_LISTNE", "127.0.0.1:1").with("REVEILLE_MASTER_KEY", MASTER_KEY);
    let report = checked(&misspelt, 0, &[]).await;
    assert_eq!(verdict(&report, "environment"), "warning");
    assert!(found(&report, "environment")["says"].as_str().unwrap().contains("REVEILLE_LISTNE"), "{report:#}");

    std::fs::write(file("reveille.toml"), "lease_s = 1").unwrap();
    let report = checked(&cli, 6, &[]).await;
    assert!(found(&report, "settings")["says"].as_str().unwrap().contains("lease_s"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_running_relay_each_credential_is_asked_about() {
    let world = World::start().await;
    let cli = beside(&world);
    let report = checked(&cli, 0, &[]).await;
    for (about, expected) in [
        ("relay", "ok"),
        ("key", "ok"),
        ("shop apns/default", "ok"),
        ("shop fcm/default", "ok"),
        (if world.database().url().starts_with("sqlite") { "SQLite" } else { "PostgreSQL" }, "ok"),
    ] {
        assert_eq!(verdict(&report, about), expected, "{about}: {report:#}");
    }
    let says = found(&report, "key")["says"].as_str().unwrap();
    assert!(says.contains("operator key"), "{says}");

    // Checked a moment ago: the relay spares the provider, and the check says so.
    let report = checked(&cli, 0, &[]).await;
    assert_eq!(verdict(&report, "shop fcm/default"), "not_checked");
    assert!(found(&report, "shop fcm/default")["todo"].as_str().unwrap().starts_with("check again in "), "{report:#}");

    let (_, key) = world.new_app("chat").await;
    let report = checked(&beside(&world).with("REVEILLE_APP_KEY", &key), 0, &[]).await;
    assert!(found(&report, "key")["says"].as_str().unwrap().contains("the app chat"));
    assert_eq!(verdict(&report, "credentials"), "warning", "it has none");

    let mut wrong = world.sim.apns_credential();
    wrong["key_id"] = json!("ZZZZZZZZZZ");
    world.call(reqwest::Method::PUT, "/v1/credentials/apns", &key, Some(wrong)).await.expect(201);
    let report = checked(&beside(&world), 6, &["--app", "chat"]).await;
    assert_eq!(verdict(&report, "chat apns/default"), "failed");
    let todo = found(&report, "chat apns/default")["todo"].as_str().unwrap();
    assert!(todo.contains("compare team id, key id"), "{todo}");

    let report = checked(&beside(&world).with("REVEILLE_APP_KEY", "rk_wrong"), 6, &[]).await;
    assert_eq!(verdict(&report, "key"), "failed");
    let report = checked(&beside(&world), 6, &["--key-file", "no-such-file"]).await;
    assert_eq!(verdict(&report, "key"), "failed");
    let report = checked(&beside(&world), 6, &["--url", "http://127.0.0.1:1"]).await;
    assert_eq!(verdict(&report, "relay"), "failed", "one that is named has to be there");
    let report = checked(&beside(&world).with("REVEILLE_PUBLIC_URL", "http://127.0.0.1:1"), 6, &[]).await;
    assert_eq!(
        (verdict(&report, "relay"), found(&report, "public URL")["area"].as_str()),
        ("ok", Some("configuration"))
    );
    let public = report["findings"].as_array().unwrap().iter().rfind(|one| one["about"] == "public URL").unwrap();
    assert_eq!((&public["area"], &public["verdict"]), (&json!("relay"), &json!("failed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_looked_at_and_left_as_it_is() {
    let world = World::start().await;
    let (url, cli) = (world.database().url(), beside(&world));
    let about = if url.starts_with("sqlite") { "SQLite" } else { "PostgreSQL" };
    let other = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let report = checked(&beside(&world).with("REVEILLE_MASTER_KEY", other), 6, &[]).await;
    let keys: Vec<_> =
        report["findings"].as_array().unwrap().iter().filter(|one| one["about"] == "master key").collect();
    assert_eq!((keys.len(), &keys[1]["verdict"]), (2, &json!("failed")));

    let migrations = "select count(*) from _sqlx_migrations";
    let all = world.database().count(migrations).await;
    world
        .database()
        .execute("delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)")
        .await;
    let report = checked(&cli, 0, &[]).await;
    assert!(found(&report, about)["says"].as_str().unwrap().contains("applies 1 migrations"), "{report:#}");
    assert_eq!(verdict(&report, about), "warning");
    assert_eq!(world.database().count(migrations).await, all - 1, "it applies none");
    world.database().execute("update _sqlx_migrations set version = 9999 where version = 1").await;
    let report = checked(&cli, 6, &[]).await;
    assert!(found(&report, about)["says"].as_str().unwrap().contains("newer version"), "{report:#}");
    world.database().execute("update _sqlx_migrations set version = 1 where version = 9999").await;
    world.database().execute("update node set copy = 1").await;
    assert_eq!(verdict(&checked(&cli, 0, &[]).await, "backup"), "warning");
    world.publish("order:42").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_nobody_serves_is_looked_at_without_a_trace() {
    let world = World::on_sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let cli = beside(&world)
        .with("REVEILLE_DATABASE_URL", &format!("sqlite:{}", folder.path().join("reveille.db").display()));
    let Database::Sqlite { folder: from } = world.database() else { unreachable!() };
    let from = from.clone();
    // Copied with the relay gone, so that it is all in one file.
    let mut copied = false;
    let world = world
        .restart_after(async |_| {
            std::fs::copy(from.join("reveille.db"), folder.path().join("reveille.db")).unwrap();
            copied = true;
        })
        .await;
    assert!(copied);
    let report = checked(&cli, 0, &["--url", &world.url("")]).await;
    assert_eq!(verdict(&report, "SQLite"), "ok", "{report:#}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["reveille.db"]);
}
