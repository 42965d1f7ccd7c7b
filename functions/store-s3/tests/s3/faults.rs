//! A store that fails: the contract against a server in memory that refuses, hangs up, loses answers and cuts bodies;
//! and each fault by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fake::{Fake, Fault, Seen};
use crate::session::{Long, MIB, Session, cx};
use registry::contract::Guard;
use registry::store::blobs::BlobStore;
use registry::store::{Location, StoreError};
use store_s3::Operation;

/// Something goes wrong with so many of a hundred requests, always the same ones.
fn often(percent: u64) -> impl FnMut(&Seen) -> Option<Fault> {
    let mut state = 7_u64;
    move |seen| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        if word % 100 >= percent {
            return None;
        }
        Some(match (word >> 32) % 6 {
            0 => Fault::Refuse(503, "SlowDown"),
            1 => Fault::Refuse(500, "InternalError"),
            2 => Fault::Refuse(429, "TooManyRequests"),
            3 => Fault::HangUp,
            4 => Fault::LoseAnswer,
            _ if seen.operation == Operation::GetObject => Fault::Cut(5),
            _ => Fault::Cut(0),
        })
    }
}

async fn failing_store() -> (Arc<dyn BlobStore>, Guard) {
    let fake = Fake::start().await;
    fake.faults(often(10));
    let store = fake.store(|_| {}).await;
    (Arc::new(store), Box::new(fake))
}

registry::blob_contract_tests!(failing_store());

/// The first requests of an operation go wrong, as often as there are faults.
fn first(operation: Operation, faults: &'static [Fault]) -> impl FnMut(&Seen) -> Option<Fault> {
    let mut left = faults.iter();
    move |seen| (seen.operation == operation).then(|| left.next().copied()).flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_an_upload_may_fail() {
    const FAULTS: &[Fault] = &[
        Fault::Refuse(503, "SlowDown"),
        Fault::HangUp,
        Fault::LoseAnswer,
        Fault::Cut(0),
    ];
    for operation in [
        Operation::PutObject,
        Operation::CreateMultipartUpload,
        Operation::UploadPart,
        Operation::UploadPartCopy,
        Operation::CompleteMultipartUpload,
        Operation::GetObject,
        Operation::DeleteObjects,
    ] {
        let fake = Fake::start().await;
        fake.faults(first(operation, FAULTS));
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        for size in [MIB, 20 * MIB, MIB, MIB, 7 * MIB, 100] {
            session.append(size).await;
        }
        let location = session.seal_and_check().await;
        session.discard(Some(&location)).await;
        session.check(&location).await;
        let failed: u64 = store
            .statistics()
            .requests
            .iter()
            .map(|(_, counts)| counts.failed)
            .sum();
        assert!(failed >= 3, "{operation:?}: {failed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_whose_answer_was_lost_is_found() {
    let fake = Fake::start().await;
    fake.faults(first(Operation::CompleteMultipartUpload, &[Fault::LoseAnswer]));
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(20 * MIB).await;
    fake.counts();
    session.seal_and_check().await;
    let counts = fake.counts();
    assert_eq!(counts["CompleteMultipartUpload"], 2);
    assert_eq!(counts["HeadObject"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_another_size_is_no_seal() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(20 * MIB).await;
    let location = session.seal().await;
    fake.held(|held| {
        let object = held.objects.get_mut(&location.key).unwrap();
        object.bytes.truncate(20 * MIB - 1);
    });
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    // Nor is one of the right size from another number of parts.
    fake.held(|held| {
        let object = held.objects.get_mut(&location.key).unwrap();
        object.bytes = vec![0; 20 * MIB].into();
        object.etag = format!("{}-77", "0".repeat(32));
    });
    assert!(session.try_seal().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_was_replaced_never_yields_other_bytes() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(20 * MIB).await;
    fake.held(|held| held.replace_parts(2));
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert!(error.to_string().contains("InvalidPart"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_where_it_broke() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(MIB).await;
    let location = session.seal().await;
    fake.seen();
    let mut breaks = 0;
    fake.faults(move |_| {
        breaks += 1;
        (breaks <= 6).then_some(Fault::Cut(100_000))
    });
    session.check(&location).await;
    let ranges: Vec<_> = fake.seen().iter().map(|seen| seen.headers["range"].clone()).collect();
    assert_eq!(ranges.len(), 7, "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0] != pair[1]), "{ranges:?}");
    assert!(ranges[6].ends_with(&format!("-{}", MIB - 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_go_on_in_another_object() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(MIB).await;
    let location = session.seal().await;
    fake.faults(first(Operation::GetObject, &[Fault::Cut(100_000)]));
    let mut stream = store.read(cx(60), &location, 0..MIB as u64).await.unwrap().unwrap();
    let read = async {
        use futures_util::TryStreamExt as _;
        stream.try_next().await.unwrap();
        fake.held(|held| held.objects.get_mut(&location.key).unwrap().etag = "another".to_owned());
        while stream.try_next().await?.is_some() {}
        Ok::<_, StoreError>(())
    };
    assert!(matches!(read.await, Err(StoreError::Failed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_unavailable_in_time() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for fault in [Fault::Refuse(503, "SlowDown"), Fault::HangUp] {
        fake.faults(move |_| Some(fault));
        let began = Instant::now();
        let error = store.stat(cx(2), &Location::main("0.1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(fake.seen().len() > 2, "it was tried again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_not_repeated() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for (status, code) in [(403, "AccessDenied"), (400, "InvalidRequest"), (404, "NoSuchBucket")] {
        fake.faults(move |_| Some(Fault::Refuse(status, code)));
        let location = Location::main("00000000000000000000000000000000.1");
        let Err(error) = store.read(cx(60), &location, 0..1).await else {
            panic!("{code} is an error");
        };
        assert!(matches!(error, StoreError::Failed(_)), "{error}");
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_stalls_is_given_up() {
    let stalls = [
        Operation::PutObject,
        Operation::UploadPart,
        Operation::CompleteMultipartUpload,
    ];
    let uploads = stalls.map(|operation| {
        tokio::spawn(async move {
            let fake = Fake::start().await;
            fake.faults(first(operation, &[Fault::Stall]));
            let store = fake.store(|_| {}).await;
            let mut session = Session::new(&store);
            if operation != Operation::CompleteMultipartUpload {
                session.append(MIB).await;
                session.append(20 * MIB).await;
                session.seal_and_check().await;
                return;
            }
            // Completing may take minutes: a stall there is found by the time of the call.
            session.append(20 * MIB).await;
            let sealed = store.seal(cx(2), &session.upload()).await;
            assert!(matches!(sealed, Err(StoreError::Unavailable(_))));
            session.seal_and_check().await;
        })
    });
    for upload in uploads {
        upload.await.unwrap();
    }
}

/// A client that has gone leaves no upload, although nobody waits for what it began.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_dropped_is_aborted() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    let attempt = session.attempt();
    let mut body = Long::new(usize::MAX);
    let appending = store.append(cx(60), attempt, &[], &mut body);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), appending)
            .await
            .is_err()
    );
    for _ in 0..100 {
        if fake.held(|held| held.uploads.is_empty()) {
            assert!(fake.counts().contains_key("AbortMultipartUpload"));
            assert_eq!(store.statistics().upload_memory_free, store_s3::Options::UPLOAD_MEMORY);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the upload is still there");
}
