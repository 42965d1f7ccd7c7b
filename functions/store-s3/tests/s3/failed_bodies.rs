//! Bodies that fail while their server keeps running, through the core: the upload continues as if they had not
//! existed, and its end copies nothing. Bytes before a crash are copied once.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::source::noise;
use hyper::Method;
use oci::{Algorithm, Digest};
use registry::store::blobs::{AppendError, BlobStore as _, BodyError};
use store_s3::{Operation, S3Blobs};

use crate::fake::{Fake, ServerFault};
use crate::session::{MIB, UploadSession, cx};
use crate::test_registry::{RequestContent, TestRegistry};

fn counts<const N: usize>(rows: [(&'static str, usize); N]) -> BTreeMap<&'static str, usize> {
    rows.into_iter().collect()
}

/// The requests at the end of an upload of several bodies, none of which was small.
fn no_copy() -> BTreeMap<&'static str, usize> {
    counts([("CompleteMultipartUpload", 1), ("HeadObject", 1), ("DeleteObjects", 1)])
}

/// A client whose response was lost sends its chunk again, is refused, and continues at the upload's end.
#[tokio::test(flavor = "multi_thread")]
async fn repeating_a_chunk_causes_no_copy() {
    let registry = TestRegistry::new(|_, _| {}).await;
    let whole = noise(1, 50 * MIB);
    let upload = registry.open().await;
    for at in [0, 20 * MIB, 35 * MIB] {
        let end = (at + 20 * MIB).min(if at == 20 * MIB { 35 * MIB } else { 50 * MIB });
        assert_eq!(registry.patch(&upload, at, &whole[at..end]).await, 202);
        for _ in 0..2 {
            assert_eq!(registry.patch(&upload, at, &whole[at..end]).await, 416);
        }
        let (status, headers) = registry
            .call(Method::GET, &upload, None, RequestContent::Whole(b""))
            .await;
        assert_eq!(
            (status, headers["range"].to_str().unwrap()),
            (204, &*format!("0-{}", end - 1))
        );
    }
    let begun = registry.fake.counts()["CreateMultipartUpload"];
    assert_eq!(begun, 1, "all chunks are in one upload");
    assert_eq!(registry.finish(&upload, &whole).await, no_copy());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_chunk_causes_no_copy() {
    let registry = TestRegistry::new(|_, _| {}).await;
    let whole = noise(2, 40 * MIB);
    let upload = registry.open().await;
    for at in [0, 20 * MIB] {
        assert_eq!(registry.patch(&upload, at, &whole[at..at + 20 * MIB]).await, 202);
        let (status, _) = registry
            .call(Method::PATCH, &upload, None, RequestContent::Chunked(b""))
            .await;
        assert_eq!(status, 202);
    }
    assert_eq!(registry.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(registry.finish(&upload, &whole).await, no_copy());
}

/// Bodies that are too large by their declared or by their actual length, and a body shorter than declared.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_causes_no_copy() {
    let registry = TestRegistry::new(|_, settings| settings.limits.blob_bytes = 40 << 20).await;
    let whole = noise(3, 40 * MIB);
    let upload = registry.open().await;
    assert_eq!(registry.patch(&upload, 0, &whole[..20 * MIB]).await, 202);
    assert_eq!(registry.patch(&upload, 20 * MIB, &whole[..=20 * MIB]).await, 413);
    let (status, _) = registry
        .call(
            Method::PATCH,
            &upload,
            None,
            RequestContent::Chunked(&whole[..=20 * MIB]),
        )
        .await;
    assert_eq!(status, 413);
    let (status, _) = registry
        .call(
            Method::PATCH,
            &upload,
            Some((20 * MIB, 20 * MIB)),
            RequestContent::Chunked(&whole[..19 * MIB]),
        )
        .await;
    assert_eq!(status, 416);
    assert_eq!(registry.patch(&upload, 20 * MIB, &whole[20 * MIB..]).await, 202);
    assert_eq!(registry.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(registry.finish(&upload, &whole).await, no_copy());
}

/// A client disconnects in the middle of a chunk, with parts of it stored and in flight. It continues with the same
/// chunk, or with a shorter one, so that some of these parts are never replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_causes_no_copy() {
    let registry = TestRegistry::new(|_, _| {}).await;
    let whole = noise(4, 60 * MIB);
    let upload = registry.open().await;
    assert_eq!(registry.patch(&upload, 0, &whole[..20 * MIB]).await, 202);
    let other = noise(5, 40 * MIB);
    for length in [40 * MIB, 21 * MIB, 1] {
        let (status, _) = registry
            .call(Method::PATCH, &upload, None, RequestContent::Cut(&other[..length]))
            .await;
        assert_eq!(status, 400);
    }
    assert_eq!(registry.patch(&upload, 20 * MIB, &whole[20 * MIB..30 * MIB]).await, 202);
    let (status, _) = registry
        .call(Method::PATCH, &upload, None, RequestContent::Cut(&other))
        .await;
    assert_eq!(status, 400);
    // The final PUT may be cut too.
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let finish = format!("{upload}?digest={digest}");
    let (status, _) = registry
        .call(Method::PUT, &finish, None, RequestContent::Cut(&other))
        .await;
    assert_eq!(status, 400);
    assert_eq!(registry.patch(&upload, 30 * MIB, &whole[30 * MIB..]).await, 202);
    assert_eq!(registry.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(registry.finish(&upload, &whole).await, no_copy());
}

/// A part without a response could still arrive and replace a part of the next body. So the next body begins another
/// upload, whose beginning is copied at the end.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_write_in_flight_the_next_body_begins_another_upload() {
    for fault in [ServerFault::LoseAnswer, ServerFault::Delay(20_000)] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = UploadSession::new(&store);
        session.append(20 * MIB).await;
        let mut parts = 0;
        fake.faults(move |seen| {
            parts += usize::from(seen.operation == Operation::UploadPart);
            // The store waits for the first part of a body anyway.
            (seen.operation == Operation::UploadPart && parts == 2).then_some(fault)
        });
        let began = std::time::Instant::now();
        let (_, error) = session.try_append_cut(30 * MIB).await;
        assert!(matches!(error, AppendError::WriteInFlight(BodyError::Cut)), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the attempt waits only a short time"
        );
        session.append(20 * MIB).await;
        fake.counts();
        session.seal_and_check().await;
        assert_eq!(fake.counts()["UploadPartCopy"], 1);
    }
}

/// Only the directly following attempt may use the upload again; an attempt after a gap may not.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_directly_following_attempt_may_reuse_the_upload() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    let attempt = session.attempt();
    assert_eq!(
        store.after_failed_attempt(attempt, &session.state),
        None,
        "nothing is stored"
    );
    session.append(20 * MIB).await;
    session.append_lost(20 * MIB).await;
    let attempt = session.attempt();
    assert_eq!(store.after_failed_attempt(attempt, &session.state), None);
    session.append(20 * MIB).await;
    let attempt = session.attempt();
    assert!(store.after_failed_attempt(attempt, &session.state).is_some());
    session.seal_and_check().await;
}

/// A store copies slowly, and an upload has many stages: each copy has the time limit of a whole call.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_may_take_longer_than_the_time_limit_of_a_call() {
    let (fake, session) = three_stages().await;
    fake.faults(|seen| (seen.operation == Operation::UploadPartCopy).then_some(ServerFault::Delay(1200)));
    session.store.seal(cx(2), &session.upload()).await.unwrap();
    fake.faults(|_| None);
    session.seal_and_check().await;
}

