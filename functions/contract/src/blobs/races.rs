//! Attempts that fail, overlap, or go on after their claim was lost; and what they leave.

use bytes::Bytes;
use futures_util::future::{Either, select};
use oci::{Algorithm, Digest};
use registry::store::blobs::{AppendError, Appended, BodyError};
use registry::store::{Attempt, Location, SessionId};

use super::{BlobTest, StoredUpload};
use crate::source::{Body, Stepped, Steps, noise};

/// A failed body changes nothing: its error is answered as it is, and the session goes on from the state before it.
pub async fn a_failed_body_changes_nothing(test: BlobTest) {
    let first = noise(1, 3000);
    let lost = noise(2, 200_000);
    let second = noise(3, 4000);
    let errors: [fn() -> BodyError; 5] = [
        || BodyError::Cut,
        || BodyError::Stalled,
        || BodyError::TooLarge(77),
        || BodyError::LengthMismatch,
        || BodyError::ClaimLost,
    ];
    for (number, error) in (0..).zip(errors) {
        let mut session = StoredUpload::new(number);
        // Once as the first body, once behind another.
        for bytes in [&first, &second] {
            for sent in [0, 1, lost.len()] {
                let mut body = Body::of(&lost.slice(..sent), 50_000)
                    .declaring(Some(lost.len() as u64))
                    .failing(error());
                match test.append_failing(&mut session, &mut body).await {
                    AppendError::Body(got) | AppendError::WriteInFlight(got) => {
                        assert_eq!(got.to_string(), error().to_string());
                    }
                    AppendError::Store(error) => {
                        panic!("an error of the client was answered as an error of the store: {error}")
                    }
                }
            }
            test.append(&mut session, bytes, 1000).await;
        }
        let location = test.seal(&session).await;
        let whole = [first.as_ref(), second.as_ref()].concat();
        test.assert_holds(&location, &whole.into()).await;
    }
}

/// A client that closes the connection drops the future of its request in the middle of the body: the same as a failed
/// body.
pub async fn a_dropped_append_changes_nothing(test: BlobTest) {
    let first = noise(1, 3000);
    let lost = noise(2, 300_000);
    let second = noise(3, 4000);
    for steps_taken in 0..=3 {
        let mut session = StoredUpload::new(steps_taken);
        test.append(&mut session, &first, 1000).await;
        {
            let attempt = session.attempt();
            let (mut source, steps) = Stepped::new(Body::of(&lost, 100_000));
            let append = Box::pin(test.store.append(test.cx(), attempt, &session.state, &mut source));
            let hang_up = Box::pin(async move {
                steps.asked().await;
                for _ in 0..steps_taken {
                    steps.step().await;
                }
            });
            match select(hang_up, append).await {
                Either::Left(((), append)) => drop(append),
                Either::Right((result, _)) => panic!("the body has not ended: {result:?}"),
            }
        }
        test.append(&mut session, &second, 1000).await;
        let location = test.seal(&session).await;
        let whole = [first.as_ref(), second.as_ref()].concat();
        test.assert_holds(&location, &whole.into()).await;
    }
}

/// An append on a task of its own that waits for steps.
fn start(
    test: &BlobTest,
    session: &StoredUpload,
    number: u32,
    bytes: &Bytes,
) -> (
    Steps,
    futures_util::future::BoxFuture<'static, Result<Appended, AppendError>>,
) {
    let (mut source, steps) = Stepped::new(Body::of(bytes, bytes.len().div_ceil(2)));
    let (test, state) = (test.clone(), session.state.clone());
    let attempt = Attempt {
        session: session.id,
        number,
    };
    let task = test
        .clone()
        .task(async move { test.store.append(test.cx(), attempt, &state, &mut source).await });
    (steps, task)
}

/// All orders of two bodies of two chunks: `false` is a step of the first. An attempt takes one step for each chunk and
/// one for its end.
fn orders() -> Vec<Vec<bool>> {
    let steps = 6;
    (0..1_u32 << steps)
        .filter(|order| order.count_ones() == 3)
        .map(|order| (0..steps).map(|step| order >> step & 1 == 1).collect())
        .collect()
}

