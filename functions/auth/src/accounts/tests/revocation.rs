//! What is taken away does not get through later than ten seconds, on any instance, also not by a token or an upload from
//! before.

use registry::Authenticator as _;
use registry::auth::{Actions, CredentialId, Credentials, Delete, List, Move, Principal, Pull, Push};

use super::support::{FileUsers, PASSWORD, World, basic, bearer, from, grant, group, login, repository, token};
use crate::accounts::AccountAuthenticator;
use crate::key::Key;

const POLICY: &str = r#"{"syntax":1,
    "allow":[{"name":"dev","who":["group:dev"],"repositories":["team/**"],"actions":["pull","push"]},
             {"name":"key","who":["user:alice"],"repositories":["own/**"],"actions":["pull"]}]}"#;

const DENYING: &str = r#"{"syntax":1,
    "allow":[{"name":"dev","who":["group:dev"],"repositories":["team/**"],"actions":["pull","push"]},
             {"name":"key","who":["user:alice"],"repositories":["own/**"],"actions":["pull"]}],
    "deny":[{"name":"frozen","who":["anyone"],"repositories":["team/**","own/**","ci/**"],"actions":["pull","push"]}]}"#;

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Disabled,
    Removed,
    Group,
    Grant,
    Key,
    DenyRule,
    Password,
}

/// A credential from before, and a repository that it may push to or pull from. An upload that it has opened carries the
/// principal and the key.
struct Before {
    what: &'static str,
    credentials: Credentials,
    principal: Principal,
    key: Option<CredentialId>,
    repository: &'static str,
    lost_by: &'static [Loss],
}

async fn may_pull(instance: &AccountAuthenticator, before: &Before) -> bool {
    let identity = instance.authenticate(&from(1), &before.credentials).await;
    identity.is_ok_and(|identity| identity.may::<Pull>(&repository(before.repository)))
}

async fn may_finish(instance: &AccountAuthenticator, before: &Before) -> bool {
    let identity = instance.reauthorize(&before.principal, before.key).await;
    identity.is_ok_and(|identity| identity.may::<Pull>(&repository(before.repository)))
}

async fn lose(world: &World, loss: Loss, keys: &[&Key]) {
    let now = registry::environment::Environment::now(&*world.clock);
    match loss {
        Loss::Disabled => {
            for name in ["alice", "ci"] {
                world.take_away(name, |account| account.disabled = true).await;
            }
        }
        Loss::Removed => {
            for name in ["alice", "ci"] {
                let account = world.read(name).await;
                let principal = account.principal();
                let removal = registry::store::access::AccountChange::Remove(account.name.clone());
                world
                    .apply(Some(removal), None, |state| {
                        state.accounts -= 1;
                        state
                            .withdrawn
                            .withdraw_principal(&principal, account.generation + 1, now);
                    })
                    .await;
            }
        }
        Loss::Group => world.take_away("alice", |account| account.groups.clear()).await,
        Loss::Grant => world.take_away("ci", |account| account.grants.clear()).await,
        Loss::Password => world.take_away("alice", |account| account.password = None).await,
        Loss::Key => {
            for key in keys {
                let mut account = world.read(key.account().as_str()).await;
                account.keys.remove(&key.id());
                let put = registry::store::access::AccountChange::Put(Box::new(account));
                world
                    .apply(Some(put), None, |state| state.withdrawn.withdraw_key(key.id(), now))
                    .await;
            }
        }
        Loss::DenyRule => world.set_policy(DENYING).await,
    }
}

