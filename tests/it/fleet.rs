//! `reveille sim --phones`: a fleet in virtual time, as a reader of docs/policy.md runs it.

use std::process::Command;

use reveille::domain::settings::Settings;
use serde_json::Value;

fn sim(arguments: &[&str]) -> (bool, String, String) {
    let (code, out, errors) = sim_with(&[], arguments);
    (code == 0, out, errors)
}

/// The same with these variables, and no others.
fn sim_with(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.arg("sim").args(arguments).current_dir(folder.path()).env_clear().envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

const SMALL: [&str; 4] = ["--phones", "50", "--days", "1"];

#[test]
fn a_small_fleet_prints_its_table_and_ends() {
    let (success, table, errors) = sim(&SMALL);
    assert!(success, "{errors}");
    assert!(table.starts_with("50 phones, 1 day, "), "{table}");
    for heading in ["| all phones ", "| iPhones ", "| Android "] {
        let rows: Vec<&str> = table.lines().skip_while(|line| !line.starts_with(heading)).skip(2).take(4).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.split('|').nth(1).unwrap().trim()).collect();
        assert_eq!(names, ["push per event", "coalesce", "+ budget", "+ re-wake"], "{table}");
    }
    assert_eq!(sim(&SMALL).1, table, "the same seed, the same table");
    assert_ne!(sim(&[&SMALL[..], &["--seed", "2"]].concat()).1, table);
}

#[test]
fn settings_can_be_tried_before_they_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plot.svg");
    let mine = r#"{"wake": {"ios": {"background": {"rewake_s": []}}}}"#;
    let (success, text, errors) =
        sim(&[&SMALL[..], &["--json", "--settings", mine, "--settings", "{}", "--svg", file.to_str().unwrap()]]
            .concat());
    assert!(success, "{errors}");
    let figures: Value = serde_json::from_str(&text).unwrap();
    let policies = figures["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 6);
    assert_eq!(policies[4]["policy"], mine);
    assert_eq!(policies[3]["all"], policies[5]["all"], "no settings are the defaults");
    let pushes = |n: usize, platform: &str| policies[n][platform]["pushes_per_event"].as_f64().unwrap();
    assert!(pushes(4, "ios") < pushes(3, "ios"), "who is not woken again gets fewer pushes: {text}");
    assert_eq!(pushes(4, "android"), pushes(3, "android"));
    for policy in policies {
        let all = &policy["all"];
        let count = |of: &Value| of.as_u64().unwrap();
        let waiting: u64 =
            all["waiting_at_the_end"].as_array().unwrap().iter().map(|reason| count(&reason["events"])).sum();
        let fetched = count(&all["background"]["fetched"]) + count(&all["alerts"]["fetched"]);
        let events = count(&all["background"]["events"]) + count(&all["alerts"]["events"]);
        assert_eq!(events, fetched + waiting, "every event is fetched or waits for a reason: {all}");
    }
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
}

#[test]
fn flags_that_make_no_sense_together_are_refused() {
    for (arguments, said) in [
        (&["--days", "3"][..], "--phones"),
        (&["--seed", "3"], "--phones"),
        (&["--phones", "0"], "1..=100000"),
        (&["--phones", "9", "--lose", "3"], "--relay"),
        (&["--relay", "http://127.0.0.1:1"], "--phones"),
        (&["--phones", "9", "--key-file", "app.key"], "--relay"),
        (&["--phones", "9", "--relay", "http://127.0.0.1:1", "--key-file", "app.key"], "app.key"),
        (&["--phones", "9", "--relay", "127.0.0.1:1"], "it must begin with http:// or https://"),
        (&["--phones", "9", "--relay", "http://127.0.0.1:1", "--days", "3"], "--days"),
        (&["--phones", "1001", "--relay", "http://127.0.0.1:1"], "at most 1000"),
        (&["--phones", "9", "--settings", "{"], "not JSON"),
        (
            &["--phones", "9", "--settings", r#"{"wake": {"ios": {"background": {"gap_s": -1}}}}"#],
            "/wake/ios/background/gap_s",
        ),
    ] {
        let (code, _, errors) = sim_with(&[("REVEILLE_APP_KEY", "rk_x")], arguments);
        assert!(code == 2 && errors.contains(said), "{arguments:?}: {code} {errors}");
    }
}

#[test]
fn phones_at_a_relay_take_an_app_key_that_is_no_flag() {
    let at_relay = ["--phones", "9", "--relay", "http://127.0.0.1:1"];
    let none: &[(&str, &str)] = &[];
    for variables in [none, &[("REVEILLE_OPERATOR_KEY", "ro_operator-key-of-the-tests")]] {
        let (code, _, errors) = sim_with(variables, &at_relay);
        assert!(code == 2 && errors.contains("REVEILLE_APP_KEY") && errors.contains("--key-file"), "{code} {errors}");
    }
    let (code, _, errors) = sim_with(&[], &[&at_relay[..], &["--app-key", "rk_x"]].concat());
    assert!(code == 2 && errors.contains("--app-key"), "{errors}");
}

#[test]
fn the_page_about_the_policy_is_about_these_defaults() {
    let page = include_str!("../../docs/policy.md");
    let block = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shown: Value = serde_json::from_str(block).unwrap();
    let mut defaults = serde_json::to_value(Settings::default()).unwrap();
    // What the page does not show has no part in the simulation.
    defaults["wake"].as_object_mut().unwrap().remove("web");
    defaults.as_object_mut().unwrap().retain(|key, _| ["wake", "poll_after_s"].contains(&key.as_str()));
    assert_eq!(shown, defaults, "run the command on docs/policy.md again and bring the page up to date");
}
