//! What commands show to people: aligned text within 100 columns, coloured if a terminal wants it.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

/// Columns of a line of prose; a terminal may have fewer.
const PROSE: usize = 100;

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
    /// Of the terminal, if it is one.
    columns: Option<usize>,
}

impl Screen {
    /// Coloured on a terminal, unless `NO_COLOR` is set to anything (no-color.org).
    #[expect(clippy::disallowed_methods, reason = "NO_COLOR belongs to the terminal, not to the relay's configuration")]
    pub fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Self { coloured: io::stdout().is_terminal() && !unwanted, columns: columns.filter(|columns| *columns > 0) }
    }

    /// One without colours, for tests.
    #[cfg(test)]
    pub fn plain(columns: Option<usize>) -> Self {
        Self { coloured: false, columns }
    }

    /// How many columns the terminal has; `None` if it is none, and nothing is to be cut.
    pub fn columns(self) -> Option<usize> {
        self.columns
    }

    /// How wide prose is.
    pub fn prose(self) -> usize {
        self.columns.map_or(PROSE, |columns| columns.clamp(60, PROSE))
    }

    /// Writes a line. A reader who went away does not end a command, whose exit code still counts.
    pub fn line(self, text: impl AsRef<str>) {
        let _ = self.tell(text);
    }

    /// Writes a line of a command that goes on until its reader goes away.
    ///
    /// # Errors
    /// The reader has gone away.
    pub fn tell(self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", text.as_ref().trim_end())
    }

    /// Writes a line beside what a machine may be reading: to stderr.
    pub fn aside(self, text: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref().trim_end());
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

/// How often it is looked whether somebody still reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until nobody reads stdout any more: the other end of a pipe has been closed, which else only the next line would find.
pub async fn abandoned() {
    let gone = PollFlags::ERR | PollFlags::HUP;
    loop {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        if poll(&mut watched, Some(&Timespec::default())).is_ok() && watched[0].revents().intersects(gone) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
        assert_eq!(Screen::plain(None).paint(Look::Bad, "lost"), "lost");
        assert_eq!(Screen { coloured: true, columns: None }.paint(Look::Bad, "lost"), "\x1b[31mlost\x1b[0m");
        assert_eq!(Screen { coloured: true, columns: None }.paint(Look::Bad, "    "), "    ");
    }
}
