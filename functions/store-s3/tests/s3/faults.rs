//! A store that fails: the contract against a server in memory that refuses, hangs up, loses answers and cuts bodies;
//! and each fault by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::fake::{Fake, Fault, Quirk, Seen};
use crate::session::{Long, MIB, Session, cx};
use contract::Guard;
use contract::source::{Body, noise};
use registry::store::blobs::{AppendError, BlobStore, BodyError, Discarded, ObjectToDelete, Source};
use registry::store::sessions::{Attempt, SessionId};
use registry::store::{Location, Reason, StoreError};
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

contract::blob_contract_tests!(failing_store());

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
        session.end(Some(&location)).await;
        session.check(&location).await;
        // Also none that was begun by a request whose answer was lost.
        assert!(fake.held(|held| held.uploads.is_empty()), "{operation:?}");
        let failed: u64 = store
            .statistics()
            .requests
            .iter()
            .map(|(_, counts)| counts.failed)
            .sum();
        assert!(failed >= 3, "{operation:?}: {failed}");
    }
}

/// The first answer of a store that begins an upload is lost, and nothing else goes wrong: one body, of which the store
/// has to say that it leaves something.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_begun_twice_is_told() {
    let fake = Fake::start().await;
    fake.faults(first(Operation::CreateMultipartUpload, &[Fault::LoseAnswer]));
    let store = fake.store(|_| {}).await;
    for (lost, expected) in [(true, Discarded::Known), (false, Discarded::All)] {
        let mut session = Session::new(&store);
        session.append(20 * MIB).await;
        assert_eq!(store.leaves_something(&session.state), lost);
        let location = session.seal_and_check().await;
        assert_eq!(fake.held(|held| held.uploads.len()), usize::from(lost));
        assert_eq!(session.discard(Some(&location)).await, expected);
        session.end(Some(&location)).await;
        session.check(&location).await;
        assert!(fake.held(|held| held.uploads.is_empty()));
    }
}

/// A request was cut off behind its commit, so that the state of its body was never saved: what that body has begun is
/// told by nobody, and so it is not said that all is known.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_before_the_last_body_does_not_tell_all() {
    let fake = Fake::start().await;
    fake.faults(first(Operation::CreateMultipartUpload, &[Fault::LoseAnswer]));
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    let before = session.state.clone();
    session.append(20 * MIB).await;
    let location = session.seal_and_check().await;
    session.state = before;
    assert_eq!(session.discard(Some(&location)).await, Discarded::Known);
    session.end(Some(&location)).await;
    session.check(&location).await;
    assert!(fake.held(|held| held.uploads.is_empty()));
}

/// A store that refuses one upload, for whatever reason of that request, is asked as before for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_another_reason_teaches_nothing() {
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
        // What a store also says that does not know a header, or a method.
        let by_method = seen.operation == Operation::PutObject;
        let fault = if by_method {
            Fault::Refuse(405, "MethodNotAllowed")
        } else {
            Fault::Refuse(400, "InvalidRequest")
        };
        refused.then_some(fault)
    });
    let mut session = Session::new(&store);
    let attempt = session.attempt();
    for size in [20 * MIB, MIB] {
        let mut body = Body::of(&noise(1, size), MIB);
        assert!(store.append(cx(60), attempt, &[], &mut body).await.is_err());
    }
    let to_delete = |session: &Session| ObjectToDelete {
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

/// A body of which somebody has told the hash.
struct Told(Body, [u8; 32]);

#[async_trait]
impl Source for Told {
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

/// The hash of a body that is known already is what the store compares the object with, unless the object is more.
#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_was_told_is_the_checksum() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let bytes = noise(1, 1000);
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let mut session = Session::new(&store);
    let attempt = session.attempt();
    let mut body = Told(Body::of(&bytes, 100), hash);
    let appended = store.append(cx(60), attempt, &[], &mut body).await.unwrap();
    assert_eq!(fake.seen()[0].headers["x-amz-checksum-sha256"], STANDARD.encode(hash));
    session.save(appended, &bytes);
    // Joined with what came before it.
    let attempt = session.attempt();
    let mut body = Told(Body::of(&bytes, 100), hash);
    let state = session.state.clone();
    let appended = store.append(cx(60), attempt, &state, &mut body).await.unwrap();
    session.save(appended, &bytes);
    session.seal_and_check().await;
    // Nothing is stored under a hash that is not its own.
    let mut other = Session::new(&store);
    let mut body = Told(Body::of(&noise(2, 1000), 100), hash);
    assert!(store.append(cx(1), other.attempt(), &[], &mut body).await.is_err());
    assert_eq!(fake.held(|held| held.objects.len()), 2);
}

/// Credentials that ended on the way are signed anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_just_ended_is_asked_for_again() {
    let fake = Fake::start().await;
    fake.faults(first(Operation::PutObject, &[Fault::Refuse(400, "ExpiredToken")]));
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(1000).await;
    assert_eq!(fake.counts()["PutObject"], 2);
    session.seal_and_check().await;
}

