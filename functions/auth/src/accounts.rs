//! Authentication by accounts, keys, passwords and tokens, and the endpoint that grants tokens.
//!
//! Read in this order:
//!
//! 1. This file: the parts of an [`AccountAuthenticator`].
//! 2. `in_force` and `access_cache`: the access state, the policy and accounts, and how seldom they are read.
//! 3. `login`: user names and keys. `login_log`: how logins are counted and logged. `password_checks`: what a password costs,
//!    and how clients that guess wait. [`password_users`]: what a shell adds to that.
//! 4. `token_signers`: the keys that sign tokens, and the secret of the counters of wrong passwords. `token_checks`: tokens of
//!    requests. `token_grants`: tokens for clients.
//! 5. `authenticate`: the decision about a request. `api_access`: what the API asks. [`bootstrap`]: the secret for the first administrator.
//!
//! [`recent_map`] and `key_locks` are for the caches.
//!
//! # How old a decision may be
//!
//! Everything that takes a permission away works within ten seconds on every instance: an instance decides by an access state
//! and an account that it has begun to read less than ten seconds ago. A token says what its principal was when it was
//! granted; the state says which tokens are withdrawn. An identity says when the oldest of what decided about it was read.
//! If that is ten seconds ago when the body of a request has arrived, the request is decided again before it changes something.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use registry::auth::{AuthenticationError, Rules};
use registry::environment::Environment;
use registry::recent_map;
use registry::store::access::AccessStore;

mod access_cache;
mod api_access;
mod authenticate;
pub mod bootstrap;
mod in_force;
mod key_locks;
mod login;
mod login_log;
mod password_checks;
pub mod password_users;
mod token_checks;
mod token_grants;
mod token_signers;

#[cfg(test)]
mod tests;

pub(crate) use self::api_access::NotHashed;
pub use self::bootstrap::{BootstrapSecret, BootstrapSecretError};
pub use self::login_log::{CredentialKind, LoginCount, LoginResult};
pub use self::password_users::{HashWork, PasswordThreads, PasswordUsers, SameThread};
pub use self::token_signers::TokenSignerSource;

use self::access_cache::{AccessCache, ReadSettings};
use self::login::Logins;
use self::password_checks::PasswordChecks;
use self::token_checks::TokenChecks;
use self::token_signers::TokenSigners;
use crate::access_token;
use crate::password::{Parameters, PasswordError, PasswordHasher};
use crate::signing_key::TokenSigner;

/// Whether an address is that of a trusted proxy, which stands for many clients.
pub type IsProxy = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The settings of an [`AccountAuthenticator`].
#[derive(Clone)]
pub struct AccountSettings {
    /// What all clients may do without credentials until the first account is seen. `None`: what the policy says. The removal
    /// of the last account opens nothing; another start does.
    pub open: Option<Rules>,
    /// Whether clients may pull everything without credentials, whatever the policy says.
    pub anonymous_pull: bool,
    /// For how many seconds a client may use a token: within [`access_token::LIFETIME_SECONDS`].
    pub token_lifetime_s: u64,
    /// The name of the registry in tokens, as in its challenges ([`Challenge::service`](registry::auth::Challenge)).
    pub service: String,
    /// Where the keys that sign tokens are.
    pub signers: TokenSignerSource,
    /// The secret by which the first administrator is made.
    pub bootstrap: Option<BootstrapSecret>,
    /// What hashes of passwords cost.
    pub passwords: Parameters,
    /// The trusted proxies. Wrong passwords are not counted for their addresses.
    pub is_proxy: IsProxy,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self {
            open: None,
            anonymous_pull: false,
            token_lifetime_s: access_token::DEFAULT_LIFETIME_SECONDS,
            service: registry::auth::Challenge::SERVICE.to_owned(),
            signers: TokenSignerSource::default(),
            bootstrap: None,
            passwords: Parameters::default(),
            is_proxy: Arc::new(|_| false),
        }
    }
}

impl fmt::Debug for AccountSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountSettings")
            .field("open", &self.open)
            .field("anonymous_pull", &self.anonymous_pull)
            .field("token_lifetime_s", &self.token_lifetime_s)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// What an [`AccountAuthenticator`] stands on.
