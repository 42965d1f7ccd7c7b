//! The store of accounts, policy and audit, called through a hook.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Hook, StoreMethod, Wrapped};
use crate::auth::{AccountName, CredentialId};
use crate::store::access::{
    AccessChange, AccessState, AccessStore, Account, Applied, AuditEvent, AuditQuery, FailureKey, Failures, KeyId,
    PolicyVersion, TokenSeed,
};
use crate::store::{Context, Cursor, Page, Slice, StoreError};

#[async_trait]
impl<H: Hook> AccessStore for Wrapped<dyn AccessStore, H> {
    async fn state(&self, cx: Context) -> Result<AccessState, StoreError> {
        self.call(StoreMethod::State, cx, self.inner.state(cx)).await
    }

    async fn account(&self, cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError> {
        self.call(StoreMethod::Account, cx, self.inner.account(cx, name)).await
    }

    async fn state_and_account(
        &self,
        cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError> {
        self.call(StoreMethod::StateAndAccount, cx, self.inner.state_and_account(cx, name))
            .await
    }

    async fn accounts(&self, cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError> {
        self.call(StoreMethod::Accounts, cx, self.inner.accounts(cx, after, limit))
            .await
    }

    async fn policy_document(&self, cx: Context, version: u64) -> Result<Option<String>, StoreError> {
        self.call(StoreMethod::PolicyDocument, cx, self.inner.policy_document(cx, version))
            .await
    }

    async fn policy(&self, cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
        self.call(StoreMethod::Policy, cx, self.inner.policy(cx, version)).await
    }

    async fn policies(
        &self,
        cx: Context,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, StoreError> {
        self.call(StoreMethod::Policies, cx, self.inner.policies(cx, before, limit))
            .await
    }

    async fn apply(&self, cx: Context, change: &AccessChange) -> Result<Applied, StoreError> {
        let applied = self.inner.apply(cx, change);
        self.call_writing(StoreMethod::Apply, cx, applied, |applied| *applied == Applied::Applied)
            .await
    }

    async fn audit(
        &self,
        cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError> {
        self.call(StoreMethod::Audit, cx, self.inner.audit(cx, query, after, limit))
            .await
    }

    async fn token_seeds(&self, cx: Context) -> Result<Vec<TokenSeed>, StoreError> {
        self.call(StoreMethod::TokenSeeds, cx, self.inner.token_seeds(cx)).await
    }

    async fn add_token_seed(&self, cx: Context, seed: &TokenSeed) -> Result<bool, StoreError> {
        let added = self.inner.add_token_seed(cx, seed);
        self.call_writing(StoreMethod::AddTokenSeed, cx, added, |added| *added)
            .await
    }

    async fn remove_token_seed(&self, cx: Context, kid: KeyId) -> Result<(), StoreError> {
        self.call(StoreMethod::RemoveTokenSeed, cx, self.inner.remove_token_seed(cx, kid))
            .await
    }

    async fn failures(&self, cx: Context, key: FailureKey) -> Result<Failures, StoreError> {
        self.call(StoreMethod::Failures, cx, self.inner.failures(cx, key)).await
    }

    async fn put_failures(&self, cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError> {
        let put = self.inner.put_failures(cx, key, failures);
        self.call_writing(StoreMethod::PutFailures, cx, put, |put| *put).await
    }

    async fn clear_failures(&self, cx: Context, key: FailureKey) -> Result<(), StoreError> {
        self.call(StoreMethod::ClearFailures, cx, self.inner.clear_failures(cx, key))
            .await
    }

    async fn record_use(
        &self,
        cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError> {
        self.call(StoreMethod::RecordUse, cx, self.inner.record_use(cx, account, key, day))
            .await
    }

    async fn last_uses(&self, cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
        self.call(StoreMethod::LastUses, cx, self.inner.last_uses(cx, account))
            .await
    }
}
