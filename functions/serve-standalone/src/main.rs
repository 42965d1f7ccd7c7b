//! The `roadstead` program: runs the library with the command line.

use std::process::ExitCode;

/// This allocator returns freed memory to the system, so that memory stays low and stable under many uploads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The commit is read here and not in the library, so that a new commit compiles only this file again.
    serve_standalone::run(std::env::args_os(), option_env!("ROADSTEAD_COMMIT"))
}
