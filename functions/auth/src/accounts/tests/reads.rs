//! How often the table is read and written for each kind of credentials, as docs/metadata.md says.

use registry::Authenticator as _;
use registry::auth::{Credentials, Principal, Rules};
use registry::store::access::AccessStore as _;

use super::support::{FileUsers, PASSWORD, World, account, basic, bearer, get_token, login, shown, token};
use crate::accounts::AccountSettings;
use crate::key::Key;

/// The calls since the last time, for instance `State 1`.
fn calls(world: &World) -> String {
    let calls = world.counts.take();
    let calls: Vec<_> = calls
        .iter()
        .map(|(method, count)| format!("{method:?} {count}"))
        .collect();
    calls.join(", ")
}

#[tokio::test]
async fn a_token_costs_one_read_of_the_state_in_ten_seconds() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let token = token(&instance, &bearer(key.expose()), "repository:ci/app:pull").await;
    let credentials = bearer(&token);
    let other = world.instance();
    let _ = calls(&world);
    assert_eq!(login(&other, &credentials).await, format!("robot:ci by {}", key.id()));
    assert_eq!(calls(&world), "State 1");
    for _ in 0..3 {
        world.clock.pass(3_333);
        for _ in 0..100 {
            assert_eq!(login(&other, &credentials).await, format!("robot:ci by {}", key.id()));
        }
        assert_eq!(calls(&world), "");
    }
    world.clock.pass(1);
    for _ in 0..100 {
        login(&other, &credentials).await;
    }
    assert_eq!(calls(&world), "State 1");
    world
        .set_policy(r#"{"syntax":1,"allow":[{"name":"a","who":["robots"],"repositories":["**"],"actions":["pull"]}]}"#)
        .await;
    world.clock.pass(10_000);
    for _ in 0..100 {
        login(&other, &credentials).await;
    }
    assert_eq!(calls(&world), "State 1, PolicyDocument 1");
    world.clock.pass(10_000);
    login(&other, &credentials).await;
    assert_eq!(calls(&world), "State 1", "the same version is not read again");
}

/// A replica may get the state before the policy. One that can never be read is not asked for again.
#[tokio::test]
async fn a_policy_that_arrives_after_the_state_comes_in_force() {
    const POLICY: &str =
        r#"{"syntax":1,"allow":[{"name":"a","who":["anyone"],"repositories":["**"],"actions":["pull"]}]}"#;

    let (world, _) = World::new().await;
    let instance = world.instance();
    world
        .apply(None, None, |state| state.policy = Some(state.version))
        .await;
    let awaited = world.state().await.policy.unwrap();
    let _ = calls(&world);
    for _ in 0..2 {
        assert_eq!(login(&instance, &Credentials::Absent).await, "503");
        assert_eq!(login(&instance, &Credentials::Absent).await, "503");
        assert_eq!(calls(&world), "State 1, PolicyDocument 1");
        world.clock.pass(10_000);
    }
    world.arrive(awaited, POLICY).await;
    assert_eq!(login(&instance, &Credentials::Absent).await, ":anonymous");
    assert_eq!(calls(&world), "State 1, PolicyDocument 1");
    world.clock.pass(10_000);
    assert_eq!(login(&instance, &Credentials::Absent).await, ":anonymous");
    assert_eq!(calls(&world), "State 1");
    world.set_policy("{}").await;
    world.clock.pass(10_000);
    for expected in ["State 1, PolicyDocument 1", "State 1"] {
        assert_eq!(login(&instance, &Credentials::Absent).await, "503");
        assert_eq!(calls(&world), expected);
        world.clock.pass(10_000);
    }
}

/// One reader at a time: the others wait for it, and use what it has read.
#[tokio::test]
async fn many_requests_at_once_cause_one_read() {
    let (world, key) = World::new().await;
    let instance = world.slow_instance();
    let token = token(&instance, &bearer(key.expose()), "repository:ci/app:pull").await;
    for credentials in [bearer(&token), bearer(key.expose()), Credentials::Absent] {
        world.clock.pass(10_000);
        let _ = calls(&world);
        let requests = (0..50).map(|_| login(&instance, &credentials));
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let expected = if credentials_have_key(&credentials) {
            "StateAndAccount 1"
        } else {
            "State 1"
        };
        assert_eq!(calls(&world), expected, "{credentials:?}");
    }
}

fn credentials_have_key(credentials: &Credentials) -> bool {
    matches!(credentials, Credentials::Bearer { token } if Key::is_meant_by(token))
}

#[tokio::test]
async fn an_account_is_read_with_the_state_and_known_for_ten_seconds() {
    let (world, key) = World::new().await;
    // The first password of all makes the secret of the counters.
    assert_eq!(login(&world.instance(), &basic("alice", PASSWORD)).await, "alice");
    let first = "StateAndAccount 1, TokenSeeds 2, AddTokenSeed 1, Failures 2";
    assert_eq!(calls(&world), first);
    let instance = world.instance();
    for (credentials, first, principal) in [
        (
            basic("ci", key.expose()),
            "StateAndAccount 1, RecordUse 1",
            format!("robot:ci by {}", key.id()),
        ),
        // The state is known by now.
        (
            basic("alice", PASSWORD),
            "Account 1, TokenSeeds 1, Failures 2",
            "alice".to_owned(),
        ),
    ] {
        assert_eq!(login(&instance, &credentials).await, principal);
        assert_eq!(calls(&world), first, "{principal}");
        for _ in 0..100 {
            assert_eq!(login(&instance, &credentials).await, principal);
        }
        assert_eq!(calls(&world), "", "{principal}");
    }
    world.clock.pass(10_000);
    login(&instance, &basic("ci", key.expose())).await;
    assert_eq!(calls(&world), "StateAndAccount 1");
    login(&instance, &basic("alice", PASSWORD)).await;
    assert_eq!(calls(&world), "Account 1", "no hash, and no counter");
    // Names without an account are known too.
    let unknown = Key::generate(&account("nobody"), &*world.clock);
    for expected in ["Account 1", ""] {
        assert_eq!(login(&instance, &bearer(unknown.expose())).await, "401 invalid_token");
        assert_eq!(calls(&world), expected);
    }
}

