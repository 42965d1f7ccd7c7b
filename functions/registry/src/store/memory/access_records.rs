//! The records about accounts, and how a change of administration is made of them.

use std::collections::BTreeMap;

use crate::auth::{AccountName, CredentialId};
use crate::store::access::{
    AccessChange, AccessState, Account, AccountChange, Applied, AuditEvent, FailureKey, Failures, KeyId, PolicyVersion,
    TokenSeed,
};
use crate::store::{Timestamp, Uid};

/// The records about accounts. Every list has the order of its map.
#[derive(Debug, Default)]
pub(super) struct AccessRecords {
    pub(super) state: AccessState,
    pub(super) accounts: BTreeMap<AccountName, Account>,
    pub(super) policies: BTreeMap<u64, PolicyVersion>,
    pub(super) audit: BTreeMap<(Timestamp, Uid), AuditEvent>,
    pub(super) seeds: BTreeMap<KeyId, TokenSeed>,
    pub(super) failures: BTreeMap<FailureKey, Failures>,
    /// The day on which a key was last used.
    pub(super) uses: BTreeMap<(AccountName, CredentialId), u32>,
}

impl AccessRecords {
    pub(super) fn apply(&mut self, change: &AccessChange) -> Applied {
        let event = change.event.as_ref();
        if event.is_some_and(|event| self.audit.contains_key(&(event.at, event.id))) {
            // This change was made before, and its answer was lost.
            return Applied::Applied;
        }
        if change.state.version != self.state.version + 1 {
            return Applied::Conflict;
        }
        self.state = change.state.clone();
        match &change.account {
            Some(AccountChange::Put(account)) => {
                self.accounts.insert(account.name.clone(), (**account).clone());
            }
            Some(AccountChange::Remove(name)) => {
                self.accounts.remove(name);
                self.uses.retain(|(account, _), _| account != name);
            }
            None => {}
        }
        if let Some(policy) = &change.policy {
            self.policies.insert(policy.version, policy.clone());
        }
        if let Some(event) = event {
            self.record(event.clone());
        }
        Applied::Applied
    }

    /// Records an event, in the transaction of the change that it is about.
    pub(super) fn record(&mut self, event: AuditEvent) {
        self.audit.insert((event.at, event.id), event);
    }

    pub(super) fn put_failures(&mut self, key: FailureKey, failures: &Failures) -> bool {
        let present = self.failures.get(&key).map_or(0, |present| present.version);
        if present != failures.version {
            return false;
        }
        let mut failures = failures.clone();
        failures.version += 1;
        self.failures.insert(key, failures);
        true
    }
}
