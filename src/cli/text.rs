//! Texts and times of the relay as people read them: in few characters, and without a say about the terminal.

use serde_json::Value;

use super::screen::Look;
use crate::domain::time::Timestamp;

/// A text, number or truth as it may be printed; nothing for anything else.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => String::new(),
    }
}

/// What comes from elsewhere has no say about the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The time that a value is.
pub fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// `2026-09-21 14:13:20`.
pub fn when(value: &Value) -> String {
    let at = text(value);
    at.split('.').next().unwrap_or_default().replace('T', " ").trim_end_matches('Z').to_owned()
}

/// How long ago, in one unit.
pub fn age(now: Timestamp, at: Timestamp) -> String {
    span(now.since(at).as_secs())
}

/// How long, in one unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// So many of something, in words: `1 device`, `2 devices`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How a row of a timeline looks.
pub fn look(row: &Value) -> Look {
    match (row["kind"].as_str(), row["outcome"].as_str()) {
        (Some("attempt"), Some("accepted")) | (Some("polled"), _) => Look::Good,
        (Some("attempt"), Some(_)) => Look::Bad,
        (Some("status"), _) if row["status"] != "active" => Look::Bad,
        (Some("deferred" | "dropped"), _) => Look::Odd,
        _ => Look::Plain,
    }
}

/// Lines of at most `columns` characters, broken between words.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
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
