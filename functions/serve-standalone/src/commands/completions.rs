//! `roadstead completions`.

use std::io::{self, Write as _};

use clap_complete::Shell;

use crate::cli;
use crate::failure::Failure;

/// Prints the completion script for `shell`.
pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    // Into memory first: the generator panics if standard output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "roadstead", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}
