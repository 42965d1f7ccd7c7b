//! The secret on which the counting of wrong passwords depends: one for all instances, whatever key signs tokens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use registry::auth::Credentials;
use registry::store::StoreError;
use registry::store::access::{AccessStore, KeyId};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};

use super::support::{FileUsers, Outage, PASSWORD, World, basic, bearer, from, login, login_from, token};
use crate::accounts::{AccountAuthenticator, AccountSettings, TokenSignerSource};
use crate::administration::signing_keys::Rotation;
use crate::administration::{Administration, Author};
use crate::signing_key::TokenSigner;

async fn seeds(world: &World) -> Vec<KeyId> {
    let seeds = world.store.token_seeds(world.context()).await.unwrap();
    seeds.iter().map(|seed| seed.kid).collect()
}

fn guess(number: usize) -> Credentials {
    basic("alice", &format!("guess number {number}"))
}

/// The answers to guesses with these numbers, one instance after the other.
async fn guesses(instances: &[AccountAuthenticator], numbers: std::ops::Range<usize>) -> Vec<String> {
    let mut answers = Vec::new();
    for number in numbers {
        answers.push(login(&instances[number % instances.len()], &guess(number)).await);
    }
    answers
}

/// The main table was kept or restored, and the table with the seeds is new.
#[tokio::test]
async fn a_registry_without_its_seeds_signs_and_counts_again() {
    let (world, key) = World::new().await;
    let (by_key, expected) = (bearer(key.expose()), format!("robot:ci by {}", key.id()));
    let before = world.instance();
    let kept = token(&before, &by_key, "repository:ci/x:pull").await;
    assert_eq!(login(&before, &basic("alice", PASSWORD)).await, "alice");
    for kid in seeds(&world).await {
        world.store.remove_token_seed(world.context(), kid).await.unwrap();
    }
    let old = world.state().await.keys;

    let instances = [world.slow_instance(), world.slow_instance(), world.slow_instance()];
    let scope = "repository:ci/x:pull";
    let tokens = instances.iter().map(|instance| token(instance, &by_key, scope));
    let mut tokens = join_all(tokens).await;
    let keys = world.state().await.keys;
    assert_eq!(keys.len(), 2, "one key beside the old one");
    assert_eq!(keys[0], old[0]);
    assert_eq!(seeds(&world).await, [keys[1].kid]);
    tokens.push(kept);
    for token in &tokens {
        for instance in &instances {
            assert_eq!(login(instance, &bearer(token)).await, expected);
        }
    }
    assert_eq!(guesses(&instances, 0..5).await, ["401"; 5]);
    assert_eq!(login(&instances[2], &guess(5)).await, "429 after 1");

    // No further one is made, and a rotation forgets what is lost.
    world.clock.pass(10_000);
    token(&world.instance(), &by_key, "repository:ci/x:pull").await;
    assert_eq!(world.state().await.keys, keys);
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let rotated = administration
        .rotate_signing_keys(&Author::operator(), Rotation::Now)
        .await;
    let kid = rotated.unwrap().key.kid;
    assert_eq!(
        seeds(&world).await.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from([kid, KeyId::PASSWORD_SECRET])
    );
}

/// A seed that is damaged cannot sign either.
#[tokio::test]
async fn a_key_with_a_damaged_seed_is_passed_over() {
    let (world, key) = World::new().await;
    let by_key = bearer(key.expose());
    token(&world.instance(), &by_key, "repository:ci/x:pull").await;
    let mut stored = world.store.token_seeds(world.context()).await.unwrap();
    let mut damaged = stored.remove(0);
    world
        .store
        .remove_token_seed(world.context(), damaged.kid)
        .await
        .unwrap();
    damaged.seed[0] ^= 1;
    assert!(world.store.add_token_seed(world.context(), &damaged).await.unwrap());
    let (instance, other) = (world.instance(), world.instance());
    let granted = token(&instance, &by_key, "repository:ci/x:pull").await;
    assert_eq!(world.state().await.keys.len(), 2);
    assert_eq!(
        login(&other, &bearer(&granted)).await,
        format!("robot:ci by {}", key.id())
    );
}

#[tokio::test]
async fn a_rotation_of_signing_keys_forgets_no_wrong_password() {
    for rotation in [Rotation::Now, Rotation::Published(1_000)] {
        let (world, _) = World::new().await;
        let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
        let before = [world.instance()];
        assert_eq!(guesses(&before, 0..4).await, ["401"; 4]);
        for _ in 0..2 {
            let rotated = administration.rotate_signing_keys(&Author::operator(), rotation).await;
            assert!(rotated.is_ok());
            world.clock.pass(10_000);
        }
        let after = world.instance();
        assert_eq!(login(&after, &guess(4)).await, "401", "{rotation:?}");
        for instance in [&after, &before[0]] {
            assert_eq!(login(instance, &guess(5)).await, "429 after 1", "{rotation:?}");
        }
    }
}