#[tokio::test]
async fn s17_what_is_taken_away_ends_within_ten_seconds_on_every_instance() {
    use Loss::{DenyRule, Disabled, Grant, Group, Password, Removed};

    const ALL_LOSSES: [Loss; 7] = [Disabled, Removed, Group, Grant, Loss::Key, DenyRule, Password];
    for loss in ALL_LOSSES {
        let (world, key) = World::new().await;
        world.set_policy(POLICY).await;
        let personal = Key::generate(&super::support::account("alice"), &*world.clock);
        let added = world.account_key(&personal);
        world
            .change("alice", |alice| {
                alice.keys.insert(personal.id(), added);
            })
            .await;
        let instances = [world.instance(), world.instance(), world.instance()];
        let team = token(&instances[0], &basic("alice", PASSWORD), "repository:team/x:pull,push").await;
        let own = token(
            &instances[1],
            &basic("alice", personal.expose()),
            "repository:own/x:pull",
        )
        .await;
        let ci = token(&instances[2], &bearer(key.expose()), "repository:ci/x:pull,push").await;
        let (alice, robot): (Principal, Principal) = ("alice".parse().unwrap(), "robot:ci".parse().unwrap());
        let before = |what, credentials, key: Option<&Key>, repository, lost_by| Before {
            what,
            credentials,
            principal: if key.is_some_and(|key| key.account().as_str() == "ci") {
                robot.clone()
            } else {
                alice.clone()
            },
            key: key.map(Key::id),
            repository,
            lost_by,
        };
        let of_alice_by_password = &[Disabled, Removed, Group, DenyRule, Password][..];
        let of_alice_by_key = &[Disabled, Removed, Loss::Key, DenyRule][..];
        let of_ci = &[Disabled, Removed, Grant, Loss::Key, DenyRule][..];
        let all = [
            before("token by password", bearer(&team), None, "team/x", of_alice_by_password),
            before("token by key", bearer(&own), Some(&personal), "own/x", of_alice_by_key),
            before("token of a robot", bearer(&ci), Some(&key), "ci/x", of_ci),
            before(
                "password",
                basic("alice", PASSWORD),
                None,
                "team/x",
                of_alice_by_password,
            ),
            before(
                "key",
                basic("key", personal.expose()),
                Some(&personal),
                "own/x",
                of_alice_by_key,
            ),
            before("bearer key", bearer(key.expose()), Some(&key), "ci/x", of_ci),
        ];
        for instance in &instances {
            for before in &all {
                assert!(may_pull(instance, before).await, "{loss:?}: {}", before.what);
                assert!(may_finish(instance, before).await, "{loss:?}: {}", before.what);
            }
        }
        world.clock.pass(1);
        lose(&world, loss, &[&key, &personal]).await;
        world.clock.pass(9_999);
        for instance in &instances {
            for before in &all {
                let is_lost = before.lost_by.contains(&loss);
                let what = format!("{loss:?}: {}", before.what);
                // A password is not in a token, and the account's generation is: a token by key of the same account is
                // withdrawn too when the account loses a group or its password, and the next one is granted.
                let is_withdrawn = before.what == "token by key" && matches!(loss, Group | Password);
                assert_eq!(may_pull(instance, before).await, !is_lost && !is_withdrawn, "{what}");
                // An upload token carries the principal and the key, and not the password or the generation.
                let finishes = !is_lost || loss == Password;
                assert_eq!(may_finish(instance, before).await, finishes, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn s02_a_token_of_a_user_in_a_file_ends_with_the_line() {
    let world = World::empty();
    let users = FileUsers::new();
    let instance = world.instance_with(World::settings(), Some(users.clone()));
    let token = token(&instance, &basic(FileUsers::NAME, PASSWORD), "repository:a:pull,push").await;
    let user: Principal = FileUsers::NAME.parse().unwrap();
    assert_eq!(login(&instance, &bearer(&token)).await, FileUsers::NAME);
    assert!(instance.reauthorize(&user, None).await.is_ok());
    for generation in [2, 0] {
        users.generation.store(generation, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(login(&instance, &bearer(&token)).await, "401 invalid_token");
        assert_eq!(instance.reauthorize(&user, None).await.is_ok(), generation > 0);
    }
    let without = world.instance();
    assert_eq!(login(&without, &bearer(&token)).await, "401 invalid_token");
}

/// The key that opened an upload has to be good when the upload is finished, and to allow it then.
#[tokio::test]
async fn s17_an_upload_ends_with_the_key_that_opened_it() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let robot: Principal = "robot:ci".parse().unwrap();
    let may_finish = async |credential: Option<CredentialId>| {
        let identity = instance.reauthorize(&robot, credential).await;
        assert!(identity.as_ref().is_ok_and(|found| found.credential() == credential) || identity.is_err());
        identity.is_ok_and(|identity| identity.may::<Push>(&repository("ci/app")))
    };
    let now = registry::environment::Environment::now(&*world.clock);
    for (what, scope, expires, expected) in [
        ("as before", None, None, true),
        ("it ends later", None, Some(now.plus_millis(1)), true),
        ("it has ended", None, Some(now), false),
        (
            "within its scope",
            Some(vec![grant("ci/**", Actions::CREATE)]),
            None,
            true,
        ),
        ("pull only", Some(vec![grant("ci/**", Actions::PULL)]), None, false),
        ("elsewhere", Some(vec![grant("other/**", Actions::ALL)]), None, false),
        ("for nothing", Some(Vec::new()), None, false),
    ] {
        world
            .change("ci", |ci| {
                let stored = ci.keys.get_mut(&key.id()).unwrap();
                (stored.scope, stored.expires) = (scope, expires);
            })
            .await;
        // Without waiting for ten seconds: the account is asked for now.
        assert_eq!(may_finish(Some(key.id())).await, expected, "{what}");
        assert!(
            may_finish(None).await,
            "{what}: an upload from before, whose token names no key"
        );
    }
    // A key of another account, and one that never was.
    let other = Key::generate(&super::support::account("alice"), &*world.clock);
    assert!(!may_finish(Some(other.id())).await);
}

/// A user of a file has no keys, so an upload by key was one of an account that is gone.
#[tokio::test]
async fn s17_an_upload_by_key_is_not_finished_as_the_user_of_a_file() {
    let world = World::empty();
    let instance = world.instance_with(World::settings(), Some(FileUsers::new()));
    let (user, key): (Principal, CredentialId) = (FileUsers::NAME.parse().unwrap(), "3f9aK2dQ".parse().unwrap());
    assert!(instance.reauthorize(&user, None).await.is_ok());
    assert!(instance.reauthorize(&user, Some(key)).await.is_err());
}

/// Also if the account is disabled: then nobody of that name may do anything.
#[tokio::test]
async fn s02_an_account_hides_the_tokens_of_the_user_of_a_file() {
    for is_disabled in [false, true] {
        let (world, _) = World::new().await;
        let instance = world.instance_with(World::settings(), Some(FileUsers::new()));
        let by_password = basic(FileUsers::NAME, PASSWORD);
        let token = token(&instance, &by_password, "repository:a:pull,push").await;
        let user: Principal = FileUsers::NAME.parse().unwrap();
        assert_eq!(login(&instance, &bearer(&token)).await, FileUsers::NAME);
        let mut account = world.user(FileUsers::NAME);
        account.password = world.hasher.hash("another password", &*world.clock).ok();
        account.disabled = is_disabled;
        world.put(account).await;
        world.clock.pass(10_000);
        assert_eq!(login(&instance, &bearer(&token)).await, "401 invalid_token");
        assert_eq!(login(&instance, &by_password).await, "401");
        assert_eq!(instance.reauthorize(&user, None).await.is_ok(), !is_disabled);
    }
}

/// A record that was read before a clock was set back is not taken for a newer one.
#[tokio::test]
async fn s02_a_clock_that_goes_back_keeps_no_old_account() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let credentials = bearer(key.expose());
    assert_eq!(
        login(&instance, &credentials).await,
        format!("robot:ci by {}", key.id())
    );
    world.clock.back(3_600_000);
    world.take_away("ci", |account| account.disabled = true).await;
    assert_eq!(login(&instance, &credentials).await, "401 invalid_token");
    assert!(instance.reauthorize(&"robot:ci".parse().unwrap(), None).await.is_err());
}

/// What is added needs no new login of those who use Basic, and a new token of the others.
#[tokio::test]
async fn what_is_added_is_in_the_next_token() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let before = token(&instance, &bearer(key.expose()), "repository:new/x:pull").await;
    world
        .change("ci", |ci| {
            ci.grants.push(grant("new/**", Actions::PULL));
            ci.groups.insert(group("dev"));
        })
        .await;
    world.clock.pass(10_000);
    let name = repository("new/x");
    let may = async |credentials: &Credentials| {
        let identity = instance.authenticate(&from(1), credentials).await.unwrap();
        identity.may::<Pull>(&name)
    };
    assert!(!may(&bearer(&before)).await);
    assert!(may(&bearer(key.expose())).await);
    let after = token(&instance, &bearer(key.expose()), "repository:new/x:pull").await;
    assert!(may(&bearer(&after)).await);
}

/// A token allows what it contains, as far as the policy allows it now.
#[tokio::test]
async fn a_token_allows_what_it_contains() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let token = token(
        &instance,
        &basic("alice", PASSWORD),
        "repository:a:pull&scope=repository:b:pull,push&scope=repository:c:delete",
    )
    .await;
    let identity = instance.authenticate(&from(1), &bearer(&token)).await.unwrap();
    for (name, expected) in [
        ("a", [true, false, false, false]),
        ("b", [true, true, true, false]),
        ("c", [false, false, false, true]),
        ("d", [false; 4]),
    ] {
        let name = repository(name);
        let may = [
            identity.may::<Pull>(&name),
            identity.may::<Push>(&name),
            identity.may::<Move>(&name),
            identity.may::<Delete>(&name),
        ];
        assert_eq!(may, expected, "{name}");
    }
    assert!(
        !identity.may::<List>(&repository("d")),
        "the token is not for the catalog"
    );
    let catalog = super::support::token(&instance, &basic("alice", PASSWORD), "registry:catalog:*").await;
    let identity = instance.authenticate(&from(1), &bearer(&catalog)).await.unwrap();
    assert!(identity.may::<List>(&repository("d")) && !identity.may::<Pull>(&repository("d")));
}
