//! Regions: the state is the same in all of them, and each has seeds of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use registry::auth::{AccountName, CredentialId};
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, Applied, AuditEvent, AuditQuery, FailureKey, Failures, KeyId,
    PolicyVersion, TokenSeed,
};
use registry::store::memory::MemoryMetadata;
use registry::store::{Context, Cursor, Page, Slice, StoreError};

use super::support::{World, bearer, login, token};
use crate::accounts::AccountAuthenticator;
use crate::administration::signing_keys::Rotation;
use crate::administration::{Administration, Author};
use crate::jws;

/// Two tables: the one of all regions, and the one of a region.
struct Region {
    main: Arc<MemoryMetadata>,
    local: MemoryMetadata,
}

#[async_trait]
impl AccessStore for Region {
    async fn state(&self, cx: Context) -> Result<AccessState, StoreError> {
        self.main.state(cx).await
    }

    async fn account(&self, cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError> {
        self.main.account(cx, name).await
    }

    async fn state_and_account(
        &self,
        cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError> {
        self.main.state_and_account(cx, name).await
    }

    async fn accounts(&self, cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError> {
        self.main.accounts(cx, after, limit).await
    }

    async fn policy_document(&self, cx: Context, version: u64) -> Result<Option<String>, StoreError> {
        self.main.policy_document(cx, version).await
    }

    async fn policy(&self, cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError> {
        self.main.policy(cx, version).await
    }

    async fn policies(
        &self,
        cx: Context,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, StoreError> {
        self.main.policies(cx, before, limit).await
    }

    async fn apply(&self, cx: Context, change: &AccessChange) -> Result<Applied, StoreError> {
        self.main.apply(cx, change).await
    }

    async fn audit(
        &self,
        cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError> {
        self.main.audit(cx, query, after, limit).await
    }

    async fn token_seeds(&self, cx: Context) -> Result<Vec<TokenSeed>, StoreError> {
        self.local.token_seeds(cx).await
    }

    async fn add_token_seed(&self, cx: Context, seed: &TokenSeed) -> Result<bool, StoreError> {
        self.local.add_token_seed(cx, seed).await
    }

    async fn remove_token_seed(&self, cx: Context, kid: KeyId) -> Result<(), StoreError> {
        self.local.remove_token_seed(cx, kid).await
    }

    async fn failures(&self, cx: Context, key: FailureKey) -> Result<Failures, StoreError> {
        self.local.failures(cx, key).await
    }

    async fn put_failures(&self, cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError> {
        self.local.put_failures(cx, key, failures).await
    }

    async fn clear_failures(&self, cx: Context, key: FailureKey) -> Result<(), StoreError> {
        self.local.clear_failures(cx, key).await
    }

    async fn record_use(
        &self,
        cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError> {
        self.local.record_use(cx, account, key, day).await
    }

    async fn last_uses(&self, cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError> {
        self.local.last_uses(cx, account).await
    }
}

/// No region takes the key of another one for a lost one of its own, and no token is refused, also around a rotation.
#[tokio::test]
async fn regions_with_seeds_of_their_own_sign_beside_each_other() {
    const STEP_MS: u64 = 5 * 60_000;

    let (world, key) = World::new().await;
    let (by_key, expected) = (bearer(key.expose()), format!("robot:ci by {}", key.id()));
    let regions = [(); 2].map(|()| {
        Arc::new(Region {
            main: world.store.clone(),
            local: MemoryMetadata::new(),
        })
    });
    let start = |region: &Arc<Region>| world.instance_over(region.clone(), World::settings(), None);
    let known = regions.each_ref().map(start);
    // What the two regions sign with, after every token was good in both of them.
    let kids = async |instances: &[AccountAuthenticator; 2]| {
        let mut kids = Vec::new();
        for signing in instances {
            let token = token(signing, &by_key, "repository:ci/x:pull").await;
            for instance in instances {
                assert_eq!(login(instance, &bearer(&token)).await, expected);
            }
            kids.push(jws::parse(&token).unwrap().kid());
        }
        kids
    };
    let first = kids(&known).await;
    assert_ne!(first[0], first[1]);
    for _ in 0..3 {
        assert_eq!(kids(&known).await, first);
        assert_eq!(kids(&regions.each_ref().map(start)).await, first, "after another start");
        world.clock.pass(STEP_MS);
    }
    assert_eq!(world.state().await.keys.len(), 2);

    let mut kept = Vec::new();
    for instance in &known {
        kept.push(token(instance, &by_key, "repository:ci/x:pull").await);
    }
    let administration = Administration::new(regions[0].clone(), world.clock.clone(), 1_000);
    let rotation = Rotation::Published(Rotation::PUBLISHED_MS);
    let rotated = administration.rotate_signing_keys(&Author::operator(), rotation).await;
    let new = rotated.unwrap().key.kid;
    world.clock.pass(STEP_MS);
    let second = kids(&known).await;
    assert_eq!(second[0], new);
    assert!(
        !first.contains(&second[1]) && second[1] != new,
        "the key of the other region was replaced too, so it has made another one"
    );
    for instance in &known {
        for token in &kept {
            assert_eq!(login(instance, &bearer(token)).await, expected);
        }
    }
    for _ in 0..20 {
        world.clock.pass(STEP_MS);
        assert_eq!(kids(&known).await, second);
    }
    assert_eq!(kids(&regions.each_ref().map(start)).await, second);
    assert_eq!(world.state().await.keys.len(), 4, "two of them have ended");
}

/// The key of another region is replaced with it, and signs until the new one does.
#[tokio::test]
async fn a_key_that_is_published_ahead_replaces_no_key_of_any_region_before_its_time() {
    const MINUTE_MS: u64 = 60_000;

    let (world, key) = World::new().await;
    let by_key = bearer(key.expose());
    let regions = [(); 2].map(|()| {
        Arc::new(Region {
            main: world.store.clone(),
            local: MemoryMetadata::new(),
        })
    });
    let start = |region: &Arc<Region>| world.instance_over(region.clone(), World::settings(), None);
    let instances = regions.each_ref().map(start);
    let kids = async || {
        let mut kids = Vec::new();
        for instance in &instances {
            let token = token(instance, &by_key, "repository:ci/x:pull").await;
            kids.push(jws::parse(&token).unwrap().kid());
        }
        kids
    };
    let first = kids().await;
    let administration = Administration::new(regions[0].clone(), world.clock.clone(), 1_000);
    let rotation = Rotation::Published(120 * MINUTE_MS);
    let rotated = administration.rotate_signing_keys(&Author::operator(), rotation).await;
    let new = rotated.unwrap().key.kid;
    for _ in 0..7 {
        world.clock.pass(17 * MINUTE_MS);
        assert_eq!(kids().await, first);
    }
    world.clock.pass(2 * MINUTE_MS);
    assert_eq!(kids().await[0], new);
}
