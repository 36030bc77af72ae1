//! What commands show to people: aligned text within 100 columns, coloured if a terminal wants it.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Odd,
    Bad,
}

impl Look {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Odd => "33",
            Self::Bad => "31",
        }
    }
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    coloured: bool,
}

impl Screen {
    /// Coloured on a terminal, unless `NO_COLOR` is set to anything (no-color.org).
    #[expect(clippy::disallowed_methods, reason = "NO_COLOR belongs to the terminal, not to the relay's configuration")]
    pub fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { coloured: std::io::stdout().is_terminal() && !unwanted }
    }

    /// Writes a line. A reader who went away does not end a command, whose exit code still counts.
    pub fn line(self, text: impl AsRef<str>) {
        let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref().trim_end());
    }

    /// `text` with a look, which takes no column.
    pub fn paint(self, look: Look, text: &str) -> String {
        if self.coloured && look != Look::Plain && !text.trim().is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", look.code())
        } else {
            text.to_owned()
        }
    }
}

/// A time as people read it: `7 ms`, `2.31 s`.
pub fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(time(Duration::from_micros(7900)), "7 ms");
        assert_eq!(time(Duration::from_millis(2314)), "2.31 s");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        assert_eq!(Screen { coloured: false }.paint(Look::Bad, "lost"), "lost");
        assert_eq!(Screen { coloured: true }.paint(Look::Bad, "lost"), "\x1b[31mlost\x1b[0m");
        assert_eq!(Screen { coloured: true }.paint(Look::Bad, "    "), "    ");
    }
}
