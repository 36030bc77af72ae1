//! How a command ends: its exit code, and what it says on stderr if it failed.

use std::{fmt, process::ExitCode, time::Duration};

use serde_json::Value;

use super::text::printable;
use crate::config::ConfigError;

/// Exit codes, the same for every command (docs/cli.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line, a setting, or the key it needs, is missing or wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The relay does not know the key, or the key may not do this.
    Refused = 4,
    /// The relay cannot be reached.
    Unreachable = 5,
    /// `check` found something that has failed.
    Found = 6,
}

/// What `--help` says about them.
pub const CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or no key, 3 not found, 4 refused (401, 403), \
5 the relay cannot be reached, 6 check found something.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that knows how the command is to end: what the relay refused, or that it could not be asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    text: String,
    /// One for each wrong field.
    lines: Vec<String>,
    /// After how long a repetition is worth it, if it is.
    pub pause: Option<Duration>,
    /// What the relay said, if it did.
    pub problem: Option<Value>,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Failure {
    /// One that ends the command so.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), lines: Vec::new(), pause: None, problem: None }
    }

    /// The relay's problem document, answered with this status by the relay at `url`.
    pub fn of_problem(url: &str, status: reqwest::StatusCode, problem: Value) -> Self {
        let exit = match status.as_u16() {
            401 | 403 => Exit::Refused,
            404 => Exit::NotFound,
            _ => Exit::Failed,
        };
        let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let word = |value: &Value| printable(value.as_str().unwrap_or_default());
        let lines: Vec<_> = errors
            .iter()
            .map(|error| match (word(&error["pointer"]), word(&error["detail"])) {
                (pointer, detail) if pointer.is_empty() => detail,
                (pointer, detail) => format!("{pointer}: {detail}"),
            })
            .collect();
        // The detail of a wrong value is nothing but these lines.
        let said = if lines.is_empty() { word(&problem["detail"]) } else { word(&problem["title"]) };
        let text = format!("the relay at {url} answers {status}: {said}");
        Self { exit, text, lines, pause: None, problem: Some(problem) }
    }

    /// A repetition is worth it after this.
    pub fn passes_after(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self
    }

    /// More that has to be said.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// After how long to ask again, where the relay itself has said so.
    pub fn again(&self) -> Option<Duration> {
        let status = self.problem.as_ref()?["status"].as_u64();
        self.pause.filter(|_| matches!(status, Some(429 | 503)))
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// Says why a command failed, in as few lines as it takes, and answers how it ends.
#[expect(clippy::disallowed_macros, reason = "a command says why it failed on stderr")]
pub fn report(error: &anyhow::Error) -> Exit {
    // A reader of the terminal wants the causes in one line, each once, not a backtrace.
    let causes = error.chain().map(ToString::to_string);
    let text = causes.fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        told if told.contains(&cause) => text,
        told => format!("{told}: {cause}"),
    });
    let failure = error.downcast_ref::<Failure>();
    let again = failure.and_then(Failure::again).map(|pause| format!("; try again in {} s", pause.as_secs()));
    eprintln!("reveille: {text}{}", again.unwrap_or_default());
    match failure {
        Some(failure) => failure.exit,
        // A flag, a variable or the file says what cannot be used, or lacks what is needed.
        None if error.is::<ConfigError>() => Exit::Usage,
        None => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_wrong_field_has_its_line() {
        let problem = json!({
            "title": "A value is not allowed", "detail": "/feed: must not be empty; /data: is too large",
            "errors": [{"pointer": "/feed", "detail": "must not be empty"}, {"pointer": "", "detail": "is no\u{1b}thing"}],
        });
        let failure = Failure::of_problem("http://r", StatusCode::UNPROCESSABLE_ENTITY, problem);
        assert_eq!(
            failure.to_string(),
            "the relay at http://r answers 422 Unprocessable Entity: A value is not allowed\n  /feed: must not be empty\n  is no\u{fffd}thing"
        );
        assert_eq!(failure.exit(), Exit::Failed);
    }

    #[test]
    fn the_code_says_what_kind_of_failure_it_was() {
        for (status, exit) in [(401, Exit::Refused), (403, Exit::Refused), (404, Exit::NotFound), (503, Exit::Failed)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(report(&Failure::of_problem("u", status, json!({"detail": "d"})).into()), exit);
        }
        assert_eq!(report(&ConfigError::NoAppKey.into()), Exit::Usage);
        assert_eq!(report(&ConfigError::NoMasterKey.into()), Exit::Usage);
        assert_eq!(report(&anyhow::anyhow!("the disk is full")), Exit::Failed);
    }

    #[test]
    fn only_the_relay_says_when_to_ask_again() {
        let pause = Duration::from_secs(6);
        for (status, again) in [(429, Some(pause)), (503, Some(pause)), (500, None)] {
            let (status, problem) = (StatusCode::from_u16(status).unwrap(), json!({"detail": "d", "status": status}));
            assert_eq!(Failure::of_problem("u", status, problem).passes_after(pause).again(), again, "{status}");
        }
        assert_eq!(Failure::new(Exit::Unreachable, "away").passes_after(pause).again(), None);
    }
}
