//! App settings: the policy of contract §8, its defaults, and how a request changes it (RFC 7396).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Invalid, device::Platform, event::Class};

/// All settings of an app, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// When a device is woken.
    pub wake: WakeSettings,
    /// What counts as having reached a position.
    pub confirm: Confirm,
    /// For how many seconds after a poll a device counts as online.
    #[schema(minimum = 0, maximum = 3600)]
    pub online_grace_s: u32,
    /// How soon a device is asked to poll by itself.
    pub poll_after_s: PollAfter,
    /// How long things are kept.
    pub retention: Retention,
}

/// The policy per platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the platforms")]
pub struct WakeSettings {
    pub ios: PlatformPolicy,
    pub android: PlatformPolicy,
    pub web: WebPolicy,
}

/// The web's policy: another platform's, or its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum WebPolicy {
    /// The same as that platform's.
    As(As),
    /// Its own.
    Own(PlatformPolicy),
}

/// A reference to another platform's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct As {
    /// Whose policy.
    #[serde(rename = "as")]
    pub platform: Referred,
}

/// A platform that has a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the platforms")]
pub enum Referred {
    Ios,
    Android,
}

/// The policy per class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the classes")]
pub struct PlatformPolicy {
    pub background: ClassPolicy,
    pub alert: ClassPolicy,
}

/// How often a device may be woken in one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassPolicy {
    /// Least seconds between two pushes.
    #[schema(minimum = 0, maximum = 86_400)]
    pub gap_s: u32,
    /// A token bucket.
    pub budget: Budget,
    /// Seconds from the previous accepted wake to the next, while nothing was fetched.
    #[schema(max_items = 10)]
    pub rewake_s: Vec<u32>,
    /// The class of those wakes; the same if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewake_as: Option<Class>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Pushes at once.
    #[schema(minimum = 1, maximum = 1000)]
    pub burst: u32,
    /// Seconds until one more.
    #[schema(minimum = 1, maximum = 86_400)]
    pub refill_s: u32,
}

/// What counts as having reached a position (contract §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// That a poll has given it.
    Fetch,
    /// That the device came back with it.
    Ack,
}

impl Confirm {
    /// How far a device is by this, of how far it has fetched and acknowledged.
    pub fn reached<T>(self, fetched: T, acked: T) -> T {
        match self {
            Self::Fetch => fetched,
            Self::Ack => acked,
        }
    }
}

/// Seconds until the next poll, by how well a device's pushes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "in words above")]
pub struct PollAfter {
    #[schema(minimum = 1, maximum = 86_400)]
    pub healthy: u32,
    #[schema(minimum = 1, maximum = 86_400)]
    pub doubtful: u32,
}

/// Days that things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "in words above")]
pub struct Retention {
    #[schema(minimum = 1, maximum = 3650)]
    pub events_days: u32,
    #[schema(minimum = 1, maximum = 3650)]
    pub attempts_days: u32,
}

/// The defaults of contract §8.
fn defaults() -> Value {
    json!({
        "wake": {
            "ios": {
                "background": {"gap_s": 60, "budget": {"burst": 2, "refill_s": 1800}, "rewake_s": [1800, 7200, 21600]},
                "alert": {"gap_s": 0, "budget": {"burst": 20, "refill_s": 60}, "rewake_s": []},
            },
            "android": {
                "background": {"gap_s": 60, "budget": {"burst": 15, "refill_s": 180}, "rewake_s": [600, 3600, 14400]},
                "alert": {"gap_s": 0, "budget": {"burst": 20, "refill_s": 60}, "rewake_s": [600], "rewake_as": "background"},
            },
            "web": {"as": "android"},
        },
        "confirm": "fetch",
        "online_grace_s": 5,
        "poll_after_s": {"healthy": 900, "doubtful": 60},
        "retention": {"events_days": 7, "attempts_days": 30},
    })
}

impl Settings {
    /// How often a device on `platform` may be woken in `class`.
    pub fn policy(&self, platform: Platform, class: Class) -> &ClassPolicy {
        let wake = &self.wake;
        let of_platform = match (platform, &wake.web) {
            (Platform::Ios, _) | (Platform::Web, WebPolicy::As(As { platform: Referred::Ios })) => &wake.ios,
            (Platform::Android, _) | (Platform::Web, WebPolicy::As(As { platform: Referred::Android })) => {
                &wake.android
            }
            (Platform::Web, WebPolicy::Own(own)) => own,
        };
        match class {
            Class::Background => &of_platform.background,
            Class::Alert => &of_platform.alert,
        }
    }

