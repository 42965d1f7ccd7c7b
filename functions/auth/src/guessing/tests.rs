#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::test_environment::one_in;

const START: Timestamp = Timestamp(1_796_000_000_000);
const MINUTE: u64 = 60_000;

/// A server that verifies passwords: counters as in a table, a clock, and a count of the hashes that were computed.
struct Server {
    key: GuessingKey,
    rows: BTreeMap<FailureKey, Failures>,
    now: Timestamp,
    hashes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Right,
    Wrong,
    /// Retry after so many seconds.
    Wait(u64),
}

impl Server {
    fn new() -> Self {
        Self {
            key: GuessingKey::derive(&[1; 32]),
            rows: BTreeMap::new(),
            now: START,
            hashes: 0,
        }
    }

    fn row(&self, key: FailureKey) -> Failures {
        self.rows.get(&key).cloned().unwrap_or_default()
    }

    fn put(&mut self, key: FailureKey, mut failures: Failures) {
        assert_eq!(failures.version, self.row(key).version, "the condition of the write");
        assert!(failures.last.len() <= Failures::REMEMBERED);
        failures.version += 1;
        self.rows.insert(key, failures);
    }

    /// The right password of every account is `right`.
    fn login(&mut self, account: &str, address: &str, password: &str) -> Answer {
        let guess = self.key.guess(account, address.parse().unwrap(), password);
        let (pair, address) = (self.row(guess.pair()), self.row(guess.address()));
        if let Some(seconds) = wait(&pair, &address, self.now) {
            return Answer::Wait(seconds);
        }
        self.hashes += 1;
        if password == "right" {
            self.rows.remove(&guess.pair());
            return Answer::Right;
        }
        if let Some(pair) = guess.count_for_pair(&pair, self.now) {
            self.put(guess.pair(), pair);
            self.put(guess.address(), guess.count_for_address(&address, self.now));
        }
        Answer::Wrong
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
    }
}

