//! What the contract does not say: costs, layout versions, ended rows, and answers that were lost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod costs;
mod layout;
mod lost;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use registry::auth::AccountName;
use registry::store::access::{
    AccessChange, AccessState, AccessStore as _, Account, AccountChange, AccountKind, Applied, AuditEvent, AuditKind,
    PolicyForm, PolicyVersion,
};
use registry::store::{Context, Timestamp, Uid};

use crate::DynamoStore;
use crate::memory::MemoryTable;
use crate::metadata::tests::{NOW, cx, store_over};

/// The number of milliseconds of a day.
const DAY: u64 = super::day::DAY_MS;

/// The context of a call this many milliseconds after the start.
fn cx_at(millis: u64) -> Context {
    let Context { uid, .. } = cx();
    Context::internal(NOW.plus_millis(millis), 30_000, uid)
}

fn name(text: &str) -> AccountName {
    text.parse().unwrap()
}

fn account(text: &str) -> Account {
    Account {
        name: name(text),
        kind: AccountKind::Robot,
        generation: NOW.0,
        disabled: false,
        groups: BTreeSet::new(),
        grants: Vec::new(),
        password: None,
        keys: BTreeMap::new(),
        created: NOW,
        by: "admin".to_owned(),
    }
}

fn event(at: Timestamp, id: u64) -> AuditEvent {
    AuditEvent::new(AuditKind::AccountCreated, "admin".to_owned(), at, Uid(id))
}

/// A change from this state, without anything but the state.
fn bare_change(mut state: AccessState) -> AccessChange {
    state.version += 1;
    AccessChange {
        state,
        account: None,
        policy: None,
        event: None,
    }
}

/// The creation of an account at a time.
fn creation(state: AccessState, text: &str, at: Timestamp) -> AccessChange {
    let mut change = bare_change(state);
    change.state.accounts += 1;
    change.account = Some(AccountChange::Put(Box::new(account(text))));
    change.event = Some(event(at, cx().uid.0));
    change
}

/// A change of the policy at a time.
fn policy_change(state: AccessState, document: &str, at: Timestamp) -> AccessChange {
    let mut change = bare_change(state);
    let version = change.state.version;
    change.state.policy = Some(version);
    change.policy = Some(PolicyVersion {
        version,
        document: document.to_owned(),
        source: document.to_owned(),
        form: PolicyForm::Json,
        principal: "admin".to_owned(),
        at,
        note: None,
    });
    change.event = Some(event(at, cx().uid.0));
    change
}

async fn state(store: &DynamoStore) -> AccessState {
    store.state(cx()).await.unwrap()
}

async fn apply(store: &DynamoStore, change: &AccessChange) {
    assert_eq!(store.apply(cx(), change).await.unwrap(), Applied::Applied);
}

/// Makes an account at a time.
async fn add(store: &DynamoStore, text: &str, at: Timestamp) -> AccessChange {
    let change = creation(state(store).await, text, at);
    apply(store, &change).await;
    change
}