/// Some stores refuse in the body of an answer whose status is 200: they had begun it before they knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_completion_may_be_refused_late() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(20 * MIB).await;
    session.append(1000).await;
    session.seal().await;
    fake.faults(|seen| {
        let completing = seen.operation == Operation::CompleteMultipartUpload;
        completing.then_some(Fault::Refuse(200, "NoSuchUpload"))
    });
    session.seal_and_check().await;
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

/// A read that broke is gone on with by the bytes that were asked for, or by none; whatever the store makes of ranges.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_does_not_go_on_with_other_bytes() {
    use futures_util::TryStreamExt as _;
    for (quirk, told) in [
        (Quirk::WholeObjects, "AnotherRange"),
        (Quirk::FirstBytes, "AnotherRange"),
        (Quirk::HalfRanges, "AnotherRange"),
        (Quirk::NoConditions, "AnotherObject"),
    ] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        session.append(MIB).await;
        let location = session.seal().await;
        fake.faults(first(Operation::GetObject, &[Fault::Cut(100_000)]));
        let mut stream = store.read(cx(60), &location, 0..MIB as u64).await.unwrap().unwrap();
        let mut read = stream.try_next().await.unwrap().unwrap().to_vec();
        fake.held(|held| {
            held.quirk = Some(quirk);
            if quirk == Quirk::NoConditions {
                held.objects.get_mut(&location.key).unwrap().etag = "another".to_owned();
            }
        });
        let error = loop {
            match stream.try_next().await {
                Ok(chunk) => read.extend_from_slice(&chunk.expect("not the end of the object")),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::Failed(_)), "{quirk:?}: {error}");
        assert!(error.to_string().contains(told), "{quirk:?}: {error}");
        assert!(session.whole.starts_with(&read), "{quirk:?}: what came before is right");
    }
}

/// The first answer to a read is looked at as well: a store that does not know ranges serves whole objects alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_ranges_serves_whole_objects_alone() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    session.append(1000).await;
    let location = session.seal().await;
    fake.held(|held| held.quirk = Some(Quirk::WholeObjects));
    session.check(&location).await;
    // The last is as long as the whole.
    for range in [10..20, 0..20, 999..1000, 500..1500] {
        let read = store.read(cx(60), &location, range.clone()).await;
        let told = read.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains("AnotherRange"), "{range:?}: {told}");
    }
}

/// An object that stands where one was to be stored is the one that was sent, if the answer was lost; or another.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_answer_was_lost_is_told_from_another() {
    for quirk in [None, Some(Quirk::NoChecksums)] {
        let fake = Fake::start().await;
        fake.held(|held| held.quirk = quirk);
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        fake.faults(first(Operation::PutObject, &[Fault::LoseAnswer]));
        session.append(1000).await;
        let counts = fake.counts();
        assert_eq!((counts["PutObject"], counts["HeadObject"]), (2, 1));
        let location = session.seal_and_check().await;
        // An attempt that is counted a second time, because a table was put back, and other bytes of the same length.
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

/// A store without space says so in many ways. It is asked once, and the client and `/readyz?push` are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_as_full() {
    for (status, code) in [
        (507, "XMinioStorageFull"),
        (507, "InsufficientStorage"),
        (400, "XMinioAdminBucketQuotaExceeded"),
        (403, "QuotaExceeded"),
    ] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        fake.faults(move |_| Some(Fault::Refuse(status, code)));
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
