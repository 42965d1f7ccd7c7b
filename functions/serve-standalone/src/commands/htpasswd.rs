//! `roadstead htpasswd`: changes a file of users, or prints a line for one.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Uid, fchown, flock};

use super::prompt::new_password;
use crate::cli::HtpasswdArgs;
use crate::failure::Failure;
use crate::htpasswd::edit::{self, Edited};
use crate::htpasswd::file::{Users, check_name, decode};
use crate::htpasswd::hash::Hash;
use crate::htpasswd::watched::MAX_FILE;

/// The permissions of a new file. Only its owner can read it, because passwords can be guessed from hashes.
const NEW_MODE: u32 = 0o600;
/// Maximum number of symbolic links in a row; Linux follows the same number.
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
            // The password is read before the file is locked, so that no other command waits while the user types.
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

/// Reads the password, and makes the line `user:hash`.
fn line(args: &HtpasswdArgs) -> Result<String, Failure> {
    let password = new_password(&args.user, false)?;
    let hash = Hash::new(args.hash, &password).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(format!("{}:{}", args.user, hash.text()))
}

/// Replaces the text of a file by the result of `edit`, in one step: a reader sees the old file or the new one. Returns how
/// many lines the user had before.
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
    // Two commands change the file one after the other. Some network shares have no locks; there the later command wins.
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
    // An invalid line does not stop the change: the next command may replace that line.
    if let Err(error) = Users::parse(&edited.text) {
        eprintln!("roadstead: warning: a server cannot use {}: {error}", path.display());
    }
    Ok(edited.before)
}

/// The file behind symbolic links, which need not exist. This file is replaced, so that the links stay.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("")).join(next),
            // It is no link, or it does not exist.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => return Ok(target),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many symbolic links in a row"))
}

/// Replaces a file by `text`, durably. The new file has the owner and the permissions of the old one.
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
                        format!("the new file cannot have the same owner ({error}); run this as the owner or as root"),
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
                "the file itself is a mount, and can be changed only outside of the container; mount its directory instead",
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
