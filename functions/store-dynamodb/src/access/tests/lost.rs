//! Changes whose answer was lost.

use registry::store::access::{FailureKey, Failures, TokenSeed};

use super::*;
use crate::memory::FaultRates;

/// Half of all writes are done without an answer.
const LOSSY: FaultRates = FaultRates {
    lost: 500,
    ..FaultRates::NONE
};

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_applied() {
    for seed in 1..50 {
        let store = store_over(MemoryTable::faulty(LOSSY, seed));
        for number in 0..4 {
            add(&store, &format!("robot{number}"), NOW).await;
            let renewal = bare_change(state(&store).await);
            apply(&store, &renewal).await;
        }
        assert_eq!(state(&store).await.version, 8);
    }
}

/// The answer is lost together with the token that makes a transaction idempotent: the caller makes the change again.
#[tokio::test]
async fn a_change_that_is_made_again_is_applied_and_changes_nothing() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let first = add(&store, "one", NOW).await;
    let later = add(&store, "two", NOW).await;
    for change in [&first, &later] {
        apply(&store, change).await;
        assert_eq!(state(&store).await, later.state);
    }
    let mut other = first.clone();
    other.event = Some(event(NOW, 99));
    assert_eq!(store.apply(cx(), &other).await.unwrap(), Applied::Conflict);

    // Without an event the call itself is the proof, and only of the last change.
    let renewal = bare_change(later.state);
    let call = cx();
    assert_eq!(store.apply(call, &renewal).await.unwrap(), Applied::Applied);
    assert_eq!(store.apply(call, &renewal).await.unwrap(), Applied::Applied);
    assert_eq!(store.apply(cx(), &renewal).await.unwrap(), Applied::Conflict);
}

#[tokio::test]
async fn counters_and_seeds_whose_answer_was_lost_are_written() {
    for seed in 1..50 {
        let store = store_over(MemoryTable::faulty(LOSSY, seed));
        let key = FailureKey([9; 16]);
        for version in 0..4 {
            let counter = Failures {
                version,
                count: 1,
                at: Some(NOW),
                ..Failures::default()
            };
            assert!(
                store.put_failures(cx(), key, &counter).await.unwrap(),
                "{seed} {version}"
            );
            assert_eq!(store.failures(cx(), key).await.unwrap().version, version + 1);
        }
        let seed = TokenSeed {
            kid: "0123456789abcdef".parse().unwrap(),
            seed: [7; 32],
            created: NOW,
        };
        assert!(store.add_token_seed(cx(), &seed).await.unwrap());
        let other = TokenSeed { seed: [8; 32], ..seed };
        assert!(!store.add_token_seed(cx(), &other).await.unwrap());
    }
}

#[tokio::test]
async fn a_counter_ends_a_day_after_its_last_failure() {
    let store = store_over(MemoryTable::new());
    let key = FailureKey([9; 16]);
    let counter = Failures {
        version: 0,
        count: 7,
        last: vec![1, 2],
        until: None,
        at: Some(NOW),
    };
    assert!(store.put_failures(cx_at(0), key, &counter).await.unwrap());
    let at_the_end = store.failures(cx_at(DAY - 1_000), key).await.unwrap();
    assert_eq!((at_the_end.version, at_the_end.count), (1, 7));
    assert!(!store.put_failures(cx_at(DAY - 1_000), key, &counter).await.unwrap());
    // DynamoDB has not removed the row yet.
    assert_eq!(store.failures(cx_at(DAY), key).await.unwrap(), Failures::default());
    assert!(store.put_failures(cx_at(DAY), key, &counter).await.unwrap());
}
