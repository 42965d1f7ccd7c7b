//! Accounts, the policy, the audit trail, and what processes share about tokens and guesses.
//!
//! Read [`change`] first: a change of administration is one transaction.

mod account;
mod audit;
mod change;
mod json;
mod policy;
mod state;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use registry::auth::{AccountName, CredentialId};
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, Applied, AuditEvent, AuditQuery, FailureKey, Failures, KeyId,
    PolicyVersion, TokenSeed,
};
use registry::store::{Context, Cursor, Page, Slice, StoreError};

pub(super) use self::audit::record as record_event;
use super::SqliteStore;

/// All statements that walk.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    account::ACCOUNTS,
    audit::EVENTS,
    audit::EVENTS_OF_REPOSITORY,
    audit::REMOVE_OLD,
    policy::POLICIES,
    tokens::REMOVE_OLD_FAILURES,
];

#[async_trait]
impl AccessStore for SqliteStore {
    async fn state(&self, cx: Context) -> Result<AccessState, StoreError> {
        self.read(cx, state::get).await
    }

    async fn account(&self, cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError> {
        let name = name.clone();
        self.read(cx, move |rows| account::get(rows, &name)).await
    }

    async fn state_and_account(
        &self,
        cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError> {
        let name = name.clone();
        self.read(cx, move |rows| {
            rows.in_one_snapshot(|rows| Ok((state::get(rows)?, account::get(rows, &name)?)))
        })
        .await
    }

    async fn accounts(&self, cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.walk(cx, move |rows| account::page_after(rows, &after, limit))
            .await
    }

    async fn policy_document(&self, cx: Context, version: u64) -> Result<Option<String>, StoreError> {
        self.read(cx, move |rows| policy::document(rows, version)).await
    }

    async fn policy(&self, cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
        self.read(cx, move |rows| policy::get(rows, version)).await
    }

    async fn policies(
        &self,
        cx: Context,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, StoreError> {
        self.walk(cx, move |rows| policy::page_before(rows, before, limit))
            .await
    }

    async fn apply(&self, cx: Context, change: &AccessChange) -> Result<Applied, StoreError> {
        let change = Arc::new(change.clone());
        self.write(cx, move |rows| change::apply(rows, &change, cx.now)).await
    }

    async fn audit(
        &self,
        cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError> {
        let position = audit::AuditPosition::after(query.from, after)?;
        let query = query.clone();
        self.walk(cx, move |rows| audit::slice(rows, &query, position, limit))
            .await
    }

    async fn token_seeds(&self, cx: Context) -> Result<Vec<TokenSeed>, StoreError> {
        self.read(cx, tokens::seeds).await
    }

    async fn add_token_seed(&self, cx: Context, seed: &TokenSeed) -> Result<bool, StoreError> {
        let seed = seed.clone();
        self.write(cx, move |rows| tokens::add_seed(rows, &seed)).await
    }

    async fn remove_token_seed(&self, cx: Context, kid: KeyId) -> Result<(), StoreError> {
        self.write(cx, move |rows| tokens::remove_seed(rows, kid)).await
    }

    async fn failures(&self, cx: Context, key: FailureKey) -> Result<Failures, StoreError> {
        self.read(cx, move |rows| tokens::failures(rows, key)).await
    }

    // Ordered, here and below: a power failure, which no client can cause, may undo the last failures and days of use.
    async fn put_failures(&self, cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError> {
        let failures = failures.clone();
        self.write_ordered(cx, move |rows| tokens::put_failures(rows, key, &failures, cx.now))
            .await
    }

    async fn clear_failures(&self, cx: Context, key: FailureKey) -> Result<(), StoreError> {
        self.write_ordered(cx, move |rows| tokens::clear_failures(rows, key))
            .await
    }

    async fn record_use(
        &self,
        cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError> {
        let account = account.clone();
        self.write_ordered(cx, move |rows| tokens::record_use(rows, &account, key, day))
            .await
    }

    async fn last_uses(&self, cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
        let account = account.clone();
        self.read(cx, move |rows| tokens::last_uses(rows, &account)).await
    }
}
