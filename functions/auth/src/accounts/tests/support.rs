//! Instances over one store, and changes of the records behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use contract::counting::{CountingAccess, Counts};
use oci::RepositoryName;
use registry::auth::{
    AccountName, Actions, AuthenticationError, Credentials, GroupName, Origin, RepositoryGrant, TokenError,
};
use registry::budget::ClientKey;
use registry::environment::Environment;
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountChange, AccountKey, AccountKind, Applied, PolicyForm,
    PolicyVersion,
};
use registry::store::memory::MemoryMetadata;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{Context, StoreError, Timestamp, Uid};
use registry::token_endpoint::{EncodedTokenRequest, TokenEndpoint as _, TokenRefusal, TokenResponse};
use registry::{Authenticator as _, Identity};

use crate::accounts::{AccountAuthenticator, AccountParts, AccountSettings, HashWork, PasswordThreads, PasswordUsers};
use crate::key::Key;
use crate::password::{Parameters, PasswordHasher};

/// The password of every user.
pub(super) const PASSWORD: &str = "correct horse battery";

/// A clock that the test moves, and distinct numbers instead of random ones.
pub(super) struct TestClock {
    now: AtomicU64,
    next: AtomicU64,
}

impl TestClock {
    /// A clock that says `now`. Its numbers are not those of the clock of a [`World`].
    fn at(now: Timestamp) -> Self {
        Self {
            now: AtomicU64::new(now.0),
            next: AtomicU64::new(1 << 60),
        }
    }

    pub(super) fn pass(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    pub(super) fn back(&self, millis: u64) {
        self.now.fetch_sub(millis, Ordering::SeqCst);
    }
}

#[async_trait]
impl Environment for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }

    async fn sleep(&self, _: u64) {
        std::future::pending::<()>().await;
    }
}

/// Hashes in the thread of the test, and counts.
#[derive(Default)]
pub(super) struct CountingThreads {
    hashes: AtomicU64,
}

