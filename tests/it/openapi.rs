//! The description of the API: whole, committed, and never breaking who relies on it.

use std::{collections::BTreeSet, fs, path::Path};

use reveille::{api, domain::limits};
use serde_json::Value;

use crate::support::world::{OPERATOR_KEY, World};

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

#[test]
fn every_operation_says_who_may_call_it_and_what_may_go_wrong() {
    let description = api::description();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&description) {
        let named = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{named} shares its operationId");
        assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{named} has no summary");
        let open = ["/healthz", "/v1/limits", "/problems/{slug}"].contains(&path);
        assert_eq!(operation["security"].is_null(), open, "{named}");
        let statuses: BTreeSet<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(statuses.is_superset(&BTreeSet::from(["500", "503"])), "{named}: {statuses:?}");
        assert!(open || statuses.is_superset(&BTreeSet::from(["401", "403", "404", "429"])), "{named}: {statuses:?}");
        if operation["requestBody"].is_object() {
            assert!(statuses.is_superset(&BTreeSet::from(["400", "413", "422"])), "{named}: {statuses:?}");
        }
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().unwrap();
            let told = parameters.iter().find(|it| it["in"] == "path" && it["name"] == part);
            assert!(told.is_some_and(|it| it["description"].is_string()), "{named} says nothing about {part}");
        }
    }
    assert!(ids.len() > 45, "{}", ids.len());
}

/// The numbers in the description are those of the code.
#[test]
fn limits_are_what_is_enforced() {
    let description = api::description();
    let schemas = &description["components"]["schemas"];
    let is = |pointer: &str, limit: usize| {
        let told = schemas.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not described"));
        assert_eq!(told.as_u64(), Some(limit as u64), "{pointer}");
    };
    is("/EventBatch/maxItems", limits::BATCH_EVENTS);
    is("/EventDraft/properties/type/maxLength", limits::SHORT_TEXT_CHARS);
    is("/EventDraft/properties/key/maxLength", limits::KEY_CHARS);
    is("/EventDraft/properties/href/maxLength", limits::HREF_BYTES);
    is("/WakeSpec/properties/ttl_s/maximum", limits::TTL_S as usize);
    for draft in ["RegistrationDraft", "DevicePatch"] {
        is(&format!("/{draft}/properties/token/maxLength"), limits::PUSH_TOKEN_CHARS);
        is(&format!("/{draft}/properties/user/maxLength"), limits::USER_CHARS);
        is(&format!("/{draft}/properties/feeds/maxItems"), limits::EXPLICIT_FEEDS);
    }
    is("/NewApp/properties/name/maxLength", limits::SHORT_TEXT_CHARS);
    let parameter = |path: &str, name: &str| {
        let parameters = description["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|parameter| parameter["name"] == name).unwrap()["schema"].clone()
    };
    assert_eq!(parameter("/v1/sync", "limit")["maximum"], limits::PAGE_EVENTS);
}

/// `docs/openapi-0.1.json` is what was released: who was written for it must go on working. It is replaced at a new major version only.
#[test]
fn nothing_that_was_released_has_been_taken_away() {
    let broken = breaks(&committed("openapi-0.1.json"), &api::description());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn what_breaks_clients_is_found() {
    let old = api::description();
    let broken_by = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        breaks(&old, &new)
    };
    assert_eq!(broken_by(&|_| {}), Vec::<String>::new());
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let cases: [Case<'_>; 10] = [
        ("GET /v1/stats is gone", &|new| drop(new["paths"].as_object_mut().unwrap().remove("/v1/stats"))),
        ("Attempt.reason is gone", &|new| {
            drop(new["components"]["schemas"]["Attempt"]["properties"].as_object_mut().unwrap().remove("reason"));
        }),
        ("RegistrationDraft.os is needed now", &|new| {
            new["components"]["schemas"]["RegistrationDraft"]["required"].as_array_mut().unwrap().push("os".into());
        }),
        ("Scope lacks \"admin\"", &|new| {
            new["components"]["schemas"]["Scope"]["enum"].as_array_mut().unwrap().retain(|word| word != "admin");
        }),
        ("GET /v1/stats answers no 200", &|new| {
            drop(new["paths"]["/v1/stats"]["get"]["responses"].as_object_mut().unwrap().remove("200"));
        }),
        ("EventDraft.type takes less", &|new| {
            new["components"]["schemas"]["EventDraft"]["properties"]["type"]["maxLength"] = 100.into();
        }),
        ("Attempt.try is something else", &|new| {
            new["components"]["schemas"]["Attempt"]["properties"]["try"]["type"] = "string".into();
        }),
        ("Attempt.wake may be absent", &|new| {
            new["components"]["schemas"]["Attempt"]["required"].as_array_mut().unwrap().retain(|name| name != "wake");
        }),
        ("GET /v1/me does not take {\"appKey\":[]} any more", &|new| {
            new["paths"]["/v1/me"]["get"]["security"].as_array_mut().unwrap().retain(|way| way["appKey"].is_null());
        }),
        ("GET /v1/stats: since is needed now", &|new| {
            new["paths"]["/v1/stats"]["get"]["parameters"][0]["required"] = true.into();
        }),
    ];
    for (expected, change) in cases {
        assert_eq!(broken_by(change), [expected]);
    }
}

fn operations(description: &Value) -> impl Iterator<Item = (&str, String, &Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter().filter(|(_, operation)| operation["responses"].is_object());
        operations.map(move |(method, operation)| (path.as_str(), method.to_uppercase(), operation))
    })
}

