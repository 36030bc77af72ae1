//! The description of the API: whole, committed, and never breaking who relies on it.

use std::{fs, path::Path};

use reveille::api;
use serde_json::Value;

/// Set, and the committed copy is written anew: `UPDATE_OPENAPI=1 cargo test --test it openapi`.
const UPDATE: &str = "UPDATE_OPENAPI";

fn committed(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_committed_copy_is_what_the_relay_serves() {
    let described = api::description();
    if std::env::var_os(UPDATE).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        fs::write(path, format!("{described:#}\n")).unwrap();
    }
    assert!(
        committed("openapi.json") == described,
        "docs/openapi.json is not what the code says; {UPDATE}=1 writes it anew"
    );
}
