//! The `reveille` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match reveille::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader of the terminal wants the causes in one line, not a backtrace.
            #[expect(clippy::disallowed_macros, reason = "a command says why it failed on stderr")]
            {
                eprintln!("reveille: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
