//! The keys that sign tokens: the first one, their replacement, and keys from a file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use registry::auth::Credentials;
use registry::environment::Environment as _;
use registry::store::access::{AccessChange, AccessState, AccessStore, Applied, KeyId, Withdrawn};
use registry::store::memory::MemoryMetadata;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{Context, StoreError};
use registry::token_endpoint::TokenEndpoint as _;

use super::support::{PASSWORD, World, basic, bearer, get_token, login, token};
use crate::accounts::{AccountAuthenticator, AccountSettings, TokenSignerSource};
use crate::administration::signing_keys::Rotation;
use crate::administration::{Administration, Author};
use crate::jws;
use crate::signing_key::TokenSigner;

/// Several instances want the first token at once: one of them makes the key.
#[tokio::test]
async fn the_first_token_makes_the_first_key() {
    let (world, key) = World::new().await;
    let instances = [world.instance(), world.instance(), world.instance()];
    for instance in &instances {
        login(instance, &Credentials::Absent).await;
    }
    let credentials = bearer(key.expose());
    let tokens = instances.iter().map(|instance| get_token(instance, &credentials, ""));
    let tokens = futures_util::future::join_all(tokens).await;
    assert_eq!(world.state().await.keys.len(), 1);
    assert_eq!(world.store.token_seeds(world.context()).await.unwrap().len(), 1);
    // An instance that does not know the key yet reads the state again.
    for granted in tokens {
        let token = granted.unwrap().token;
        for instance in &instances {
            assert_eq!(
                login(instance, &bearer(&token)).await,
                format!("robot:ci by {}", key.id())
            );
        }
    }
    let set = instances[2].key_set().await.unwrap();
    let set: serde_json::Value = serde_json::from_slice(&set).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);
}

/// An instance whose clock is behind that of the one which made the key, or which rotated the keys, signs and counts wrong
/// passwords at once.
#[tokio::test]
async fn an_instance_whose_clock_is_behind_signs() {
    let (world, key) = World::new().await;
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let author = Author::operator();
    let ahead = world.instance();
    let (behind, clock) = world.instance_behind(20_000);
    let expected = format!("robot:ci by {}", key.id());
    for round in 0..3 {
        let made = token(&ahead, &bearer(key.expose()), "repository:ci/x:pull").await;
        let other = token(&behind, &bearer(key.expose()), "repository:ci/x:pull").await;
        let kids = [&made, &other].map(|token| jws::parse(token).unwrap().kid());
        assert_eq!(kids[0], kids[1], "{round}");
        for token in [&made, &other] {
            for instance in [&ahead, &behind] {
                assert_eq!(login(instance, &bearer(token)).await, expected, "{round}");
            }
        }
        let _ = world.counts.take();
        let wrong = basic("alice", &format!("wrong password {round}"));
        assert_eq!(login(&behind, &wrong).await, "401");
        assert_eq!(world.counts.of(StoreMethod::PutFailures), 2, "it is counted: {round}");
        administration
            .rotate_signing_keys(&author, Rotation::Now)
            .await
            .unwrap();
        world.clock.pass(10_000);
        clock.pass(10_000);
    }
}

#[tokio::test]
async fn a_rotation_before_the_first_token_leaves_no_time_without_a_key() {
    let (world, key) = World::new().await;
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let (author, rotation) = (Author::operator(), Rotation::Published(Rotation::PUBLISHED_MS));
    let (behind, _) = world.instance_behind(5_000);
    for instance in [&world.instance(), &behind] {
        let made = administration.rotate_signing_keys(&author, rotation).await.unwrap();
        let granted = token(instance, &bearer(key.expose()), "repository:ci/x:pull").await;
        let kids: Vec<_> = world.state().await.keys.iter().map(|key| key.kid).collect();
        assert_eq!(kids.last(), Some(&made.key.kid));
        assert_eq!(
            jws::parse(&granted).unwrap().kid(),
            kids[0],
            "the other one signs later"
        );
    }
}

/// Makes the first change as the instance would, and then lets the instance make it. So its answer is that another change came
/// first, as after an answer that was lost on the way and a request that was sent again.
struct LostAnswer {
    store: Arc<MemoryMetadata>,
    context: Context,
    is_done: AtomicBool,
}

