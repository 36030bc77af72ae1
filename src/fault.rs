//! Fault points: where a test may have the process die, as by `kill -9`. Compiled for tests only (the feature `faults`).

/// Dies here if the environment variable `REVEILLE_FAULT` names this point.
#[cfg(feature = "faults")]
#[expect(clippy::disallowed_methods, reason = "a wish of a test is no configuration")]
pub fn point(name: &'static str) {
    static WANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("REVEILLE_FAULT").ok());
    if WANTED.as_deref() == Some(name) {
        std::process::abort();
    }
}

/// Nothing happens here but in tests.
#[cfg(not(feature = "faults"))]
pub fn point(_: &'static str) {}
