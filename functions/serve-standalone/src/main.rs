//! The `roadstead` program: reads its command line, and hands over.

use std::process::ExitCode;

/// Returns freed buffers to the system, which keeps memory low and steady under many uploads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    serve_standalone::run(std::env::args_os())
}
