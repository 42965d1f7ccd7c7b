//! Parts: how many are under way, how their tags are kept, and which numbers they have.

use registry::store::StoreError;
use registry::store::blobs::{AppendError, BlobStore as _};
use store_s3::{Operation, Parts};

use crate::fake::{Fake, Fault};
use crate::session::{Long, MIB, Session, cx};

/// The state of an upload behind 20 MiB, as if these had been so many parts that `next` is the number of the next one.
fn with_next(state: &[u8], next: u16) -> Vec<u8> {
    // format, bodies, last; that there is an upload, its attempt, its id; its prefix and first number.
    let id = 1 + 4 + 4 + 1 + 4;
    let length = usize::from(u16::from_le_bytes([state[id], state[id + 1]]));
    let at = id + 2 + length + 8 + 2;
    let mut state = state.to_vec();
    state[at..at + 2].copy_from_slice(&next.to_le_bytes());
    state
}

/// As many as 64 MiB hold, at the end of a body; before it, what is received takes its share.
#[tokio::test(flavor = "multi_thread")]
async fn larger_parts_are_fewer_at_once() {
    for (number, mib, body, at_once) in [(3, 8, 72, 8), (501, 16, 80, 4), (1001, 32, 96, 2), (1501, 59, 118, 1)] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        session.append(20 * MIB).await;
        let state = with_next(&session.state, number);
        let mut first = true;
        fake.seen();
        fake.faults(move |seen| {
            // The first one is sent alone.
            let delayed = seen.operation == Operation::UploadPart && !std::mem::take(&mut first);
            delayed.then_some(Fault::Delay(1500))
        });
        let attempt = session.attempt();
        fake.most_parts();
        store
            .append(cx(60), attempt, &state, &mut Long::new(body * MIB))
            .await
            .unwrap();
        assert_eq!(fake.most_parts(), at_once, "of {mib} MiB");
        let seen = fake.seen();
        assert_eq!(seen.len(), body / mib);
        for part in seen {
            assert_eq!(part.headers["content-length"], (mib * MIB).to_string());
        }
    }
}

/// The number 10,000 is for the end that a seal makes; no body takes it, also not with its first part.
#[tokio::test(flavor = "multi_thread")]
async fn no_body_takes_the_last_number() {
    for parts in [Parts::Growing, Parts::Equal] {
        let fake = Fake::start().await;
        let store = fake.store(|options| options.parts = parts).await;
        let mut session = Session::new(&store);
        session.append(60 * MIB).await;
        for (next, fits) in [(9_999, true), (10_000, false)] {
            let state = with_next(&session.state, next);
            let attempt = session.attempt();
            // As the state tells; what is tried before has nothing to do with it.
            let attempt = registry::store::sessions::Attempt { number: 2, ..attempt };
            fake.seen();
            let stored = store.append(cx(60), attempt, &state, &mut Long::new(52 * MIB)).await;
            let numbers: Vec<_> = fake
                .seen()
                .iter()
                .filter_map(|seen| seen.query.get("partNumber").cloned())
                .collect();
            if parts == Parts::Growing {
                // It begins another upload instead.
                assert!(stored.is_ok());
                assert!(!numbers.contains(&"10000".to_owned()), "{numbers:?}");
            } else if fits {
                assert!(stored.is_ok(), "{stored:?}");
                assert_eq!(numbers, ["9999"]);
            } else {
                assert!(
                    matches!(stored, Err(AppendError::Store(StoreError::Failed(_)))),
                    "{stored:?}"
                );
                assert!(numbers.is_empty(), "{numbers:?}");
            }
        }
    }
}

/// Tags that are no MD5 and so long that the record of a body would not fit a table: their hashes are kept.
#[tokio::test(flavor = "multi_thread")]
async fn tags_of_any_length_are_known_again() {
    for (length, listed) in [(100, None), (30_000, Some(&5))] {
        let fake = Fake::start().await;
        fake.held(|held| held.tag_length = length);
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        session.append(100 * MIB).await;
        session.append(20 * MIB).await;
        assert!(session.parts.iter().all(|record| record.len() < 300_000));
        fake.counts();
        session.seal_and_check().await;
        // The server lists three parts at a time.
        assert_eq!(fake.counts().get("ListParts"), listed, "{length}");
    }
}

/// A part that was replaced is not the one whose hash was kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_has_changed_is_not_taken() {
    let fake = Fake::start().await;
    fake.held(|held| held.tag_length = 30_000);
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(100 * MIB).await;
    fake.held(|held| held.replace_parts(2));
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert!(error.to_string().contains("InvalidPart"), "{error}");
}
