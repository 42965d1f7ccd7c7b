//! Accounts, the policy, the audit trail, and what instances share about tokens and guesses, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryMetadata, page};
use crate::auth::{AccountName, CredentialId};
use crate::store::access::{
    AccessChange, AccessState, AccessStore, Account, Applied, AuditEvent, AuditQuery, FailureKey, Failures, KeyId,
    PolicyVersion, TokenSeed,
};
use crate::store::{Context, Cursor, Page, Slice, StoreError, Timestamp, Uid};

/// The position behind an event.
fn cursor(event: &AuditEvent) -> Cursor {
    Cursor(format!("{:016x} {}", event.at.0, event.id))
}

fn position(cursor: &Cursor) -> Result<(Timestamp, Uid), StoreError> {
    let number = |text| u64::from_str_radix(text, 16).ok();
    let position = cursor
        .0
        .split_once(' ')
        .and_then(|(at, id)| Some((Timestamp(number(at)?), Uid(number(id)?))));
    position.ok_or_else(|| StoreError::failed(format!("not a position in the audit trail: {:?}", cursor.0)))
}

#[async_trait]
impl AccessStore for MemoryMetadata {
    async fn state(&self, _cx: Context) -> Result<AccessState, StoreError> {
        Ok(self.begin().access.state.clone())
    }

    async fn account(&self, _cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError> {
        Ok(self.begin().access.accounts.get(name).cloned())
    }

    async fn state_and_account(
        &self,
        _cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError> {
        let records = self.begin();
        let access = &records.access;
        Ok((access.state.clone(), access.accounts.get(name).cloned()))
    }

    async fn accounts(&self, _cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError> {
        let records = self.begin();
        let accounts = records.access.accounts.values();
        let after = accounts.filter(|account| after.is_none_or(|after| account.name.as_str() > after));
        Ok(page(after.cloned(), limit))
    }

    async fn policy_document(&self, _cx: Context, version: u64) -> Result<Option<String>, StoreError> {
        let records = self.begin();
        let policy = records.access.policies.get(&version);
        Ok(policy.map(|policy| policy.document.clone()))
    }

    async fn policy(&self, _cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
        Ok(self.begin().access.policies.get(&version).cloned())
    }

    async fn policies(
        &self,
        _cx: Context,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, StoreError> {
        let records = self.begin();
        let below = before.map_or(Bound::Unbounded, Bound::Excluded);
        let policies = records.access.policies.range((Bound::Unbounded, below));
        Ok(page(policies.rev().map(|(_, policy)| policy.clone()), limit))
    }

    async fn apply(&self, _cx: Context, change: &AccessChange) -> Result<Applied, StoreError> {
        Ok(self.begin().access.apply(change))
    }

    async fn audit(
        &self,
        _cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError> {
        let after = after
            .map(position)
            .transpose()?
            .map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.begin();
        let events = records
            .access
            .audit
            .range((after, Bound::Unbounded))
            .map(|(_, event)| event);
        let items: Vec<_> = events
            .filter(|event| query.matches(event))
            .take(limit)
            .cloned()
            .collect();
        let next = items.last().filter(|_| items.len() == limit).map(cursor);
        Ok(Slice { items, next })
    }

    async fn token_seeds(&self, _cx: Context) -> Result<Vec<TokenSeed>, StoreError> {
        Ok(self.begin().access.seeds.values().cloned().collect())
    }

    async fn add_token_seed(&self, _cx: Context, seed: &TokenSeed) -> Result<bool, StoreError> {
        let seeds = &mut self.begin().access.seeds;
        let is_new = !seeds.contains_key(&seed.kid);
        seeds.entry(seed.kid).or_insert_with(|| seed.clone());
        Ok(is_new)
    }

    async fn remove_token_seed(&self, _cx: Context, kid: KeyId) -> Result<(), StoreError> {
        self.begin().access.seeds.remove(&kid);
        Ok(())
    }

    async fn failures(&self, _cx: Context, key: FailureKey) -> Result<Failures, StoreError> {
        Ok(self.begin().access.failures.get(&key).cloned().unwrap_or_default())
    }

    async fn put_failures(&self, _cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError> {
        Ok(self.begin().access.put_failures(key, failures))
    }

    async fn clear_failures(&self, _cx: Context, key: FailureKey) -> Result<(), StoreError> {
        self.begin().access.failures.remove(&key);
        Ok(())
    }

    async fn record_use(
        &self,
        _cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError> {
        let mut records = self.begin();
        let last = records.access.uses.entry((account.clone(), key)).or_default();
        *last = day.max(*last);
        Ok(())
    }

    async fn last_uses(&self, _cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
        let records = self.begin();
        let uses = records.access.uses.iter().filter(|((of, _), _)| of == account);
        Ok(uses.map(|((_, key), day)| (*key, *day)).collect())
    }
}
