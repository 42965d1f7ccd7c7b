//! Parts: how many are in flight, how their entity tags are kept, and which numbers they get.

use registry::store::StoreError;
use registry::store::blobs::{AppendError, BlobStore as _};
use store_s3::{Operation, Parts};

use crate::fake::{Fake, ServerFault};
use crate::session::{LongBody, MIB, UploadSession, cx};

/// The state of an upload after 20 MiB, changed so that `next` is the number of its next part.
fn with_next(state: &[u8], next: u16) -> Vec<u8> {
    // The fields before it: format, bodies, last; whether there is an upload, its attempt, its id; its prefix and first
    // number.
    let id = 1 + 4 + 4 + 1 + 4;
    let length = usize::from(u16::from_le_bytes([state[id], state[id + 1]]));
    let at = id + 2 + length + 8 + 2;
    let mut state = state.to_vec();
    state[at..at + 2].copy_from_slice(&next.to_le_bytes());
    state
}

/// At the end of a body, 64 MiB of parts are in flight; before it, received bytes take a share of them.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_large_parts_are_in_flight_at_once() {
    for (number, mib, body, at_once) in [(3, 8, 72, 8), (501, 16, 80, 4), (1001, 32, 96, 2), (1501, 59, 118, 1)] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        session.append(20 * MIB).await;
        let state = with_next(&session.state, number);
        let mut first = true;
        fake.seen();
        fake.faults(move |seen| {
            // The first part is sent alone.
            let delayed = seen.operation == Operation::UploadPart && !std::mem::take(&mut first);
            delayed.then_some(ServerFault::Delay(1500))
        });
        let attempt = session.attempt();
        fake.maximum_parts();
        store
            .append(cx(60), attempt, &state, &mut LongBody::new(body * MIB))
            .await
            .unwrap();
        assert_eq!(fake.maximum_parts(), at_once, "of {mib} MiB");
        let seen = fake.seen();
        assert_eq!(seen.len(), body / mib);
        for part in seen {
            assert_eq!(part.headers["content-length"], (mib * MIB).to_string());
        }
    }
}

/// Number 10,000 is for the last part, which a seal makes. No body uses it, not even for its first part.
#[tokio::test(flavor = "multi_thread")]
async fn no_body_uses_the_last_part_number() {
    for parts in [Parts::Growing, Parts::Equal] {
        let fake = Fake::start().await;
        let store = fake.store(|options| options.parts = parts).await;
        let mut session = UploadSession::new(&store);
        session.append(60 * MIB).await;
        for (next, fits) in [(9_999, true), (10_000, false)] {
            let state = with_next(&session.state, next);
            let attempt = session.attempt();
            // The attempt that follows the state, whatever was attempted before.
            let attempt = registry::store::Attempt { number: 2, ..attempt };
            fake.seen();
            let stored = store
                .append(cx(60), attempt, &state, &mut LongBody::new(52 * MIB))
                .await;
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

/// The hashes are kept of entity tags that are not MD5 and too long for the record of a body.
#[tokio::test(flavor = "multi_thread")]
async fn parts_with_entity_tags_of_any_length_can_be_completed() {
    for (length, listed) in [(100, None), (30_000, Some(&5))] {
        let fake = Fake::start().await;
        fake.state(|state| state.tag_length = length);
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        session.append(100 * MIB).await;
        session.append(20 * MIB).await;
        assert!(session.parts.iter().all(|record| record.len() < 300_000));
        fake.counts();
        session.seal_and_check().await;
        // The server lists three parts at a time.
        assert_eq!(fake.counts().get("ListParts"), listed, "{length}");
    }
}

/// A replaced part does not match the hash that was kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_hashed_tag_changed_is_refused() {
    let fake = Fake::start().await;
    fake.state(|state| state.tag_length = 30_000);
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(100 * MIB).await;
    fake.state(|state| state.replace_parts(2));
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert!(error.to_string().contains("InvalidPart"), "{error}");
}