#[tokio::test]
async fn a_token_by_key_costs_what_the_key_costs_and_one_write_a_day() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let credentials = bearer(key.expose());
    let ask = || get_token(&instance, &credentials, "scope=repository:ci/app:pull");
    ask().await.unwrap();
    // The first token of all makes the key that signs.
    let first = calls(&world);
    assert!(
        first.contains("StateAndAccount 1") && first.contains("RecordUse 1"),
        "{first}"
    );
    ask().await.unwrap();
    assert_eq!(calls(&world), "");
    world.clock.pass(10_000);
    ask().await.unwrap();
    assert_eq!(calls(&world), "StateAndAccount 1");
    world.clock.pass(24 * 60 * 60 * 1000);
    ask().await.unwrap();
    ask().await.unwrap();
    assert_eq!(calls(&world), "StateAndAccount 1, RecordUse 1");
    let uses = world.store.last_uses(world.context(), &account("ci")).await.unwrap();
    assert_eq!(uses.get(&key.id()).copied(), u32::try_from(1_796_086_410 / 86_400).ok());
    // Another instance needs the seeds, and makes no key.
    let other = world.instance();
    get_token(&other, &bearer(key.expose()), "").await.unwrap();
    assert_eq!(calls(&world), "StateAndAccount 1, TokenSeeds 1, RecordUse 1");
}

#[tokio::test]
async fn a_wrong_password_costs_reads_and_writes_of_two_counters() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "alice");
    let _ = calls(&world);
    assert_eq!(login(&instance, &basic("alice", "a wrong password")).await, "401");
    assert_eq!(calls(&world), "Failures 2, PutFailures 2");
    assert_eq!(login(&instance, &basic("alice", "a wrong password")).await, "401");
    assert_eq!(calls(&world), "", "it is known that it was wrong");
    world.clock.pass(6_000);
    assert_eq!(login(&instance, &basic("alice", "a wrong password")).await, "401");
    assert_eq!(calls(&world), "Failures 2", "it is not counted again");
}

#[tokio::test]
async fn the_end_of_an_upload_asks_for_the_account_again() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    login(&instance, &bearer(key.expose())).await;
    let _ = calls(&world);
    let ci: Principal = "robot:ci".parse().unwrap();
    for _ in 0..2 {
        assert_eq!(shown(instance.reauthorize(&ci, None).await), "robot:ci");
        assert_eq!(calls(&world), "Account 1");
        let by_key = instance.reauthorize(&ci, Some(key.id())).await;
        assert_eq!(shown(by_key), format!("robot:ci by {}", key.id()));
        assert_eq!(calls(&world), "Account 1");
    }
    assert_eq!(
        shown(instance.reauthorize(&Principal::ANONYMOUS, None).await),
        ":anonymous"
    );
    assert_eq!(calls(&world), "");
}

/// A server on a laptop: one read of one unit in ten seconds, whatever clients send.
#[tokio::test]
async fn an_open_registry_reads_the_state_only() {
    let world = World::empty();
    let settings = AccountSettings {
        open: Some(Rules::everything()),
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    for _ in 0..3 {
        for credentials in [
            Credentials::Absent,
            Credentials::Unreadable,
            basic("alice", "anything"),
            bearer("x"),
        ] {
            assert_eq!(login(&instance, &credentials).await, ":anonymous");
        }
        assert_eq!(calls(&world), "State 1");
        assert_eq!(world.threads.take(), 0);
        world.clock.pass(10_000);
    }
}

/// Beside accounts, a token of such a user costs a read of the account that may hide the line, at most every ten seconds.
#[tokio::test]
async fn a_token_of_a_user_of_a_file_costs_a_read_of_an_account_beside_accounts() {
    let (world, _) = World::new().await;
    let instance = world.instance_with(World::settings(), Some(FileUsers::new()));
    let token = token(&instance, &basic(FileUsers::NAME, PASSWORD), "repository:a:pull").await;
    assert_eq!(login(&instance, &bearer(&token)).await, FileUsers::NAME);
    world.clock.pass(10_000);
    let _ = calls(&world);
    for expected in ["StateAndAccount 1", ""] {
        assert_eq!(login(&instance, &bearer(&token)).await, FileUsers::NAME);
        assert_eq!(calls(&world), expected);
    }
}

/// As long as there are no accounts, the users of a file cost no read of an account.
#[tokio::test]
async fn users_of_a_file_cost_no_read_of_an_account() {
    let world = World::empty();
    let users = FileUsers::new();
    let instance = world.instance_with(World::settings(), Some(users));
    login(&instance, &Credentials::Absent).await;
    assert_eq!(calls(&world), "State 1");
    assert_eq!(
        login(&instance, &basic(FileUsers::NAME, PASSWORD)).await,
        FileUsers::NAME
    );
    let seen = calls(&world);
    assert!(!seen.contains("Account"), "{seen}");
}
