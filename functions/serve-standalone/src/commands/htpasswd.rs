//! `roadstead htpasswd`: a line for a file of users.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Failure;

/// 2^12 rounds: a quarter of a second for whoever guesses, and for the server once a minute for each client. bcrypt
/// and not argon2id, because a verification takes no memory to speak of.
const COST: u32 = 12;
/// bcrypt reads no more than this many bytes of a password.
const MAX_PASSWORD: usize = 72;

/// Prints `user:hash`.
pub(super) fn run(user: &str) -> Result<(), Failure> {
    if user.is_empty() || user.len() > 255 || user.chars().any(|character| character == ':' || character.is_control()) {
        return Err(Failure::Usage(
            "a user's name is 1 to 255 bytes long and holds no colon and no control character".into(),
        ));
    }
    let password = if io::stdin().is_terminal() {
        let first = ask("Password: ")?;
        if ask("Again: ")? != first {
            return Err(Failure::Failed("the passwords differ".into()));
        }
        first
    } else {
        read_line()?
    };
    if password.is_empty() || password.len() > MAX_PASSWORD || password.contains('\0') {
        return Err(Failure::Failed(format!(
            "a password is 1 to {MAX_PASSWORD} bytes long and holds no zero byte"
        )));
    }
    let hash = bcrypt::hash(&password, COST).map_err(|error| Failure::failed("cannot hash the password", error))?;
    writeln!(io::stdout(), "{user}:{hash}")?;
    Ok(())
}

/// One line of standard input, without its end.
fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::failed("cannot read the password", error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal, and does not show what is typed.
fn ask(question: &str) -> Result<String, Failure> {
    let failed = |error: rustix::io::Errno| Failure::failed("cannot hide what is typed", error);
    let terminal = io::stdin();
    let before = tcgetattr(&terminal).map_err(failed)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // Standard output is the file that the line goes to.
    eprint!("{question}");
    tcsetattr(&terminal, OptionalActions::Flush, &hidden).map_err(failed)?;
    let answer = read_line();
    tcsetattr(&terminal, OptionalActions::Flush, &before).map_err(failed)?;
    eprintln!();
    answer
}
