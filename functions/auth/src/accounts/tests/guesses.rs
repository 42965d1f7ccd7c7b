//! Wrong passwords: what they cost, and how clients that guess wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use registry::auth::{AuthenticationError, Credentials, Origin};
use registry::budget::ClientKey;
use registry::token_endpoint::{EncodedTokenRequest, TokenEndpoint as _};

use super::support::{FileUsers, PASSWORD, World, basic, from, get_token, login, login_from};
use crate::accounts::{AccountAuthenticator, AccountParts, AccountSettings, HashWork, PasswordThreads, PasswordUsers};

/// The answers do not tell them apart either.
#[tokio::test]
async fn s20_every_refusal_costs_one_hash() {
    let (world, _) = World::new().await;
    world.put(world.user("gone")).await;
    world.take_away("gone", |account| account.disabled = true).await;
    let instance = world.instance();
    for (user, password, answer) in [
        ("alice", "a wrong password", "401"),
        ("nobody", "a wrong password", "401"),
        ("Not An Account", "a wrong password", "401"),
        ("gone", "a wrong password", "401"),
        ("gone", PASSWORD, "401"),
        ("ci", "a wrong password", "401"),
        ("alice", PASSWORD, "alice"),
    ] {
        let _ = world.threads.take();
        assert_eq!(login(&instance, &basic(user, password)).await, answer, "{user}");
        assert_eq!(world.threads.take(), 1, "{user} {password}");
    }
    // With a file of users, an unknown user costs one hash of one of the two kinds.
    let users = FileUsers::new();
    let instance = world.instance_with(World::settings(), Some(users.clone()));
    for user in ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"] {
        let _ = world.threads.take();
        assert_eq!(
            login_from(&instance, &from(9), &basic(user, "a wrong password")).await,
            "401"
        );
        let hashes = world.threads.take() + users.hashes.swap(0, Ordering::SeqCst);
        assert_eq!(hashes, 1, "{user}");
    }
}

#[tokio::test]
async fn s20_keys_are_never_hashed_as_passwords() {
    let (world, key) = World::new().await;
    let instance = world.instance();
    let text = key.expose();
    for (user, secret) in [
        ("alice", text.to_owned()),
        ("nobody", text.to_owned()),
        ("key", "a password".to_owned()),
        ("key", format!("{}x", &text[..text.len() - 1])),
        ("oidc", "a.b.c".to_owned()),
        ("bootstrap", "0123456789abcdef0123456789abcdef".to_owned()),
    ] {
        assert_eq!(login(&instance, &basic(user, &secret)).await, "401", "{user} {secret}");
        assert_eq!(world.threads.take(), 0, "{user}");
    }
    // A text that only begins as a key is a password like every other one.
    for secret in [format!("{}x", &text[..text.len() - 1]), "rsk_".to_owned()] {
        assert_eq!(login(&instance, &basic("ci", &secret)).await, "401", "{secret}");
        assert_eq!(world.threads.take(), 1, "{secret}");
    }
}

/// 200 refused logins for each name, most of them from one address: the same answers, hashes, reads and writes, one by one.
#[tokio::test]
async fn s20_refusals_cost_the_same_for_every_name() {
    for has_file in [false, true] {
        let mut costs = Vec::new();
        for user in ["alice", "nobody", "gone", "ci", FileUsers::NAME] {
            let (world, _) = World::new().await;
            world.put(world.user("gone")).await;
            world.take_away("gone", |account| account.disabled = true).await;
            let users = FileUsers::new();
            let file: Option<Arc<dyn PasswordUsers>> = if has_file { Some(users.clone()) } else { None };
            let instance = world.instance_with(World::settings(), file);
            login(&instance, &Credentials::Absent).await;
            let cost = || {
                let calls = world.counts.take();
                let calls: Vec<_> = calls
                    .iter()
                    .map(|(method, count)| format!("{method:?} {count}"))
                    .collect();
                (world.threads.take() + users.hashes.swap(0, Ordering::SeqCst), calls)
            };
            let _ = cost();
            let mut of_user = Vec::new();
            for attempt in 0..200_u8 {
                let origin = if attempt < 120 { from(1) } else { from(attempt) };
                let wrong = basic(user, &format!("guess number {attempt}"));
                let answer = if attempt % 2 == 0 {
                    login_from(&instance, &origin, &wrong).await
                } else {
                    let refusal = instance.token(&origin, &wrong, EncodedTokenRequest::Query("")).await;
                    format!("{:?}", refusal.unwrap_err())
                };
                of_user.push((answer, cost()));
                world.clock.pass(2_500);
            }
            let hashes: u64 = of_user.iter().map(|(_, (hashes, _))| hashes).sum();
            assert!(
                (85..150).contains(&hashes),
                "some wait, and each other one is hashed once: {hashes}"
            );
            costs.push((user, of_user));
        }
        let (first, others) = costs.split_first().unwrap();
        for other in others {
            for (attempt, (one, another)) in first.1.iter().zip(&other.1).enumerate() {
                assert_eq!(one, another, "{}, {}, attempt {attempt}", first.0, other.0);
            }
        }
    }
}

