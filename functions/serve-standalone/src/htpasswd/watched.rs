//! A file of users that is read again when it changes.
//!
//! The file is checked at most once a second, when a request needs it. A broken file must not lock users out. A removed
//! user must lose access. So:
//!
//! * A file that is missing, unreadable, empty or malformed changes nothing. The known users stay. The log reports the
//!   fault, and repeats it every ten minutes.
//! * If a user is missing from a file that changed just now, the file may be half written, so the whole file takes
//!   effect at the next check if it is still the same. New users and new passwords take effect at once if no user is
//!   missing.
//! * A file that has only comments has no users.
//!
//! After a signal, the file takes effect at once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::file::{LineError, Users, decode, trim};
use crate::watched::{self, Complaint, Looks, Stamp};

/// Maximum size of the file, in bytes.
pub(crate) const MAX_FILE: u64 = 16 << 20;
/// Maximum number of lines without effect that are logged at once.
const MAX_WARNINGS: usize = 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the file is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("the file has no users; add one with `roadstead htpasswd FILE NAME`")]
    NoUsers,
    #[error(transparent)]
    Line(#[from] LineError),
}

/// What is known of the file.
struct FileState {
    users: Arc<Users>,
    /// The state of the file when it was last read, if it need not be read again in that state.
    read: Option<Stamp>,
    /// Users that were just read, of which some are missing. They count if the next check finds the same.
    pending: Option<Users>,
    complaint: Complaint,
}

/// The present users of a file.
pub(super) struct WatchedFile {
    path: PathBuf,
    known: RwLock<FileState>,
    looks: Looks,
}

impl WatchedFile {
    /// Reads `path` for the first time. Fails if the file cannot be used.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, FileError> {
        let (users, stamp) = read(watched::read_open(File::open(path)?, MAX_FILE)?)?;
        if users.is_empty() {
            return Err(FileError::NoUsers);
        }
        warn_of_useless(path, &users);
        let known = FileState {
            users: Arc::new(users),
            read: Some(stamp).filter(Stamp::is_settled),
            pending: None,
            complaint: Complaint::default(),
        };
        Ok(Arc::new(Self {
            path: path.to_owned(),
            known: RwLock::new(known),
            looks: Looks::new(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The users at the last check.
    pub(super) fn users(&self) -> Arc<Users> {
        self.known().users.clone()
    }

    fn known(&self) -> RwLockReadGuard<'_, FileState> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again if a check is due and it has changed. One request does this, and waits for it for a short time.
    /// Other requests use the known users.
    pub(super) async fn look(self: &Arc<Self>) {
        let file = self.clone();
        self.looks.when_due(move || file.read_again(false)).await;
    }

    /// Reads the file again now, and uses it as it is.
    pub(super) async fn reload(self: &Arc<Self>) {
        let file = self.clone();
        self.looks.now(move || file.read_again(true)).await;
    }

    fn read_again(&self, asked: bool) {
        let before = self.known().read;
        if !asked && before.is_some() && Stamp::now(&self.path) == before {
            return;
        }
        let file = watched::read(&self.path, MAX_FILE);
        self.learn(file.map_err(FileError::from).and_then(read), asked);
    }

    fn learn(&self, result: Result<(Users, Stamp), FileError>, asked: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let (users, stamp) = match result {
            Ok(read) => read,
            Err(error) => {
                known.read = None;
                known.pending = None;
                return self.complain(&mut known, &error, asked);
            }
        };
        if known.complaint.end() {
            tracing::info!(file = ?self.path, "the file of users is usable again");
        }
        known.read = Some(stamp).filter(Stamp::is_settled);
        if users == *known.users {
            known.pending = None;
            if asked {
                tracing::info!(file = ?self.path, users = users.len(), "the users were read again and are the same");
            }
            return;
        }
        let sure = asked || known.read.is_some() || users.include(&known.users);
        if !sure && known.pending.as_ref() != Some(&users) {
            known.pending = Some(users);
            return;
        }
        known.pending = None;
        if users.is_empty() {
            tracing::warn!(file = ?self.path, "the file of users has only comments, so there are no users and no client can log in");
        } else {
            tracing::info!(file = ?self.path, users = users.len(), "the users have changed");
        }
        warn_of_useless(&self.path, &users);
        known.users = Arc::new(users);
    }

    fn complain(&self, known: &mut FileState, error: &FileError, asked: bool) {
        let text = error.to_string();
        if known.complaint.is_due(&text, asked) {
            tracing::error!(
                file = ?self.path,
                "the file of users is not usable: {text}; the previous users stay valid until the file is repaired"
            );
        }
    }
}

/// Logs which lines have no effect, because an operator may rely on them.
fn warn_of_useless(path: &Path, users: &Users) {
    for user in users.reserved() {
        tracing::warn!(
            file = ?path,
            user,
            "the user cannot log in, because the name is reserved: clients send it with a key, an ID token or the bootstrap \
             secret. Give the user another name"
        );
    }
    let overridden = users.overridden();
    for line in overridden.iter().take(MAX_WARNINGS) {
        tracing::warn!(
            file = ?path,
            "the user `{}` has more than one line: line {} counts, and line {} has no effect",
            line.user, line.by, line.line
        );
    }
    if let Some(more) = overridden.len().checked_sub(MAX_WARNINGS).filter(|more| *more > 0) {
        tracing::warn!(file = ?path, "{more} more lines have no effect");
    }
}

/// The users of a file, and its state before it was read.
fn read(file: Option<watched::Read>) -> Result<(Users, Stamp), FileError> {
    let watched::Read { bytes, stamp, .. } = file.ok_or(FileError::TooLarge)?;
    let text = decode(&bytes)?;
    // An editor or a full disk can leave such a file, for a short time or for ever. It does not mean that there are no users.
    if trim(&text).is_empty() {
        return Err(FileError::NoUsers);
    }
    Ok((Users::parse(&text)?, stamp))
}

#[cfg(test)]
impl WatchedFile {
    /// Makes the next request look at the file, as if a second had passed.
    pub(super) fn a_second_later(&self) {
        self.looks.a_second_later();
    }

    /// Makes no request look at the file.
    pub(super) fn never_look(&self) {
        self.looks.never();
    }

    /// The fault that was logged last.
    pub(super) fn complaint(&self) -> Option<String> {
        self.known().complaint.text()
    }
}
