//! Asks for a new password: on the terminal, without echo, or from standard input.

use std::io::{self, BufRead as _, IsTerminal as _};

use registry::auth::Credentials;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::signals;
use crate::failure::Failure;

/// Whether a new password is typed on a terminal.
pub(super) fn is_typed(piped: bool) -> bool {
    io::stdin().is_terminal() && !piped
}

/// Reads a new password of `user`: typed twice on a terminal, or one line of standard input if that is no terminal or `piped`.
pub(super) fn new_password(user: &str, piped: bool) -> Result<String, Failure> {
    let password = if is_typed(piped) {
        let terminal = Terminal::new()?;
        let first = terminal.ask("Password: ")?;
        if terminal.ask("Again: ")? != first {
            return Err(Failure::Failed("the two passwords differ: run this again".into()));
        }
        first
    } else {
        read_line()?
    };
    if password.is_empty() || password.contains('\0') {
        return Err(Failure::Failed(
            "a password cannot be empty or contain a zero byte".into(),
        ));
    }
    // Four characters for each three bytes (RFC 4648, 4).
    let sent = "Basic ".len() + (user.len() + 1 + password.len()).div_ceil(3) * 4;
    if sent > Credentials::MAX_LEN {
        return Err(Failure::Failed(format!(
            "the user's name and the password together are longer than {} bytes, which is the maximum that a server reads",
            (Credentials::MAX_LEN - "Basic ".len()) / 4 * 3
        )));
    }
    Ok(password)
}

/// Reads one line of standard input, without its line end.
fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::failed("cannot read the password", error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal of standard input, whose echo can be switched off.
struct Terminal {
    before: Termios,
}

impl Terminal {
    /// From now on, SIGINT and SIGTERM restore the state of the terminal before they end the process.
    fn new() -> Result<Self, Failure> {
        let before = tcgetattr(io::stdin()).map_err(Self::failed)?;
        let restored = before.clone();
        signals::end_after(move || {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &restored);
            eprintln!();
        })
        .map_err(Self::failed)?;
        Ok(Self { before })
    }

    /// Asks a question, and reads the answer without echo.
    fn ask(&self, question: &str) -> Result<String, Failure> {
        let mut hidden = self.before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // The echo is off before the question, because the user may type as soon as it is visible. The question goes to
        // standard error: standard output may be the file of users.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(Self::failed)?;
        eprint!("{question}");
        let answer = read_line();
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).map_err(Self::failed)?;
        eprintln!();
        answer
    }

    fn failed(error: impl std::fmt::Display) -> Failure {
        Failure::failed("cannot switch off the echo of the terminal", error)
    }
}