/// Threads that never end while they hang.
#[derive(Default)]
struct HangingThreads {
    hangs: AtomicBool,
    begun: AtomicU64,
}

#[async_trait]
impl PasswordThreads for HangingThreads {
    async fn run(&self, _: &str, _: ClientKey, work: HashWork) -> Result<bool, AuthenticationError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(work())
    }

    fn was_right(&self, _: &str, _: ClientKey) {}
}

/// A client that does not wait for the answer waits as long before its next guess as one that does.
#[tokio::test]
async fn guesses_of_a_client_that_hangs_up_are_counted() {
    let (world, _) = World::new().await;
    let threads = Arc::new(HangingThreads::default());
    let parts = AccountParts {
        store: world.store.clone(),
        environment: world.clock.clone(),
        users: None,
        threads: threads.clone(),
    };
    let instance = AccountAuthenticator::new(parts, World::settings()).unwrap();
    threads.hangs.store(true, Ordering::SeqCst);
    // The future of the request is dropped while the password is hashed.
    let hang_up = |origin: Origin, user: String, guess: usize| {
        let credentials = basic(&user, &format!("guess number {guess}"));
        login_from(&instance, &origin, &credentials).now_or_never()
    };
    let mut answers: Vec<_> = (0..100)
        .map(|guess| hang_up(from(1), "alice".to_owned(), guess))
        .collect();
    assert!(answers.drain(..5).all(|answer| answer.is_none()));
    assert_eq!(answers[0].as_deref(), Some("429 after 1"));
    assert_eq!(threads.begun.swap(0, Ordering::SeqCst), 5);
    let answers: Vec<_> = (0..100)
        .map(|user| hang_up(from(2), format!("user{user}"), 0))
        .collect();
    assert!(answers[..50].iter().all(Option::is_none) && answers[50..].iter().all(Option::is_some));
    assert_eq!(threads.begun.swap(0, Ordering::SeqCst), 50);
    // The right password of a client that gave up several times is not delayed, and clears the counter.
    let right = || login_from(&instance, &from(3), &basic("alice", PASSWORD)).now_or_never();
    for _ in 0..20 {
        assert_eq!(right(), None);
    }
    threads.hangs.store(false, Ordering::SeqCst);
    assert_eq!(right().as_deref(), Some("alice"));
    for guess in 0..5 {
        let credentials = basic("alice", &format!("guess number {guess}"));
        assert_eq!(login_from(&instance, &from(3), &credentials).await, "401", "{guess}");
    }
}

#[tokio::test]
async fn a_right_password_is_hashed_once_until_the_account_changes() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let good = basic("alice", PASSWORD);
    for _ in 0..3 {
        for _ in 0..10 {
            assert_eq!(login(&instance, &good).await, "alice");
        }
        world.clock.pass(10_000);
    }
    assert_eq!(world.threads.take(), 1);
    world.take_away("alice", |account| account.groups.clear()).await;
    world.clock.pass(10_000);
    assert_eq!(login(&instance, &good).await, "alice");
    assert_eq!(world.threads.take(), 1, "the generation has changed");
}

/// 1,000 different guesses at one account from one address, on three instances.
#[tokio::test]
async fn guesses_of_one_client_wait() {
    let (world, _) = World::new().await;
    let instances = [world.instance(), world.instance(), world.instance()];
    let mut delayed = 0;
    for guess in 0..1000_usize {
        let answer = login(&instances[guess % 3], &basic("alice", &format!("guess number {guess}"))).await;
        if let Some(seconds) = answer.strip_prefix("429 after ") {
            assert!((1..=900).contains(&seconds.parse::<u64>().unwrap()), "{answer}");
            delayed += 1;
        } else {
            assert_eq!(answer, "401");
        }
        world.clock.pass(900);
    }
    let hashes = world.threads.take();
    assert!(hashes <= 20, "{hashes} hashes in 15 minutes");
    assert_eq!(hashes + delayed, 1000);
    // The token endpoint says the same, with the time.
    let refusal = get_token(&instances[0], &basic("alice", "one more guess"), "")
        .await
        .unwrap_err();
    assert!(
        matches!(refusal, registry::token_endpoint::TokenRefusal::TooManyAttempts { retry_after } if retry_after > 0),
        "{refusal:?}"
    );
    // The right password from there waits too, and from elsewhere it does not.
    let answer = login(&instances[1], &basic("alice", PASSWORD)).await;
    assert!(answer.starts_with("429"), "{answer}");
    assert_eq!(
        login_from(&instances[1], &from(2), &basic("alice", PASSWORD)).await,
        "alice"
    );
    // What is known to be right is never delayed.
    assert_eq!(login(&instances[1], &basic("alice", PASSWORD)).await, "alice");
}

