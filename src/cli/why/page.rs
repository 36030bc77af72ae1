//! A timeline on a screen: who the device is, how it stands, and what happened, newest first.

use serde_json::Value;

use crate::{
    cli::screen::{Look, Screen},
    domain::time::Timestamp,
};

/// Columns of a line.
const WIDTH: usize = 100;
/// Columns before a sentence: when, how long ago, and what kind.
const INDENT: usize = 41;

/// Shows a device and a page of its timeline.
pub(super) fn show(screen: Screen, device: &Value, timeline: &Value, now: Timestamp) {
    for (name, text) in header(device, now) {
        for (at, line) in wrapped(&text, WIDTH - 10).into_iter().enumerate() {
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
        for (line, says) in wrapped(&text(&row["says"]), WIDTH - INDENT).into_iter().enumerate() {
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
    for (line, says) in wrapped(says, WIDTH - label.len()).into_iter().enumerate() {
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

fn look(row: &Value) -> Look {
    match (row["kind"].as_str(), row["outcome"].as_str()) {
        (Some("attempt"), Some("accepted")) | (Some("polled"), _) => Look::Good,
        (Some("attempt"), Some(_)) => Look::Bad,
        (Some("status"), _) if row["status"] != "active" => Look::Bad,
        (Some("deferred" | "dropped"), _) => Look::Odd,
        _ => Look::Plain,
    }
}

/// A text or number as it may be printed; nothing for anything else.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// What comes from elsewhere has no say about the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// `2026-09-21 14:13:20`.
fn when(value: &Value) -> String {
    let at = text(value);
    at.split('.').next().unwrap_or_default().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// How long ago, in one unit.
fn age(now: Timestamp, at: Timestamp) -> String {
    match now.since(at).as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// Lines of at most `columns` characters, broken between words.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let chars = line.chars().count() + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if chars < columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_ms(1_000_000_000_000);
        for (seconds, expected) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 d")]
        {
            let at = Timestamp::from_ms(now.as_ms() - seconds * 1000);
            assert_eq!(age(now, at), expected);
        }
        assert_eq!(age(now, Timestamp::from_ms(now.as_ms() + 1)), "0 s", "clocks differ");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("a longer word", 4), ["a", "longer", "word"]);
        assert_eq!(wrapped("", 4), [""]);
    }

    #[test]
    fn nothing_speaks_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
