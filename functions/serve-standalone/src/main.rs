//! The `roadstead` program: reads its command line, and hands over.

use std::process::ExitCode;

/// Returns freed buffers to the system, which keeps memory low and steady under many uploads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Read here and not in the library: another commit then compiles no more than this file.
    serve_standalone::run(std::env::args_os(), option_env!("ROADSTEAD_COMMIT"))
}