#[derive(Clone)]
pub struct AccountParts {
    /// Accounts, the policy and keys.
    pub store: Arc<dyn AccessStore>,
    /// Time and randomness.
    pub environment: Arc<dyn Environment>,
    /// Users that have no account.
    pub users: Option<Arc<dyn PasswordUsers>>,
    /// The threads that hash passwords.
    pub threads: Arc<dyn PasswordThreads>,
}

/// What an authenticator has counted, for metrics. No number of clients or names makes it larger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessStatistics {
    /// The logins, by kind of the credentials and result.
    pub logins: Vec<LoginCount>,
    /// How long ago the access state was read, in milliseconds. `None`: never. Only requests read it, so it grows while there
    /// are none. The state that decides about a request is younger than ten seconds.
    pub state_age_ms: Option<u64>,
    /// How many keys end within 14 days, without those that were replaced: their account has a later key that allows as much
    /// and lasts longer. Only accounts that were read for requests of clients count, at most 4,096 of them, so that nothing is
    /// read for this number.
    pub keys_ending_soon: usize,
}

/// Finds the identity of requests, and grants tokens. It is an [`Authenticator`](registry::Authenticator) and a
/// [`TokenEndpoint`](registry::token_endpoint::TokenEndpoint).
pub struct AccountAuthenticator {
    access: Arc<AccessCache>,
    signers: Arc<TokenSigners>,
    logins: Logins,
    tokens: TokenChecks,
    environment: Arc<dyn Environment>,
    settings: AccountSettings,
}

impl fmt::Debug for AccountAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountAuthenticator")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl AccountAuthenticator {
    /// Reads nothing yet. Fails if hashes with these parameters cannot be computed.
    pub fn new(parts: AccountParts, settings: AccountSettings) -> Result<Self, PasswordError> {
        let AccountParts {
            store,
            environment,
            users,
            threads,
        } = parts;
        let read = ReadSettings {
            is_open: settings.open.is_some() && users.is_none(),
            anonymous_pull: settings.anonymous_pull,
            keys: settings.signers.verifying().map(Arc::new),
        };
        let access = Arc::new(AccessCache::new(store.clone(), environment.clone(), read));
        let signers = TokenSigners::new(store.clone(), environment.clone(), settings.signers.clone());
        let signers = Arc::new(signers);
        let checks = PasswordChecks::new(
            store.clone(),
            environment.clone(),
            users.clone(),
            threads,
            PasswordHasher::new(settings.passwords)?,
            settings.is_proxy.clone(),
        );
        let logins = Logins::new(
            access.clone(),
            signers.clone(),
            checks,
            users.clone(),
            store,
            environment.clone(),
        );
        let tokens = TokenChecks::new(access.clone(), users, environment.clone(), settings.service.clone());
        Ok(Self {
            access,
            signers,
            logins,
            tokens,
            environment,
            settings,
        })
    }

    /// The keys that sign tokens, if they are in a file of the operator, and not in the table: the first one signs.
    pub(crate) fn keys_of_file(&self) -> Option<&[TokenSigner]> {
        match &self.settings.signers {
            TokenSignerSource::Table => None,
            TokenSignerSource::File(keys) => Some(keys),
        }
    }

    /// Whether an account exists. At most one read.
    pub async fn has_accounts(&self) -> Result<bool, AuthenticationError> {
        Ok(self.access.in_force().await?.state.accounts > 0)
    }

    /// The counters for metrics. Reads nothing.
    #[must_use]
    pub fn statistics(&self) -> AccessStatistics {
        AccessStatistics {
            logins: self.logins.log.counts(),
            state_age_ms: self.access.state_age_ms(),
            keys_ending_soon: self.access.keys_ending_soon(),
        }
    }

    /// Whether these are the user name and the secret of the bootstrap, which may make the first administrator. After there
    /// was one, they are good for nothing.
    pub async fn is_bootstrap(&self, user: &str, secret: &str) -> Result<bool, AuthenticationError> {
        let Some(bootstrap) = &self.settings.bootstrap else {
            return Ok(false);
        };
        if user != BootstrapSecret::USER || !bootstrap.is(secret) {
            return Ok(false);
        }
        let state = &self.access.read_now().await?.state;
        Ok(state.admins == 0 && !state.had_admin)
    }
}
