//! Administration over the store in memory.

mod accounts;
mod keys;
mod policies;
mod races;
mod signing_keys;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use registry::Environment;
use registry::auth::{AccountName, GroupName};
use registry::random::SplitMix64;
use registry::store::Timestamp;
use registry::store::access::{AccessState, AccessStore, Account, AccountKind, AuditEvent, AuditQuery, PasswordHash};
use registry::store::memory::MemoryMetadata;

use super::accounts::NewAccount;
use super::{Administration, Author};

const BEGIN: Timestamp = Timestamp(1_796_000_000_000);

/// A clock that the test moves, and random bytes that repeat.
struct Clock {
    now: AtomicU64,
    random: Mutex<SplitMix64>,
}

#[async_trait]
impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.fill_with(|| random.bits().to_be_bytes()[0]);
    }

    async fn sleep(&self, _: u64) {}
}

/// A registry's accounts, in memory.
struct World {
    clock: Arc<Clock>,
    store: Arc<MemoryMetadata>,
    administration: Administration,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Clock {
            now: AtomicU64::new(BEGIN.0),
            random: Mutex::new(SplitMix64::new(7)),
        });
        let store = Arc::new(MemoryMetadata::new());
        let administration = Administration::new(store.clone(), clock.clone(), 1000);
        Self {
            clock,
            store,
            administration,
        }
    }

    /// The same accounts through another store.
    fn through(&self, store: Arc<dyn AccessStore>) -> Administration {
        Administration::new(store, self.clock.clone(), 1000)
    }

    fn pass(&self, millis: u64) -> Timestamp {
        self.clock.now.fetch_add(millis, Ordering::Relaxed);
        self.clock.now()
    }

    fn state(&self) -> AccessState {
        done(self.administration.state()).unwrap()
    }

    fn events(&self) -> Vec<AuditEvent> {
        let query = AuditQuery::default();
        let slice = done(self.store.audit(self.administration.cx(), &query, None, 1000));
        slice.unwrap().items
    }

    fn last_event(&self) -> AuditEvent {
        self.events().pop().unwrap()
    }

    /// Makes a user in these groups.
    fn user(&self, user: &str, groups: &[&str]) -> Account {
        let new = NewAccount {
            groups: groups.iter().map(|text| group(text)).collect(),
            password: Some(PasswordHash::new(format!("hash of {user}"))),
            ..NewAccount::new(name(user), AccountKind::User)
        };
        self.pass(1);
        done(self.administration.create(&alice(), new)).unwrap().account
    }

    /// The account as it is stored.
    fn account(&self, account: &str) -> Option<Account> {
        done(self.administration.account((&name(account)).into())).ok()
    }

    /// The counts of the state are those of the accounts.
    fn check_counts(&self) {
        let page = done(self.administration.accounts(None, 1000)).unwrap();
        let admins = page.items.iter().filter(|account| account.is_active_admin());
        let state = self.state();
        let counted = (page.items.len() as u64, admins.count() as u64);
        assert_eq!((state.accounts, state.admins), counted);
    }
}

/// The store in memory waits for nothing.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it waits")
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn group(text: &str) -> GroupName {
    text.parse().unwrap()
}

fn alice() -> Author {
    Author {
        credential: Some("3f9aK2dQ".parse().unwrap()),
        address: Some("192.0.2.7".into()),
        request: Some("r1".into()),
        ..Author::new("alice")
    }
}
