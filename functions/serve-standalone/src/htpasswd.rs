//! Users from a htpasswd file, as an [`Authenticator`].
//!
//! Every user may do everything. [`watched`](WatchedFile) notices changes of the file, [`file`] parses its text, [`hash`]
//! verifies a password. A password that was verified once needs no further verification until the user's line changes
//! ([`password_cache`]). Every other password waits for its turn ([`turns`]); if that takes too long, the request is answered
//! with 503. The answer for an unknown user takes as long as that for a wrong password.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::HeaderValue;
use http::request::Parts;
use registry::auth::{AuthenticationError, ChallengeScope, Credentials, Origin, PrincipalKind, Scope, TokenError};
use registry::budget::ClientKey;
use registry::{Authenticator, Identity, Principal};

use crate::reload::Reload;

pub(crate) mod edit;
pub(crate) mod file;
pub(crate) mod hash;
mod password_cache;
mod problem;
mod recent;
mod turns;
pub(crate) mod watched;

use hash::Hash;
use password_cache::{PasswordCache, PasswordFingerprint};
use turns::PasswordTurns;
use watched::{FileError, WatchedFile};

/// Authenticates the users of a file.
pub(crate) struct Htpasswd {
    file: Arc<WatchedFile>,
    /// What requests without credentials may do, if anything.
    anonymous: Option<Scope>,
    cache: PasswordCache,
    turns: PasswordTurns,
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
    /// Reads the users of `path`; `anonymous` is what requests without credentials may do.
    pub(crate) fn open(path: &Path, anonymous: Option<Scope>) -> Result<Self, FileError> {
        Ok(Self {
            file: WatchedFile::open(path)?,
            anonymous,
            cache: PasswordCache::new(),
            turns: PasswordTurns::new(),
        })
    }

    /// How many users there are.
    pub(crate) fn len(&self) -> usize {
        self.file.users().len()
    }

    async fn verify(&self, client: ClientKey, user: &str, password: &str) -> Result<bool, AuthenticationError> {
        self.file.look().await;
        let remembered = |check: &Check| {
            // The cache may still have the password of a removed user, if another user has the same hash.
            if check.exists && self.cache.is_right(&check.fingerprint) {
                Some(true)
            } else if self.cache.is_wrong(client, &check.fingerprint, Instant::now()) {
                Some(false)
            } else {
                None
            }
        };
        let Some(check) = self.check(user, password) else {
            return Ok(false);
        };
        if let Some(good) = remembered(&check) {
            return Ok(good);
        }
        let turn = self.turns.wait(user, client).await?;
        // The file may have been read again while this request has waited.
        let Some(check) = self.check(user, password) else {
            return Ok(false);
        };
        // Parallel requests of a client have the same password, and another one of them may have verified it meanwhile.
        if let Some(good) = remembered(&check) {
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

    fn without_credentials(&self) -> Result<Identity, AuthenticationError> {
        match &self.anonymous {
            Some(scope) => Ok(Identity::new(Principal::ANONYMOUS, scope.clone())),
            None => Err(AuthenticationError::Unauthenticated),
        }
    }
}

#[async_trait]
impl Authenticator for Htpasswd {
    async fn authenticate(&self, origin: Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        match credentials {
            Credentials::Absent => self.without_credentials(),
            Credentials::Bearer { .. } | Credentials::Unreadable => Err(AuthenticationError::Unauthenticated),
            Credentials::Basic { user, password } => {
                if self.verify(origin.client, user, password).await? {
                    let principal = Principal::user(user).map_err(|_| AuthenticationError::Unauthenticated)?;
                    Ok(Identity::new(principal, Scope::EVERYTHING))
                } else {
                    Err(AuthenticationError::Unauthenticated)
                }
            }
        }
    }

    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError> {
        match (principal.kind(), principal.name()) {
            (PrincipalKind::Anonymous, _) => self.without_credentials(),
            (PrincipalKind::User, Some(name)) => {
                self.file.look().await;
                if self.file.users().contains(name) {
                    Ok(Identity::new(principal.clone(), Scope::EVERYTHING))
                } else {
                    Err(AuthenticationError::Unauthenticated)
                }
            }
            // The file knows users only.
            (PrincipalKind::User | PrincipalKind::Robot | PrincipalKind::Workload, _) => {
                Err(AuthenticationError::Unauthenticated)
            }
        }
    }

    fn challenge(&self, _: &Parts, _: Option<&ChallengeScope>, _: Option<TokenError>) -> Option<HeaderValue> {
        Some(HeaderValue::from_static(r#"Basic realm="roadstead", charset="UTF-8""#))
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
