//! What an [`AccessStore`] must do. This module has what the clauses share; [`changes`] has the changes of administration,
//! [`lists`] the lists of accounts and of versions of the policy, [`audit`] the audit trail, [`tokens`] what instances share
//! about tokens and guesses, and [`sizes`] records as large as the limits allow.

pub mod audit;
pub mod changes;
pub mod lists;
pub mod sizes;
pub mod tokens;

pub use audit::*;
pub use changes::*;
pub use lists::*;
pub use sizes::*;
pub use tokens::*;

use std::collections::{BTreeMap, BTreeSet};

use registry::auth::{AccountName, CredentialId, RepositoryGrant};
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountChange, AccountKey, AccountKind, Applied, AuditEvent,
    AuditKind, AuditQuery, KeyHash, PasswordHash, PolicyForm, PolicyVersion,
};
use registry::store::{Context, Page};

use super::ContractTest;

/// The test of a clause about accounts, policy and audit.
pub type AccessTest = ContractTest<dyn AccessStore>;

/// The maximum number of slices or pages of a list.
const MAX_SLICES: usize = 10_000;

/// The name of an account.
fn name(text: &str) -> AccountName {
    text.parse().expect("a legal name")
}

/// A grant.
fn grant(repositories: &str, words: &[&str]) -> RepositoryGrant {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    RepositoryGrant {
        repositories: repositories.parse().expect("a legal pattern"),
        actions: words.try_into().expect("words of actions"),
    }
}

/// The id of a key: distinct for each number.
fn key_id(number: usize) -> CredentialId {
    format!("key{number:05}").parse().expect("a legal id")
}

impl AccessTest {
    /// An enabled user without groups and keys, made now.
    fn user(&self, account: &str) -> Account {
        Account {
            name: name(account),
            kind: AccountKind::User,
            generation: self.now().0,
            disabled: false,
            groups: BTreeSet::new(),
            grants: Vec::new(),
            password: Some(PasswordHash::new(format!("$argon2id$v=19$m=19456,t=2,p=1${account}"))),
            keys: BTreeMap::new(),
            created: self.now(),
            by: "admin".to_owned(),
        }
    }

    /// A robot with a grant and two keys, of which one has a scope and an end.
    fn robot(&self, account: &str) -> Account {
        let key = AccountKey {
            hash: KeyHash([7; 32]),
            scope: None,
            created: self.now(),
            by: "admin".to_owned(),
            expires: None,
        };
        let narrow = AccountKey {
            hash: KeyHash([255; 32]),
            scope: Some(vec![grant("payments/**", &["pull"])]),
            expires: Some(self.now().plus_millis(90 * 24 * 60 * 60 * 1000)),
            ..key.clone()
        };
        Account {
            kind: AccountKind::Robot,
            groups: ["ci", "release"]
                .map(|group| group.parse().expect("a legal name"))
                .into(),
            grants: vec![grant("payments/**", &["pull", "create"]), grant("**", &["pull"])],
            password: None,
            keys: BTreeMap::from([(key_id(1), key), (key_id(2), narrow)]),
            ..self.user(account)
        }
    }

    /// An event now, with an id that no other event has.
    fn event(&self, kind: AuditKind) -> AuditEvent {
        AuditEvent::new(kind, "admin".to_owned(), self.now(), self.cx().uid)
    }

    /// A version of the policy.
    fn policy_version(&self, version: u64, document: &str) -> PolicyVersion {
        PolicyVersion {
            version,
            document: document.to_owned(),
            source: format!("# version {version}\n"),
            form: PolicyForm::Toml,
            principal: "admin".to_owned(),
            at: self.now(),
            note: None,
        }
    }

    async fn state(&self) -> AccessState {
        self.store.state(self.cx()).await.expect("state")
    }

    async fn account(&self, account: &str) -> Option<Account> {
        self.store.account(self.cx(), &name(account)).await.expect("account")
    }

    async fn apply(&self, change: &AccessChange) -> Applied {
        self.store.apply(self.cx(), change).await.expect("apply")
    }

    /// A change from the present state, with an event and nothing else.
    async fn change(&self, kind: AuditKind) -> AccessChange {
        let mut state = self.state().await;
        state.version += 1;
        AccessChange {
            state,
            account: None,
            policy: None,
            event: Some(self.event(kind)),
        }
    }

