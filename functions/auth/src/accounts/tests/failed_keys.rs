//! Keys that sign tokens, when they cannot be made at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use registry::environment::Environment as _;
use registry::store::StoreError;
use registry::store::access::{AccessChange, AccessState, AccessStore, Applied, KeyId};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::token_endpoint::TokenRefusal;

use super::support::{Outage, World, basic, bearer, get_token, login, token};
use crate::accounts::AccountAuthenticator;
use crate::administration::signing_keys::Rotation;
use crate::administration::{Administration, Author};
use crate::jws;
use crate::key::Key;
use crate::signing_key::TokenSigner;
use crate::test_rival::Rival;

const SCOPE: &str = "repository:ci/x:pull";

fn instance(world: &World, hook: impl Hook) -> AccountAuthenticator {
    let store: Arc<dyn AccessStore> = world.store.clone();
    world.instance_over(Arc::new(Wrapped::new(store, hook)), World::settings(), None)
}

/// Whether a token is refused because it cannot be signed.
async fn is_unsigned(instance: &AccountAuthenticator, key: &Key) -> bool {
    let granted = get_token(instance, &bearer(key.expose()), &format!("service=x&scope={SCOPE}")).await;
    matches!(granted, Err(TokenRefusal::Unavailable(_)))
}

async fn seeds(world: &World) -> Vec<KeyId> {
    let seeds = world.store.token_seeds(world.context()).await.unwrap();
    seeds.iter().map(|seed| seed.kid).collect()
}

async fn published(world: &World) -> Vec<KeyId> {
    world.state().await.keys.iter().map(|key| key.kid).collect()
}

/// A store that is not changed while it is out.
#[derive(Clone, Default)]
struct Unchanged(Outage);

impl Hook for Unchanged {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::Apply {
            self.0.before(method)
        } else {
            Ok(())
        }
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn attempts_that_fail_leave_one_seed() {
    let (world, key) = World::new().await;
    let hook = Unchanged::default();
    let instance = instance(&world, hook.clone());
    hook.0.set(true);
    for _ in 0..5 {
        assert!(is_unsigned(&instance, &key).await);
        assert_eq!(seeds(&world).await.len(), 1);
    }
    let left = seeds(&world).await;
    hook.0.set(false);
    let granted = token(&instance, &bearer(key.expose()), SCOPE).await;
    assert_eq!(seeds(&world).await, left);
    assert_eq!(published(&world).await, left);
    assert_eq!(jws::parse(&granted).unwrap().kid(), left[0]);
}

/// It was not published, and others may know it as well as the keys that were replaced.
#[tokio::test]
async fn a_seed_that_an_attempt_has_left_is_not_used_after_a_rotation() {
    let (world, key) = World::new().await;
    let hook = Unchanged::default();
    let instance = instance(&world, hook.clone());
    hook.0.set(true);
    assert!(is_unsigned(&instance, &key).await);
    let left = seeds(&world).await;
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let rotated = administration
        .rotate_signing_keys(&Author::operator(), Rotation::Now)
        .await;
    let new = rotated.unwrap().key.kid;
    // The seed of the new one is lost, so the instance makes another one.
    world.store.remove_token_seed(world.context(), new).await.unwrap();
    hook.0.set(false);
    world.clock.pass(10_000);
    let granted = token(&instance, &bearer(key.expose()), SCOPE).await;
    let kid = jws::parse(&granted).unwrap().kid();
    assert!(kid != new && kid != left[0]);
    assert_eq!(seeds(&world).await, [kid]);
    assert_eq!(published(&world).await, [new, kid]);
}

/// Other changes, one before each of so many attempts to publish a key.
fn others_come_first(world: &World, rival: &Rival, attempts: usize) {
    for _ in 0..attempts {
        let (store, context) = (world.store.clone(), world.context());
        rival.comes_first(move || {
            let done = "the store in memory waits for nothing";
            let state = store.state(context).now_or_never().expect(done).unwrap();
            let change = AccessChange {
                state: AccessState {
                    version: state.version + 1,
                    ..state
                },
                account: None,
                policy: None,
                event: None,
            };
            let applied = store.apply(context, &change).now_or_never().expect(done).unwrap();
            assert_eq!(applied, Applied::Applied);
        });
    }
}

#[tokio::test]
async fn the_last_attempt_to_publish_a_key_counts() {
    let (world, key) = World::new().await;
    let rival = Rival::default();
    let instance = instance(&world, rival.clone());
    for _ in 0..2 {
        others_come_first(&world, &rival, 8);
        assert!(is_unsigned(&instance, &key).await);
        assert_eq!((rival.left(), seeds(&world).await.len()), (0, 1));
    }
    others_come_first(&world, &rival, 7);
    let granted = token(&instance, &bearer(key.expose()), SCOPE).await;
    assert_eq!(rival.left(), 0);
    let kid = jws::parse(&granted).unwrap().kid();
    assert_eq!(seeds(&world).await, [kid]);
    assert_eq!(published(&world).await, [kid]);
}

/// Their seeds are lost, again and again.
#[tokio::test]
async fn no_more_keys_are_made_than_may_verify() {
    let (world, key) = World::new().await;
    let now = world.clock.now();
    world
        .apply(None, None, |state| {
            let numbers = (0_u8..).take(Rotation::MAX_KEYS);
            state.keys = numbers
                .map(|number| TokenSigner::from_seed(&[number; 32]).public(now))
                .collect();
        })
        .await;
    let instance = world.instance();
    for _ in 0..2 {
        assert!(is_unsigned(&instance, &key).await);
        assert_eq!(seeds(&world).await, []);
        assert_eq!(published(&world).await.len(), Rotation::MAX_KEYS);
    }
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let rotated = administration
        .rotate_signing_keys(&Author::operator(), Rotation::Now)
        .await;
    let new = rotated.unwrap().key.kid;
    world.clock.pass(10_000);
    let granted = token(&instance, &bearer(key.expose()), SCOPE).await;
    assert_eq!(jws::parse(&granted).unwrap().kid(), new);
}

/// A store of which each call lets other requests go on, and that does not write the first three seeds.
#[derive(Clone, Default)]
struct FirstSeedsFail(Arc<AtomicUsize>);

impl Hook for FirstSeedsFail {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::AddTokenSeed && self.0.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(StoreError::unavailable("planned"));
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn pauses(&self) -> u32 {
        3
    }
}

/// A token that has waited for passwords whose secret could not be written is signed all the same.
#[tokio::test]
async fn passwords_that_cannot_be_counted_refuse_no_token() {
    let (world, key) = World::new().await;
    let instance = instance(&world, FirstSeedsFail::default());
    let (by_key, wrong) = (bearer(key.expose()), basic("alice", "a wrong password"));
    // Both accounts are known then, so the requests below wait for seeds alone, in their order.
    let expected = format!("robot:ci by {}", key.id());
    assert_eq!(login(&instance, &by_key).await, expected);
    assert_eq!(login(&instance, &wrong).await, "503");
    let passwords = join_all((0..2).map(|_| login(&instance, &wrong)));
    let (answers, granted) = join(passwords, token(&instance, &by_key, SCOPE)).await;
    assert_eq!(answers, ["503", "503"]);
    assert_eq!(login(&instance, &bearer(&granted)).await, expected);
    assert_eq!(login(&instance, &wrong).await, "401");
}
