//! Logs clients in by user name and secret, or by a key.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::auth::{
    AccountName, AuthenticationError, CredentialId, GroupName, Origin, RepositoryGrant, Scope, Subject,
};
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::store::access::{AccessChange, AccessState, AccessStore, Account, AccountChange, AccountKey};
use registry::store::{Context, Timestamp};
use registry::{Identity, Principal};

use super::access_cache::{AccessCache, KnownAccount, READ_TIMEOUT_MS, subject_of, unavailable};
use super::in_force::{InForce, PolicyInForce};
use super::login_log::{CredentialKind, LoginAttempt, LoginLog, LoginResult};
use super::password_checks::{PasswordChecks, PasswordOwner, RightPassword};
use super::password_users::PasswordUsers;
use super::recent_map::RecentMap;
use super::token_signers::TokenSigners;
use crate::access_token::Generation;
use crate::key::Key;

/// The user name that a client sends with any key.
const KEY_USER: &str = "key";
/// The user name that a client sends with an ID token.
const ID_TOKEN_USER: &str = "oidc";
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// The maximum number of keys of which it is known that their use is recorded.
const MAX_USES: usize = 16_384;
/// The maximum time of the write that records the use of a key, in milliseconds. The login waits for it.
const RECORD_TIMEOUT_MS: u64 = 1_000;
/// After a use could not be recorded, for how long no login tries to, in milliseconds.
const RECORD_PAUSE_MS: u64 = 60_000;

/// Why a client is not logged in.
#[derive(Debug)]
pub(super) enum LoginError {
    /// The secret is not good: one answer for an unknown user and a wrong password.
    Wrong,
    /// The secret is right, and the text says why it is refused.
    Refused(&'static str),
    /// It could not be checked.
    Unchecked(AuthenticationError),
}

impl From<AuthenticationError> for LoginError {
    fn from(error: AuthenticationError) -> Self {
        Self::Unchecked(error)
    }
}

impl LoginError {
    pub(super) const DISABLED: Self = Self::Refused("the account is disabled");
    pub(super) const EXPIRED: Self = Self::Refused("the key has expired");
    pub(super) const ID_TOKEN: Self = Self::Refused("this registry does not accept ID tokens yet");

    /// The result for the log, and why the right secret is refused.
    fn result(&self) -> (LoginResult, Option<&'static str>) {
        match self {
            Self::Wrong => (LoginResult::Refused, None),
            Self::Refused(text) => (LoginResult::Refused, Some(*text)),
            Self::Unchecked(error) => (result_of(error), None),
        }
    }
}

/// The result for the log of what an authenticator says.
fn result_of(error: &AuthenticationError) -> LoginResult {
    match error {
        AuthenticationError::Unauthenticated | AuthenticationError::Token(_) => LoginResult::Refused,
        AuthenticationError::TooManyAttempts { .. } => LoginResult::Delayed,
        AuthenticationError::Unavailable(_) | AuthenticationError::TooManyRequests => LoginResult::Unchecked,
    }
}

/// A client that has logged in.
pub(super) struct Login {
    in_force: Arc<InForce>,
    who: Who,
    /// When the oldest of what decided about it was read.
    read: Timestamp,
}

enum Who {
    Account {
        known: Arc<KnownAccount>,
        key: Option<CredentialId>,
    },
    User {
        principal: Principal,
        generation: u64,
    },
}

impl Login {
    /// The identity: what the policy allows, within the scope of the key.
    pub(super) fn identity(&self) -> Result<Identity, LoginError> {
        let policy = self.in_force.policy()?;
        let (known, key) = match &self.who {
            Who::Account { known, key } => (known, *key),
            Who::User { principal, .. } => {
                let identity = policy.identity_of(&Subject::new(principal.clone()));
                return Ok(identity.with_state_read(self.read));
            }
        };
        let account = known.account.as_ref().ok_or(LoginError::Wrong)?;
        let identity = known.identity(account, policy).with_state_read(self.read);
        let Some(id) = key else {
            return Ok(identity);
        };
        by_key_of(identity, id, account.keys.get(&id).ok_or(LoginError::Wrong)?)
    }

    /// Who has logged in.
    fn principal(&self) -> Option<Principal> {
        match &self.who {
            Who::Account { known, .. } => known.account.as_ref().map(Account::principal),
            Who::User { principal, .. } => Some(principal.clone()),
        }
    }

