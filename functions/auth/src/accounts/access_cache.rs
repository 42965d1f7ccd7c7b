//! Reads the access state and accounts, as seldom as the limits on their age allow.
//!
//! The state is read at most every ten seconds, by one request at a time; the others wait for it. A request that needs an
//! account too reads both at once. Nothing is decided by a state that is older, so a table that does not answer means that
//! nothing is decided: 503.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures_util::lock::Mutex as AsyncMutex;
use registry::auth::{AccountName, AuthenticationError, Subject};
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::policy::Policy;
use registry::store::access::{AccessState, AccessStore, Account, AccountKey};
use registry::store::{Context, StoreError, Timestamp};
use registry::{Identity, Principal};

use super::in_force::{InForce, KeptRules, PolicyInForce, UnusablePolicy, is_young};
use super::key_locks::KeyLocks;
use super::recent_map::RecentMap;
use crate::key_set::KeySet;

/// The maximum time of a read of the table, in milliseconds.
pub(super) const READ_TIMEOUT_MS: u64 = 10_000;
/// The maximum number of accounts that are kept.
const MAX_ACCOUNTS: usize = 4096;
/// The least time between two reads that unknown keys of tokens cause, in milliseconds.
const UNKNOWN_KEY_MS: u64 = 1_000;

/// A key counts as one that ends soon for so long before its end, in milliseconds: 14 days.
const ENDS_SOON_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// What a read of the state leaves to settings.
#[derive(Clone, Debug)]
pub(super) struct ReadSettings {
    /// Whether clients need no credentials until the first account exists.
    pub(super) is_open: bool,
    /// Whether a rule is added to every policy that lets clients pull without credentials.
    pub(super) anonymous_pull: bool,
    /// The keys that verify tokens, instead of those of the state.
    pub(super) keys: Option<Arc<KeySet>>,
}

/// An account as it was read at one time, or that there is none.
pub(super) struct KnownAccount {
    /// The account.
    pub(super) account: Option<Account>,
    rules: Arc<KeptRules>,
    /// When the read began. Later than every time if the state has decided that there is no account.
    pub(super) read: Timestamp,
}

impl KnownAccount {
    /// The identity of `account` under `policy`, before the scope of a key.
    pub(super) fn identity(&self, account: &Account, policy: &Arc<PolicyInForce>) -> Identity {
        let rules = self.rules.under(policy, || subject_of(account));
        Identity::new(account.principal(), rules)
    }
}

/// An account as the policy sees it.
pub(super) fn subject_of(account: &Account) -> Subject {
    Subject {
        principal: account.principal(),
        groups: account.groups.clone(),
        grants: account.grants.clone(),
    }
}

/// Whether the account has a key that was made after `key`, which ends, allows as much, and lasts longer. `key rotate` makes
/// one.
fn has_successor(account: &Account, key: &AccountKey) -> bool {
    account.keys.values().any(|other| {
        let lasts_longer = other
            .expires
            .is_none_or(|later| key.expires.is_some_and(|ends| ends < later));
        let allows_as_much = other.scope.is_none() || other.scope == key.scope;
        key.created < other.created && lasts_longer && allows_as_much
    })
}

/// The access state and the accounts that were read of late.
pub(super) struct AccessCache {
    store: Arc<dyn AccessStore>,
    environment: Arc<dyn Environment>,
    settings: ReadSettings,
    in_force: RwLock<Option<Arc<InForce>>>,
    /// Held by the request that reads the state.
    reader: AsyncMutex<Reader>,
    /// How many reads of the state, and of accounts for which others wait, have begun.
    begun: AtomicU64,
    accounts: Mutex<RecentMap<AccountName, Arc<KnownAccount>>>,
    account_locks: KeyLocks<AccountName>,
    /// That there is no account.
    nobody: Arc<KnownAccount>,
}

#[derive(Default)]
struct Reader {
    /// The number of the last read that failed.
    failed: u64,
    /// When an unknown key last caused a read.
    unknown_key: Option<Timestamp>,
}

impl AccessCache {
    /// A cache that has read nothing yet.
    pub(super) fn new(store: Arc<dyn AccessStore>, environment: Arc<dyn Environment>, settings: ReadSettings) -> Self {
        Self {
            store,
            environment,
            settings,
            in_force: RwLock::new(None),
            reader: AsyncMutex::default(),
            begun: AtomicU64::new(0),
            accounts: Mutex::new(RecentMap::new(MAX_ACCOUNTS)),
            account_locks: KeyLocks::new(),
            nobody: Arc::new(KnownAccount {
                account: None,
                rules: Arc::default(),
                read: Timestamp(u64::MAX),
            }),
        }
    }

    /// The state that was read last, however old it is.
    pub(super) fn last(&self) -> Option<Arc<InForce>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the state was read, in milliseconds. `None`: never.
    pub(super) fn state_age_ms(&self) -> Option<u64> {
        let now = self.environment.now();
        // After the clock was set back, the age is not known, and the next request reads the state.
        self.last().map(|last| now.0.saturating_sub(last.read.0))
    }

