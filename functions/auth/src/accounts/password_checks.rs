//! Checks passwords: what is known is not hashed again, clients that guess wait, and every other password costs one hash,
//! whether or not its user exists.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join;
use registry::auth::{AuthenticationError, Origin};
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::store::access::{AccessStore, Account, FailureKey, Failures, PasswordHash};
use registry::store::{Context, Timestamp};

use super::access_cache::{READ_TIMEOUT_MS, fail_with_other, unavailable};
use super::key_locks::KeyLocks;
use super::password_users::{PasswordThreads, PasswordUsers};
use super::recent_map::RecentMap;
use crate::guessing::{self, Guess, GuessingKey};
use crate::keyed_hash::KeyedHash;
use crate::password::{PasswordCheck, PasswordHasher};

/// The maximum number of right passwords that are known: one for each user of a large registry.
const MAX_RIGHT: usize = 65_536;
/// The maximum number of wrong passwords that are known, and for how long, in milliseconds. Some clients send each one twice.
const MAX_WRONG: usize = 1024;
const WRONG_MS: u64 = 5_000;
/// The maximum number of clients of which it is known that they have hung up before their password was counted.
const MAX_UNFINISHED: usize = 16_384;
/// How often a counter is written again if other instances write it at the same time.
const MAX_WRITES: usize = 8;

/// Whose password a client has sent.
pub(super) enum PasswordOwner<'a> {
    /// An account.
    Account(&'a Account),
    /// A user without an account.
    User,
    /// Nobody, or an account without a password. It costs as much.
    Nobody,
}

/// Identifies a password that a client sent, and the stored hash that it was compared with. It reveals neither.
type Fingerprint = [u8; 32];

/// Checks passwords.
pub(super) struct PasswordChecks {
    store: Arc<dyn AccessStore>,
    environment: Arc<dyn Environment>,
    users: Option<Arc<dyn PasswordUsers>>,
    threads: Arc<dyn PasswordThreads>,
    hasher: PasswordHasher,
    /// Whether an address is that of a trusted proxy, which stands for many clients.
    is_proxy: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Its key is random and never leaves the process.
    keyed: KeyedHash,
    right: Mutex<RecentMap<Fingerprint, ()>>,
    wrong: Mutex<RecentMap<Fingerprint, Timestamp>>,
    /// By the keys of the counters.
    guesses: KeyLocks<FailureKey>,
    /// How many reads of the counters of guesses have begun.
    begun: AtomicU64,
    /// The guess whose check has begun, by the key of its address: at most one for each, since they are checked one after the
    /// other. If the next one finds it, the client hung up meanwhile, and it was not counted.
    unfinished: Mutex<RecentMap<FailureKey, Guess>>,
}

/// What a right password leaves to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RightPassword {
    /// Nothing.
    Done,
    /// Its hash has other parameters than new ones.
    Renew,
}

impl PasswordChecks {
    pub(super) fn new(
        store: Arc<dyn AccessStore>,
        environment: Arc<dyn Environment>,
        users: Option<Arc<dyn PasswordUsers>>,
        threads: Arc<dyn PasswordThreads>,
        hasher: PasswordHasher,
        is_proxy: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    ) -> Self {
        let mut key = [0; 64];
        environment.random(&mut key);
        Self {
            store,
            environment,
            users,
            threads,
            hasher,
            is_proxy,
            keyed: KeyedHash::new(&key),
            right: Mutex::new(RecentMap::new(MAX_RIGHT)),
            wrong: Mutex::new(RecentMap::new(MAX_WRONG)),
            guesses: KeyLocks::new(),
            begun: AtomicU64::new(0),
            unfinished: Mutex::new(RecentMap::new(MAX_UNFINISHED)),
        }
    }

