//! A store that fails: the contract tests against a server in memory that refuses requests, closes connections, loses
//! responses and cuts bodies; and tests of each fault alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::fake::{Fake, Quirk, SeenRequest, ServerFault};
use crate::session::{LongBody, MIB, UploadSession, cx};
use contract::Guard;
use contract::source::{Body, noise};
use registry::random::SplitMix64;
use registry::store::blobs::{AppendError, BlobStore, BodyError, Discarded, ObjectToDelete, Source};
use registry::store::{Attempt, Location, Reason, SessionId, StoreError};
use store_s3::Operation;

/// Injects faults into this percentage of requests, always the same ones.
fn percentage_of_requests(percent: u64) -> impl FnMut(&SeenRequest) -> Option<ServerFault> {
    let mut random = SplitMix64::new(7);
    move |seen| {
        let word = random.bits();
        if word % 100 >= percent {
            return None;
        }
        Some(match (word >> 32) % 6 {
            0 => ServerFault::Refuse(503, "SlowDown"),
            1 => ServerFault::Refuse(500, "InternalError"),
            2 => ServerFault::Refuse(429, "TooManyRequests"),
            3 => ServerFault::HangUp,
            4 => ServerFault::LoseAnswer,
            _ if seen.operation == Operation::GetObject => ServerFault::Cut(5),
            _ => ServerFault::Cut(0),
        })
    }
}

async fn failing_store() -> (Arc<dyn BlobStore>, Guard) {
    let fake = Fake::start().await;
    fake.faults(percentage_of_requests(10));
    let store = fake.store(|_| {}).await;
    (Arc::new(store), Box::new(fake))
}

contract::blob_contract_tests!(failing_store());

/// Injects these faults into the first requests of an operation.
fn first_requests(
    operation: Operation,
    faults: &'static [ServerFault],
) -> impl FnMut(&SeenRequest) -> Option<ServerFault> {
    let mut left = faults.iter();
    move |seen| (seen.operation == operation).then(|| left.next().copied()).flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_an_upload_may_fail() {
    const FAULTS: &[ServerFault] = &[
        ServerFault::Refuse(503, "SlowDown"),
        ServerFault::HangUp,
        ServerFault::LoseAnswer,
        ServerFault::Cut(0),
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
        fake.faults(first_requests(operation, FAULTS));
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        for size in [MIB, 20 * MIB, MIB, MIB, 7 * MIB, 100] {
            session.append(size).await;
        }
        let location = session.seal_and_check().await;
        session.end(Some(&location)).await;
        session.check(&location).await;
        // Also none begun by a request whose response was lost.
        assert!(fake.state(|state| state.uploads.is_empty()), "{operation:?}");
        let failed: u64 = store
            .statistics()
            .requests
            .iter()
            .map(|(_, counts)| counts.failed)
            .sum();
        assert!(failed >= 3, "{operation:?}: {failed}");
    }
}

/// The first response to a request that begins an upload is lost, and there is no other fault. The store must report
/// that the single body may leave something.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_begun_twice_is_reported() {
    let fake = Fake::start().await;
    fake.faults(first_requests(
        Operation::CreateMultipartUpload,
        &[ServerFault::LoseAnswer],
    ));
    let store = fake.store(|_| {}).await;
    for (lost, expected) in [(true, Discarded::Known), (false, Discarded::All)] {
        let mut session = UploadSession::new(&store);
        session.append(20 * MIB).await;
        assert_eq!(store.leaves_something(&session.state), lost);
        let location = session.seal_and_check().await;
        assert_eq!(fake.state(|state| state.uploads.len()), usize::from(lost));
        assert_eq!(session.discard(Some(&location)).await, expected);
        session.end(Some(&location)).await;
        session.check(&location).await;
        assert!(fake.state(|state| state.uploads.is_empty()));
    }
}

/// A request was cut off after its commit, so the state of its body was never saved. The store does not know what that
/// body began, and must not report that everything is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_from_before_the_last_body_is_not_reported_as_complete() {
    let fake = Fake::start().await;
    fake.faults(first_requests(
        Operation::CreateMultipartUpload,
        &[ServerFault::LoseAnswer],
    ));
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    let before = session.state.clone();
    session.append(20 * MIB).await;
    let location = session.seal_and_check().await;
    session.state = before;
    assert_eq!(session.discard(Some(&location)).await, Discarded::Known);
    session.end(Some(&location)).await;
    session.check(&location).await;
    assert!(fake.state(|state| state.uploads.is_empty()));
}

