//! A timeline on a screen: who the device is, how it stands, and what happened, newest first.

use serde_json::Value;

use crate::{
    cli::{
        screen::{Look, Screen},
        text::{age, look, text, time, when, wrapped},
    },
    domain::time::Timestamp,
};

/// Columns before a sentence: when, how long ago, and what kind.
const INDENT: usize = 41;

/// Shows a device and a page of its timeline.
pub(super) fn show(screen: Screen, device: &Value, timeline: &Value, now: Timestamp) {
    for (name, text) in header(device, now) {
        for (at, line) in wrapped(&text, screen.prose() - 10).into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            screen.line(format!("{}{line}", screen.paint(Look::Dim, &format!("{name:<10}"))));
        }
    }
    screen.line("");
    let items = timeline["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (states, past): (Vec<_>, Vec<_>) = items.iter().partition(|row| row["kind"] == "state");
    if states.is_empty() {
        sentence(screen, Look::Good, &format!("{:<10}", "now"), "nothing waits: it has fetched all that would wake it");
    }
    for row in states {
        sentence(screen, Look::Bad, &format!("{:<10}", "now"), text(&row["says"]).as_str());
    }
    screen.line("");
    if past.is_empty() {
        screen.line("Nothing has happened yet.");
        return;
    }
    screen.line(screen.paint(Look::Dim, &format!("{:<19} {:>7}  {:<10}  what", "when (UTC)", "ago", "")));
    for row in past {
        let at = time(&row["at"]);
        let ago = at.map(|at| age(now, at)).unwrap_or_default();
        let kind = format!("{:<10}", text(&row["kind"]));
        let front = format!("{:<19} {ago:>7}  {}  ", when(&row["at"]), screen.paint(look(row), &kind));
        for (line, says) in wrapped(&text(&row["says"]), screen.prose() - INDENT).into_iter().enumerate() {
            let front = if line == 0 { front.clone() } else { " ".repeat(INDENT) };
            screen.line(format!("{front}{says}"));
        }
    }
    if timeline["next"].is_string() {
        screen.line(screen.paint(Look::Dim, "There is more; --limit shows up to 500 rows."));
    }
}

/// A label and a sentence behind it, in as many lines as it takes.
fn sentence(screen: Screen, look: Look, label: &str, says: &str) {
    for (line, says) in wrapped(says, screen.prose() - label.len()).into_iter().enumerate() {
        let label = if line == 0 { screen.paint(look, label) } else { " ".repeat(label.len()) };
        screen.line(format!("{label}{says}"));
    }
}

fn header(device: &Value, now: Timestamp) -> Vec<(&'static str, String)> {
    let given = |name: &str| Some(text(&device[name])).filter(|text| !text.is_empty());
    let mut platform = format!("{}, {}", text(&device["platform"]), text(&device["transport"]));
    for more in [given("topic"), given("environment").filter(|_| device["transport"] == "apns"), given("os")] {
        platform.extend(more.map(|more| format!(", {more}")));
    }
    platform.extend(given("app_version").map(|version| format!(", version {version}")));
    let reason = given("status_reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    let seen = time(&device["seen_at"]).map(|at| format!(", {} ago", age(now, at))).unwrap_or_default();
    vec![
        ("device", format!("{}, installation {}", text(&device["id"]), text(&device["installation_id"]))),
        ("user", given("user").unwrap_or_else(|| "nobody is signed in".to_owned())),
        ("platform", platform),
        ("status", format!("{}{reason}", text(&device["status"]))),
        ("fetched", format!("up to {}, and came back with {}", text(&device["fetched"]), text(&device["acked"]))),
        ("seen", format!("{}{seen}", when(&device["seen_at"]))),
    ]
}