    /// The settings that `overrides` make of the defaults; errors point into the overrides.
    pub fn of(overrides: &Value) -> Result<Self, Vec<Invalid>> {
        let mut all = defaults();
        // A web policy of its own replaces the reference instead of mixing with it.
        if overrides.pointer("/wake/web").is_some_and(|web| web.get("as").is_none()) {
            all["wake"]["web"] = all["wake"]["android"].clone();
        }
        json_patch::merge(&mut all, overrides);
        let settings: Self = serde_path_to_error::deserialize(&all).map_err(|error| {
            let path = error.path().to_string();
            let pointer = if path == "." {
                String::new()
            } else {
                format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
            };
            vec![Invalid::new(pointer, error.into_inner().to_string())]
        })?;
        let errors = settings.check();
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// The overrides after a request's `patch` (RFC 7396: `null` takes an override back), and the settings they make.
    pub fn patched(overrides: &Value, patch: &Value) -> Result<(Value, Self), Vec<Invalid>> {
        let mut overrides = overrides.clone();
        json_patch::merge(&mut overrides, patch);
        let settings = Self::of(&overrides)?;
        Ok((overrides, settings))
    }

    fn check(&self) -> Vec<Invalid> {
        let mut errors = Vec::new();
        let mut platforms = vec![("ios", &self.wake.ios), ("android", &self.wake.android)];
        if let WebPolicy::Own(web) = &self.wake.web {
            platforms.push(("web", web));
        }
        for (platform, policy) in &platforms {
            if policy.background.rewake_as == Some(Class::Alert) {
                let pointer = format!("/wake/{platform}/background/rewake_as");
                errors.push(Invalid::new(pointer, "a background wake has no text that an alert could show"));
            }
        }
        let mut within = |pointer: &str, value: u32, least: u32, most: u32| {
            if value < least || value > most {
                errors.push(Invalid::new(pointer, format!("must be {least} to {most}, is {value}")));
            }
        };
        within("/online_grace_s", self.online_grace_s, 0, 3600);
        within("/poll_after_s/healthy", self.poll_after_s.healthy, 1, 86_400);
        within("/poll_after_s/doubtful", self.poll_after_s.doubtful, 1, 86_400);
        within("/retention/events_days", self.retention.events_days, 1, 3650);
        within("/retention/attempts_days", self.retention.attempts_days, 1, 3650);
        for (platform, policy) in platforms {
            for (class, policy) in [("background", &policy.background), ("alert", &policy.alert)] {
                let at = |field: &str| format!("/wake/{platform}/{class}/{field}");
                within(&at("gap_s"), policy.gap_s, 0, 86_400);
                within(&at("budget/burst"), policy.budget.burst, 1, 1000);
                within(&at("budget/refill_s"), policy.budget.refill_s, 1, 86_400);
                within(&at("rewake_s"), u32::try_from(policy.rewake_s.len()).unwrap_or(u32::MAX), 0, 10);
                for seconds in &policy.rewake_s {
                    within(&at("rewake_s"), *seconds, 1, 2_419_200);
                }
            }
        }
        errors
    }
}

impl Default for Settings {
    #[expect(clippy::expect_used, reason = "a test parses the defaults")]
    fn default() -> Self {
        Self::of(&json!({})).expect("the defaults parse")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_overrides() {
        assert_eq!(Settings::default().wake.ios.background.budget.burst, 2);
        let settings = Settings::of(&json!({"wake": {"ios": {"background": {"gap_s": 5}}}})).unwrap();
        assert_eq!(settings.wake.ios.background.gap_s, 5);
        assert_eq!(settings.wake.ios.background.budget.refill_s, 1800);
        let (overrides, settings) =
            Settings::patched(&json!({"confirm": "ack", "online_grace_s": 1}), &json!({"confirm": null})).unwrap();
        assert_eq!(overrides, json!({"online_grace_s": 1}));
        assert_eq!(settings.confirm, Confirm::Fetch);
        let own = Settings::of(&json!({"wake": {"web": {"alert": {"gap_s": 9}}}})).unwrap();
        assert!(matches!(own.wake.web, WebPolicy::Own(policy) if policy.alert.gap_s == 9));
    }

    #[test]
    fn the_web_follows_android_unless_it_says_otherwise() {
        let gap_s = |overrides: Value| {
            let settings = Settings::of(&overrides).unwrap();
            let gap_s = |platform| settings.policy(platform, Class::Background).gap_s;
            [gap_s(Platform::Ios), gap_s(Platform::Android), gap_s(Platform::Web)]
        };
        let gaps = json!({"ios": {"background": {"gap_s": 1}}, "android": {"background": {"gap_s": 2}}});
        assert_eq!(gap_s(json!({"wake": gaps})), [1, 2, 2]);
        assert_eq!(gap_s(json!({"wake": {"ios": {"background": {"gap_s": 1}}, "web": {"as": "ios"}}})), [1, 60, 1]);
        assert_eq!(gap_s(json!({"wake": {"web": {"background": {"gap_s": 3}}}})), [60, 60, 3]);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let pointer = |overrides: Value| Settings::of(&overrides).unwrap_err()[0].pointer.clone();
        assert_eq!(pointer(json!({"wake": {"ios": {"background": {"gap_s": -1}}}})), "/wake/ios/background/gap_s");
        assert_eq!(pointer(json!({"retention": {"events_days": 0}})), "/retention/events_days");
        let shown = json!({"wake": {"ios": {"background": {"rewake_as": "alert"}}}});
        assert_eq!(pointer(shown), "/wake/ios/background/rewake_as");
        assert!(Settings::of(&json!({"wakes": {}})).unwrap_err()[0].detail.contains("wakes"));
    }
}