    /// The generation of the account, or of the user's line.
    pub(super) fn generation(&self) -> Generation {
        match &self.who {
            Who::Account { known, .. } => {
                Generation::Account(known.account.as_ref().map_or(0, |account| account.generation))
            }
            Who::User { generation, .. } => Generation::Htpasswd(*generation),
        }
    }

    /// The scope of the key that proved it, if it was a key that has one.
    pub(super) fn key_scope(&self) -> Option<&[RepositoryGrant]> {
        let key = self.account()?.keys.get(&self.key()?)?;
        key.scope.as_deref()
    }

    /// When the key that proved it ends, if it was a key that ends.
    pub(super) fn key_ends(&self) -> Option<Timestamp> {
        self.account()?.keys.get(&self.key()?)?.expires
    }

    /// The key that proved it.
    pub(super) fn key(&self) -> Option<CredentialId> {
        match &self.who {
            Who::Account { key, .. } => *key,
            Who::User { .. } => None,
        }
    }

    /// The groups of the account.
    pub(super) fn groups(&self) -> BTreeSet<GroupName> {
        self.account().map(|account| account.groups.clone()).unwrap_or_default()
    }

    /// The grants of the account.
    pub(super) fn grants(&self) -> &[RepositoryGrant] {
        self.account()
            .map(|account| account.grants.as_slice())
            .unwrap_or_default()
    }

    /// The account.
    pub(super) fn account(&self) -> Option<&Account> {
        match &self.who {
            Who::Account { known, .. } => known.account.as_ref(),
            Who::User { .. } => None,
        }
    }
}

/// Logs clients in.
pub(super) struct Logins {
    pub(super) access: Arc<AccessCache>,
    pub(super) keys: Arc<TokenSigners>,
    pub(super) checks: PasswordChecks,
    pub(super) users: Option<Arc<dyn PasswordUsers>>,
    pub(super) log: LoginLog,
    store: Arc<dyn AccessStore>,
    environment: Arc<dyn Environment>,
    uses: Mutex<KeyUses>,
}

/// Which uses of keys are recorded, as far as this instance knows.
struct KeyUses {
    /// The day on which the use of a key was last recorded.
    days: RecentMap<CredentialId, u32>,
    /// When a use could not be recorded.
    failed: Option<Timestamp>,
}

impl KeyUses {
    /// Whether the use of a key has to be recorded. It counts as recorded from then on.
    fn begin(&mut self, key: CredentialId, day: u32, now: Timestamp) -> bool {
        // Not after a clock was set back.
        let is_paused = self
            .failed
            .is_some_and(|at| now >= at && now.millis_since(at) < RECORD_PAUSE_MS);
        if is_paused || self.days.get(&key) == Some(day) {
            return false;
        }
        self.days.insert(key, day);
        true
    }

    /// The use of a key could not be recorded.
    fn fail(&mut self, key: CredentialId, now: Timestamp) {
        self.days.remove(&key);
        self.failed = Some(now);
    }
}

impl Logins {
    pub(super) fn new(
        access: Arc<AccessCache>,
        keys: Arc<TokenSigners>,
        checks: PasswordChecks,
        users: Option<Arc<dyn PasswordUsers>>,
        store: Arc<dyn AccessStore>,
        environment: Arc<dyn Environment>,
    ) -> Self {
        Self {
            access,
            keys,
            checks,
            users,
            log: LoginLog::new(environment.clone()),
            store,
            environment,
            uses: Mutex::new(KeyUses {
                days: RecentMap::new(MAX_USES),
                failed: None,
            }),
        }
    }

    /// Logs a client in by a user name and a secret, as in a Basic line.
    pub(super) async fn by_name(&self, origin: &Origin, user: &str, secret: &str) -> Result<Login, LoginError> {
        let kind = if user == ID_TOKEN_USER {
            CredentialKind::Token
        } else if Key::parse(secret).is_ok() {
            CredentialKind::Key
        } else {
            CredentialKind::Password
        };
        let login = self.check_name(origin, user, secret).await;
        self.login_ended(origin, kind, user, secret, &login).await;
        login
    }

    /// Logs a client in by a key alone.
    pub(super) async fn by_key(&self, origin: &Origin, secret: &str) -> Result<Login, LoginError> {
        let login = match Key::parse(secret) {
            Ok(key) => self.by_parsed_key(&key).await,
            Err(_) => Err(LoginError::Wrong),
        };
        self.login_ended(origin, CredentialKind::Key, "", secret, &login).await;
        login
    }

