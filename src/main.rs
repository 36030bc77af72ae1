//! The `reveille` command.

use std::process::ExitCode;

/// A push takes a hundred small allocations on one thread that another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match reveille::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader of the terminal wants the causes in one line, each once, not a backtrace.
            let causes = error.chain().map(ToString::to_string);
            let text = causes.fold(String::new(), |text, cause| match text.as_str() {
                "" => cause,
                told if told.contains(&cause) => text,
                told => format!("{told}: {cause}"),
            });
            #[expect(clippy::disallowed_macros, reason = "a command says why it failed on stderr")]
            {
                eprintln!("reveille: {text}");
            }
            ExitCode::FAILURE
        }
    }
}
