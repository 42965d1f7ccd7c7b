//! The keys that sign tokens: the first one, their replacement, and keys from a file.

use registry::auth::Credentials;
use registry::environment::Environment as _;
use registry::store::access::{AccessStore as _, Withdrawn};
use registry::token_endpoint::TokenEndpoint as _;

use super::support::{PASSWORD, World, basic, bearer, get_token, login, token};
use crate::accounts::{AccountSettings, TokenSignerSource};
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
    assert!(world.store.token_seeds(world.context()).await.unwrap().is_empty());
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