/// The next seal does not repeat the copies that a failed seal has made.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_seal_does_not_repeat_copies() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.attempts = 1).await;
    let mut session = UploadSession::new(&store);
    for _ in 0..5 {
        session.append(60 * MIB).await;
    }
    session.append_lost(10).await;
    session.append(20 * MIB).await;
    fake.faults(|seen| {
        let copies = seen.operation == Operation::UploadPartCopy;
        (copies && seen.query["partNumber"] == "4").then_some(ServerFault::Refuse(503, "SlowDown"))
    });
    assert!(session.try_seal().await.is_err());
    // Copies in flight complete.
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.faults(|_| None);
    let before = fake.counts();
    assert_eq!(before["UploadPartCopy"], 4);
    session.seal_and_check().await;
    let counts = fake.counts();
    // The server lists three parts at a time.
    assert_eq!((counts["UploadPartCopy"], counts["ListParts"]), (1, 2), "{counts:?}");
}

/// A store without permission to list parts copies all of them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_without_permission_to_list_copies_everything() {
    let (fake, session) = three_stages().await;
    fake.faults(|seen| (seen.operation == Operation::ListParts).then_some(ServerFault::Refuse(403, "AccessDenied")));
    session.seal_and_check().await;
    assert_eq!(fake.counts()["UploadPartCopy"], 2);
}

/// An upload with two crashes.
async fn three_stages() -> (Fake, UploadSession) {
    let fake = Fake::start().await;
    let store: S3Blobs = fake.store(|_| {}).await;
    let mut session = UploadSession::new(&store);
    for round in 0..3 {
        if round > 0 {
            session.append_lost(10).await;
        }
        session.append(13 * MIB).await;
    }
    fake.counts();
    (fake, session)
}