    /// Counts the check of an access token, and logs it if the token is refused.
    pub(super) fn token_was_checked(
        &self,
        origin: &Origin,
        token: &str,
        checked: Result<&Identity, &AuthenticationError>,
    ) {
        let Err(error) = checked else {
            self.log.count(CredentialKind::Token, LoginResult::Accepted);
            return;
        };
        let attempt = LoginAttempt {
            origin,
            kind: CredentialKind::Token,
            user: "",
            secret: token,
            principal: None,
            credential: None,
        };
        self.log.ended(&attempt, result_of(error), None);
    }

    /// Counts and logs the end of a login.
    async fn login_ended(
        &self,
        origin: &Origin,
        kind: CredentialKind,
        user: &str,
        secret: &str,
        login: &Result<Login, LoginError>,
    ) {
        let (result, reason) = match login {
            Ok(_) => (LoginResult::Accepted, None),
            Err(error) => error.result(),
        };
        let (principal, credential) = match login {
            Ok(login) => (login.principal(), login.key()),
            Err(_) => self.named(user, secret).await,
        };
        let attempt = LoginAttempt {
            origin,
            kind,
            user,
            secret,
            principal,
            credential,
        };
        self.log.ended(&attempt, result, reason);
    }

    /// Whom a client has named that was refused, if there is such an account or user, and its key. Every other name may be a
    /// mistyped password. Reads nothing: the account was read for the login.
    async fn named(&self, user: &str, secret: &str) -> (Option<Principal>, Option<CredentialId>) {
        if let Ok(key) = Key::parse(secret) {
            let principal = self.access.principal_of(key.account());
            let credential = principal.is_some().then(|| key.id());
            return (principal, credential);
        }
        let name = user.parse::<AccountName>().ok();
        let account = name.and_then(|name| self.access.principal_of(&name));
        if account.is_some() {
            return (account, None);
        }
        match &self.users {
            Some(users) if users.generation(user).await.is_some() => (Principal::user(user).ok(), None),
            _ => (None, None),
        }
    }

    async fn check_name(&self, origin: &Origin, user: &str, secret: &str) -> Result<Login, LoginError> {
        if user == ID_TOKEN_USER {
            return Err(LoginError::ID_TOKEN);
        }
        // The bootstrap secret makes accounts, and is good for nothing else. No user of a file has one of these names either.
        if user != KEY_USER && AccountName::RESERVED.contains(&user) {
            return Err(LoginError::Wrong);
        }
        // Another text that begins as a key may be the password of a user in a file.
        if let Ok(key) = Key::parse(secret) {
            if user != KEY_USER && user != key.account().as_str() {
                return Err(LoginError::Wrong);
            }
            return self.by_parsed_key(&key).await;
        }
        if user == KEY_USER {
            return Err(LoginError::Wrong);
        }
        self.by_password(origin, user, secret).await
    }

    async fn by_parsed_key(&self, key: &Key) -> Result<Login, LoginError> {
        let (in_force, known) = self.access.with_account(key.account()).await?;
        let account = known.account.as_ref().ok_or(LoginError::Wrong)?;
        let stored = account.keys.get(&key.id()).ok_or(LoginError::Wrong)?;
        if !key.matches(&stored.hash) {
            return Err(LoginError::Wrong);
        }
        if account.disabled {
            return Err(LoginError::DISABLED);
        }
        let now = self.environment.now();
        if stored.expires.is_some_and(|expires| expires <= now) {
            return Err(LoginError::EXPIRED);
        }
        self.record_use(&account.name, key.id(), now).await;
        Ok(Login {
            read: in_force.read.min(known.read),
            in_force,
            who: Who::Account {
                known,
                key: Some(key.id()),
            },
        })
    }

    async fn by_password(&self, origin: &Origin, user: &str, password: &str) -> Result<Login, LoginError> {
        // A name that no account can have may be that of a user in a file.
        let name = user.parse::<AccountName>().ok();
        let known = match &name {
            Some(name) => Some(self.access.with_account(name).await?.1),
            None => None,
        };
        let account = known.as_ref().and_then(|known| known.account.as_ref());
        let is_user = match &self.users {
            Some(users) => users.generation(user).await.is_some(),
            None => false,
        };
        let owner = match account {
            Some(account) => {
                if let (true, Some(users)) = (is_user, &self.users) {
                    users.hidden_by_account(user);
                }
                PasswordOwner::Account(account)
            }
            None if is_user => PasswordOwner::User,
            None => PasswordOwner::Nobody,
        };
        // Without it no password is checked: it would not be counted.
        let secret = self.keys.guessing(&self.access).await?;
        let right = self.checks.check(origin, user, password, &owner, &secret).await?;
        let right = right.ok_or(LoginError::Wrong)?;
        let Some(account) = account else {
            return self.user(user, known.as_deref()).await;
        };
        // The password may have waited for long, so the account is asked for again if its record is old.
        let (in_force, present) = self.access.with_account(&account.name).await?;
        match &present.account {
            Some(present) if present.password == account.password && present.kind == account.kind => {
                if present.disabled {
                    return Err(LoginError::DISABLED);
                }
            }
            _ => return Err(LoginError::Wrong),
        }
        if right == RightPassword::Renew {
            self.renew(origin.client, account, password).await;
        }
        Ok(Login {
            read: in_force.read.min(present.read),
            in_force,
            who: Who::Account {
                known: present,
                key: None,
            },
        })
    }

