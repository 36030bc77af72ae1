//! What tests do to a process that only it can do to itself: die at a given point, and live by a wrong clock. Compiled for tests only (the
//! feature `faults`).

#[cfg(feature = "faults")]
pub use self::wished::{clock, point};

#[cfg(feature = "faults")]
#[expect(clippy::disallowed_methods, reason = "a wish of a test is no configuration")]
mod wished {
    use std::{
        env, fs,
        path::Path,
        sync::{
            Arc, LazyLock,
            atomic::{AtomicI64, Ordering},
        },
        time::Duration,
    };

    use crate::domain::time::Clock;

    /// Where a process dies, as by `kill -9`.
    static POINT: LazyLock<Option<String>> = LazyLock::new(|| env::var("REVEILLE_FAULT").ok());
    /// A wrong clock is turned this often, and looks at every so many turns how wrong it has to be.
    const TURN_EVERY: Duration = Duration::from_millis(2);
    const TURNS_PER_LOOK: usize = 25;

    /// Dies here if the environment variable `REVEILLE_FAULT` names this point.
    pub fn point(name: &'static str) {
        if POINT.as_deref() == Some(name) {
            std::process::abort();
        }
    }

    /// The clock of this process. If `REVEILLE_FAULT_CLOCK` names a file, that says by how many milliseconds it is wrong, or `held` for one
    /// that stands still.
    pub fn clock() -> Clock {
        let Ok(file) = env::var("REVEILLE_FAULT_CLOCK") else { return Clock::System };
        let shown = Arc::new(AtomicI64::new(Clock::System.now().as_ms()));
        let clock = Clock::Manual(Arc::clone(&shown));
        std::thread::spawn(move || turn(&shown, Path::new(&file)));
        clock
    }

    fn turn(shown: &AtomicI64, file: &Path) {
        loop {
            let wish = fs::read_to_string(file).unwrap_or_default();
            for _ in 0..TURNS_PER_LOOK {
                if wish != "held" {
                    let wrong_by_ms = wish.parse().unwrap_or(0);
                    shown.store(Clock::System.now().as_ms() + wrong_by_ms, Ordering::SeqCst);
                }
                std::thread::sleep(TURN_EVERY);
            }
        }
    }
}

/// Nothing happens here but in tests.
#[cfg(not(feature = "faults"))]
pub fn point(_: &'static str) {}

/// The machine's clock.
#[cfg(not(feature = "faults"))]
pub fn clock() -> crate::domain::time::Clock {
    crate::domain::time::Clock::System
}