/// For instance while they start again one by one, with another file of keys.
#[tokio::test]
async fn instances_with_different_signing_keys_count_together() {
    let (world, _) = World::new().await;
    let (old, new) = (TokenSigner::from_seed(&[1; 32]), TokenSigner::from_seed(&[2; 32]));
    let settings = |keys: &[&TokenSigner]| AccountSettings {
        signers: TokenSignerSource::File(keys.iter().map(|key| (*key).clone()).collect()),
        ..World::settings()
    };
    let instances = [
        world.instance_with(settings(&[&old, &new]), None),
        world.instance_with(settings(&[&new, &old]), None),
        world.instance(),
    ];
    assert_eq!(guesses(&instances, 0..5).await, ["401"; 5]);
    for instance in &instances {
        assert_eq!(login(instance, &guess(5)).await, "429 after 1");
    }
}

/// The first passwords on several instances at once make one secret.
#[tokio::test]
async fn the_first_passwords_make_one_secret() {
    let (world, _) = World::new().await;
    let instances = [(); 5].map(|()| world.slow_instance());
    let answers = join_all((0..5).map(|number| {
        let instance = &instances[number];
        async move { login(instance, &guess(number)).await }
    }));
    assert_eq!(answers.await, ["401"; 5]);
    assert_eq!(seeds(&world).await, [KeyId::PASSWORD_SECRET]);
    for instance in &instances {
        assert_eq!(login(instance, &guess(5)).await, "429 after 1");
    }
}

/// A store whose calls for seeds fail while it is out. Counts them.
#[derive(Clone, Default)]
struct WithoutSeeds {
    outage: Outage,
    calls: Arc<AtomicUsize>,
}

impl Hook for WithoutSeeds {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        match method {
            StoreMethod::TokenSeeds | StoreMethod::AddTokenSeed => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                self.outage.before(method)
            }
            _ => Ok(()),
        }
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn pauses(&self) -> u32 {
        3
    }
}

/// Nothing is said about a password that could not be counted.
#[tokio::test]
async fn no_password_is_checked_while_the_secret_cannot_be_read() {
    let (world, key) = World::new().await;
    let hook = WithoutSeeds::default();
    let outage = &hook.outage;
    outage.set(true);
    let store: Arc<dyn AccessStore> = world.store.clone();
    let store = Arc::new(Wrapped::new(store, hook.clone()));
    let instance = world.instance_over(store, World::settings(), Some(FileUsers::new()));
    let passwords = [
        ("alice", PASSWORD, "alice"),
        ("alice", "a wrong password", "401"),
        ("nobody", "a wrong password", "401"),
        (FileUsers::NAME, PASSWORD, FileUsers::NAME),
    ];
    for (user, password, _) in passwords {
        assert_eq!(login(&instance, &basic(user, password)).await, "503", "{user}");
        assert_eq!(world.threads.take(), 0, "{user}");
    }
    // Those that wait for one that fails do not ask again, one after the other.
    let before = hook.calls.load(Ordering::SeqCst);
    let wrong = basic("alice", "a wrong password");
    let answers = join_all((0..50).map(|_| login(&instance, &wrong))).await;
    assert!(answers.iter().all(|answer| answer == "503"), "{answers:?}");
    let calls = hook.calls.load(Ordering::SeqCst) - before;
    assert!((1..10).contains(&calls), "{calls}");
    let by_key = login(&instance, &bearer(key.expose())).await;
    assert_eq!(by_key, format!("robot:ci by {}", key.id()));
    outage.set(false);
    for (user, password, answer) in passwords {
        assert_eq!(login(&instance, &basic(user, password)).await, answer, "{user}");
    }
    // It is known now.
    outage.set(true);
    assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "alice");
    assert_eq!(login(&instance, &basic("alice", "another guess")).await, "401");
}

/// Which of the two hashes an unknown name costs is the same on every instance, and after each start. The hash of a name that
/// exists does not change either, so the time tells nothing.
#[tokio::test]
async fn s20_an_unknown_name_costs_the_same_on_every_instance() {
    let (world, _) = World::new().await;
    let users = FileUsers::new();
    let mut costs: Vec<Vec<(u64, u64)>> = Vec::new();
    for number in 0..4_u8 {
        // The last one starts later, after the keys have changed.
        if number == 3 {
            let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
            let rotated = administration
                .rotate_signing_keys(&Author::operator(), Rotation::Now)
                .await;
            assert!(rotated.is_ok());
            world.clock.pass(60_000);
        }
        let instance = world.instance_with(World::settings(), Some(users.clone()));
        let mut of_instance = Vec::new();
        for name in 0..40 {
            let wrong = basic(&format!("unknown{name}"), "a wrong password");
            let _ = (world.threads.take(), users.hashes.swap(0, Ordering::SeqCst));
            let answer = login_from(&instance, &from(number * 40 + name), &wrong).await;
            assert_eq!(answer, "401", "{name}");
            of_instance.push((world.threads.take(), users.hashes.swap(0, Ordering::SeqCst)));
        }
        costs.push(of_instance);
    }
    let kinds: BTreeSet<_> = costs[0].iter().copied().collect();
    assert_eq!(kinds, BTreeSet::from([(0, 1), (1, 0)]), "one hash of one of both kinds");
    for of_instance in &costs[1..] {
        assert_eq!(of_instance, &costs[0]);
    }
}