    /// A user without an account, whose password was right a moment ago. `absent` says that there is no account.
    async fn user(&self, user: &str, absent: Option<&KnownAccount>) -> Result<Login, LoginError> {
        let users = self.users.as_ref().ok_or(LoginError::Wrong)?;
        let generation = users.generation(user).await.ok_or(LoginError::Wrong)?;
        let in_force = self.access.in_force().await?;
        Ok(Login {
            read: absent.map_or(in_force.read, |absent| absent.read.min(in_force.read)),
            in_force,
            who: Who::User {
                principal: Principal::user(user).map_err(|_| LoginError::Wrong)?,
                generation,
            },
        })
    }

    /// Records the day on which a key is used: at most one write a day. A failure changes nothing for the client. If the table
    /// does not answer in time, the logins that have begun before this is known wait for [`RECORD_TIMEOUT_MS`], and those of
    /// the next minute do not wait.
    async fn record_use(&self, account: &AccountName, key: CredentialId, now: Timestamp) {
        let day = u32::try_from(now.0 / MS_PER_DAY).unwrap_or(u32::MAX);
        if !self.uses().begin(key, day, now) {
            return;
        }
        let cx = context(&*self.environment, ClientKey::INTERNAL, RECORD_TIMEOUT_MS);
        if let Err(error) = self.store.record_use(cx, account, key, day).await {
            tracing::warn!(%error, account = account.as_str(), "the day on which a key was used could not be recorded");
            self.uses().fail(key, self.environment.now());
        }
    }

    fn uses(&self) -> MutexGuard<'_, KeyUses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a new hash of a password that was right, because new hashes have other parameters. The next login does it if this
    /// one cannot.
    async fn renew(&self, client: ClientKey, account: &Account, password: &str) {
        if let Err(error) = self.try_renew(client, account, password).await {
            tracing::warn!(
                ?error,
                account = account.name.as_str(),
                "the hash of a password could not be renewed"
            );
        }
    }

    async fn try_renew(&self, client: ClientKey, account: &Account, password: &str) -> Result<(), AuthenticationError> {
        let Some(hash) = self.checks.hash_new(client, account.name.as_str(), password).await? else {
            return Ok(());
        };
        // The state first: the change is then conditional on everything that came after.
        let state = self.store.state(self.context()).await.map_err(unavailable)?;
        let present = self
            .store
            .account(self.context(), &account.name)
            .await
            .map_err(unavailable)?;
        let Some(present) = present.filter(|present| present.password == account.password) else {
            return Ok(());
        };
        let renewed = Account {
            password: Some(hash),
            ..present
        };
        let change = AccessChange {
            state: AccessState {
                version: state.version + 1,
                ..state
            },
            account: Some(AccountChange::Put(Box::new(renewed))),
            policy: None,
            event: None,
        };
        // After a conflict the next login does it.
        self.store.apply(self.context(), &change).await.map_err(unavailable)?;
        Ok(())
    }

    fn context(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, READ_TIMEOUT_MS)
    }
}

/// The identity of an account that its key `id` has proved: within the scope of the key.
pub(super) fn by_key_of(identity: Identity, id: CredentialId, key: &AccountKey) -> Result<Identity, LoginError> {
    let identity = identity.with_credential(id).map_err(|_| LoginError::Wrong)?;
    let Some(grants) = key.scope.clone() else {
        return Ok(identity);
    };
    let scope = Scope::new(grants).map_err(|_| LoginError::Wrong)?;
    Ok(identity.with_token_scope(scope.of_key()))
}

/// The identity of an account whose owner was authenticated earlier.
pub(super) fn present_identity(account: &Account, policy: &PolicyInForce) -> Identity {
    policy.identity_of(&subject_of(account))
}
