//! How a command fails: its text and its exit code.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use shell::admission::NotAdmitted;
use shell::settings::METADATA;
use shell::stores::{InitError, OpenFailure};

use crate::cli::flag;

/// Why a command has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command did not succeed; exit code 1.
    Failed(String),
    /// The flags contradict each other, or ask for something unsafe; exit code 2, as for a command line that cannot be
    /// parsed.
    Usage(String),
    /// The repository, tag, user or file does not exist; exit code 3.
    NotFound(String),
    /// A check could not be finished; exit code 2, because 1 says that the check has found something.
    Unknown(String),
    /// The reader of standard output has closed it, as `head` does; exit code 0.
    OutputClosed,
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
            ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed("cannot write the output", error),
        }
    }
}

impl From<OpenFailure> for Failure {
    fn from(failure: OpenFailure) -> Self {
        Self::Failed(failure.to_string())
    }
}

impl From<NotAdmitted> for Failure {
    fn from(refusal: NotAdmitted) -> Self {
        Self::Failed(refusal.to_string())
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::NoTable => Self::Usage(format!(
                "{error}. To create a table, add {} dynamodb://TABLE",
                flag(METADATA)
            )),
            InitError::Failed(text) => Self::Failed(text),
        }
    }
}