    /// Whether `password` is that of `owner`, who has the name `user`. `None`: it is wrong. The counters of guesses are found by
    /// `secret`.
    pub(super) async fn check(
        &self,
        origin: &Origin,
        user: &str,
        password: &str,
        owner: &PasswordOwner<'_>,
        secret: &GuessingKey,
    ) -> Result<Option<RightPassword>, AuthenticationError> {
        let client = origin.client;
        // Before the request waits, so that it fails with the reads for which it has waited.
        let arrived = self.begun.load(Ordering::SeqCst);
        if let Some(known) = self.known(client, user, password, owner, secret).await {
            return Ok(known.then_some(RightPassword::Done));
        }
        let address = origin.address.filter(|address| !(self.is_proxy)(*address));
        let Some(address) = address else {
            return self.hash(client, user, password, owner, secret).await;
        };
        let guess = secret.guess(user, address, password);
        // Guesses for one pair, and guesses from one address, are hashed one after the other. So many at once do not read the
        // same counter. The pair comes first, always, so no two requests wait for each other.
        let mut pair_lock = self.guesses.lock(guess.pair()).await;
        let mut address_lock = self.guesses.lock(guess.address()).await;
        if let Some(known) = self.known(client, user, password, owner, secret).await {
            return Ok(known.then_some(RightPassword::Done));
        }
        // Both locks have it, for those that wait for one of them only.
        let failed = std::cmp::max(*pair_lock, *address_lock);
        (*pair_lock, *address_lock) = (failed, failed);
        fail_with_other(failed, arrived)?;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let read = self.counters_after_unfinished(&guess).await;
        if read.is_err() {
            (*pair_lock, *address_lock) = (number, number);
        }
        let (pair, of_address) = read?;
        if let Some(retry_after) = guessing::wait(&pair, &of_address, self.environment.now()) {
            return Err(AuthenticationError::TooManyAttempts { retry_after });
        }
        lock(&self.unfinished).insert(guess.address(), guess);
        let checked = self.hash(client, user, password, owner, secret).await;
        if let Ok(checked) = checked {
            self.record(&guess, pair, of_address, checked.is_some()).await;
        }
        lock(&self.unfinished).remove(&guess.address());
        checked
    }

    /// Counts the guess from this address that a client did not wait for. Nobody knows whether it was right: if it was, the
    /// client clears the counter as soon as it waits for an answer.
    async fn count_unfinished(&self, address: FailureKey) -> Result<(), AuthenticationError> {
        let unfinished = lock(&self.unfinished).get(&address);
        if let Some(guess) = unfinished {
            let (pair, of_address) = self.counters(&guess).await?;
            self.record(&guess, pair, of_address, false).await;
            lock(&self.unfinished).remove(&address);
        }
        Ok(())
    }

    async fn counters_after_unfinished(&self, guess: &Guess) -> Result<(Failures, Failures), AuthenticationError> {
        self.count_unfinished(guess.address()).await?;
        self.counters(guess).await
    }

    async fn counters(&self, guess: &Guess) -> Result<(Failures, Failures), AuthenticationError> {
        try_join(self.read(guess.pair()), self.read(guess.address())).await
    }

    /// Records in the counters that a password was checked.
    async fn record(&self, guess: &Guess, pair: Failures, of_address: Failures, is_right: bool) {
        if is_right {
            if pair.version == 0 {
                return;
            }
            let cleared = self.store.clear_failures(self.context(), guess.pair()).await;
            // The password is right, so the client is let in. The counter ends by itself.
            if let Err(error) = cleared {
                tracing::warn!(%error, "a counter of wrong passwords could not be cleared");
            }
        } else if let Err(error) = self.count(guess, pair, of_address).await {
            tracing::warn!(?error, "a wrong password could not be counted");
        }
    }

    /// What is known of a password without hashing it.
    async fn known(
        &self,
        client: ClientKey,
        user: &str,
        password: &str,
        owner: &PasswordOwner<'_>,
        secret: &GuessingKey,
    ) -> Option<bool> {
        match (owner, &self.users) {
            (PasswordOwner::User, Some(users)) => return users.known(client, user, password).await,
            // A refusal that is known is as fast for an unknown user as for a known one.
            (PasswordOwner::Nobody, Some(users)) if secret.costs_like_user(user) => {
                return users.known(client, user, password).await.map(|_| false);
            }
            (PasswordOwner::Account(_) | PasswordOwner::User | PasswordOwner::Nobody, _) => {}
        }
        let print = self.fingerprint(user, password, owner);
        if lock(&self.right).get(&print).is_some() {
            return Some(true);
        }
        let now = self.environment.now();
        let until = lock(&self.wrong).get(&self.of_client(client, &print))?;
        (now < until).then_some(false)
    }

