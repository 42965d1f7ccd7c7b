//! A registry without accounts, and its first one.

use registry::Authenticator as _;
use registry::auth::{Credentials, Principal, Pull, Push, Rules};
use registry::store::access::AccountChange;

use super::support::{FileUsers, PASSWORD, World, basic, bearer, from, group, login, repository, token};
use crate::accounts::{AccountSettings, BootstrapSecret};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn s15_the_first_account_closes_an_open_registry_within_ten_seconds() {
    for rules in [Rules::everything(), Rules::pull_only()] {
        let world = World::empty();
        let settings = AccountSettings {
            open: Some(rules.clone()),
            ..World::settings()
        };
        let instance = world.instance_with(settings, None);
        let name = repository("a");
        let opener: Principal = "old-user".parse().unwrap();
        for credentials in [
            Credentials::Absent,
            basic("alice", "wrong"),
            bearer("x"),
            Credentials::Unreadable,
        ] {
            let identity = instance.authenticate(&from(1), &credentials).await.unwrap();
            assert!(identity.principal().is_anonymous() && identity.may::<Pull>(&name));
            assert_eq!(identity.may::<Push>(&name), rules.is_everything());
        }
        let reauthorized = instance.reauthorize(&opener, None).await.unwrap();
        assert_eq!(reauthorized.principal(), &opener);
        assert!(!instance.takes_credentials());
        assert!(!instance.has_accounts().await.unwrap());
        let open_token = token(&instance, &Credentials::Absent, "repository:a:pull").await;
        world.put(world.user("alice")).await;
        world.clock.pass(10_000);
        let anonymous = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
        assert!(!anonymous.may::<Pull>(&name) && !anonymous.may::<Push>(&name));
        assert!(instance.takes_credentials() && instance.has_accounts().await.unwrap());
        assert!(instance.reauthorize(&opener, None).await.is_err());
        assert_eq!(login(&instance, &basic("alice", "wrong")).await, "401");
        assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "alice");
        let by_token = instance.authenticate(&from(1), &bearer(&open_token)).await.unwrap();
        assert!(
            !by_token.may::<Pull>(&name),
            "a token from before is judged by the policy"
        );
    }
}

/// The removal of the last account opens nothing: not on a server that other hosts reach, and on no other.
#[tokio::test]
async fn s15_the_removal_of_the_last_account_does_not_open_a_registry_again() {
    let world = World::empty();
    let settings = AccountSettings {
        open: Some(Rules::everything()),
        ..World::settings()
    };
    let instances = [(); 2].map(|()| world.instance_with(settings.clone(), None));
    for instance in &instances {
        let open = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
        assert!(open.may::<Push>(&repository("a")));
    }
    let alice = world.user("alice");
    world.put(alice.clone()).await;
    world.clock.pass(10_000);
    for instance in &instances {
        assert_eq!(login(instance, &Credentials::Absent).await, ":anonymous");
    }
    world
        .apply(Some(AccountChange::Remove(alice.name.clone())), None, |state| {
            state.accounts = 0;
        })
        .await;
    for _ in 0..3 {
        world.clock.pass(10_000);
        for instance in &instances {
            let closed = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
            assert!(!closed.may::<Pull>(&repository("a")) && !closed.may::<Push>(&repository("a")));
            assert_eq!(login(instance, &basic("alice", PASSWORD)).await, "401");
            assert!(instance.reauthorize(&alice.principal(), None).await.is_err());
            let anonymous = instance.reauthorize(&Principal::ANONYMOUS, None).await.unwrap();
            assert!(!anonymous.may::<Push>(&repository("a")));
            assert!(instance.takes_credentials());
        }
    }
}

/// A policy that was set before the first account: its rules about tags and repositories hold for everyone.
#[tokio::test]
async fn an_open_registry_keeps_the_rules_that_concern_everyone() {
    let world = World::empty();
    let settings = AccountSettings {
        open: Some(Rules::everything()),
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    world
        .set_policy(r#"{"syntax":1,"immutable":[{"name":"releases","repositories":["**"],"tags":["*"]}]}"#)
        .await;
    let open = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
    assert!(open.may::<Push>(&repository("a")) && open.shared_rules().is_some());
    let finishing = instance.reauthorize(&Principal::ANONYMOUS, None).await.unwrap();
    assert_eq!(finishing.shared_rules(), open.shared_rules());
    // A policy that this program cannot read decides nothing, and does not open everything either.
    world.set_policy(r#"{"syntax":2}"#).await;
    world.clock.pass(10_000);
    assert_eq!(login(&instance, &Credentials::Absent).await, "503");
    assert!(instance.reauthorize(&Principal::ANONYMOUS, None).await.is_err());
}

/// Where there are users in a file, or nothing is said, nothing is open.
#[tokio::test]
async fn s15_nothing_is_open_without_being_asked() {
    let world = World::empty();
    let open = AccountSettings {
        open: Some(Rules::everything()),
        ..World::settings()
    };
    for instance in [world.instance(), world.instance_with(open, Some(FileUsers::new()))] {
        let anonymous = instance.authenticate(&from(1), &Credentials::Absent).await.unwrap();
        assert!(!anonymous.may::<Pull>(&repository("a")));
        assert_eq!(login(&instance, &basic("admin", "admin")).await, "401");
        assert!(instance.takes_credentials());
    }
}

/// It says who may make the first administrator, and nothing else.
#[tokio::test]
async fn s15_the_bootstrap_secret_is_good_for_the_first_administrator_only() {
    let world = World::empty();
    let settings = AccountSettings {
        bootstrap: BootstrapSecret::new(SECRET).ok(),
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    assert!(instance.is_bootstrap("bootstrap", SECRET).await.unwrap());
    for (user, secret) in [
        ("bootstrap", ""),
        ("bootstrap", &SECRET[1..]),
        ("admin", SECRET),
        ("", SECRET),
    ] {
        assert!(!instance.is_bootstrap(user, secret).await.unwrap(), "{user} {secret}");
    }
    assert_eq!(login(&instance, &basic("bootstrap", SECRET)).await, "401");
    assert_eq!(login(&instance, &bearer(SECRET)).await, "401 invalid_token");
    let refused = super::support::get_token(&instance, &basic("bootstrap", SECRET), "scope=repository:a:pull").await;
    assert!(refused.is_err());
    assert!(!world.instance().is_bootstrap("bootstrap", SECRET).await.unwrap());
    let mut admin = world.user("root");
    admin.groups.insert(group("admins"));
    world.put(admin).await;
    assert!(!instance.is_bootstrap("bootstrap", SECRET).await.unwrap());
    // Also after that administrator is gone.
    world.take_away("root", |account| account.disabled = true).await;
    world.apply(None, None, |state| state.admins = 0).await;
    assert!(!instance.is_bootstrap("bootstrap", SECRET).await.unwrap());
}
