//! `reveille serve` as a process: it refuses what it must, and ends well.

use std::{process::Command, time::Duration};

use reveille::sim::{Sim, SimConfig};
use serde_json::json;

use crate::support::{
    served::{Served, free_port, within},
    world::OPERATOR_KEY,
};

fn reveille(arguments: &[&str], folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(arguments).current_dir(folder).env_clear();
    command
}

#[test]
fn without_a_master_key_it_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = reveille(&["serve"], folder.path()).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("reveille init") && error.contains("openssl rand -base64 32"), "{error}");
    assert!(!folder.path().join("reveille.db").exists(), "nothing is half done");
}

#[test]
fn what_cannot_be_used_is_wrong_usage_wherever_it_was_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("odd.toml"), "listne = \"127.0.0.1:1\"").unwrap();
    for (arguments, variable) in [
        (&["serve"][..], ("PATH", "")),
        (&["serve", "--config", "none.toml"], ("PATH", "")),
        (&["serve", "--config", "odd.toml"], ("PATH", "")),
        (&["serve", "--extra-ca", "none.pem"], ("PATH", "")),
        (&["serve", "--listen", "8080"], ("PATH", "")),
        (&["serve"], ("REVEILLE_LISTEN", "8080")),
        (&["demo", "--log", "reveille=loudly"], ("PATH", "")),
        (&["migrate-store", "--from", "reveille.db", "--to", "postgres://db/reveille"], ("PATH", "")),
        (&["migrate-store", "--from", "sqlite:reveille.db", "--to", "sqlite:other.db"], ("PATH", "")),
    ] {
        let output = reveille(arguments, folder.path()).env(variable.0, variable.1).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {variable:?}: {error}");
    }
}

#[test]
fn a_variable_that_is_misspelt_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    assert!(reveille(&["init"], folder.path()).output().unwrap().status.success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = reveille(&["serve", "--listen", &address], folder.path());
    let output = serve.env("REVEILLE_LISTNE", "127.0.0.1:1").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("REVEILLE_LISTNE")), "{log}");
    assert_eq!(output.status.code(), Some(1), "nothing is wrong with how it was called: {log}");
}

#[test]
fn what_init_makes_serve_takes_and_shows_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    assert!(reveille(&["init"], folder.path()).output().unwrap().status.success());
    let mut print = reveille(&["serve", "--print-config", "--lease-s", "30"], folder.path());
    let output = print.env("REVEILLE_OPERATOR_KEY", "ro_of-the-environment").output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("lease_s = 30"), "{shown}");
    assert!(shown.contains("***") && !shown.contains("ro_of-the-environment"), "{shown}");
    for file in ["master.key", "operator.key"] {
        let secret = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(!shown.contains(secret.trim()));
    }
    let again = reveille(&["init"], folder.path()).output().unwrap();
    assert!(!again.status.success(), "it does not overwrite keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_it_finishes_the_calls_under_way_and_exits_with_0() {
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    sim.fcm().pause();
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), &sim, free_port(), 45).await;
    let key = served.app_with_fcm(&sim).await;
    served
        .post("/v1/devices", &key, json!({"installation_id": "a", "transport": "fcm", "token": "t", "feeds": ["f"]}))
        .await;
    served.post("/v1/events", &key, json!({"feed": "f", "type": "t"})).await;
    within(Duration::from_secs(10), "the call is under way", async || (sim.fcm().received() == 1).then_some(())).await;

    let pid = served.child.lock().unwrap().id();
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    within(Duration::from_secs(5), "it accepts nothing more", async || {
        let refused = served.http.get(format!("{}/healthz", served.url)).send().await;
        refused.is_err().then_some(())
    })
    .await;
    assert!(served.child.lock().unwrap().try_wait().unwrap().is_none(), "it waits for the call");
    sim.fcm().resume();
    let status =
        within(Duration::from_secs(20), "it exits", async || served.child.lock().unwrap().try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0));

    let served = Served::start(folder.path(), &sim, free_port(), 45).await;
    let attempts = served.get("/v1/attempts", &key).await;
    assert_eq!(attempts["items"][0]["outcome"], "accepted");
    assert_eq!(served.get("/readyz", OPERATOR_KEY).await["store"], "ok");
}
