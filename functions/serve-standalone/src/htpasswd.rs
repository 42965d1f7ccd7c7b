//! Users from a htpasswd file, as an [`Authenticator`].
//!
//! Every user may do everything. The file is looked at again at most once a second, when a request needs it, and read
//! when it has changed; what happens then is chosen so that neither an editor nor an accident locks everybody out, and
//! no revoked user stays in:
//!
//! * A file that cannot be understood changes nothing: the users before it stay, and the log says what is wrong.
//! * A file that is gone, unreadable or without users is waited for, because replacing it may pass through such a
//!   moment. After 10 seconds nobody is let in by password any more (503): it may have been removed to that end.
//!
//! Verifications run apart from the tasks that serve requests, and at most as many at once as there are cores; a
//! request that waits too long for its turn is told to come back (503). An unknown user costs what a wrong password
//! costs.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use http::HeaderValue;
use registry::auth::{AuthenticationError, Ceiling, Credentials};
use registry::{Authenticator, Identity, Principal};
use tokio::sync::Semaphore;

mod file;
mod verdicts;

use file::{LineError, Users};
use verdicts::Verdicts;

/// Between two looks at the file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For how long a file may be gone before its users are.
const GRACE: Duration = Duration::from_secs(10);
/// How long a request waits for its turn to have a password verified.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it holds no user; add one with `roadstead htpasswd NAME >> FILE`")]
    NoUsers,
    #[error(transparent)]
    Line(#[from] LineError),
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change would surely show: a file that changed just now may change again within the grain of
    /// its time stamps.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).unwrap_or(i64::MAX) > self.changed.0.saturating_add(2)
    }
}

/// What is known of the file.
struct Known {
    users: Arc<Users>,
    /// The state in which it was last read, if it need not be read again in that state.
    read: Option<Stamp>,
    /// Since when it has been gone or empty.
    gone: Option<Instant>,
    /// The last complaint in the log, which is not repeated every second.
    complaint: Option<String>,
}

/// Lets in the users of a file.
pub(crate) struct Htpasswd {
    path: PathBuf,
    /// What requests without credentials may do, if anything.
    anonymous: Option<Ceiling>,
    known: RwLock<Known>,
    started: Instant,
    /// When to look at the file next, in milliseconds after `started`.
    look_at: AtomicU64,
    verdicts: Verdicts,
    verifications: Arc<Semaphore>,
    patience: Duration,
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Htpasswd {
    /// Reads the users of `path`; `anonymous` is what requests without credentials may do.
    pub(crate) fn open(path: &Path, anonymous: Option<Ceiling>) -> Result<Self, FileError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (users, stamp) = read(path)?;
        let known = Known {
            users: Arc::new(users),
            read: stamp,
            gone: None,
            complaint: None,
        };
        Ok(Self {
            path: path.to_owned(),
            anonymous,
            known: RwLock::new(known),
            started: Instant::now(),
            look_at: AtomicU64::new(millis(LOOK_AGAIN)),
            verdicts: Verdicts::new(),
            verifications: Arc::new(Semaphore::new(cores)),
            patience: PATIENCE,
        })
    }

    /// How many users there are.
    pub(crate) fn len(&self) -> usize {
        self.known().users.len()
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The users as they are now.
    async fn users(&self) -> Result<Arc<Users>, AuthenticationError> {
        self.look().await;
        let known = self.known();
        if known.gone.is_some_and(|since| since.elapsed() >= GRACE) {
            return Err(AuthenticationError::Unavailable("the htpasswd file is gone".into()));
        }
        Ok(known.users.clone())
    }

    /// Reads the file again if it is time to look and it has changed. One request does; the others go on with what is
    /// known.
    async fn look(&self) {
        let now = millis(self.started.elapsed());
        let due = self.look_at.load(Ordering::Acquire);
        let next = now + millis(LOOK_AGAIN);
        if now < due
            || self
                .look_at
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Acquire)
                .is_err()
        {
            return;
        }
        let path = self.path.clone();
        let before = self.known().read;
        // A file on a dead network share must not hold the thread that serves requests.
        let looked = tokio::task::spawn_blocking(move || {
            let unchanged =
                before.is_some() && std::fs::metadata(&path).is_ok_and(|metadata| Some(Stamp::of(&metadata)) == before);
            if unchanged { None } else { Some(read(&path)) }
        });
        if let Ok(Some(result)) = looked.await {
            self.learn(result);
        }
    }