/// Two attempts of one session write bodies of equal length and different bytes, in every order of their steps. The
/// sealed object has the bytes of the attempt that is saved.
pub async fn overlapping_attempts_are_isolated(test: BlobTest) {
    let prefix = noise(1, 100);
    let bodies = [noise(2, 6000), noise(3, 6000)];
    let mut id = 0;
    for behind_another in [false, true] {
        for order in orders() {
            for winner in 0..2 {
                id += 1;
                let mut session = StoredUpload::new(id);
                let mut expected = Vec::new();
                if behind_another {
                    test.append(&mut session, &prefix, 100).await;
                    expected.extend_from_slice(&prefix);
                }
                expected.extend_from_slice(&bodies[winner]);

                let attempts = [session.attempt().number, session.attempt().number];
                let (first, first_task) = start(&test, &session, attempts[0], &bodies[0]);
                let (second, second_task) = start(&test, &session, attempts[1], &bodies[1]);
                first.asked().await;
                second.asked().await;
                for step in &order {
                    if *step {
                        second.step().await;
                    } else {
                        first.step().await;
                    }
                }
                let mut appended = [first_task.await, second_task.await].map(|result| result.expect("append").into());
                let appended: &mut Option<Appended> = &mut appended[winner];
                session.save(appended.take().expect("an answer"), bodies[winner].len());

                let location = test.seal(&session).await;
                let digest = Digest::of(Algorithm::Sha256, &expected);
                let stored = test.range(&location, 0..session.size).await.expect("the object");
                assert_eq!(
                    Digest::of(Algorithm::Sha256, &stored),
                    digest,
                    "attempt {winner} won; order {order:?}; behind another: {behind_another}"
                );
            }
        }
    }
}

/// An attempt with a lost claim goes on writing while another is saved and sealed, and ends after it: the object does
/// not change.
pub async fn a_late_writer_changes_nothing(test: BlobTest) {
    let bytes = noise(1, 6000);
    let late = noise(2, 6000);
    for (id, steps_before) in (0..).zip(0..=3_usize) {
        let mut session = StoredUpload::new(id);
        let number = session.attempt().number;
        let (steps, task) = start(&test, &session, number, &late);
        steps.asked().await;
        for _ in 0..steps_before {
            steps.step().await;
        }
        test.append(&mut session, &bytes, 1000).await;
        let location = test.seal(&session).await;
        test.assert_holds(&location, &bytes).await;
        for _ in steps_before..3 {
            steps.step().await;
        }
        // Its result does not matter; the object does.
        drop(task.await);
        test.assert_holds(&location, &bytes).await;
        assert_eq!(test.seal(&session).await, location);
        test.discard(&session, Some(&location)).await;
        test.assert_holds(&location, &bytes).await;
    }
}

/// A final PUT seals an object and then finds that its claim is lost, so that nothing is published. The next final PUT
/// goes on from the state that was saved before both, and seals other bytes. Each seal gives its own bytes, in either
/// order.
pub async fn a_lost_seal_does_not_affect_the_next(test: BlobTest) {
    let ends = [noise(8, 5000), noise(9, 5000)];
    let mut id = 0;
    for saved in 0..=2_u64 {
        for first in 0..2 {
            id += 1;
            let mut session = StoredUpload::new(id);
            let mut prefix = Vec::new();
            for seed in 0..saved {
                let bytes = noise(seed, 3000);
                test.append(&mut session, &bytes, 1000).await;
                prefix.extend_from_slice(&bytes);
            }
            let mut forks = Vec::new();
            for end in &ends {
                let mut fork = session.clone();
                fork.attempts = session.attempts;
                test.append(&mut fork, end, 1000).await;
                session.attempts = fork.attempts;
                forks.push((fork, [&prefix, end.as_ref()].concat()));
            }
            for (fork, expected) in [&forks[first], &forks[1 - first]] {
                let location = test.seal(fork).await;
                test.assert_holds(&location, &Bytes::from(expected.clone())).await;
            }
            for (fork, expected) in &forks {
                let location = test.seal(fork).await;
                test.assert_holds(&location, &Bytes::from(expected.clone())).await;
            }
        }
    }
}

