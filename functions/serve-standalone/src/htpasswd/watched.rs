//! A file of users that is read again when it changes.
//!
//! It is looked at at most once a second, when a request needs it. What happens then is chosen so that no accident with
//! the file locks out who was in, and no revoked user stays in:
//!
//! * A file that is gone, unreadable, empty or not understood changes nothing: the users before it stay, and the log
//!   says what is wrong, again every ten minutes.
//! * A file that lacks a user it had may be only half written. If it changed just now, the next look decides: the user
//!   is out when the file has stayed the same. New users and new passwords have effect at once.
//! * A file that says in comments alone that there is no user is taken at its word.
//!
//! A signal to read it again is one to believe it as it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::file::{LineError, Users, decode, trim};
use crate::watched::{self, Complaint, Looks, Stamp};

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 16 << 20;
/// How many lines without effect are named in the log at once.
const MAX_WARNINGS: usize = 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("it holds no user; add one with `roadstead htpasswd FILE NAME`")]
    NoUsers,
    #[error(transparent)]
    Line(#[from] LineError),
}

/// What is known of the file.
struct FileState {
    users: Arc<Users>,
    /// The state in which it was last read, if it need not be read again in that state.
    read: Option<Stamp>,
    /// What was read a moment ago, and lacks users: it counts if the next look finds the same.
    pending: Option<Users>,
    complaint: Complaint,
}

/// The users of a file, as it is now.
pub(super) struct WatchedFile {
    path: PathBuf,
    known: RwLock<FileState>,
    looks: Looks,
}

impl WatchedFile {
    /// Reads `path` for the first time: then it must be usable.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, FileError> {
        let (users, stamp) = read(watched::read_open(File::open(path)?, MAX_FILE)?)?;
        if users.is_empty() {
            return Err(FileError::NoUsers);
        }
        warn_of_overridden(path, &users);
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

    /// The users as they were at the last look.
    pub(super) fn users(&self) -> Arc<Users> {
        self.known().users.clone()
    }

    fn known(&self) -> RwLockReadGuard<'_, FileState> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again if it is time to look and it has changed. One request does, and waits for it, but not for
    /// long; the others go on with what is known.
    pub(super) async fn look(self: &Arc<Self>) {
        let file = self.clone();
        self.looks.when_due(move || file.read_again(false)).await;
    }

    /// Reads the file again now, and believes it as it is.
    pub(super) async fn reload(self: &Arc<Self>) {
        let file = self.clone();
        self.looks.now(move || file.read_again(true)).await;
    }

    fn read_again(&self, told: bool) {
        let before = self.known().read;
        if !told && before.is_some() && Stamp::now(&self.path) == before {
            return;
        }
        let file = watched::read(&self.path, MAX_FILE);
        self.learn(file.map_err(FileError::from).and_then(read), told);
    }

    fn learn(&self, result: Result<(Users, Stamp), FileError>, told: bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let (users, stamp) = match result {
            Ok(read) => read,
            Err(error) => {
                known.read = None;
                known.pending = None;
                return self.complain(&mut known, &error, told);
            }
        };
        if known.complaint.end() {
            tracing::info!(file = ?self.path, "the file of users is usable again");
        }
        known.read = Some(stamp).filter(Stamp::is_settled);
        if users == *known.users {
            known.pending = None;
            if told {
                tracing::info!(file = ?self.path, users = users.len(), "the users were read again and are the same");
            }
            return;
        }
        let sure = told || known.read.is_some() || users.include(&known.users);
        if !sure && known.pending.as_ref() != Some(&users) {
            known.pending = Some(users);
            return;
        }
        known.pending = None;
        if users.is_empty() {
            tracing::warn!(file = ?self.path, "the file says that there is no user: nobody can log in");
        } else {
            tracing::info!(file = ?self.path, users = users.len(), "the users have changed");
        }
        warn_of_overridden(&self.path, &users);
        known.users = Arc::new(users);
    }

    fn complain(&self, known: &mut FileState, error: &FileError, told: bool) {
        let text = error.to_string();
        if known.complaint.is_due(&text, told) {
            tracing::error!(
                file = ?self.path,
                "the file of users is not usable: {text}; the users before stay until it is repaired"
            );
        }
    }
}

/// Says which lines have no effect: somebody may believe in them.
fn warn_of_overridden(path: &Path, users: &Users) {
    let overridden = users.overridden();
    for line in overridden.iter().take(MAX_WARNINGS) {
        tracing::warn!(
            file = ?path,
            "the user `{}` is there more than once: line {} counts, and line {} has no effect",
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
    // What an editor or a full disk leaves for a moment or for ever; nobody writes that to say that there are no users.
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

    /// What the log was last told to be wrong.
    pub(super) fn complaint(&self) -> Option<String> {
        self.known().complaint.text()
    }
}
