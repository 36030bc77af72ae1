//! SDKs that nobody here wrote find in the simulators what they expect of Apple and Google.
//!
//! They run as child processes from `tests/foreign`. Where their packages are missing these tests fail rather than skip: a check of
//! the simulators that quietly does not run is none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may fail, and has the time")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reveille::sim::{Provider, Sim, SimConfig};

const GOOD_TOKEN: &str = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";
const DEAD_TOKEN: &str = "11fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f1";
const DEAD_SINCE_MS: i64 = 1_700_000_000_123;

fn foreign(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(path);
    assert!(path.exists(), "{} is missing: `./test` installs it, and runs this test again", path.display());
    path
}

async fn run(mut command: Command) {
    let shown = format!("{command:?}");
    let finished = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = finished.unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{shown}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
}

#[tokio::test]
async fn node_apn_gets_on_with_the_simulated_apns() {
    foreign("node-apn/node_modules/@parse/node-apn");
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    sim.write_folder(folder.path()).unwrap();
    sim.apns().dead_token(DEAD_TOKEN, Some(DEAD_SINCE_MS));
    let mut phone = sim.subscribe(GOOD_TOKEN);

    let mut node = Command::new("node");
    node.arg(foreign("node-apn/push.mjs")).arg(folder.path()).args([GOOD_TOKEN, DEAD_TOKEN]);
    node.arg(DEAD_SINCE_MS.to_string()).env("REVEILLE_APNS_URL", sim.apns_url());
    run(node).await;

    assert_eq!(phone.try_recv().unwrap().trigger().unwrap()["head"], "42");
    let statuses: Vec<_> = sim.pushes().iter().map(|push| (push.provider, push.status)).collect();
    assert_eq!(statuses, [(Provider::Apns, 200), (Provider::Apns, 410)]);
    sim.stop().await;
}

#[tokio::test]
async fn firebase_admin_gets_on_with_the_simulated_google() {
    let python = foreign("firebase-admin/.venv/bin/python");
    let sim = Sim::start(SimConfig::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    sim.write_folder(folder.path()).unwrap();
    sim.fcm().dead_token("dead", None);
    let mut phone = sim.subscribe("good");

    let mut python = Command::new(python);
    python.arg(foreign("firebase-admin/push.py")).arg(folder.path()).args(["good", "dead"]);
    python.env("REVEILLE_FCM_URL", sim.fcm_url());
    run(python).await;

    // Once over HTTP/1.1, once over HTTP/2.
    for _ in 0..2 {
        assert_eq!(phone.try_recv().unwrap().trigger().unwrap()["head"], "42");
    }
    let mut statuses: Vec<_> = sim.pushes().iter().map(|push| (push.provider, push.status)).collect();
    statuses.sort_by_key(|(_, status)| *status);
    let (ok, gone) = ((Provider::Fcm, 200), (Provider::Fcm, 404));
    assert_eq!(statuses, [ok, ok, gone, gone]);
    assert!(sim.google_tokens_issued() >= 1);
    sim.stop().await;
}