    /// A change from the present state that makes an account.
    async fn creation(&self, account: Account) -> AccessChange {
        let mut change = self.change(AuditKind::AccountCreated).await;
        change.state.accounts += 1;
        change.account = Some(AccountChange::Put(Box::new(account)));
        change
    }

    /// Makes an account.
    async fn add(&self, account: Account) {
        let change = self.creation(account).await;
        assert_eq!(self.apply(&change).await, Applied::Applied);
    }

    /// A change from the present state that sets the policy.
    async fn policy_change(&self, document: &str) -> AccessChange {
        let mut change = self.change(AuditKind::PolicySet).await;
        let version = change.state.version;
        change.state.policy = Some(version);
        change.policy = Some(self.policy_version(version, document));
        change
    }

    /// Sets the policy, and returns its version.
    async fn set_policy(&self, document: &str) -> u64 {
        let change = self.policy_change(document).await;
        assert_eq!(self.apply(&change).await, Applied::Applied);
        change.state.version
    }

    async fn accounts(&self, after: Option<&str>, limit: usize) -> Page<Account> {
        let page = self.store.accounts(self.cx(), after, limit).await.expect("accounts");
        assert!(page.items.len() <= limit, "{} of {limit}", page.items.len());
        assert!(!page.more || !page.items.is_empty(), "an empty page, and more");
        page
    }

    /// The names of all accounts, in pages of `limit`.
    async fn account_names(&self, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for _ in 0..MAX_SLICES {
            let page = self.accounts(names.last().map(String::as_str), limit).await;
            names.extend(page.items.iter().map(|account| account.name.to_string()));
            if !page.more {
                return names;
            }
        }
        panic!("the list does not end");
    }

    async fn policies(&self, before: Option<u64>, limit: usize) -> Page<PolicyVersion> {
        let page = self.store.policies(self.cx(), before, limit).await.expect("policies");
        assert!(page.items.len() <= limit, "{} of {limit}", page.items.len());
        assert!(!page.more || !page.items.is_empty(), "an empty page, and more");
        page
    }

    /// All versions of the policy, in pages of `limit`.
    async fn all_policies(&self, limit: usize) -> Vec<PolicyVersion> {
        let mut versions: Vec<PolicyVersion> = Vec::new();
        for _ in 0..MAX_SLICES {
            let before = versions.last().map(|last| last.version);
            let page = self.policies(before, limit).await;
            versions.extend(page.items);
            if !page.more {
                return versions;
            }
        }
        panic!("the list does not end");
    }

    async fn document(&self, version: u64) -> Option<String> {
        let document = self.store.policy_document(self.cx(), version).await;
        document.expect("policy_document")
    }

    async fn use_key(&self, account: &str, number: usize, day: u32) {
        let account = name(account);
        let used = self.store.record_use(self.cx(), &account, key_id(number), day).await;
        used.expect("record_use");
    }

    async fn uses(&self, account: &str) -> BTreeMap<CredentialId, u32> {
        self.store
            .last_uses(self.cx(), &name(account))
            .await
            .expect("last_uses")
    }

    /// The events that are asked for, in slices of about `limit`.
    pub(crate) async fn events_in_slices(&self, query: &AuditQuery, limit: usize) -> Vec<AuditEvent> {
        all_events(&*self.store, || self.cx(), query, limit).await
    }

    /// All events.
    async fn events(&self) -> Vec<AuditEvent> {
        self.events_in_slices(&AuditQuery::default(), 100).await
    }
}

/// The events that are asked for, in slices of about `limit`.
pub(crate) async fn all_events(
    store: &dyn AccessStore,
    cx: impl Fn() -> Context,
    query: &AuditQuery,
    limit: usize,
) -> Vec<AuditEvent> {
    let mut events = Vec::new();
    let mut next = None;
    for _ in 0..MAX_SLICES {
        let slice = store.audit(cx(), query, next.as_ref(), limit).await;
        let slice = slice.expect("audit");
        events.extend(slice.items);
        next = slice.next;
        if next.is_none() {
            return events;
        }
    }
    panic!("the audit trail does not end");
}
