//! What instances share about tokens and guesses: the seeds of signing keys, counters of wrong passwords, and the days on
//! which keys were last used.

use registry::store::Timestamp;
use registry::store::access::{FailureKey, Failures, KeyId, TokenSeed};

use super::{AccessTest, key_id};

fn kid(text: &str) -> KeyId {
    text.parse().expect("a legal id of a signing key")
}

fn seed(text: &str, byte: u8) -> TokenSeed {
    TokenSeed {
        kid: kid(text),
        seed: [byte; 32],
        created: Timestamp(1_900_000_000_000 + u64::from(byte)),
    }
}

impl AccessTest {
    async fn seeds(&self) -> Vec<TokenSeed> {
        self.store.token_seeds(self.cx()).await.expect("token_seeds")
    }

    async fn add_seed(&self, seed: &TokenSeed) -> bool {
        self.store
            .add_token_seed(self.cx(), seed)
            .await
            .expect("add_token_seed")
    }

    async fn failures(&self, key: FailureKey) -> Failures {
        self.store.failures(self.cx(), key).await.expect("failures")
    }

    async fn put_failures(&self, key: FailureKey, failures: &Failures) -> bool {
        let put = self.store.put_failures(self.cx(), key, failures).await;
        put.expect("put_failures")
    }

    async fn clear_failures(&self, key: FailureKey) {
        self.store.clear_failures(self.cx(), key).await.expect("clear_failures");
    }
}

/// Seeds are listed in the order of their ids, and a second one with the same id is not written.
pub async fn a_seed_is_written_once(test: AccessTest) {
    assert_eq!(test.seeds().await, []);
    let (one, two) = (seed("zzzzzzzzzzzzzzzz", 0), seed("-_AZaz0123456789", 255));
    assert!(test.add_seed(&one).await);
    assert!(test.add_seed(&two).await);
    assert_eq!(test.seeds().await, [two.clone(), one.clone()]);
    assert!(!test.add_seed(&seed("zzzzzzzzzzzzzzzz", 3)).await);
    assert_eq!(test.seeds().await, [two.clone(), one.clone()]);
    for _ in 0..2 {
        let removed = test.store.remove_token_seed(test.cx(), one.kid).await;
        removed.expect("remove_token_seed");
        assert_eq!(test.seeds().await, std::slice::from_ref(&two));
    }
    assert!(test.add_seed(&one).await);
    assert_eq!(test.seeds().await, [two, one]);
}

/// One of several instances that write different seeds under one id writes it.
pub async fn one_of_racing_seeds_is_written(test: AccessTest) {
    let written = test
        .together(4, |number| {
            let test = test.clone();
            let byte = u8::try_from(number).expect("a small number");
            async move { test.add_seed(&seed("0123456789abcdef", byte)).await }
        })
        .await;
    assert_eq!(written.iter().filter(|written| **written).count(), 1, "{written:?}");
    let winner = written.iter().position(|written| *written).expect("one is written");
    let seeds = test.seeds().await;
    assert_eq!(
        seeds,
        [seed("0123456789abcdef", u8::try_from(winner).expect("a small number"))]
    );
}

/// A counter is written from the version that was read, and from no other.
pub async fn a_counter_is_written_from_its_version(test: AccessTest) {
    let (key, other) = (FailureKey([0xa5; 16]), FailureKey([0xa6; 16]));
    assert_eq!(test.failures(key).await, Failures::default());
    let mut counter = Failures {
        version: 0,
        count: 3,
        last: vec![0, 1, u64::MAX, 1 << 63],
        until: None,
        at: Some(test.now()),
    };
    // There is no row of version 1.
    let mut early = counter.clone();
    early.version = 1;
    assert!(!test.put_failures(key, &early).await);
    assert_eq!(test.failures(key).await, Failures::default());

    assert!(test.put_failures(key, &counter).await);
    counter.version = 1;
    assert_eq!(test.failures(key).await, counter);
    for version in [0, 2] {
        let mut stale = counter.clone();
        stale.version = version;
        stale.count = 99;
        assert!(!test.put_failures(key, &stale).await, "{version}");
        assert_eq!(test.failures(key).await, counter);
    }
    counter.count = u32::MAX;
    counter.until = Some(test.now().plus_millis(900_000));
    counter.last = (0..Failures::REMEMBERED as u64).collect();
    assert!(test.put_failures(key, &counter).await);
    counter.version = 2;
    assert_eq!(test.failures(key).await, counter);
    assert_eq!(test.failures(other).await, Failures::default());
}

/// A counter that was deleted begins anew, and deleting it again changes nothing.
pub async fn a_deleted_counter_begins_anew(test: AccessTest) {
    let (key, other) = (FailureKey([0; 16]), FailureKey([255; 16]));
    let counter = Failures {
        count: 1,
        at: Some(test.now()),
        ..Failures::default()
    };
    test.clear_failures(key).await;
    assert!(test.put_failures(key, &counter).await);
    assert!(test.put_failures(other, &counter).await);
    for _ in 0..2 {
        test.clear_failures(key).await;
        assert_eq!(test.failures(key).await, Failures::default());
    }
    let mut stale = counter.clone();
    stale.version = 1;
    assert!(!test.put_failures(key, &stale).await);
    assert_eq!(test.failures(other).await, stale);
    assert!(test.put_failures(key, &counter).await);
    assert_eq!(test.failures(key).await, stale);
}

/// Instances that count at the same time lose no failure.
pub async fn racing_counters_lose_no_failure(test: AccessTest) {
    let key = FailureKey([1; 16]);
    test.together(5, |number| {
        let test = test.clone();
        async move {
            for _ in 0..3 {
                loop {
                    let mut counter = test.failures(key).await;
                    counter.count += 1;
                    counter.last = vec![number as u64, u64::from(counter.count)];
                    counter.at = Some(test.now());
                    if test.put_failures(key, &counter).await {
                        break;
                    }
                }
            }
        }
    })
    .await;
    let counter = test.failures(key).await;
    assert_eq!((counter.version, counter.count), (15, 15));
}

/// The day on which a key was last used never goes back, and belongs to the key and its account.
pub async fn the_day_of_last_use_never_goes_back(test: AccessTest) {
    test.add(test.robot("ci")).await;
    test.add(test.robot("ci2")).await;
    assert_eq!(test.uses("ci").await, [].into());
    for (day, last) in [
        (20_000, 20_000),
        (19_999, 20_000),
        (20_000, 20_000),
        (20_001, 20_001),
        (0, 20_001),
    ] {
        test.use_key("ci", 1, day).await;
        assert_eq!(test.uses("ci").await, [(key_id(1), last)].into());
    }
    test.use_key("ci", 2, 5).await;
    assert_eq!(test.uses("ci").await, [(key_id(1), 20_001), (key_id(2), 5)].into());
    assert_eq!(test.uses("ci2").await, [].into());
    test.together(8, |number| {
        let test = test.clone();
        let day = 30_000 + u32::try_from(number * 5 % 8).expect("a small number");
        async move { test.use_key("ci2", 1, day).await }
    })
    .await;
    assert_eq!(test.uses("ci2").await, [(key_id(1), 30_007)].into());
}
