//! Settings as they were parsed the last time: they are looked up for every claim, answer and poll.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::{id::AppId, settings::Settings};

/// By app; the text that they were parsed from tells whether they still hold.
#[derive(Debug, Default)]
pub(super) struct SettingsCache(Mutex<HashMap<AppId, (String, Arc<Settings>)>>);

/// Apps whose settings are kept.
const KEPT: usize = 10_000;

impl SettingsCache {
    /// The settings that these overrides make.
    pub fn get(&self, app: AppId, overrides: &str) -> Arc<Settings> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, settings)) = kept.get(&app)
            && text == overrides
        {
            return Arc::clone(settings);
        }
        // What was stored has been checked; should it be unreadable, the defaults are the safe side.
        let parsed = serde_json::from_str(overrides).ok().and_then(|overrides| Settings::of(&overrides).ok());
        let settings = Arc::new(parsed.unwrap_or_default());
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(app, (overrides.to_owned(), Arc::clone(&settings)));
        settings
    }
}
