//! Users from a htpasswd file, as [`PasswordUsers`]: what they may do is decided elsewhere.
//!
//! [`watched`](WatchedFile) notices changes of the file, [`file`] parses its text, [`hash`]
//! verifies a password. A password that was verified once needs no further verification until the user's line changes
//! ([`password_cache`]). Every other password waits for its turn ([`turns`]); if that takes too long, the request is answered
//! with 503. The answer for an unknown user takes as long as that for a wrong password. [`password_threads`] hashes the
//! passwords of accounts, in the same turns.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use auth::access_token::Generation;
use auth::accounts::PasswordUsers;
use registry::auth::AuthenticationError;
use registry::budget::ClientKey;

use crate::reload::Reload;

pub(crate) mod edit;
pub(crate) mod file;
pub(crate) mod hash;
mod password_cache;
pub(crate) mod password_threads;
mod problem;
mod recent;
pub(crate) mod turns;
pub(crate) mod watched;

use hash::Hash;
use password_cache::{PasswordCache, PasswordFingerprint};
use turns::PasswordTurns;
use watched::{FileError, WatchedFile};

/// The users of a file.
pub(crate) struct Htpasswd {
    file: Arc<WatchedFile>,
    cache: PasswordCache,
    turns: Arc<PasswordTurns>,
    /// The users that are hidden by accounts, of which the log has a warning.
    hidden: Mutex<BTreeSet<String>>,
}

/// The verification of a password.
struct Check {
    /// The user's hash, or that of another user if the user does not exist.
    hash: Hash,
    exists: bool,
    fingerprint: PasswordFingerprint,
}

impl fmt::Debug for Htpasswd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htpasswd")
            .field("path", &self.file.path())
            .finish_non_exhaustive()
    }
}

impl Htpasswd {
    /// Reads the users of `path`. Passwords are verified in `turns`.
    pub(crate) fn open(path: &Path, turns: Arc<PasswordTurns>) -> Result<Self, FileError> {
        Ok(Self {
            file: WatchedFile::open(path)?,
            cache: PasswordCache::new(),
            turns,
            hidden: Mutex::default(),
        })
    }

    /// How many users there are.
    pub(crate) fn len(&self) -> usize {
        self.file.users().len()
    }

    /// What is known of a password without a verification.
    fn remembered(&self, client: ClientKey, check: &Check) -> Option<bool> {
        // The cache may still have the password of a removed user, if another user has the same hash.
        if check.exists && self.cache.is_right(&check.fingerprint) {
            Some(true)
        } else if self.cache.is_wrong(client, &check.fingerprint, Instant::now()) {
            Some(false)
        } else {
            None
        }
    }

    /// The hash to verify `password` against; `None` if there are no users.
    fn check(&self, user: &str, password: &str) -> Option<Check> {
        let users = self.file.users();
        // Looked up for existing users too, so that it takes the same time for all.
        let decoy = users.decoy(self.cache.seed(user));
        let known = users.hash(user);
        let hash = known.or(decoy)?;
        Some(Check {
            fingerprint: self.cache.fingerprint(user, password, hash.text()),
            exists: known.is_some(),
            hash: hash.clone(),
        })
    }
}

#[async_trait]
impl PasswordUsers for Htpasswd {
    async fn generation(&self, user: &str) -> Option<u64> {
        self.file.look().await;
        let users = self.file.users();
        match Generation::of_htpasswd(users.hash(user)?.text()) {
            Generation::Htpasswd(generation) => Some(generation),
            Generation::Account(_) => None,
        }
    }

    async fn known(&self, client: ClientKey, user: &str, password: &str) -> Option<bool> {
        self.file.look().await;
        self.remembered(client, &self.check(user, password)?)
    }

    async fn verify(&self, client: ClientKey, user: &str, password: &str) -> Result<bool, AuthenticationError> {
        self.file.look().await;
        let Some(check) = self.check(user, password) else {
            return Ok(false);
        };
        if let Some(good) = self.remembered(client, &check) {
            return Ok(good);
        }
        let turn = self.turns.wait(user, client).await?;
        // The file may have been read again while this request has waited.
        let Some(check) = self.check(user, password) else {
            return Ok(false);
        };
        // Parallel requests of a client have the same password, and another one of them may have verified it meanwhile.
        if let Some(good) = self.remembered(client, &check) {
            return Ok(good);
        }
        let (hash, text) = (check.hash.clone(), password.to_owned());
        let verification = tokio::task::spawn_blocking(move || {
            let good = hash.verify(&text);
            // The turn ends here and not in the waiting task. If that task is dropped, the verification still runs, and no
            // further one may begin.
            drop(turn);
            good
        });
        let good = match verification.await {
            Ok(good) => good && check.exists,
            Err(error) => return Err(AuthenticationError::Unavailable(error.into())),
        };
        if good {
            self.cache.add_right(check.fingerprint);
            self.turns.was_right(user, client);
        } else {
            self.cache.add_wrong(client, check.fingerprint, Instant::now());
        }
        // The user may have been removed or may have got another password meanwhile.
        Ok(good && self.file.users().hash(user) == Some(&check.hash))
    }

    fn hidden_by_account(&self, user: &str) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if hidden.insert(user.to_owned()) {
            tracing::warn!(
                file = ?self.file.path(),
                user,
                "the user in the file has no effect, because an account has the same name"
            );
        }
    }
}

#[async_trait]
impl Reload for Htpasswd {
    async fn reload(&self) {
        self.file.reload().await;
    }
}

#[cfg(test)]
mod tests;