    /// How many keys without a successor end within 14 days, of the accounts that are kept. Reads nothing.
    pub(super) fn keys_ending_soon(&self) -> usize {
        let now = self.environment.now();
        let soon = now.plus_millis(ENDS_SOON_MS);
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = accounts.values().filter_map(|known| known.account.as_ref());
        let ends_soon = |key: &AccountKey| key.expires.is_some_and(|ends| now < ends && ends <= soon);
        known
            .filter(|account| !account.disabled)
            .map(|account| {
                let keys = account.keys.values().filter(|key| ends_soon(key));
                keys.filter(|key| !has_successor(account, key)).count()
            })
            .sum()
    }

    /// The principal of an account that was read, however old its record is.
    pub(super) fn principal_of(&self, name: &AccountName) -> Option<Principal> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(name)?.account.as_ref().map(Account::principal)
    }

    fn current(&self) -> Option<Arc<InForce>> {
        let now = self.environment.now();
        self.last().filter(|in_force| in_force.is_current(now))
    }

    /// What is in force, of which the state is younger than ten seconds.
    pub(super) async fn in_force(&self) -> Result<Arc<InForce>, AuthenticationError> {
        if let Some(in_force) = self.current() {
            return Ok(in_force);
        }
        self.in_force_for(self.begun.load(Ordering::SeqCst)).await
    }

    /// What is in force, for a request that has arrived when `arrived` reads had begun.
    async fn in_force_for(&self, arrived: u64) -> Result<Arc<InForce>, AuthenticationError> {
        if let Some(in_force) = self.current() {
            return Ok(in_force);
        }
        let mut reader = self.reader.lock().await;
        // Another request may have read it meanwhile.
        if let Some(in_force) = self.current() {
            return Ok(in_force);
        }
        fail_with_other(reader.failed, arrived)?;
        self.read(&mut reader, None).await.map(|(in_force, _)| in_force)
    }

    /// Reads the state now, for instance after a change of it.
    pub(super) async fn read_now(&self) -> Result<Arc<InForce>, AuthenticationError> {
        let mut reader = self.reader.lock().await;
        self.read(&mut reader, None).await.map(|(in_force, _)| in_force)
    }

    /// What is in force, after another read if `seen` does not know a key of a token. That causes at most one read a second.
    pub(super) async fn with_more_keys(&self, seen: &Arc<InForce>) -> Result<Arc<InForce>, AuthenticationError> {
        let mut reader = self.reader.lock().await;
        if let Some(in_force) = self.current()
            && !Arc::ptr_eq(&in_force, seen)
        {
            return Ok(in_force);
        }
        let now = self.environment.now();
        let is_early = |last: Timestamp| last <= now && now.millis_since(last) < UNKNOWN_KEY_MS;
        if reader.unknown_key.is_some_and(is_early) {
            return Ok(seen.clone());
        }
        reader.unknown_key = Some(now);
        self.read(&mut reader, None).await.map(|(in_force, _)| in_force)
    }

    /// What is in force, and an account of which the record is younger than ten seconds. One request if both must be read.
    pub(super) async fn with_account(
        &self,
        name: &AccountName,
    ) -> Result<(Arc<InForce>, Arc<KnownAccount>), AuthenticationError> {
        if self.last().is_some_and(|last| last.state.accounts == 0) {
            let in_force = self.in_force().await?;
            if in_force.state.accounts == 0 {
                return Ok((in_force, self.nobody.clone()));
            }
        }
        if let (Some(in_force), Some(known)) = (self.current(), self.known(name)) {
            return Ok((in_force, known));
        }
        // Before the request waits, so that it fails with the reads for which it has waited.
        let arrived = self.begun.load(Ordering::SeqCst);
        let mut one = self.account_locks.lock(name.clone()).await;
        let Some(known) = self.known(name) else {
            fail_with_other(*one, arrived)?;
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let read = self.read_account(name, arrived).await;
            if read.is_err() {
                *one = number;
            }
            return read;
        };
        Ok((self.in_force_for(arrived).await?, known))
    }

    async fn read_account(
        &self,
        name: &AccountName,
        arrived: u64,
    ) -> Result<(Arc<InForce>, Arc<KnownAccount>), AuthenticationError> {
        if self.current().is_none() {
            let mut reader = self.reader.lock().await;
            if self.current().is_none() {
                fail_with_other(reader.failed, arrived)?;
                let (in_force, known) = self.read(&mut reader, Some(name)).await?;
                if let Some(known) = known {
                    return Ok((in_force, known));
                }
            }
        }
        let known = self.read_account_now(name).await?;
        Ok((self.in_force_for(arrived).await?, known))
    }

    /// Reads an account, however young the known record is.
    pub(super) async fn read_account_now(&self, name: &AccountName) -> Result<Arc<KnownAccount>, AuthenticationError> {
        let cx = self.context();
        let account = self.store.account(cx, name).await.map_err(unavailable)?;
        Ok(self.keep(name, account, cx.now))
    }

    fn keep(&self, name: &AccountName, account: Option<Account>, read: Timestamp) -> Arc<KnownAccount> {
        let now = self.environment.now();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = match accounts.get(name) {
            // Another read began later and has ended earlier. After a clock was set back, no record seems to be of later.
            Some(known) if known.read > read && is_young(known.read, now) => return known,
            // The rules need not be found again while the record stays the same.
            Some(known) if known.account == account => known.rules.clone(),
            _ => Arc::default(),
        };
        let known = Arc::new(KnownAccount { account, rules, read });
        accounts.insert(name.clone(), known.clone());
        known
    }

    fn known(&self, name: &AccountName) -> Option<Arc<KnownAccount>> {
        let now = self.environment.now();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.get(name).filter(|known| is_young(known.read, now))
    }

    /// The context of a call of the store.
    pub(super) fn context(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, READ_TIMEOUT_MS)
    }

    /// Reads the state, an account if one is asked for, and the policy if it has changed.
    async fn read(
        &self,
        reader: &mut Reader,
        name: Option<&AccountName>,
    ) -> Result<(Arc<InForce>, Option<Arc<KnownAccount>>), AuthenticationError> {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let read = self.try_read(name).await;
        if read.is_err() {
            reader.failed = number;
        }
        read.map_err(unavailable)
    }

    async fn try_read(
        &self,
        name: Option<&AccountName>,
    ) -> Result<(Arc<InForce>, Option<Arc<KnownAccount>>), StoreError> {
        let cx = self.context();
        let (state, known) = match name {
            Some(name) => {
                let (state, account) = self.store.state_and_account(cx, name).await?;
                (state, Some(self.keep(name, account, cx.now)))
            }
            None => (self.store.state(cx).await?, None),
        };
        let policy = self.policy(&state).await?;
        let keys = self.keys(&state);
        let is_open = self.settings.is_open && state.accounts == 0 && self.last().is_none_or(|last| last.is_open);
        let in_force = Arc::new(InForce {
            state,
            policy,
            keys,
            is_open,
            read: cx.now,
        });
        *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Some(in_force.clone());
        Ok((in_force, known))
    }

    /// The keys that verify tokens: the known ones, if they are the same.
    fn keys(&self, state: &AccessState) -> Arc<KeySet> {
        if let Some(keys) = &self.settings.keys {
            return keys.clone();
        }
        match self.last() {
            Some(last) if last.state.keys == state.keys => last.keys.clone(),
            _ => Arc::new(KeySet::new(&state.keys)),
        }
    }

    /// The policy that the state puts in force: the known one, or the one in the table. One that the table does not have is
    /// asked for again with the next read of the state.
    async fn policy(&self, state: &AccessState) -> Result<Result<Arc<PolicyInForce>, UnusablePolicy>, StoreError> {
        let is_known = |last: &InForce| match &last.policy {
            Ok(policy) => policy.version == state.policy,
            Err(unusable) => !unusable.is_missing && Some(unusable.version) == state.policy,
        };
        if let Some(last) = self.last()
            && is_known(&last)
        {
            return Ok(last.policy.clone());
        }
        let policy = match state.policy {
            None => Ok(Policy::default_policy()),
            Some(version) => {
                let document = self.store.policy_document(self.context(), version).await?;
                let unusable = |reason: String, is_missing| UnusablePolicy {
                    version,
                    reason,
                    is_missing,
                };
                match document {
                    None => Err(unusable("the table does not have it".to_owned(), true)),
                    Some(document) => Policy::from_json(&document).map_err(|mistakes| {
                        let texts: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                        unusable(texts.join("; "), false)
                    }),
                }
            }
        };
        if let Err(unusable) = &policy {
            let until = if unusable.is_missing {
                "it is read"
            } else {
                "another version is set"
            };
            tracing::error!("{unusable}; requests are answered with 503 until {until}");
        }
        Ok(policy.map(|policy| {
            let policy = if self.settings.anonymous_pull {
                policy.allowing_anonymous_pull()
            } else {
                policy
            };
            Arc::new(PolicyInForce::new(state.policy, policy))
        }))
    }
}

/// An error if the read with the number `failed`, which has failed, began after `arrived` other ones: the request that asks
/// has waited for it.
pub(super) fn fail_with_other(failed: u64, arrived: u64) -> Result<(), AuthenticationError> {
    if failed > arrived {
        return Err(AuthenticationError::Unavailable(
            "the table could not be read by another request".into(),
        ));
    }
    Ok(())
}

/// A fault of the table.
pub(super) fn unavailable(error: StoreError) -> AuthenticationError {
    AuthenticationError::Unavailable(error.into())
}
