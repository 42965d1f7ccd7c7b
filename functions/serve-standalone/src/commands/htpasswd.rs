//! `roadstead htpasswd`: a line for a file of users, printed or put into the file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use registry::auth::Credentials;
use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::signals;
use crate::cli::HtpasswdArgs;
use crate::failure::Failure;
use crate::htpasswd::edit::{self, Edited};
use crate::htpasswd::file::{Users, check_name, decode};
use crate::htpasswd::hash::Hash;
use crate::htpasswd::watched::MAX_FILE;

/// Who may read a new file: it holds what guesses can be tried on.
const NEW_MODE: u32 = 0o600;
/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// Prints a line, or changes a file.
pub(super) fn run(args: &HtpasswdArgs) -> Result<(), Failure> {
    let user = args.user.as_str();
    check_name(user).map_err(|problem| Failure::Usage(problem.to_string()))?;
    match (&args.file, args.delete) {
        (None, _) => {
            let line = line(args)?;
            writeln!(io::stdout(), "{line}")?;
            Ok(())
        }
        (Some(file), false) => {
            // Asked for first: nobody else waits for the file while somebody types.
            let line = line(args)?;
            let before = change(file, true, |text| Ok(edit::set(text, user, &line)))?;
            let done = if before == 0 { "added" } else { "replaced" };
            writeln!(io::stdout(), "{done} {user} in {}", file.display())?;
            Ok(())
        }
        (Some(file), true) => {
            change(file, false, |text| {
                let edited = edit::remove(text, user);
                if edited.before == 0 {
                    return Err(Failure::NotFound(format!("{} has no user {user}", file.display())));
                }
                Ok(edited)
            })?;
            writeln!(io::stdout(), "removed {user} from {}", file.display())?;
            Ok(())
        }
    }
}

/// `user:hash`, with a password that is asked for.
fn line(args: &HtpasswdArgs) -> Result<String, Failure> {
    let password = if io::stdin().is_terminal() {
        let terminal = Terminal::new()?;
        let first = terminal.ask("Password: ")?;
        if terminal.ask("Again: ")? != first {
            return Err(Failure::Failed("the passwords differ".into()));
        }
        first
    } else {
        read_line()?
    };
    if password.is_empty() || password.contains('\0') {
        return Err(Failure::Failed("a password is not empty and holds no zero byte".into()));
    }
    // Four characters for each three bytes (RFC 4648, 4).
    let sent = (args.user.len() + 1 + password.len()).div_ceil(3) * 4;
    if sent > Credentials::MAX_LEN {
        return Err(Failure::Failed(format!(
            "the user's name and the password together have more than the {} bytes that a server reads",
            Credentials::MAX_LEN / 4 * 3
        )));
    }
    let hash = Hash::new(args.hash, &password).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(format!("{}:{}", args.user, hash.text()))
}

/// Replaces a file by what `edit` makes of its text, at once: whoever reads it sees the one before or the one after.
/// Says how many lines the user had before.
fn change(path: &Path, create: bool, edit: impl FnOnce(&str) -> Result<Edited, Failure>) -> Result<usize, Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::failed(format!("cannot change {}", path.display()), error);
    let absent_or = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::NotFound(format!("{} does not exist", path.display())),
        _ => cannot(&error),
    };
    let target = behind_links(path).map_err(|error| cannot(&error))?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = File::open(&folder)
        .map(|opened| (folder, opened))
        .map_err(|error| if create { cannot(&error) } else { absent_or(error) })?;
    // Two commands at once change the file one after the other. Where that cannot be had, as on some network shares,
    // the later one wins.
    let _ = flock(&folder.1, FlockOperation::LockExclusive);
    let old = match File::open(&target) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == ErrorKind::NotFound && create => None,
        Err(error) => return Err(absent_or(error)),
    };
    let mut bytes = Vec::new();
    if let Some(file) = &old {
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| cannot(&error))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(cannot(&format!("it is larger than {MAX_FILE} bytes")));
        }
    }
    let text = decode(&bytes).map_err(|error| cannot(&error))?;
    let edited = edit(&text)?;
    replace(&target, &folder, old.as_ref(), &edited.text).map_err(|error| cannot(&error))?;
    // Not a reason to change nothing: the line that is wrong may be the next to be replaced.
    if let Err(error) = Users::parse(&edited.text) {
        eprintln!("roadstead: a server will not take {}: {error}", path.display());
    }
    Ok(edited.before)
}

/// The file that a link leads to, so that the link stays when that is replaced; also one that is not there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            // It is no link, or nothing is there.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many links lead from one to the next"))
}

/// Puts `text` in the place of a file, durably, with the owner and the permissions of the one before.
fn replace(target: &Path, folder: &(PathBuf, File), old: Option<&File>, text: &str) -> io::Result<()> {
    let mut random = [0; 8];
    shell::clock::random(&mut random);
    let temporary = folder.0.join(format!(".htpasswd-{:016x}", u64::from_le_bytes(random)));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(NEW_MODE)
            .open(&temporary)?;
        if let Some(old) = old {
            let old = old.metadata()?;
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid()))).map_err(|error| {
                    let error = io::Error::from(error);
                    io::Error::new(
                        error.kind(),
                        format!("its owner cannot be kept ({error}); run this as its owner or as root"),
                    )
                })?;
            }
            file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, target).map_err(|error| match error.kind() {
            ErrorKind::ResourceBusy => io::Error::new(
                error.kind(),
                "it is a mount of its own, and can only be changed from outside; mount its directory instead",
            ),
            _ => error,
        })?;
        folder.1.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
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

/// The terminal of standard input, on which what is typed can be hidden.
struct Terminal {
    before: Termios,
}

impl Terminal {
    /// From now on SIGINT and SIGTERM end the process with the terminal as it was before.
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

    /// Asks, and does not show what is typed.
    fn ask(&self, question: &str) -> Result<String, Failure> {
        let mut hidden = self.before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // Before the question: who sees it may type. Standard output is the file that the line goes to.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(Self::failed)?;
        eprint!("{question}");
        let answer = read_line();
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).map_err(Self::failed)?;
        eprintln!();
        answer
    }

    fn failed(error: impl std::fmt::Display) -> Failure {
        Failure::failed("cannot hide what is typed", error)
    }
}
