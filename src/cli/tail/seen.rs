//! Which rows have been shown already: an attempt is shown when it begins, and again when it has ended.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use crate::{cli::text::time, domain::time::Timestamp};

/// Rows that are so much older than the newest one are not asked for any more.
const KEPT: Duration = Duration::from_secs(300);

/// What is known of the rows of the last minutes.
#[derive(Debug, Default)]
pub struct Seen {
    rows: HashMap<String, Row>,
    newest: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    at: Timestamp,
    /// It is an attempt without an outcome, which comes again.
    open: bool,
}

impl Seen {
    /// Whether a row was shown before as it is now.
    pub fn knows(&self, row: &Value) -> bool {
        let known = row["id"].as_str().and_then(|id| self.rows.get(id));
        known.is_some_and(|known| known.open == is_open(row))
    }

    /// Whether a row is new or has changed; from now on it is known.
    pub fn is_news(&mut self, row: &Value) -> bool {
        let (Some(id), Some(at)) = (row["id"].as_str(), time(&row["at"])) else { return true };
        let news = !self.knows(row);
        self.rows.insert(id.to_owned(), Row { at, open: is_open(row) });
        if self.newest.is_none_or(|newest| newest < at) {
            self.newest = Some(at);
            self.rows.retain(|_, row| row.at >= at - KEPT);
        }
        news
    }

    /// The newest time of all rows.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Whether a row of before that time is still to change, and came after `since`.
    pub fn awaits(&self, since: Option<Timestamp>, before: Timestamp) -> bool {
        self.rows.values().any(|row| row.open && row.at < before && since.is_none_or(|since| row.at >= since))
    }
}

fn is_open(row: &Value) -> bool {
    row["kind"] == "attempt" && row["outcome"].is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: &str, at_s: i64, outcome: Value) -> Value {
        json!({"id": id, "at": Timestamp::from_ms(at_s * 1000), "kind": "attempt", "outcome": outcome})
    }

    #[test]
    fn an_attempt_is_news_twice() {
        let mut seen = Seen::default();
        let (begun, ended) = (row("att_1", 10, Value::Null), row("att_1", 10, json!("accepted")));
        assert!(seen.is_news(&begun) && !seen.is_news(&begun));
        assert!(seen.awaits(None, Timestamp::from_ms(11_000)) && !seen.awaits(None, Timestamp::from_ms(10_000)));
        assert!(
            !seen.awaits(Some(Timestamp::from_ms(10_500)), Timestamp::from_ms(11_000)),
            "it is not asked for any more"
        );
        assert!(seen.is_news(&ended) && !seen.is_news(&ended));
        assert!(!seen.awaits(None, Timestamp::from_ms(11_000)));
    }

    #[test]
    fn what_is_past_is_forgotten() {
        let mut seen = Seen::default();
        for number in 0..1000 {
            seen.is_news(&row(&format!("att_{number}"), number, json!("accepted")));
        }
        assert_eq!(seen.newest(), Some(Timestamp::from_ms(999_000)));
        assert_eq!(seen.rows.len(), 301);
    }
}