#[test]
fn the_wait_begins_with_the_fifth_and_doubles() {
    let mut server = Server::new();
    let mut waits = Vec::new();
    for number in 0..20 {
        assert_eq!(
            server.login("alice", "192.0.2.1", &format!("wrong {number}")),
            Answer::Wrong
        );
        let guess = server.key.guess("alice", "192.0.2.1".parse().unwrap(), "");
        if let Some(seconds) = wait(&server.row(guess.pair()), &server.row(guess.address()), server.now) {
            waits.push(seconds);
            // A moment before the end of the wait it goes on, also for the right password.
            server.pass(seconds * 1000 - 1);
            assert_eq!(server.login("alice", "192.0.2.1", "right"), Answer::Wait(1));
            server.pass(1);
        }
    }
    assert_eq!(waits[..12], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    assert_eq!(waits.len(), 16, "the first four are free");
}

#[test]
fn a_thousand_different_guesses_compute_at_most_20_hashes_in_15_minutes() {
    for pause in [0, 1, 100, 899] {
        let mut server = Server::new();
        for number in 0..1000 {
            let address = format!("2001:db8::{number:x}");
            server.login("alice", &address, &format!("guess {number}"));
            server.pass(pause);
        }
        assert!(server.now.millis_since(START) < 15 * MINUTE);
        assert!((5..=20).contains(&server.hashes), "{pause}: {}", server.hashes);
    }
    // A guesser that knows the rule tries exactly when a wait ends.
    let mut server = Server::new();
    for number in 0.. {
        if let Answer::Wait(seconds) = server.login("alice", "192.0.2.1", &format!("guess {number}")) {
            server.pass(seconds * 1000);
        }
        if server.now.millis_since(START) >= 15 * MINUTE {
            break;
        }
    }
    assert_eq!(server.hashes, 14);
}

#[test]
fn nobody_is_locked_out_by_strangers() {
    let mut server = Server::new();
    for number in 0..100 {
        server.login("alice", "192.0.2.1", &format!("guess {number}"));
    }
    assert!(matches!(server.login("alice", "192.0.2.1", "right"), Answer::Wait(_)));
    assert_eq!(server.login("alice", "192.0.2.2", "right"), Answer::Right);
    // Another account behind the same address neither, while the address has fewer than 50.
    assert_eq!(server.login("bob", "192.0.2.1", "right"), Answer::Right);
}

#[test]
fn the_same_wrong_password_again_is_not_counted() {
    let mut server = Server::new();
    for _ in 0..20 {
        for kubelet in 0..50 {
            assert_eq!(
                server.login("alice", "192.0.2.1", "last year's"),
                Answer::Wrong,
                "{kubelet}"
            );
            server.pass(100);
        }
    }
    assert_eq!(server.login("alice", "192.0.2.1", "right"), Answer::Right);
    assert_eq!(server.rows.len(), 1, "the right password clears the pair's counter");
    // Eight are remembered; the ninth makes the first one unknown.
    let key = GuessingKey::derive(&[1; 32]);
    let guess = |number| key.guess("alice", "192.0.2.1".parse().unwrap(), &format!("wrong {number}"));
    let mut pair = Failures::default();
    for number in 0..9 {
        pair = guess(number).count_for_pair(&pair, START).unwrap();
    }
    assert_eq!(pair.count, 9);
    for number in 0..9 {
        assert_eq!(
            guess(number).count_for_pair(&pair, START).is_some(),
            number == 0,
            "{number}"
        );
    }
}

#[test]
fn an_address_waits_from_the_50th_in_15_minutes() {
    let mut server = Server::new();
    for number in 0..50 {
        assert_eq!(
            server.login(&format!("user{number}"), "192.0.2.1", "wrong"),
            Answer::Wrong
        );
    }
    assert_eq!(server.login("alice", "192.0.2.1", "right"), Answer::Wait(1));
    assert_eq!(server.login("alice", "192.0.2.2", "right"), Answer::Right);
    server.pass(1000);
    assert_eq!(server.login("alice", "192.0.2.1", "right"), Answer::Right);
    assert_eq!(server.login("zoe", "192.0.2.1", "wrong"), Answer::Wrong);
    assert_eq!(server.login("alice", "192.0.2.1", "right"), Answer::Wait(2));
    // An office where a user is wrong now and then never waits.
    let mut server = Server::new();
    for number in 0..1000 {
        assert_eq!(
            server.login(&format!("user{number}"), "192.0.2.1", "wrong"),
            Answer::Wrong
        );
        server.pass(20_000);
    }
    // As many again in a minute, and the address waits.
    server.pass(15 * MINUTE);
    for number in 0..50 {
        assert_eq!(
            server.login(&format!("user{number}"), "192.0.2.1", "wrong too"),
            Answer::Wrong
        );
        server.pass(100);
    }
    assert!(matches!(server.login("alice", "192.0.2.1", "right"), Answer::Wait(1)));
}

#[test]
fn a_guesser_of_many_accounts_gets_few_hashes() {
    let mut server = Server::new();
    for number in 0.. {
        if let Answer::Wait(seconds) = server.login(&format!("user{number}"), "192.0.2.1", "password") {
            server.pass(seconds * 1000);
        }
        if server.now.millis_since(START) >= 15 * MINUTE {
            break;
        }
    }
    assert!((50..=110).contains(&server.hashes), "{}", server.hashes);
}

#[test]
fn a_day_after_the_last_failure_the_counter_begins_again() {
    let mut server = Server::new();
    for number in 0..4 {
        server.login("alice", "192.0.2.1", &format!("wrong {number}"));
    }
    // The row is still there: the table deletes late.
    server.pass(Failures::LIFETIME_MS);
    assert_eq!(server.login("alice", "192.0.2.1", "wrong 3"), Answer::Wrong);
    let guess = server.key.guess("alice", "192.0.2.1".parse().unwrap(), "");
    let pair = server.row(guess.pair());
    assert_eq!((pair.count, pair.last.len(), pair.version), (1, 1, 5));
    server.pass(Failures::LIFETIME_MS - 1);
    server.login("alice", "192.0.2.1", "wrong 4");
    assert_eq!(server.row(guess.pair()).count, 2);
}

#[test]
fn which_clients_share_a_counter() {
    let key = GuessingKey::derive(&[1; 32]);
    let pair = |account: &str, address: &str| key.guess(account, address.parse().unwrap(), "x");
    let here = pair("alice", "192.0.2.1");
    for (account, address, same_pair, same_address) in [
        ("alice", "192.0.2.1", true, true),
        ("alice", "::ffff:192.0.2.1", true, true),
        ("alice", "192.0.2.2", false, false),
        ("bob", "192.0.2.1", false, true),
    ] {
        let other = pair(account, address);
        assert_eq!(other.pair() == here.pair(), same_pair, "{account} {address}");
        assert_eq!(other.address() == here.address(), same_address, "{account} {address}");
    }
    let network = pair("alice", "2001:db8:1:2::1");
    assert_eq!(network, pair("alice", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(network.pair(), pair("alice", "2001:db8:1:3::1").pair());
    // Parts do not flow into each other, the two kinds of keys differ, and other secrets make other rows.
    let all: BTreeSet<FailureKey> = ["a", "ab", "b", ""]
        .into_iter()
        .flat_map(|account| [pair(account, "192.0.2.1").pair(), pair(account, "192.0.2.1").address()])
        .collect();
    assert_eq!(all.len(), 5);
    let other = GuessingKey::derive(&[2; 32]).guess("alice", "192.0.2.1".parse().unwrap(), "x");
    assert!(other.pair() != here.pair() && other.address() != here.address() && other.password != here.password);
    // What is remembered of a password is of no use for another account.
    assert_ne!(here.password, pair("bob", "192.0.2.1").password);
    assert_eq!(format!("{key:?}"), "GuessingKey(..)");
}

proptest! {
    // Each case makes a hundred guesses.
    #![proptest_config(one_in(10))]

    /// Whenever the guesses come: no more than 20 different ones are hashed in any 15 minutes, and a client that waits as long
    /// as the response says is served.
    #[test]
    fn any_times(pauses in vec(0_u64..200_000, 1..200)) {
        let mut server = Server::new();
        let mut hashed = Vec::new();
        for (number, pause) in pauses.into_iter().enumerate() {
            let before = server.hashes;
            if let Answer::Wait(seconds) = server.login("alice", "192.0.2.1", &format!("guess {number}")) {
                let mut patient = Server { key: server.key.clone(), rows: server.rows.clone(), ..Server::new() };
                patient.now = server.now.plus_millis(seconds * 1000);
                prop_assert_eq!(patient.login("alice", "192.0.2.1", "right"), Answer::Right);
            }
            if server.hashes > before {
                hashed.push(server.now);
            }
            let window = hashed.iter().filter(|at| server.now.millis_since(**at) < 15 * MINUTE).count();
            prop_assert!(window <= 20, "{}", window);
            server.pass(pause);
        }
    }
}
