//! Counts logins, and writes their lines of the log: with the target `audit`, and without secrets.
//!
//! A login is the check of a password, a key or an access token. The right token of a request is counted only, since it was
//! logged when it was issued. The log has one line for a login that repeats: clients send the same credentials with each
//! request, and machines repeat an old password for days.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use registry::Principal;
use registry::auth::{CredentialId, Origin};
use registry::environment::Environment;
use registry::store::Timestamp;

use super::recent_map::RecentMap;
use crate::keyed_hash::KeyedHash;

/// The time after which a login that repeats is logged again, in milliseconds.
const REPEAT_MS: u64 = 15 * 60 * 1000;
/// The maximum number of logins that are known to be logged.
const MAX_LOGGED: usize = 16_384;

/// What a client logs in with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CredentialKind {
    /// A password.
    Password,
    /// A key of an account.
    Key,
    /// A token.
    Token,
}

impl CredentialKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Password, Self::Key, Self::Token];

    /// A short stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Key => "key",
            Self::Token => "token",
        }
    }
}

/// How a login ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LoginResult {
    /// The credentials are good.
    Accepted,
    /// They are not.
    Refused,
    /// The client has to wait, because it has sent too many wrong passwords. They were not checked.
    Delayed,
    /// They could not be checked now.
    Unchecked,
}

impl LoginResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::Delayed, Self::Unchecked];

    /// A short stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Delayed => "delayed",
            Self::Unchecked => "unchecked",
        }
    }

    /// The event of a line. `None`: there is no line; what could not be checked is a fault, which is logged elsewhere.
    const fn event(self) -> Option<&'static str> {
        match self {
            Self::Accepted => Some("login.accepted"),
            Self::Refused => Some("login.refused"),
            Self::Delayed => Some("login.delayed"),
            Self::Unchecked => None,
        }
    }
}

/// How many logins by one kind of credentials had one result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginCount {
    /// The kind.
    pub kind: CredentialKind,
    /// The result.
    pub result: LoginResult,
    /// The number since the start of the process.
    pub count: u64,
}

/// A login.
pub(super) struct LoginAttempt<'a> {
    pub(super) origin: &'a Origin,
    pub(super) kind: CredentialKind,
    /// The user name, as the client has sent it. It may be a mistyped password, so it is not logged.
    pub(super) user: &'a str,
    /// The secret. It is not logged.
    pub(super) secret: &'a str,
    /// Who logs in, if there is such an account or user.
    pub(super) principal: Option<Principal>,
    /// The key.
    pub(super) credential: Option<CredentialId>,
}

/// Identifies a login that was logged. It reveals nothing.
type LoginPrint = [u8; 32];

/// Counts logins and logs them.
pub(super) struct LoginLog {
    environment: Arc<dyn Environment>,
    /// By kind and result.
    counts: [[AtomicU64; LoginResult::ALL.len()]; CredentialKind::ALL.len()],
    /// Its key is random and never leaves the process.
    keyed: KeyedHash,
    logged: Mutex<RecentMap<LoginPrint, Timestamp>>,
}

impl LoginLog {
    pub(super) fn new(environment: Arc<dyn Environment>) -> Self {
        let mut key = [0; 64];
        environment.random(&mut key);
        Self {
            environment,
            counts: Default::default(),
            keyed: KeyedHash::new(&key),
            logged: Mutex::new(RecentMap::new(MAX_LOGGED)),
        }
    }

    /// The number of logins of each kind with each result.
    pub(super) fn counts(&self) -> Vec<LoginCount> {
        let kinds = CredentialKind::ALL.into_iter();
        let pairs = kinds.flat_map(|kind| LoginResult::ALL.map(|result| (kind, result)));
        pairs
            .map(|(kind, result)| LoginCount {
                kind,
                result,
                count: self.counter(kind, result).load(Ordering::Relaxed),
            })
            .collect()
    }

    fn counter(&self, kind: CredentialKind, result: LoginResult) -> &AtomicU64 {
        &self.counts[kind as usize][result as usize]
    }

    /// Counts a login by `kind` that is not logged.
    pub(super) fn count(&self, kind: CredentialKind, result: LoginResult) {
        self.counter(kind, result).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a login, and logs it unless it repeats. `reason` says why the right secret is refused.
    pub(super) fn ended(&self, attempt: &LoginAttempt<'_>, result: LoginResult, reason: Option<&str>) {
        self.count(attempt.kind, result);
        let Some(event) = result.event() else { return };
        if self.repeats(attempt, result) {
            return;
        }
        let kind = attempt.kind.as_str();
        tracing::info!(
            target: "audit",
            event,
            principal = attempt.principal.as_ref().map(Principal::as_str),
            credential = attempt.credential.map(tracing::field::display),
            address = attempt.origin.address.map(tracing::field::display),
            detail = reason.map_or_else(|| kind.to_owned(), |reason| format!("{kind}: {reason}"))
        );
    }

    /// Whether the same login was logged a short time ago. A client that has to wait has one line for each account that it
    /// names, whatever its passwords are, and one for all names that nobody has.
    fn repeats(&self, attempt: &LoginAttempt<'_>, result: LoginResult) -> bool {
        let client = match attempt.origin.address {
            Some(address) => address.to_string(),
            None => attempt.origin.client.to_string(),
        };
        let principal = attempt.principal.as_ref().map_or("", Principal::as_str);
        let (user, secret) = match result {
            LoginResult::Delayed => ("", ""),
            LoginResult::Accepted | LoginResult::Refused | LoginResult::Unchecked => (attempt.user, attempt.secret),
        };
        let parts = [result.as_str(), &client, principal, user, secret];
        let print = self.keyed.of(&parts.map(str::as_bytes));
        let now = self.environment.now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Timestamp| at <= now && now.millis_since(at) < REPEAT_MS;
        if logged.get(&print).is_some_and(is_recent) {
            return true;
        }
        logged.insert(print, now);
        false
    }
}