/// A store that refuses one upload for a reason in that request gets the same request for the next upload.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_another_reason_disables_no_feature() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    fake.faults(|seen| {
        let refused = matches!(
            seen.operation,
            Operation::CreateMultipartUpload
                | Operation::DeleteObjects
                | Operation::DeleteObject
                | Operation::PutObject
        );
        // A store that does not support a header or a method may answer with the same codes.
        let by_method = seen.operation == Operation::PutObject;
        let fault = if by_method {
            ServerFault::Refuse(405, "MethodNotAllowed")
        } else {
            ServerFault::Refuse(400, "InvalidRequest")
        };
        refused.then_some(fault)
    });
    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    for size in [20 * MIB, MIB] {
        let mut body = Body::of(&noise(1, size), MIB);
        assert!(store.append(cx(60), attempt, &[], &mut body).await.is_err());
    }
    let to_delete = |session: &UploadSession| ObjectToDelete {
        location: Location::main(format!("{}.9", session.id)),
        unfinished: false,
    };
    assert!(store.delete(cx(60), &[to_delete(&session)]).await.is_err());
    fake.faults(|_| None);
    fake.seen();
    session.append(20 * MIB).await;
    session.append(1000).await;
    store.delete(cx(60), &[to_delete(&session)]).await.unwrap();
    let seen = fake.seen();
    let put = seen.iter().find(|seen| seen.operation == Operation::PutObject);
    assert!(put.unwrap().headers.contains_key("if-none-match"));
    let begun = seen
        .iter()
        .find(|seen| seen.operation == Operation::CreateMultipartUpload);
    assert!(begun.unwrap().headers.contains_key("x-amz-checksum-algorithm"));
    assert!(seen.iter().any(|seen| seen.operation == Operation::DeleteObjects));
}

/// A body whose hash the client has declared.
struct HashedBody(Body, [u8; 32]);

#[async_trait]
impl Source for HashedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.0.next().await
    }

    fn remaining(&self) -> Option<u64> {
        self.0.remaining()
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        Some(self.1)
    }
}

/// The declared hash of a body is the checksum of its object, unless the object has more bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_declared_hash_is_sent_as_the_checksum() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let bytes = noise(1, 1000);
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    let mut body = HashedBody(Body::of(&bytes, 100), hash);
    let appended = store.append(cx(60), attempt, &[], &mut body).await.unwrap();
    assert_eq!(fake.seen()[0].headers["x-amz-checksum-sha256"], STANDARD.encode(hash));
    session.save(appended, &bytes);
    // Joined with the body before it.
    let attempt = session.attempt();
    let mut body = HashedBody(Body::of(&bytes, 100), hash);
    let state = session.state.clone();
    let appended = store.append(cx(60), attempt, &state, &mut body).await.unwrap();
    session.save(appended, &bytes);
    session.seal_and_check().await;
    // No object is stored under a wrong hash.
    let mut other = UploadSession::new(&store);
    let mut body = HashedBody(Body::of(&noise(2, 1000), 100), hash);
    assert!(store.append(cx(1), other.attempt(), &[], &mut body).await.is_err());
    assert_eq!(fake.state(|state| state.objects.len()), 2);
}

/// A request whose credentials have just expired is signed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_expired_credentials_is_retried() {
    let fake = Fake::start().await;
    fake.faults(first_requests(
        Operation::PutObject,
        &[ServerFault::Refuse(400, "ExpiredToken")],
    ));
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(1000).await;
    assert_eq!(fake.counts()["PutObject"], 2);
    session.seal_and_check().await;
}

