//! Accounts, the policy, the audit trail, and what instances share about tokens and wrong passwords.
//!
//! Read in this order: [`keys`] and [`rows`] (what the tables contain), [`change`] (the one transaction of
//! administration), [`audit`], [`accounts`] and [`policies`] (lists and reads), [`failures`], [`seeds`], [`uses`].
//!
//! The state, accounts, the policy and the audit trail are in the main table. Counters of wrong passwords, seeds and days
//! of last use belong to one region and are in the local table.

mod accounts;
mod audit;
mod change;
mod day;
mod failures;
mod keys;
mod policies;
mod rows;
mod seeds;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::BTreeMap;

use async_trait::async_trait;
use registry::auth::{AccountName, CredentialId};
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, Applied, AuditEvent, AuditQuery, FailureKey, Failures, KeyId,
    PolicyVersion, TokenSeed,
};
use registry::store::{Context, Cursor, Page, Slice, StoreError};

pub(crate) use self::change::{KnownRows, event_write};
pub(crate) use self::keys::is_of_access;
use crate::DynamoStore;

#[async_trait]
impl AccessStore for DynamoStore {
    async fn state(&self, cx: Context) -> Result<AccessState, StoreError> {
        accounts::state(&self.main.within(cx)).await
    }

    async fn account(&self, cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError> {
        accounts::account(&self.main.within(cx), name).await
    }

    async fn state_and_account(
        &self,
        cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError> {
        accounts::state_and_account(&self.main.within(cx), name).await
    }

    async fn accounts(&self, cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError> {
        accounts::page(&self.main.within(cx), after, limit).await
    }

    async fn policy_document(&self, cx: Context, version: u64) -> Result<Option<String>, StoreError> {
        policies::document(&self.main.within(cx), version).await
    }

    async fn policy(&self, cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
        policies::version(&self.main.within(cx), version).await
    }

    async fn policies(
        &self,
        cx: Context,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, StoreError> {
        policies::page(&self.main.within(cx), before, limit).await
    }

    async fn apply(&self, cx: Context, change: &AccessChange) -> Result<Applied, StoreError> {
        let applied = change::apply(&self.main.within(cx), &self.access_rows, cx.uid, change).await?;
        if applied == Applied::Applied
            && let Some(name) = change::removed(change)
        {
            uses::forget(&self.local.within(cx), name).await;
        }
        Ok(applied)
    }

    async fn audit(
        &self,
        cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError> {
        audit::slice(&self.main.within(cx), cx.now, query, after, limit).await
    }

    async fn token_seeds(&self, cx: Context) -> Result<Vec<TokenSeed>, StoreError> {
        seeds::all(&self.local.within(cx)).await
    }

    async fn add_token_seed(&self, cx: Context, seed: &TokenSeed) -> Result<bool, StoreError> {
        seeds::add(&self.local.within(cx), seed).await
    }

    async fn remove_token_seed(&self, cx: Context, kid: KeyId) -> Result<(), StoreError> {
        seeds::remove(&self.local.within(cx), kid).await
    }

    async fn failures(&self, cx: Context, key: FailureKey) -> Result<Failures, StoreError> {
        failures::get(&self.local.within(cx), cx.now, key).await
    }

    async fn put_failures(&self, cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError> {
        failures::put(&self.local.within(cx), cx, key, failures).await
    }

    async fn clear_failures(&self, cx: Context, key: FailureKey) -> Result<(), StoreError> {
        failures::clear(&self.local.within(cx), key).await
    }

    async fn record_use(
        &self,
        cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError> {
        uses::record(&self.local.within(cx), account, key, day).await
    }

    async fn last_uses(&self, cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
        uses::of(&self.local.within(cx), account).await
    }
}
