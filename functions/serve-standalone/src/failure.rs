//! How a command fails: its text and its exit code.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use shell::stores::{InitError, OpenFailure};

/// Why a command has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not work; exit code 1.
    Failed(String),
    /// What was asked for contradicts itself or is not safe; exit code 2, as for a line that cannot be understood.
    Usage(String),
    /// What was asked about does not exist; exit code 3.
    NotFound(String),
    /// Whether something is so could not be found out; exit code 2, since 1 says that it is not.
    Unknown(String),
    /// Whoever reads the output has seen enough.
    NobodyReads,
}

impl Failure {
    /// A [`Failure::Failed`] that says what was attempted.
    pub(crate) fn failed(attempt: impl Display, error: impl Display) -> Self {
        Self::Failed(format!("{attempt}: {error}"))
    }
}

impl From<io::Error> for Failure {
    /// For errors of writing to standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::failed("cannot write the output", error),
        }
    }
}

impl From<OpenFailure> for Failure {
    fn from(failure: OpenFailure) -> Self {
        Self::Failed(failure.0)
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::NoTable => Self::Usage(error.to_string()),
            InitError::Failed(text) => Self::Failed(text),
        }
    }
}
