//! Long work on a terminal: how far it is and how long it will take. Elsewhere nothing is drawn, and commands print lines.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it is drawn although nothing has moved.
const TICK: Duration = Duration::from_millis(200);
/// How often at most, per second.
const DRAWN_HZ: u8 = 10;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// So many of something, in the plural.
    Things(&'static str),
    /// Bytes.
    Bytes,
}

/// A bar on stderr, if that is a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// One at the beginning of `total`.
    pub fn new(total: u64, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWN_HZ));
        let counts = match unit {
            Unit::Things(what) => format!("{{human_pos}} of {{human_len}} {what}"),
            Unit::Bytes => "{binary_bytes} of {binary_total_bytes}".to_owned(),
        };
        // The template is ours; should it not be understood, the default one will do.
        if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:24}}  {counts}, {{eta}} left  {{msg}}")) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Whether somebody sees it.
    pub fn is_seen(&self) -> bool {
        !self.0.is_hidden()
    }

    /// So much has been done by now.
    pub fn reach(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So much more has been done.
    pub fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// What is being done.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// Prints above it.
    pub fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Takes it away.
    pub fn end(self) {
        self.0.finish_and_clear();
    }
}
