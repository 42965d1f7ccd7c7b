//! `roadstead completions`.

use std::io::{self, Write as _};

use clap_complete::Shell;

use crate::cli;
use crate::failure::Failure;

/// Prints the script that makes `shell` complete the command line.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    // Into memory first: the generator panics when nobody reads its output.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "roadstead", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}