/// Guesses that arrive at the same time do not all read the same counter.
#[tokio::test]
async fn guesses_at_once_are_counted_one_after_the_other() {
    let (world, _) = World::new().await;
    let instance = world.slow_instance();
    let guesses: Vec<_> = (0..200)
        .map(|guess| basic("alice", &format!("guess number {guess}")))
        .collect();
    let answers = futures_util::future::join_all(guesses.iter().map(|guess| login(&instance, guess))).await;
    let hashes = world.threads.take();
    assert_eq!(hashes, 5, "the fifth different wrong password makes the client wait");
    assert_eq!(answers.iter().filter(|answer| *answer == "401").count(), 5);
}

/// The same for many names from one address: they do not all read the counter of the address before the first one is counted.
#[tokio::test]
async fn guesses_at_many_accounts_at_once_are_counted_one_after_the_other() {
    let (world, _) = World::new().await;
    let instance = world.slow_instance();
    let guesses: Vec<_> = (0..200)
        .map(|user| basic(&format!("user{user}"), "a wrong password"))
        .collect();
    let answers = futures_util::future::join_all(guesses.iter().map(|guess| login(&instance, guess))).await;
    assert_eq!(world.threads.take(), 50, "the fiftieth makes the address wait");
    assert_eq!(answers.iter().filter(|answer| *answer == "401").count(), 50);
    assert!(
        answers
            .iter()
            .all(|answer| answer == "401" || answer.starts_with("429")),
        "{answers:?}"
    );
}

/// A wrong password that a client sends again at once is not hashed again, whether there is such a user or not. So the time
/// of the second answer does not tell.
#[tokio::test]
async fn s20_a_repeated_password_costs_the_same_for_every_name() {
    let (world, _) = World::new().await;
    world.put(world.user("gone")).await;
    world.take_away("gone", |account| account.disabled = true).await;
    let instance = world.instance();
    for user in ["alice", "gone", "ci", "nobody", "Not An Account"] {
        let wrong = basic(user, "a wrong password");
        for expected in [1, 0, 0] {
            assert_eq!(login(&instance, &wrong).await, "401");
            assert_eq!(world.threads.take(), expected, "{user}");
        }
        assert_eq!(login_from(&instance, &from(2), &wrong).await, "401");
        assert_eq!(world.threads.take(), 1, "{user}: another client");
    }
    // A name without an account gets one: what was wrong before says nothing about a new account.
    let wrong = basic("new", PASSWORD);
    assert_eq!(login(&instance, &wrong).await, "401");
    world.put(world.user("new")).await;
    world.clock.pass(10_000);
    assert_eq!(login(&instance, &wrong).await, "new");
}

/// Machines that send an old password again and again, behind the address of the account's owner.
#[tokio::test]
async fn a_stale_password_delays_nobody() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let stale = basic("alice", "the password before");
    for _ in 0..20 {
        for _ in 0..50 {
            assert_eq!(login(&instance, &stale).await, "401");
        }
        world.clock.pass(60_000);
    }
    assert_eq!(login(&instance, &basic("alice", PASSWORD)).await, "alice");
}

/// Many accounts from one address.
#[tokio::test]
async fn guesses_at_many_accounts_from_one_address_wait() {
    let (world, _) = World::new().await;
    let instance = world.instance();
    let mut answers = Vec::new();
    for user in 0..60 {
        answers.push(login(&instance, &basic(&format!("user{user}"), "a wrong password")).await);
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "401").count(), 50);
    assert!(answers[50].starts_with("429"), "{}", answers[50]);
    assert_eq!(
        login_from(&instance, &from(2), &basic("alice", PASSWORD)).await,
        "alice"
    );
}

#[tokio::test]
async fn the_address_of_a_proxy_is_not_counted() {
    let (world, _) = World::new().await;
    let settings = AccountSettings {
        is_proxy: Arc::new(|address| address == from(1).address.unwrap()),
        ..World::settings()
    };
    let instance = world.instance_with(settings, None);
    for guess in 0..100 {
        let guess = basic("alice", &format!("guess number {guess}"));
        assert_eq!(login(&instance, &guess).await, "401");
    }
    assert!(login(&instance, &basic("alice", PASSWORD)).await == "alice");
    assert_eq!(world.counts.of(registry::store::wrapped::StoreMethod::PutFailures), 0);
}
