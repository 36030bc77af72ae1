//! The environment of this process: it is read here only.

use std::ffi::OsString;

use super::{
    remote::{APP_KEY, DEVICE_TOKEN},
    settings::SETTINGS,
};

/// What our variables begin with.
const OURS: &str = "REVEILLE_";
/// What tests ask for (`fault`).
const OF_TESTS: [&str; 2] = ["REVEILLE_FAULT", "REVEILLE_FAULT_CLOCK"];

/// A variable.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(readable)
}

/// The variables that are called as ours are and that nobody reads: one is misspelt, perhaps.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn unknown_variables() -> Vec<String> {
    unknown(std::env::vars_os().map(|(name, value)| (readable(name), readable(value))))
}

fn readable(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// An empty variable counts as not set.
fn unknown(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let odd = variables.filter(|(name, value)| {
        name.starts_with(OURS) && !value.is_empty() && !is_known(name) && !is_of_a_cluster(name, value)
    });
    let mut names: Vec<String> = odd.map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

fn is_known(name: &str) -> bool {
    let of_commands = [APP_KEY, DEVICE_TOKEN].contains(&name);
    let of_tests = cfg!(feature = "faults") && OF_TESTS.contains(&name);
    of_commands || of_tests || SETTINGS.iter().any(|setting| setting.env == name)
}

/// Kubernetes tells each container where services are: one that is called `reveille` makes REVEILLE_PORT=tcp://… and more.
fn is_of_a_cluster(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT_") || (name.ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_named() {
        let variables = [
            ("REVEILLE_LISTNE", "127.0.0.1:1"),
            ("REVEILLE_PORT", "8080"),
            ("REVEILLE_LISTEN", "127.0.0.1:1"),
            ("REVEILLE_APP_KEY", "rk_1"),
            ("REVEILLE_DEVICE_TOKEN", "dt_1"),
            ("REVEILLE_NOTHING", ""),
            ("REVEILLE_SERVICE_HOST", "10.0.0.1"),
            ("REVEILLE_PORT_8080_TCP_PROTO", "tcp"),
            ("REVEILLE_DB_PORT", "tcp://10.0.0.1:5432"),
            ("PATH", "/bin"),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(unknown(variables), ["REVEILLE_LISTNE", "REVEILLE_PORT"]);
        let relays = SETTINGS.iter().map(|setting| (setting.env.to_owned(), "x".to_owned()));
        assert_eq!(unknown(relays), Vec::<String>::new());
    }
}
