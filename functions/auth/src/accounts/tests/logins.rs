//! Credentials of requests, and who they prove.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use registry::Authenticator as _;
use registry::auth::{AccountName, AuthenticationError, Credentials, Pull, Push};
use registry::budget::ClientKey;
use registry::store::StoreError;
use registry::store::access::AccessStore;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};

use super::support::{
    FileUsers, Outage, PASSWORD, World, account, basic, bearer, from, get_token, login, repository, shown, token,
};
use crate::accounts::{AccountSettings, PasswordUsers};
use crate::key::Key;
use crate::password::{Parameters, PasswordHasher};

/// Credentials that are present and not good are never anonymous.
#[tokio::test]
async fn who_credentials_prove() {
    let (world, key) = World::new().await;
    let settings = AccountSettings {
        anonymous_pull: true,
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    let by_key = format!("robot:ci by {}", key.id());
    for (credentials, expected) in [
        (Credentials::Absent, ":anonymous"),
        (basic("alice", PASSWORD), "alice"),
        (basic("ci", key.expose()), &*by_key),
        (basic("key", key.expose()), &by_key),
        (bearer(key.expose()), &by_key),
        (Credentials::Unreadable, "401"),
        (basic("alice", ""), "401"),
        (basic("Alice", PASSWORD), "401"),
        (basic("anonymous", PASSWORD), "401"),
        (basic("alice", key.expose()), "401"),
        (basic("oidc", PASSWORD), "401"),
        (bearer(&key.expose()[1..]), "401 invalid_token"),
        (bearer("a.b.c"), "401 invalid_token"),
        (bearer(PASSWORD), "401 invalid_token"),
    ] {
        assert_eq!(login(&instance, &credentials).await, expected, "{credentials:?}");
    }
    assert!(instance.takes_credentials());
    let anonymous = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
    let name = repository("a");
    assert!(anonymous.may::<Pull>(&name) && !anonymous.may::<Push>(&name));
}

#[tokio::test]
async fn an_account_hides_the_user_of_a_file() {
    let (world, _) = World::new().await;
    let users = FileUsers::new();
    let instance = world.instance_with(World::settings(), Some(users.clone()));
    let credentials = basic(FileUsers::NAME, PASSWORD);
    assert_eq!(login(&instance, &credentials).await, FileUsers::NAME);
    assert_eq!(users.hidden.load(Ordering::SeqCst), 0);
    let mut account = world.user(FileUsers::NAME);
    account.password = world.hasher.hash("another password", &*world.clock).ok();
    world.put(account).await;
    world.clock.pass(10_000);
    assert_eq!(login(&instance, &credentials).await, "401");
    assert_eq!(
        login(&instance, &basic(FileUsers::NAME, "another password")).await,
        FileUsers::NAME
    );
    assert!(users.hidden.load(Ordering::SeqCst) > 0);
}

/// Users of a file: everybody, with this password.
struct Everybody(&'static str);

#[async_trait]
impl PasswordUsers for Everybody {
    async fn generation(&self, _: &str) -> Option<u64> {
        Some(1)
    }

    async fn known(&self, _: ClientKey, _: &str, password: &str) -> Option<bool> {
        Some(password == self.0)
    }

    async fn verify(&self, _: ClientKey, _: &str, password: &str) -> Result<bool, AuthenticationError> {
        Ok(password == self.0)
    }

    fn hidden_by_account(&self, _: &str) {}
}

/// A file may have such a password, although no new one begins so.
#[tokio::test]
async fn a_password_that_begins_as_a_key_does_is_a_password() {
    const LIKE_KEY: &str = "rsk_correct.horse";

    let (world, key) = World::new().await;
    let mut old = world.user("old");
    old.password = world.hasher.hash_again(LIKE_KEY, &*world.clock).ok();
    world.put(old).await;
    let instance = world.instance_with(World::settings(), Some(Arc::new(Everybody(LIKE_KEY))));
    for (user, secret, expected) in [
        ("zoe", LIKE_KEY, "zoe"),
        ("old", LIKE_KEY, "old"),
        ("zoe", "rsk_wrong.horse", "401"),
        ("old", "rsk_wrong.horse", "401"),
        ("zoe", key.expose(), "401"),
        ("key", LIKE_KEY, "401"),
    ] {
        assert_eq!(
            login(&instance, &basic(user, secret)).await,
            expected,
            "{user} {secret}"
        );
    }
    assert_eq!(login(&instance, &bearer(LIKE_KEY)).await, "401 invalid_token");
}

/// Their names have another meaning where clients send credentials.
#[tokio::test]
async fn no_user_of_a_file_has_a_reserved_name() {
    let world = World::empty();
    let instance = world.instance_with(World::settings(), Some(Arc::new(Everybody(PASSWORD))));
    assert_eq!(login(&instance, &basic("zoe", PASSWORD)).await, "zoe");
    for name in AccountName::RESERVED {
        assert_eq!(login(&instance, &basic(name, PASSWORD)).await, "401", "{name}");
        assert!(
            get_token(&instance, &basic(name, PASSWORD), "").await.is_err(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_hash_with_other_parameters_is_renewed() {
    let (world, _) = World::new().await;
    let parameters = Parameters {
        passes: 2,
        ..Parameters::CHEAPEST
    };
    let settings = AccountSettings {
        passwords: parameters,
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    let before = world.read("alice").await;
    assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "alice");
    let after = world.read("alice").await;
    assert_eq!(
        after.generation, before.generation,
        "the password is the same, so its tokens stay"
    );
    let renewed = after.password.unwrap();
    assert_ne!(Some(&renewed), before.password.as_ref());
    let checked = PasswordHasher::new(parameters)
        .unwrap()
        .verify(PASSWORD, Some(&renewed));
    assert_eq!(checked, crate::password::PasswordCheck::Right);
}

/// A store that records no use of a key while it is set, and how often it was asked to.
#[derive(Clone, Default)]
struct NoUses {
    is_out: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl NoUses {
    fn take(&self) -> u64 {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl Hook for NoUses {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::RecordUse {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.is_out.load(Ordering::SeqCst) {
                return Err(StoreError::unavailable("planned"));
            }
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Clients log in as before, and one login a minute tries to record the use of its key.
#[tokio::test]
async fn a_use_that_cannot_be_recorded_delays_one_login_a_minute() {
    let (world, key) = World::new().await;
    let other = Key::generate(&account("ci"), &*world.clock);
    let added = world.account_key(&other);
    world
        .change("ci", |ci| {
            ci.keys.insert(other.id(), added);
        })
        .await;
    let store: Arc<dyn AccessStore> = world.store.clone();
    let uses = NoUses::default();
    uses.is_out.store(true, Ordering::SeqCst);
    let store: Arc<dyn AccessStore> = Arc::new(Wrapped::new(store, uses.clone()));
    let instance = world.instance_over(store, World::settings(), None);
    let log_in = async || {
        for key in [&key, &other, &key] {
            let expected = format!("robot:ci by {}", key.id());
            assert_eq!(login(&instance, &bearer(key.expose())).await, expected);
        }
        uses.take()
    };
    assert_eq!(log_in().await, 1);
    world.clock.pass(59_999);
    assert_eq!(log_in().await, 0);
    world.clock.pass(1);
    assert_eq!(log_in().await, 1);
    world.clock.back(5_000);
    assert_eq!(log_in().await, 1, "the clock was set back");
    uses.is_out.store(false, Ordering::SeqCst);
    assert_eq!(log_in().await, 0);
    world.clock.pass(60_000);
    assert_eq!(log_in().await, 2, "once for each key");
    assert_eq!(log_in().await, 0);
    let recorded = world.store.last_uses(world.context(), &account("ci")).await.unwrap();
    assert_eq!(recorded.len(), 2);
}

/// Nothing is decided by a state that is older than ten seconds, or by another policy than the one that was set.
#[tokio::test]
async fn a_table_that_does_not_answer_means_that_nothing_is_decided() {
    let (world, key) = World::new().await;
    let store: Arc<dyn AccessStore> = world.store.clone();
    let outage = Outage::default();
    let store: Arc<dyn AccessStore> = Arc::new(Wrapped::new(store, outage.clone()));
    let instance = world.instance_over(store, World::settings(), None);
    let token = token(&instance, &bearer(key.expose()), "repository:ci/x:pull").await;
    let all = [
        (bearer(&token), format!("robot:ci by {}", key.id())),
        (bearer(key.expose()), format!("robot:ci by {}", key.id())),
        (Credentials::Absent, ":anonymous".to_owned()),
    ];
    outage.set(true);
    world.clock.pass(9_999);
    for (credentials, expected) in &all {
        assert_eq!(login(&instance, credentials).await, *expected);
    }
    world.clock.pass(1);
    for (credentials, _) in &all {
        assert_eq!(login(&instance, credentials).await, "503", "{credentials:?}");
    }
    assert_eq!(
        shown(instance.reauthorize(&"robot:ci".parse().unwrap(), None).await),
        "503"
    );
    let refused = get_token(&instance, &bearer(key.expose()), "").await.unwrap_err();
    assert!(
        matches!(refused, registry::token_endpoint::TokenRefusal::Unavailable(_)),
        "{refused:?}"
    );
    outage.set(false);
    for (credentials, expected) in &all {
        assert_eq!(login(&instance, credentials).await, *expected);
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_means_that_nothing_is_decided() {
    for document in [r#"{"syntax":2}"#, r#"{"syntax":1,"unknown":[]}"#, "{"] {
        let (world, key) = World::new().await;
        let instance = world.instance();
        let token = token(&instance, &bearer(key.expose()), "repository:ci/x:pull").await;
        world.set_policy(document).await;
        world.clock.pass(10_000);
        for credentials in [
            Credentials::Absent,
            bearer(&token),
            bearer(key.expose()),
            basic("alice", PASSWORD),
        ] {
            assert_eq!(
                login(&instance, &credentials).await,
                "503",
                "{document} {credentials:?}"
            );
        }
        world.set_policy(r#"{"syntax":1}"#).await;
        world.clock.pass(10_000);
        let identity = instance
            .authenticate(&from(1), &basic("alice", PASSWORD))
            .await
            .unwrap();
        assert!(!identity.may::<Pull>(&repository("a")), "and not the default policy");
    }
}

/// A clock that was set back makes nothing young.
#[tokio::test]
async fn a_clock_that_goes_back_makes_the_state_be_read() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    login(&instance, &Credentials::Absent).await;
    let _ = world.counts.take();
    world.clock.back(1);
    login(&instance, &Credentials::Absent).await;
    assert_eq!(world.counts.reads(), 1);
}