    fn learn(&self, result: Result<(Users, Option<Stamp>), FileError>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let error = match result {
            Ok((users, stamp)) => {
                known.read = stamp;
                known.gone = None;
                known.complaint = None;
                if users != *known.users {
                    tracing::info!(file = ?self.path, users = users.len(), "the users have changed");
                    known.users = Arc::new(users);
                    self.verdicts.clear();
                }
                return;
            }
            Err(error) => error,
        };
        known.read = None;
        let until = match error {
            FileError::Io(_) | FileError::NoUsers => {
                let since = *known.gone.get_or_insert_with(Instant::now);
                if since.elapsed() < GRACE {
                    "the users before stay for 10 seconds"
                } else {
                    "nobody can log in until it is repaired"
                }
            }
            FileError::TooLarge | FileError::NotText | FileError::Line(_) => {
                known.gone = None;
                "the users before stay until it is repaired"
            }
        };
        let complaint = format!("{error}; {until}");
        if known.complaint.as_ref() != Some(&complaint) {
            tracing::error!(file = ?self.path, "the htpasswd file is not usable: {complaint}");
            known.complaint = Some(complaint);
        }
    }

    async fn verify(&self, user: &str, password: &str) -> Result<bool, AuthenticationError> {
        let users = self.users().await?;
        // Looked up for everyone, so that it costs the same for everyone.
        let decoy = users.decoy(self.verdicts.seed(user));
        let known = users.hash(user);
        let Some(hash) = known.or(decoy) else { return Ok(false) };
        let exists = known.is_some();
        let fingerprint = self.verdicts.fingerprint(user, password, hash.text());
        if let Some(good) = self.verdicts.get(&fingerprint, Instant::now()) {
            return Ok(good);
        }
        let turn = tokio::time::timeout(self.patience, self.verifications.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(AuthenticationError::Unavailable(
                "too many passwords wait to be verified".into(),
            ));
        };
        // A client's parallel requests come with the same password: the first of them may have had the answer.
        if let Some(good) = self.verdicts.get(&fingerprint, Instant::now()) {
            return Ok(good);
        }
        let (hash, password) = (hash.clone(), password.to_owned());
        let verification = tokio::task::spawn_blocking(move || {
            let good = hash.verify(&password);
            // Here and not in the task that waits: one that is dropped meanwhile must not let more of these run.
            drop(turn);
            good
        });
        let good = match verification.await {
            Ok(good) => good && exists,
            Err(error) => return Err(AuthenticationError::Unavailable(error.into())),
        };
        self.verdicts.put(fingerprint, good, Instant::now());
        Ok(good)
    }

    fn without_credentials(&self) -> Result<Identity, AuthenticationError> {
        match &self.anonymous {
            Some(ceiling) => Ok(Identity::new(Principal::Anonymous, ceiling.clone())),
            None => Err(AuthenticationError::Unauthenticated),
        }
    }
}

#[async_trait]
impl Authenticator for Htpasswd {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        match credentials {
            Credentials::Absent => self.without_credentials(),
            Credentials::Unreadable => Err(AuthenticationError::Unauthenticated),
            Credentials::Basic { user, password } => {
                if self.verify(user, password).await? {
                    Ok(Identity::new(Principal::User(user.clone()), Ceiling::Everything))
                } else {
                    Err(AuthenticationError::Unauthenticated)
                }
            }
        }
    }

    async fn recall(&self, principal: &Principal) -> Result<Identity, AuthenticationError> {
        match principal {
            Principal::Anonymous => self.without_credentials(),
            Principal::User(name) if self.users().await?.contains(name) => {
                Ok(Identity::new(principal.clone(), Ceiling::Everything))
            }
            Principal::User(_) => Err(AuthenticationError::Unauthenticated),
        }
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(r#"Basic realm="roadstead", charset="UTF-8""#))
    }
}

/// The users of a file, and its stamp if a change from now on would surely change the stamp.
fn read(path: &Path) -> Result<(Users, Option<Stamp>), FileError> {
    use std::io::Read as _;
    let file = std::fs::File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
    let users = Users::parse(&text)?;
    if users.is_empty() {
        return Err(FileError::NoUsers);
    }
    Ok((users, Some(stamp).filter(Stamp::is_settled)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