impl Hook for LostAnswer {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::Apply && !self.is_done.swap(true, Ordering::SeqCst) {
            let done = "the store in memory waits for nothing";
            let seeds = self.store.token_seeds(self.context).now_or_never().expect(done)?;
            let state = self.store.state(self.context).now_or_never().expect(done)?;
            let key = TokenSigner::from_stored(&seeds[0]).unwrap();
            let change = AccessChange {
                state: AccessState {
                    version: state.version + 1,
                    keys: vec![key.public(self.context.now)],
                    ..state
                },
                account: None,
                policy: None,
                event: None,
            };
            let applied = self.store.apply(self.context, &change).now_or_never().expect(done)?;
            assert_eq!(applied, Applied::Applied);
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A key that was published although the store reported a failure keeps its seed.
#[tokio::test]
async fn the_seed_of_a_published_key_stays() {
    let (world, key) = World::new().await;
    let lost = LostAnswer {
        store: world.store.clone(),
        context: world.context(),
        is_done: AtomicBool::new(false),
    };
    let store: Arc<dyn AccessStore> = world.store.clone();
    let instance = world.instance_over(Arc::new(Wrapped::new(store, lost)), World::settings(), None);
    let granted = token(&instance, &bearer(key.expose()), "repository:ci/x:pull").await;
    let kid = jws::parse(&granted).unwrap().kid();
    let seeds = world.store.token_seeds(world.context()).await.unwrap();
    assert_eq!(seeds.iter().map(|seed| seed.kid).collect::<Vec<_>>(), [kid]);
    assert_eq!(world.state().await.keys.len(), 1);
    let other = world.instance();
    token(&other, &bearer(key.expose()), "repository:ci/x:pull").await;
    assert_eq!(
        login(&other, &bearer(&granted)).await,
        format!("robot:ci by {}", key.id())
    );
}

/// Tokens with keys that nobody knows cause one read a second.
#[tokio::test]
async fn unknown_keys_cause_at_most_one_read_a_second() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let unknown = |number: u8| bearer(&jws::sign(&TokenSigner::from_seed(&[number; 32]), b"{}"));
    login(&instance, &Credentials::Absent).await;
    let _ = world.counts.take();
    for _ in 0..5 {
        for number in 1..100 {
            assert_eq!(login(&instance, &unknown(number)).await, "401 invalid_token");
        }
        assert_eq!(world.counts.reads(), 1);
        let _ = world.counts.take();
        world.clock.pass(1_000);
    }
}

/// A new key is published before it signs; the old one signs until then, and verifies until its last token has ended.
#[tokio::test]
async fn replacing_keys_refuses_no_token() {
    const PUBLISHED_MS: u64 = 30_000;

    let (world, key) = World::new().await;
    let instances = [world.instance(), world.instance(), world.instance()];
    let expected = format!("robot:ci by {}", key.id());
    let mut tokens = vec![token(&instances[0], &bearer(key.expose()), "repository:ci/x:pull").await];
    for round in 0..20_usize {
        let seed = TokenSigner::new_seed(&*world.clock);
        let signer = TokenSigner::from_seed(&seed.seed);
        assert!(world.store.add_token_seed(world.context(), &seed).await.unwrap());
        let from = world.clock.now().plus_millis(PUBLISHED_MS);
        world
            .apply(None, None, |state| {
                for key in &mut state.keys {
                    key.until.get_or_insert(from.plus_millis(Withdrawn::LIFETIME_MS));
                }
                state.keys.push(signer.public(from));
            })
            .await;
        for step in 0..10_usize {
            world.clock.pass(5_000);
            let issued = token(
                &instances[(round + step) % 3],
                &bearer(key.expose()),
                "repository:ci/x:pull",
            )
            .await;
            tokens.push(issued);
            for token in &tokens {
                for instance in &instances {
                    assert_eq!(login(instance, &bearer(token)).await, expected, "{round} {step}");
                }
            }
        }
        let last = jws::parse(&tokens[tokens.len() - 1]).unwrap().kid();
        assert_eq!(last, signer.kid(), "the new key signs now");
        let kept = tokens.len().saturating_sub(10);
        tokens.drain(..kept);
    }
    // Replaced at once: no token of an old key is good.
    let seed = TokenSigner::new_seed(&*world.clock);
    let signer = TokenSigner::from_seed(&seed.seed);
    world.store.add_token_seed(world.context(), &seed).await.unwrap();
    let now = world.clock.now();
    world
        .apply(None, None, |state| state.keys = vec![signer.public(now)])
        .await;
    world.clock.pass(10_000);
    for token in &tokens {
        assert_eq!(login(&instances[1], &bearer(token)).await, "401 invalid_token");
    }
    let token = token(&instances[1], &bearer(key.expose()), "").await;
    assert_eq!(login(&instances[2], &bearer(&token)).await, expected);
}

/// Requests that meet: every instance gets a token, and all instances are asked with each of them and with `kept`. Returns the
/// keys that have signed.
async fn use_tokens(
    instances: &[AccountAuthenticator],
    by_key: &Credentials,
    kept: &str,
    expected: &str,
) -> BTreeSet<KeyId> {
    let tokens = instances
        .iter()
        .map(|instance| token(instance, by_key, "repository:ci/x:pull"));
    let mut tokens = join_all(tokens).await;
    tokens.push(kept.to_owned());
    let credentials: Vec<_> = tokens.iter().map(|token| bearer(token)).collect();
    let logins = credentials
        .iter()
        .flat_map(|credentials| instances.iter().map(move |instance| login(instance, credentials)));
    for answer in join_all(logins).await {
        assert_eq!(answer, expected);
    }
    tokens.iter().map(|token| jws::parse(token).unwrap().kid()).collect()
}

/// By the code of the command, while clients use the registry. The keys are published for two seconds, which is less than the
/// time for which instances use one state, and a stranger makes one instance after the other read the keys.
#[tokio::test]
async fn twenty_rotations_under_load_refuse_no_request() {
    const PUBLISHED_MS: u64 = 2_000;
    const STEP_MS: u64 = 400;

    let (world, key) = World::new().await;
    let instances = [world.slow_instance(), world.slow_instance(), world.slow_instance()];
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let operator = Author::operator();
    let (by_key, expected) = (bearer(key.expose()), format!("robot:ci by {}", key.id()));
    let stranger = bearer(&jws::sign(&TokenSigner::from_seed(&[1; 32]), b"{}"));
    let kept = token(&instances[0], &by_key, "repository:ci/x:pull").await;
    let mut signed = BTreeSet::new();
    for round in 0..=20_usize {
        if round < 20 {
            let rotation = administration.rotate_signing_keys(&operator, Rotation::Published(PUBLISHED_MS));
            let load = use_tokens(&instances, &by_key, &kept, &expected);
            let (rotated, keys) = join(rotation, load).await;
            assert_eq!(rotated.unwrap().key.from, world.clock.now().plus_millis(PUBLISHED_MS));
            signed.extend(keys);
        }
        for step in 0..5_usize {
            world.clock.pass(STEP_MS);
            assert_eq!(login(&instances[step % 3], &stranger).await, "401 invalid_token");
            signed.extend(use_tokens(&instances, &by_key, &kept, &expected).await);
        }
    }
    assert_eq!(signed.len(), 21, "the first key and its successors have signed");
}

/// An instance that has read the state before, and no seeds, learns of the new key when it finds no seed of the old one.
#[tokio::test]
async fn a_replacement_at_once_leaves_no_instance_without_a_key() {
    let (world, key) = World::new().await;
    let (first, second) = (world.instance(), world.instance());
    let by_key = bearer(key.expose());
    let before = token(&first, &by_key, "repository:ci/x:pull").await;
    login(&second, &Credentials::Absent).await;
    let administration = Administration::new(world.store.clone(), world.clock.clone(), 1_000);
    let operator = Author::operator();
    let rotated = administration.rotate_signing_keys(&operator, Rotation::Now).await;
    let new = rotated.unwrap();
    assert_eq!(world.store.token_seeds(world.context()).await.unwrap().len(), 1);
    let granted = token(&second, &by_key, "repository:ci/x:pull").await;
    assert_eq!(jws::parse(&granted).unwrap().kid(), new.key.kid);
    assert_eq!(login(&second, &bearer(&before)).await, "401 invalid_token");
}

#[tokio::test]
async fn keys_of_a_file_are_not_in_the_table() {
    let (world, _) = World::new().await;
    let (old, new) = (TokenSigner::from_seed(&[1; 32]), TokenSigner::from_seed(&[2; 32]));
    let settings = |keys: &[&TokenSigner]| AccountSettings {
        signers: TokenSignerSource::File(keys.iter().map(|key| (*key).clone()).collect()),
        ..World::settings()
    };
    let before = world.instance_with(settings(&[&old]), None);
    let after = world.instance_with(settings(&[&new, &old]), None);
    let token_before = token(&before, &basic("alice", PASSWORD), "repository:a:pull").await;
    let token_after = token(&after, &basic("alice", PASSWORD), "repository:a:pull").await;
    assert_eq!(login(&after, &bearer(&token_before)).await, "alice");
    assert_eq!(login(&after, &bearer(&token_after)).await, "alice");
    assert_eq!(login(&before, &bearer(&token_after)).await, "401 invalid_token");
    assert_eq!(jws::parse(&token_after).unwrap().kid(), new.kid());
    assert!(world.state().await.keys.is_empty());
    let seeds = world.store.token_seeds(world.context()).await.unwrap();
    let kids: Vec<_> = seeds.iter().map(|seed| seed.kid).collect();
    assert_eq!(kids, [KeyId::PASSWORD_SECRET], "what all instances count by");
    let set: serde_json::Value = serde_json::from_slice(&after.key_set().await.unwrap()).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
}

/// A token is for its own registry, and ends.
#[tokio::test]
async fn s05_a_token_of_another_service_or_time_is_refused() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let settings = AccountSettings {
        service: "other.example".to_owned(),
        ..World::settings()
    };
    let other = world.instance_with(settings, None);
    let granted = token(&instance, &basic("alice", PASSWORD), "repository:a:pull").await;
    assert_eq!(login(&instance, &bearer(&granted)).await, "alice");
    assert_eq!(login(&other, &bearer(&granted)).await, "401 invalid_token");
    for (index, _) in granted.char_indices().step_by(7) {
        let mut changed = granted.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            login(&instance, &bearer(&changed)).await,
            "401 invalid_token",
            "{index}"
        );
    }
    world.clock.pass(600_000);
    assert_eq!(
        login(&instance, &bearer(&granted)).await,
        "alice",
        "the slack of a minute"
    );
    world.clock.pass(60_000);
    assert_eq!(login(&instance, &bearer(&granted)).await, "401 invalid_token");
    assert_eq!(login(&instance, &bearer(&granted)).await, "401 invalid_token");
}