    /// Hashes the password once, whether or not its user exists.
    async fn hash(
        &self,
        client: ClientKey,
        user: &str,
        password: &str,
        owner: &PasswordOwner<'_>,
        secret: &GuessingKey,
    ) -> Result<Option<RightPassword>, AuthenticationError> {
        let account = match (owner, &self.users) {
            (PasswordOwner::User, Some(users)) => {
                let is_right = users.verify(client, user, password).await?;
                return Ok(is_right.then_some(RightPassword::Done));
            }
            // Some unknown users cost as much as a user without an account, and the others as much as an account.
            (PasswordOwner::Nobody, Some(users)) if secret.costs_like_user(user) => {
                users.verify(client, user, password).await?;
                return Ok(None);
            }
            (PasswordOwner::Account(account), _) => Some(*account),
            (PasswordOwner::User | PasswordOwner::Nobody, _) => None,
        };
        let print = self.fingerprint(user, password, owner);
        let stored = account.and_then(|account| account.password.clone());
        let checked = self.run(client, user, password, stored).await?;
        let right = match checked {
            PasswordCheck::Right => RightPassword::Done,
            PasswordCheck::RightButOldParameters => RightPassword::Renew,
            PasswordCheck::Wrong => {
                let until = self.environment.now().plus_millis(WRONG_MS);
                lock(&self.wrong).insert(self.of_client(client, &print), until);
                return Ok(None);
            }
        };
        lock(&self.right).insert(print, ());
        self.threads.was_right(user, client);
        Ok(Some(right))
    }

    async fn run(
        &self,
        client: ClientKey,
        user: &str,
        password: &str,
        stored: Option<PasswordHash>,
    ) -> Result<PasswordCheck, AuthenticationError> {
        let result = Arc::new(Mutex::new(PasswordCheck::Wrong));
        let (hasher, text, found) = (self.hasher.clone(), password.to_owned(), result.clone());
        let work = move || {
            let checked = hasher.verify(&text, stored.as_ref());
            *lock(&found) = checked;
            checked != PasswordCheck::Wrong
        };
        let is_right = self.threads.run(user, client, Box::new(work)).await?;
        let checked = *lock(&result);
        Ok(if is_right { checked } else { PasswordCheck::Wrong })
    }

    /// A new hash of a password that is accepted: it was checked, or was right a moment ago.
    pub(super) async fn hash_new(
        &self,
        client: ClientKey,
        user: &str,
        password: &str,
    ) -> Result<Option<PasswordHash>, AuthenticationError> {
        let result = Arc::new(Mutex::new(None));
        let (hasher, text, made) = (self.hasher.clone(), password.to_owned(), result.clone());
        let environment = self.environment.clone();
        let work = move || {
            let hash = hasher.hash_again(&text, &*environment).ok();
            let is_made = hash.is_some();
            *lock(&made) = hash;
            is_made
        };
        self.threads.run(user, client, Box::new(work)).await?;
        Ok(lock(&result).take())
    }

    /// Counts a wrong password for its pair and its address, unless it was one of the last ones.
    async fn count(
        &self,
        guess: &Guess,
        mut pair: Failures,
        mut of_address: Failures,
    ) -> Result<(), AuthenticationError> {
        for _ in 0..MAX_WRITES {
            let Some(counted) = guess.count_for_pair(&pair, self.environment.now()) else {
                return Ok(());
            };
            if self.put(guess.pair(), &counted).await? {
                break;
            }
            pair = self.read(guess.pair()).await?;
        }
        for _ in 0..MAX_WRITES {
            let counted = guess.count_for_address(&of_address, self.environment.now());
            if self.put(guess.address(), &counted).await? {
                break;
            }
            of_address = self.read(guess.address()).await?;
        }
        Ok(())
    }

    async fn put(&self, key: FailureKey, failures: &Failures) -> Result<bool, AuthenticationError> {
        let put = self.store.put_failures(self.context(), key, failures).await;
        put.map_err(unavailable)
    }

    async fn read(&self, key: FailureKey) -> Result<Failures, AuthenticationError> {
        self.store.failures(self.context(), key).await.map_err(unavailable)
    }

    fn context(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, READ_TIMEOUT_MS)
    }

    /// The generation and the hash of an account are in it, so an entry is useless once they change. Where there is no hash, it
    /// stands for the name as the client has sent it, and never for a right password.
    fn fingerprint(&self, user: &str, password: &str, owner: &PasswordOwner<'_>) -> Fingerprint {
        let stored = match owner {
            PasswordOwner::Account(account) => account.password.as_ref().map(|stored| (account, stored)),
            PasswordOwner::User | PasswordOwner::Nobody => None,
        };
        match stored {
            Some((account, stored)) => self.keyed.of(&[
                b"account",
                account.name.as_str().as_bytes(),
                &account.generation.to_be_bytes(),
                stored.as_str().as_bytes(),
                password.as_bytes(),
            ]),
            None => self.keyed.of(&[b"nobody", user.as_bytes(), password.as_bytes()]),
        }
    }

    fn of_client(&self, client: ClientKey, print: &Fingerprint) -> Fingerprint {
        self.keyed.of(&[b"client", client.to_string().as_bytes(), print])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