impl CountingThreads {
    /// The number of hashes since the last call.
    pub(super) fn take(&self) -> u64 {
        self.hashes.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl PasswordThreads for CountingThreads {
    async fn run(&self, _: &str, _: ClientKey, work: HashWork) -> Result<bool, AuthenticationError> {
        self.hashes.fetch_add(1, Ordering::SeqCst);
        Ok(work())
    }

    fn was_right(&self, _: &str, _: ClientKey) {}
}

/// The users of a file: `file`, with the password of every user.
#[derive(Default)]
pub(super) struct FileUsers {
    /// The generation of the line; 0: it was removed.
    pub(super) generation: AtomicU64,
    pub(super) hashes: AtomicU64,
    pub(super) hidden: AtomicU64,
}

impl FileUsers {
    pub(super) const NAME: &'static str = "file";

    pub(super) fn new() -> Arc<Self> {
        let users = Self::default();
        users.generation.store(0xfeed_beef_0000_0001, Ordering::SeqCst);
        Arc::new(users)
    }
}

#[async_trait]
impl PasswordUsers for FileUsers {
    async fn generation(&self, user: &str) -> Option<u64> {
        let generation = self.generation.load(Ordering::SeqCst);
        (user == Self::NAME && generation > 0).then_some(generation)
    }

    async fn known(&self, _: ClientKey, _: &str, _: &str) -> Option<bool> {
        None
    }

    async fn verify(&self, _: ClientKey, user: &str, password: &str) -> Result<bool, AuthenticationError> {
        self.hashes.fetch_add(1, Ordering::SeqCst);
        Ok(self.generation(user).await.is_some() && password == PASSWORD)
    }

    fn hidden_by_account(&self, _: &str) {
        self.hidden.fetch_add(1, Ordering::SeqCst);
    }
}

/// A store of which each call lets other requests go on before it begins.
struct Pauses;

impl Hook for Pauses {
    fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn pauses(&self) -> u32 {
        3
    }
}

/// A store that does not answer while it is set.
#[derive(Clone, Default)]
pub(super) struct Outage(Arc<AtomicBool>);

impl Outage {
    pub(super) fn set(&self, is_out: bool) {
        self.0.store(is_out, Ordering::SeqCst);
    }
}

impl Hook for Outage {
    fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("planned"));
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store with accounts, and the instances over it.
pub(super) struct World {
    pub(super) store: Arc<MemoryMetadata>,
    pub(super) clock: Arc<TestClock>,
    pub(super) counts: Counts,
    pub(super) threads: Arc<CountingThreads>,
    pub(super) hasher: PasswordHasher,
}

impl World {
    /// No accounts.
    pub(super) fn empty() -> Self {
        Self {
            store: Arc::new(MemoryMetadata::new()),
            clock: Arc::new(TestClock {
                now: AtomicU64::new(1_796_000_000_000),
                next: AtomicU64::new(1),
            }),
            counts: Counts::new(),
            threads: Arc::default(),
            hasher: PasswordHasher::new(Parameters::CHEAPEST).unwrap(),
        }
    }

    /// The user `alice` with the group `dev`, and the robot `ci` with a grant for `ci/**` and a key.
    pub(super) async fn new() -> (Self, Key) {
        let world = Self::empty();
        let mut alice = world.user("alice");
        alice.groups.insert(group("dev"));
        world.put(alice).await;
        let key = Key::generate(&account("ci"), &*world.clock);
        let mut ci = world.account("ci", AccountKind::Robot);
        ci.grants = vec![grant("ci/**", Actions::ALL), grant("other/**", Actions::PULL)];
        ci.keys.insert(key.id(), world.account_key(&key));
        world.put(ci).await;
        (world, key)
    }

    pub(super) fn account(&self, name: &str, kind: AccountKind) -> Account {
        Account {
            name: account(name),
            kind,
            generation: self.clock.now().0,
            disabled: false,
            groups: BTreeSet::new(),
            grants: Vec::new(),
            password: None,
            keys: BTreeMap::new(),
            created: self.clock.now(),
            by: ":operator".into(),
        }
    }

    pub(super) fn user(&self, name: &str) -> Account {
        Account {
            password: Some(self.hasher.hash(PASSWORD, &*self.clock).unwrap()),
            ..self.account(name, AccountKind::User)
        }
    }

    pub(super) fn account_key(&self, key: &Key) -> AccountKey {
        AccountKey {
            hash: key.hash(),
            scope: None,
            created: self.clock.now(),
            by: ":operator".into(),
            expires: None,
        }
    }

    pub(super) fn settings() -> AccountSettings {
        AccountSettings {
            passwords: Parameters::CHEAPEST,
            ..AccountSettings::default()
        }
    }

    pub(super) fn instance(&self) -> AccountAuthenticator {
        self.instance_with(World::settings(), None)
    }

    pub(super) fn instance_with(
        &self,
        settings: AccountSettings,
        users: Option<Arc<dyn PasswordUsers>>,
    ) -> AccountAuthenticator {
        let store: Arc<dyn AccessStore> = self.store.clone();
        self.instance_over(
            Arc::new(CountingAccess::new(store, self.counts.clone())),
            settings,
            users,
        )
    }

    /// An instance over a store that takes its time, so that requests meet.
    pub(super) fn slow_instance(&self) -> AccountAuthenticator {
        let store: Arc<dyn AccessStore> = self.store.clone();
        let store: Arc<dyn AccessStore> = Arc::new(Wrapped::new(store, Pauses));
        let store = Arc::new(CountingAccess::new(store, self.counts.clone()));
        self.instance_over(store, World::settings(), None)
    }

    pub(super) fn instance_over(
        &self,
        store: Arc<dyn AccessStore>,
        settings: AccountSettings,
        users: Option<Arc<dyn PasswordUsers>>,
    ) -> AccountAuthenticator {
        let parts = AccountParts {
            store,
            environment: self.clock.clone(),
            users,
            threads: self.threads.clone(),
        };
        AccountAuthenticator::new(parts, settings).unwrap()
    }

    /// An instance whose clock is behind by so many milliseconds, and that clock.
    pub(super) fn instance_behind(&self, millis: u64) -> (AccountAuthenticator, Arc<TestClock>) {
        let clock = Arc::new(TestClock::at(Timestamp(self.clock.now().0 - millis)));
        let store: Arc<dyn AccessStore> = self.store.clone();
        let parts = AccountParts {
            store: Arc::new(CountingAccess::new(store, self.counts.clone())),
            environment: clock.clone(),
            users: None,
            threads: self.threads.clone(),
        };
        (AccountAuthenticator::new(parts, World::settings()).unwrap(), clock)
    }

    pub(super) fn context(&self) -> Context {
        Context::internal(
            self.clock.now(),
            1_000,
            Uid(self.clock.next.fetch_add(1, Ordering::SeqCst)),
        )
    }

    pub(super) async fn state(&self) -> AccessState {
        self.store.state(self.context()).await.unwrap()
    }

    pub(super) async fn read(&self, name: &str) -> Account {
        self.store
            .account(self.context(), &account(name))
            .await
            .unwrap()
            .unwrap()
    }

    /// One change of administration.
    pub(super) async fn apply(
        &self,
        account: Option<AccountChange>,
        policy: Option<&str>,
        change: impl FnOnce(&mut AccessState),
    ) {
        let mut state = self.state().await;
        state.version += 1;
        change(&mut state);
        let policy = policy.map(|document| self.policy(state.version, document));
        if policy.is_some() {
            state.policy = Some(state.version);
        }
        let change = AccessChange {
            state,
            account,
            policy,
            event: None,
        };
        let applied = self.store.apply(self.context(), &change).await.unwrap();
        assert_eq!(applied, Applied::Applied);
    }

    fn policy(&self, version: u64, document: &str) -> PolicyVersion {
        PolicyVersion {
            version,
            document: document.to_owned(),
            source: document.to_owned(),
            form: PolicyForm::Json,
            principal: ":operator".into(),
            at: self.clock.now(),
            note: None,
        }
    }

    /// Stores a policy that the state has named already.
    pub(super) async fn arrive(&self, version: u64, document: &str) {
        let before = self.state().await;
        let change = AccessChange {
            state: AccessState {
                version: before.version + 1,
                ..before
            },
            account: None,
            policy: Some(self.policy(version, document)),
            event: None,
        };
        let applied = self.store.apply(self.context(), &change).await.unwrap();
        assert_eq!(applied, Applied::Applied);
    }

    /// Makes an account.
    pub(super) async fn put(&self, account: Account) {
        let is_admin = account.is_active_admin();
        self.apply(Some(AccountChange::Put(Box::new(account))), None, |state| {
            state.accounts += 1;
            state.admins += u64::from(is_admin);
            state.had_admin |= is_admin;
        })
        .await;
    }

    /// Changes an account in a way that takes no permission away.
    pub(super) async fn change(&self, name: &str, change: impl FnOnce(&mut Account)) {
        let mut account = self.read(name).await;
        change(&mut account);
        self.apply(Some(AccountChange::Put(Box::new(account))), None, |_| {})
            .await;
    }

    /// Changes the keys of an account in a way that takes no permission away.
    pub(super) async fn change_keys(&self, name: &str, change: impl FnMut(&mut AccountKey)) {
        self.change(name, |account| account.keys.values_mut().for_each(change))
            .await;
    }

    /// Changes an account, as something that takes a permission away.
    pub(super) async fn take_away(&self, name: &str, change: impl FnOnce(&mut Account)) {
        let mut account = self.read(name).await;
        change(&mut account);
        let now = self.clock.now();
        account.generation = Account::next_generation(Some(account.generation), now);
        let (principal, generation) = (account.principal(), account.generation);
        self.apply(Some(AccountChange::Put(Box::new(account))), None, |state| {
            state.withdrawn.withdraw_principal(&principal, generation, now);
        })
        .await;
    }

    pub(super) async fn set_policy(&self, document: &str) {
        self.apply(None, Some(document), |_| {}).await;
    }
}

pub(super) fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

pub(super) fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

pub(super) fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

pub(super) fn grant(repositories: &str, actions: Actions) -> RepositoryGrant {
    RepositoryGrant {
        repositories: repositories.parse().unwrap(),
        actions,
    }
}

pub(super) fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic {
        user: user.into(),
        password: password.into(),
    }
}

pub(super) fn bearer(token: &str) -> Credentials {
    Credentials::Bearer { token: token.into() }
}

/// A request from a client with the address 192.0.2.`last`.
pub(super) fn from(last: u8) -> Origin {
    let address = IpAddr::from([192, 0, 2, last]);
    Origin {
        client: ClientKey::of(address),
        address: Some(address),
        ..Origin::internal()
    }
}

/// The text of the principal, or the refusal.
pub(super) async fn login(instance: &AccountAuthenticator, credentials: &Credentials) -> String {
    login_from(instance, &from(1), credentials).await
}

pub(super) async fn login_from(instance: &AccountAuthenticator, origin: &Origin, credentials: &Credentials) -> String {
    shown(instance.authenticate(origin, credentials).await)
}

pub(super) fn shown(result: Result<Identity, AuthenticationError>) -> String {
    match result {
        Ok(identity) => match identity.credential() {
            Some(key) => format!("{} by {key}", identity.principal()),
            None => identity.principal().to_string(),
        },
        Err(AuthenticationError::Unauthenticated) => "401".into(),
        Err(AuthenticationError::Token(TokenError::Invalid)) => "401 invalid_token".into(),
        Err(AuthenticationError::Token(TokenError::InsufficientScope)) => "401 insufficient_scope".into(),
        Err(AuthenticationError::TooManyAttempts { retry_after }) => format!("429 after {retry_after}"),
        Err(AuthenticationError::TooManyRequests) => "503 too many".into(),
        Err(AuthenticationError::Unavailable(_)) => "503".into(),
    }
}

/// A GET of `/token`.
pub(super) async fn get_token(
    instance: &AccountAuthenticator,
    credentials: &Credentials,
    query: &str,
) -> Result<TokenResponse, TokenRefusal> {
    instance
        .token(&from(1), credentials, EncodedTokenRequest::Query(query))
        .await
}

/// The token of a GET for one scope, which is granted.
pub(super) async fn token(instance: &AccountAuthenticator, credentials: &Credentials, scope: &str) -> String {
    get_token(instance, credentials, &format!("service=x&scope={scope}"))
        .await
        .unwrap()
        .token
}
