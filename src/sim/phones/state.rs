//! What a phone knows: built only from what it has read, as contract §5 tells an app to do.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One value, and the position of the event that set it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Of the event that set it.
    pub position: i64,
    /// The event's `data`.
    pub data: Value,
}

/// What a phone holds, by feed and key.
pub type Items = BTreeMap<(String, String), Item>;

/// An entry of a page.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub feed: String,
    pub position: i64,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub op: Option<String>,
    #[serde(default)]
    pub data: Option<Value>,
    /// Of `reveille.followed`: where the feed's older state is.
    #[serde(default)]
    pub snapshot: Option<String>,
}

/// An item of a snapshot.
#[derive(Debug, Deserialize)]
pub(super) struct SnapshotItem {
    pub feed: String,
    pub key: String,
    pub position: i64,
    #[serde(default)]
    pub data: Option<Value>,
}

/// The phone's memory of the backend's state.
#[derive(Debug, Default)]
pub(super) struct State {
    items: Items,
}

impl State {
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// Takes an event over, unless a newer one of its key is known.
    pub fn apply(&mut self, entry: &Entry) {
        let Some(key) = &entry.key else { return };
        let place = (entry.feed.clone(), key.clone());
        if self.items.get(&place).is_some_and(|held| held.position >= entry.position) {
            return;
        }
        if entry.op.as_deref() == Some("delete") {
            self.items.remove(&place);
        } else {
            let data = entry.data.clone().unwrap_or_default();
            self.items.insert(place, Item { position: entry.position, data });
        }
    }

    /// Takes a snapshot over: newer items win, and what it no longer has up to `through` is gone. `only` is the feed it is of, if not
    /// of all.
    pub fn replace(&mut self, items: Vec<SnapshotItem>, through: i64, only: Option<&str>) {
        let present: Items = (items.into_iter())
            .map(|item| ((item.feed, item.key), Item { position: item.position, data: item.data.unwrap_or_default() }))
            .collect();
        self.items.retain(|place, held| {
            let covered = only.is_none_or(|feed| feed == place.0) && held.position <= through;
            !covered || present.contains_key(place)
        });
        for (place, item) in present {
            if self.items.get(&place).is_none_or(|held| held.position < item.position) {
                self.items.insert(place, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(feed: &str, position: i64, op: &str) -> Entry {
        let value = json!({"feed": feed, "position": position, "type": "t", "key": "k", "op": op, "data": position});
        serde_json::from_value(value).unwrap()
    }

    fn item(feed: &str, position: i64) -> SnapshotItem {
        SnapshotItem { feed: feed.into(), key: "k".into(), position, data: Some(json!(position)) }
    }

    fn held(state: &State) -> Vec<(&str, i64)> {
        state.items.iter().map(|((feed, _), item)| (feed.as_str(), item.position)).collect()
    }

    #[test]
    fn the_newest_event_of_a_key_counts() {
        let mut state = State::default();
        state.apply(&entry("a", 5, "upsert"));
        state.apply(&entry("a", 4, "upsert"));
        assert_eq!(held(&state), [("a", 5)]);
        state.apply(&entry("a", 6, "delete"));
        assert!(state.items.is_empty());
    }

    #[test]
    fn a_snapshot_takes_away_what_it_no_longer_has() {
        let mut state = State::default();
        for (feed, position) in [("a", 1), ("b", 2), ("c", 9)] {
            state.apply(&entry(feed, position, "upsert"));
        }
        state.replace(vec![item("b", 3)], 5, None);
        assert_eq!(held(&state), [("b", 3), ("c", 9)], "c is newer than the snapshot");
        state.replace(Vec::new(), 20, Some("c"));
        assert_eq!(held(&state), [("b", 3)], "the snapshot of one feed says nothing of the others");
    }
}