/// Some stores refuse in the body of a response with status 200, because they began the response before the result.
#[tokio::test(flavor = "multi_thread")]
async fn a_completion_may_be_refused_in_the_body_of_a_200() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    session.append(1000).await;
    session.seal().await;
    fake.faults(|seen| {
        let completing = seen.operation == Operation::CompleteMultipartUpload;
        completing.then_some(ServerFault::Refuse(200, "NoSuchUpload"))
    });
    session.seal_and_check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_whose_response_was_lost_is_verified() {
    let fake = Fake::start().await;
    fake.faults(first_requests(
        Operation::CompleteMultipartUpload,
        &[ServerFault::LoseAnswer],
    ));
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    fake.counts();
    session.seal_and_check().await;
    let counts = fake.counts();
    assert_eq!(counts["CompleteMultipartUpload"], 2);
    assert_eq!(counts["HeadObject"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_another_size_or_part_count_is_not_a_seal() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    let location = session.seal().await;
    fake.state(|state| {
        let object = state.objects.get_mut(&location.key).unwrap();
        object.bytes.truncate(20 * MIB - 1);
    });
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    // An object of the right size with another number of parts is not accepted either.
    fake.state(|state| {
        let object = state.objects.get_mut(&location.key).unwrap();
        object.bytes = vec![0; 20 * MIB].into();
        object.etag = format!("{}-77", "0".repeat(32));
    });
    assert!(session.try_seal().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_part_makes_the_seal_fail() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    fake.state(|state| state.replace_parts(2));
    let error = session.try_seal().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert!(error.to_string().contains("InvalidPart"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_read_continues_at_the_same_position() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(MIB).await;
    let location = session.seal().await;
    fake.seen();
    let mut breaks = 0;
    fake.faults(move |_| {
        breaks += 1;
        (breaks <= 6).then_some(ServerFault::Cut(100_000))
    });
    session.check(&location).await;
    let ranges: Vec<_> = fake.seen().iter().map(|seen| seen.headers["range"].clone()).collect();
    assert_eq!(ranges.len(), 7, "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0] != pair[1]), "{ranges:?}");
    assert!(ranges[6].ends_with(&format!("-{}", MIB - 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_read_does_not_continue_in_another_object() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(MIB).await;
    let location = session.seal().await;
    fake.faults(first_requests(Operation::GetObject, &[ServerFault::Cut(100_000)]));
    let mut stream = store.read(cx(60), &location, 0..MIB as u64).await.unwrap().unwrap();
    let read = async {
        use futures_util::TryStreamExt as _;
        stream.try_next().await.unwrap();
        fake.state(|state| state.objects.get_mut(&location.key).unwrap().etag = "another".to_owned());
        while stream.try_next().await?.is_some() {}
        Ok::<_, StoreError>(())
    };
    assert!(matches!(read.await, Err(StoreError::Failed(_))));
}

/// A broken read continues only with the requested bytes, whatever the store does with ranges.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_read_does_not_continue_with_other_bytes() {
    use futures_util::TryStreamExt as _;
    for (quirk, text) in [
        (Quirk::WholeObjects, "AnotherRange"),
        (Quirk::FirstBytes, "AnotherRange"),
        (Quirk::HalfRanges, "AnotherRange"),
        (Quirk::NoConditions, "AnotherObject"),
    ] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        session.append(MIB).await;
        let location = session.seal().await;
        fake.faults(first_requests(Operation::GetObject, &[ServerFault::Cut(100_000)]));
        let mut stream = store.read(cx(60), &location, 0..MIB as u64).await.unwrap().unwrap();
        let mut read = stream.try_next().await.unwrap().unwrap().to_vec();
        fake.state(|state| {
            state.quirk = Some(quirk);
            if quirk == Quirk::NoConditions {
                state.objects.get_mut(&location.key).unwrap().etag = "another".to_owned();
            }
        });
        let error = loop {
            match stream.try_next().await {
                Ok(chunk) => read.extend_from_slice(&chunk.expect("not the end of the object")),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Failed(_)), "{quirk:?}: {error}");
        assert!(error.to_string().contains(text), "{quirk:?}: {error}");
        assert!(
            session.whole.starts_with(&read),
            "{quirk:?}: the bytes before are right"
        );
    }
}

/// The first response to a read is checked too: a store that does not support ranges can serve only whole objects.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_ranges_serves_only_whole_objects() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    session.append(1000).await;
    let location = session.seal().await;
    fake.state(|state| state.quirk = Some(Quirk::WholeObjects));
    session.check(&location).await;
    // The last range is as long as the whole object.
    for range in [10..20, 0..20, 999..1000, 500..1500] {
        let read = store.read(cx(60), &location, range.clone()).await;
        let text = read.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("AnotherRange"), "{range:?}: {text}");
    }
}

/// If an object exists already, the store distinguishes its own object, whose response was lost, from another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_response_was_lost_is_distinguished_from_another() {
    for quirk in [None, Some(Quirk::NoChecksums)] {
        let fake = Fake::start().await;
        fake.state(|state| state.quirk = quirk);
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        fake.faults(first_requests(Operation::PutObject, &[ServerFault::LoseAnswer]));
        session.append(1000).await;
        let counts = fake.counts();
        assert_eq!((counts["PutObject"], counts["HeadObject"]), (2, 1));
        let location = session.seal_and_check().await;
        // A restored table repeats the number of an attempt, which stores other bytes of the same length.
        let mut body = Body::of(&noise(9, 1000), 1000);
        let again = Attempt {
            session: session.id,
            number: 1,
        };
        let error = store.append(cx(60), again, &[], &mut body).await.unwrap_err();
        assert!(error.to_string().contains("PreconditionFailed"), "{quirk:?}: {error}");
        session.check(&location).await;
    }
}

/// A store may refuse an object that exists, and close the connection before it has read the body: the response is lost
/// again, at every attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_found_although_every_later_response_is_lost() {
    for quirk in [None, Some(Quirk::NoChecksums)] {
        let fake = Fake::start().await;
        fake.state(|state| state.quirk = quirk);
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        let mut is_first = true;
        fake.faults(move |seen| match seen.operation {
            Operation::PutObject if std::mem::take(&mut is_first) => Some(ServerFault::LoseAnswer),
            Operation::PutObject => Some(ServerFault::HangUp),
            _ => None,
        });
        session.append(1000).await;
        let counts = fake.counts();
        assert_eq!((counts["PutObject"], counts["HeadObject"]), (2, 1), "{quirk:?}");
        session.seal_and_check().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_store_is_reported_within_the_time_limit() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for fault in [ServerFault::Refuse(503, "SlowDown"), ServerFault::HangUp] {
        fake.faults(move |_| Some(fault));
        let began = Instant::now();
        let error = store.stat(cx(2), &Location::main("0.1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(fake.seen().len() > 2, "the request was retried");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_are_not_retried() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for (status, code) in [(403, "AccessDenied"), (400, "InvalidRequest"), (404, "NoSuchBucket")] {
        fake.faults(move |_| Some(ServerFault::Refuse(status, code)));
        let location = Location::main("00000000000000000000000000000000.1");
        let Err(error) = store.read(cx(60), &location, 0..1).await else {
            panic!("{code} is an error");
        };
        assert!(matches!(error, StoreError::Failed(_)), "{error}");
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(fake.seen().len(), 1);
    }
}

/// Stores report missing space in many ways. The request is sent once, and the client and `/readyz?push` get the
/// reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_reported_as_full() {
    for (status, code) in [
        (507, "XMinioStorageFull"),
        (507, "InsufficientStorage"),
        (400, "XMinioAdminBucketQuotaExceeded"),
        (403, "QuotaExceeded"),
    ] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        fake.faults(move |_| Some(ServerFault::Refuse(status, code)));
        let attempt = Attempt {
            session: SessionId(7),
            number: 1,
        };
        let mut body = Body::of(&noise(1, 1000), 1000);
        let Err(AppendError::Store(error)) = store.append(cx(60), attempt, &[], &mut body).await else {
            panic!("{code} is an error of the store");
        };
        assert_eq!(error.reason(), Reason::NoSpace, "{error}");
        assert!(error.to_string().contains(code), "{error}");
        assert_eq!(fake.counts()["PutObject"], 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_cancelled() {
    let stalls = [
        Operation::PutObject,
        Operation::UploadPart,
        Operation::CompleteMultipartUpload,
    ];
    let uploads = stalls.map(|operation| {
        tokio::spawn(async move {
            let fake = Fake::start().await;
            fake.faults(first_requests(operation, &[ServerFault::Stall]));
            let store = fake.store(|_| {}).await;
            let mut session = UploadSession::new(&store);
            if operation != Operation::CompleteMultipartUpload {
                session.append(MIB).await;
                session.append(20 * MIB).await;
                session.seal_and_check().await;
                return;
            }
            // Completion may take minutes: only the time limit of the call detects a stall there.
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

/// A client disconnects and leaves no upload, although no request waits for the abort.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_upload_is_aborted() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    let mut body = LongBody::new(usize::MAX);
    let appending = store.append(cx(60), attempt, &[], &mut body);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), appending)
            .await
            .is_err()
    );
    for _ in 0..100 {
        if fake.state(|state| state.uploads.is_empty()) {
            assert!(fake.counts().contains_key("AbortMultipartUpload"));
            assert_eq!(
                store.statistics().upload_memory_free,
                store_s3::S3Options::UPLOAD_MEMORY
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the upload still exists");
}
