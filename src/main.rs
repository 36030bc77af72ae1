//! The `reveille` command.

use std::process::ExitCode;

/// A push takes a hundred small allocations on one thread that another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    reveille::cli::run()
}