/// What of `old` is missing in `new`, or asks for more.
fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, method, operation) in operations(old) {
        let now = &new["paths"][path][method.to_lowercase()];
        if now.is_null() {
            broken.push(format!("{method} {path} is gone"));
            continue;
        }
        let successes = operation["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2'));
        let gone = successes.filter(|status| now["responses"][status.as_str()].is_null());
        broken.extend(gone.map(|status| format!("{method} {path} answers no {status}")));
        for way in operation["security"].as_array().into_iter().flatten() {
            if !now["security"].as_array().is_some_and(|ways| ways.contains(way)) {
                broken.push(format!("{method} {path} does not take {way} any more"));
            }
        }
        let parameters = |of: &Value| of["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters(now).iter().filter(|parameter| parameter["required"] == true) {
            let was = parameters(operation).into_iter().find(|it| it["name"] == parameter["name"]);
            if was.is_none_or(|was| was["required"] != true) {
                broken.push(format!("{method} {path}: {} is needed now", parameter["name"].as_str().unwrap()));
            }
        }
    }
    for (name, schema) in old["components"]["schemas"].as_object().unwrap() {
        let now = &new["components"]["schemas"][name];
        let names = |of: &Value, list: &str| -> BTreeSet<String> {
            of[list].as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        let gone = properties.filter(|(property, _)| now["properties"][property.as_str()].is_null());
        broken.extend(gone.map(|(property, _)| format!("{name}.{property} is gone")));
        // Only what clients send can be asked for; what they get may become surer, but not less sure.
        let is_sent = schema["additionalProperties"] == false;
        let kept = schema["properties"].as_object().into_iter().flatten();
        for (property, was) in kept.filter(|(property, _)| now["properties"][property.as_str()].is_object()) {
            let is = &now["properties"][property];
            if ["type", "$ref", "format", "oneOf", "items"]
                .iter()
                .any(|part| without_words(&was[part]) != without_words(&is[part]))
            {
                broken.push(format!("{name}.{property} is something else"));
            }
            let bounds =
                [("maxLength", true), ("maximum", true), ("maxItems", true), ("minLength", false), ("minimum", false)];
            let narrower = bounds.iter().any(|(bound, most)| match (was[bound].as_u64(), is[bound].as_u64()) {
                (None, is) => is.is_some(),
                (Some(was), Some(is)) => {
                    if *most {
                        is < was
                    } else {
                        is > was
                    }
                }
                (Some(_), None) => false,
            });
            if is_sent && (narrower || was["pattern"] != is["pattern"]) {
                broken.push(format!("{name}.{property} takes less"));
            }
        }
        let surer = names(schema, "required").difference(&names(now, "required")).cloned().collect::<Vec<_>>();
        broken.extend(
            surer
                .iter()
                .filter(|_| !is_sent && now.is_object())
                .map(|property| format!("{name}.{property} may be absent")),
        );
        let needed = names(now, "required").difference(&names(schema, "required")).cloned().collect::<Vec<_>>();
        broken.extend(needed.iter().filter(|_| is_sent).map(|property| format!("{name}.{property} is needed now")));
        let words = names(schema, "enum").difference(&names(now, "enum")).cloned().collect::<Vec<_>>();
        broken.extend(words.iter().map(|word| format!("{name} lacks {word:?}")));
    }
    broken
}

/// A schema without what only people read.
fn without_words(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| !["description", "examples"].contains(&name.as_str()));
            members.map(|(name, member)| (name.clone(), without_words(member))).collect()
        }
        Value::Array(items) => items.iter().map(without_words).collect(),
        other => other.clone(),
    }
}

/// Schemathesis, which nobody here wrote, makes up requests from the description and holds the answers against it.
#[tokio::test]
async fn schemathesis_finds_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/schemathesis");
    let schemathesis = folder.join(".venv/bin/schemathesis");
    assert!(schemathesis.exists(), "{} is missing: `./test` installs it, and runs this again", schemathesis.display());
    let world = World::start().await;
    let mut tokens = Vec::new();
    for number in 0..60 {
        tokens.push(world.phone(&format!("phone-{number}")).follows(&["order:42"]).await.device_token);
    }
    world.publish("order:42").await;
    world.settle().await;
    let mut run = std::process::Command::new(schemathesis);
    run.current_dir(&folder).arg("run").arg(world.url("/openapi.json"));
    // The same requests each time; more of them are made by hand: `--max-examples 1000`, without a seed.
    run.args(["--checks", "all", "--max-examples", "10", "--seed", "1", "--no-color"]);
    // What does not end, or is no answer, it cannot read; live_stream.rs and live_socket.rs do.
    run.args(["--exclude-path", "/v1/sync/stream", "--exclude-path", "/v1/sync/ws"]);
    run.env("REVEILLE_OPERATOR_KEY", OPERATOR_KEY).env("REVEILLE_APP_KEY", &world.key);
    run.env("REVEILLE_DEVICE_TOKENS", tokens.join(","));
    let finished = tokio::task::spawn_blocking(move || run.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&finished.stdout);
    assert!(finished.status.success(), "{told}\n{}", String::from_utf8_lossy(&finished.stderr));
    assert!(told.contains("Stateful") && told.contains("passed"), "{told}");
}