/// A session can go on after a seal that was not published: its bytes are those of the session.
pub async fn a_session_goes_on_after_a_lost_seal(test: BlobTest) {
    for bodies in 1..=2_u64 {
        let mut session = StoredUpload::new(bodies.into());
        let mut whole = Vec::new();
        for seed in 0..bodies {
            let bytes = noise(seed, 3000);
            test.append(&mut session, &bytes, 1000).await;
            whole.extend_from_slice(&bytes);
        }
        let early = test.seal(&session).await;
        test.assert_holds(&early, &Bytes::from(whole.clone())).await;

        let more = noise(9, 3000);
        test.append(&mut session, &more, 1000).await;
        let early_bytes = Bytes::from(whole.clone());
        whole.extend_from_slice(&more);
        let location = test.seal(&session).await;
        test.assert_holds(&location, &whole.into()).await;
        test.assert_holds(&early, &early_bytes).await;
    }
}

/// Concurrent sessions do not affect each other.
pub async fn concurrent_sessions_are_isolated(test: BlobTest) {
    let locations: Vec<(Location, Bytes)> = test
        .together(16, |number| {
            let test = test.clone();
            async move {
                let mut session = StoredUpload::new(number as u128);
                let bytes = noise(number as u64, 50_000);
                for at in [0..20_000, 20_000..50_000] {
                    test.append(&mut session, &bytes.slice(at), 7000).await;
                }
                (test.seal(&session).await, bytes)
            }
        })
        .await;
    for (location, bytes) in &locations {
        test.assert_holds(location, bytes).await;
    }
}

/// The object of the attempt, if it can be read at all.
fn object_of(store: &str, session: &StoredUpload, number: u32) -> Location {
    let attempt = Attempt {
        session: session.id,
        number,
    };
    Location {
        store: store.to_owned(),
        key: attempt.to_string(),
    }
}

/// A discarded session leaves nothing, sealed or not. Discarding it again, or discarding a session that never stored
/// anything, is no error.
pub async fn a_discard_removes_everything(test: BlobTest) {
    let store = test.object(100, &noise(1, 10)).await.store;
    let bytes = noise(2, 5000);
    let mut session = StoredUpload::new(1);
    test.append(&mut session, &bytes, 1000).await;
    let mut lost = Body::of(&bytes, 1000).failing(BodyError::Cut);
    drop(test.append_failing(&mut session, &mut lost).await);
    test.append(&mut session, &bytes, 1000).await;
    // A claim that crashed before its first byte.
    session.attempt();

    test.discard(&session, None).await;
    for number in 1..=session.attempts {
        let object = object_of(&store, &session, number);
        assert_eq!(test.range(&object, 0..0).await, None, "attempt {number}");
    }
    let sealed = test.store.seal(test.cx(), &session.upload()).await;
    assert!(sealed.is_err(), "the bytes are still there: {sealed:?}");
    test.discard(&session, None).await;

    let never = StoredUpload::new(2);
    test.discard(&never, None).await;
    let mut never = StoredUpload::new(3);
    never.attempt();
    test.discard(&never, None).await;
}

/// A discard deletes neither the object that is to be kept nor anything of another session. It deletes everything else.
pub async fn a_discard_keeps_the_given_object(test: BlobTest) {
    let bytes = noise(1, 5000);
    let mut other = StoredUpload::new(SessionId(u128::MAX).0);
    test.append(&mut other, &bytes, 1000).await;

    for bodies in 1..=3_u64 {
        let mut session = StoredUpload::new(bodies.into());
        let mut whole = Vec::new();
        for seed in 0..bodies {
            let body = noise(seed, 3000);
            test.append(&mut session, &body, 1000).await;
            whole.extend_from_slice(&body);
        }
        let location = test.seal(&session).await;
        test.discard(&session, Some(&location)).await;
        test.assert_holds(&location, &Bytes::from(whole.clone())).await;
        for number in 1..=session.attempts {
            let segment = object_of(&location.store, &session, number);
            if segment != location {
                assert_eq!(test.range(&segment, 0..0).await, None, "attempt {number}");
            }
        }
        test.discard(&session, Some(&location)).await;
        test.assert_holds(&location, &Bytes::from(whole)).await;
        test.discard(&session, None).await;
        assert_eq!(
            test.range(&location, 0..0).await,
            None,
            "a sealed object that is not kept"
        );
    }
    let location = test.seal(&other).await;
    test.assert_holds(&location, &bytes).await;
}
