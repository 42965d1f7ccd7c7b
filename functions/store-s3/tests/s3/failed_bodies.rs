//! Bodies that come to nothing while their server lives, through the core: the upload goes on as if they had not been,
//! and its end copies nothing. What a crash cuts off is copied, once.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::source::noise;
use hyper::Method;
use oci::{Algorithm, Digest};
use registry::store::blobs::{AppendError, BlobStore as _, BodyError};
use store_s3::{Operation, S3Blobs};

use crate::fake::{Fake, Fault};
use crate::session::{MIB, Session, cx};
use crate::world::{Sent, World};

fn asked<const N: usize>(rows: [(&'static str, usize); N]) -> BTreeMap<&'static str, usize> {
    rows.into_iter().collect()
}

/// What the end of an upload of several bodies costs, when none of them was small.
fn no_copy() -> BTreeMap<&'static str, usize> {
    asked([("CompleteMultipartUpload", 1), ("HeadObject", 1), ("DeleteObjects", 1)])
}

/// A client whose answer was lost sends its chunk again, is refused, and goes on from where the upload stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_sent_again_costs_no_copy() {
    let world = World::new(|_, _| {}).await;
    let whole = noise(1, 50 * MIB);
    let upload = world.open().await;
    for at in [0, 20 * MIB, 35 * MIB] {
        let end = (at + 20 * MIB).min(if at == 20 * MIB { 35 * MIB } else { 50 * MIB });
        assert_eq!(world.patch(&upload, at, &whole[at..end]).await, 202);
        for _ in 0..2 {
            assert_eq!(world.patch(&upload, at, &whole[at..end]).await, 416);
        }
        let (status, headers) = world.call(Method::GET, &upload, None, Sent::Whole(b"")).await;
        assert_eq!(
            (status, headers["range"].to_str().unwrap()),
            (204, &*format!("0-{}", end - 1))
        );
    }
    let begun = world.fake.counts()["CreateMultipartUpload"];
    assert_eq!(begun, 1, "all of it is one upload");
    assert_eq!(world.finish(&upload, &whole).await, no_copy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_no_bytes_costs_no_copy() {
    let world = World::new(|_, _| {}).await;
    let whole = noise(2, 40 * MIB);
    let upload = world.open().await;
    for at in [0, 20 * MIB] {
        assert_eq!(world.patch(&upload, at, &whole[at..at + 20 * MIB]).await, 202);
        let (status, _) = world.call(Method::PATCH, &upload, None, Sent::Chunked(b"")).await;
        assert_eq!(status, 202);
    }
    assert_eq!(world.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(world.finish(&upload, &whole).await, no_copy());
}

/// Bodies that are too large, by what they say or by what they are; and one that is not as long as it said.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_a_limit_costs_no_copy() {
    let world = World::new(|_, settings| settings.limits.blob_bytes = 40 << 20).await;
    let whole = noise(3, 40 * MIB);
    let upload = world.open().await;
    assert_eq!(world.patch(&upload, 0, &whole[..20 * MIB]).await, 202);
    assert_eq!(world.patch(&upload, 20 * MIB, &whole[..=20 * MIB]).await, 413);
    let (status, _) = world
        .call(Method::PATCH, &upload, None, Sent::Chunked(&whole[..=20 * MIB]))
        .await;
    assert_eq!(status, 413);
    let (status, _) = world
        .call(
            Method::PATCH,
            &upload,
            Some((20 * MIB, 20 * MIB)),
            Sent::Chunked(&whole[..19 * MIB]),
        )
        .await;
    assert_eq!(status, 416);
    assert_eq!(world.patch(&upload, 20 * MIB, &whole[20 * MIB..]).await, 202);
    assert_eq!(world.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(world.finish(&upload, &whole).await, no_copy());
}

/// A client goes away in the middle of a chunk, with parts of it stored and under way, and goes on with the same chunk;
/// or with a shorter one, so that some of these parts are never replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_costs_no_copy() {
    let world = World::new(|_, _| {}).await;
    let whole = noise(4, 60 * MIB);
    let upload = world.open().await;
    assert_eq!(world.patch(&upload, 0, &whole[..20 * MIB]).await, 202);
    let other = noise(5, 40 * MIB);
    for length in [40 * MIB, 21 * MIB, 1] {
        let (status, _) = world
            .call(Method::PATCH, &upload, None, Sent::Cut(&other[..length]))
            .await;
        assert_eq!(status, 400);
    }
    assert_eq!(world.patch(&upload, 20 * MIB, &whole[20 * MIB..30 * MIB]).await, 202);
    let (status, _) = world.call(Method::PATCH, &upload, None, Sent::Cut(&other)).await;
    assert_eq!(status, 400);
    // The final PUT may be cut as well.
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let finish = format!("{upload}?digest={digest}");
    let (status, _) = world.call(Method::PUT, &finish, None, Sent::Cut(&other)).await;
    assert_eq!(status, 400);
    assert_eq!(world.patch(&upload, 30 * MIB, &whole[30 * MIB..]).await, 202);
    assert_eq!(world.fake.counts()["CreateMultipartUpload"], 1);
    assert_eq!(world.finish(&upload, &whole).await, no_copy());
}

/// A part of which no answer came could still arrive, and take the place of the next body's: that one begins another
/// upload, whose beginning is copied in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_leaves_something_on_its_way_is_not_passed_over() {
    for fault in [Fault::LoseAnswer, Fault::Delay(20_000)] {
        let fake = Fake::start().await;
        let store = fake.store(|_| {}).await;
        let mut session = Session::new(&store);
        session.append(20 * MIB).await;
        let mut parts = 0;
        fake.faults(move |seen| {
            parts += usize::from(seen.operation == Operation::UploadPart);
            // The first part of a body is waited for anyway.
            (seen.operation == Operation::UploadPart && parts == 2).then_some(fault)
        });
        let began = std::time::Instant::now();
        let (_, error) = session.try_append_cut(30 * MIB).await;
        assert!(matches!(error, AppendError::WriteInFlight(BodyError::Cut)), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "nobody waits for it for long"
        );
        session.append(20 * MIB).await;
        fake.counts();
        session.seal_and_check().await;
        assert_eq!(fake.counts()["UploadPartCopy"], 1);
    }
}

/// Only the attempt that comes next is passed over: what is behind a gap stays behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_crash_is_not_passed_over() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
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

/// A store that copies slowly, and an upload of many stages: each copy has the time of a whole call.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_may_take_longer_than_a_call() {
    let (fake, session) = three_stages().await;
    fake.faults(|seen| (seen.operation == Operation::UploadPartCopy).then_some(Fault::Delay(1200)));
    session.store.seal(cx(2), &session.upload()).await.unwrap();
    fake.faults(|_| None);
    session.seal_and_check().await;
}

/// What a seal has copied before it failed, the next one does not copy again.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_is_repeated_goes_on() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.attempts = 1).await;
    let mut session = Session::new(&store);
    for _ in 0..5 {
        session.append(60 * MIB).await;
    }
    session.append_lost(10).await;
    session.append(20 * MIB).await;
    fake.faults(|seen| {
        let copies = seen.operation == Operation::UploadPartCopy;
        (copies && seen.query["partNumber"] == "4").then_some(Fault::Refuse(503, "SlowDown"))
    });
    assert!(session.try_seal().await.is_err());
    // Those that were under way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.faults(|_| None);
    let before = fake.counts();
    assert_eq!(before["UploadPartCopy"], 4);
    session.seal_and_check().await;
    let counts = fake.counts();
    // The server lists three parts at a time.
    assert_eq!((counts["UploadPartCopy"], counts["ListParts"]), (1, 2), "{counts:?}");
}

/// Whoever may not list parts copies all of them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_without_the_right_to_look_copies_everything() {
    let (fake, session) = three_stages().await;
    fake.faults(|seen| (seen.operation == Operation::ListParts).then_some(Fault::Refuse(403, "AccessDenied")));
    session.seal_and_check().await;
    assert_eq!(fake.counts()["UploadPartCopy"], 2);
}

/// An upload that was lost twice.
async fn three_stages() -> (Fake, Session) {
    let fake = Fake::start().await;
    let store: S3Blobs = fake.store(|_| {}).await;
    let mut session = Session::new(&store);
    for round in 0..3 {
        if round > 0 {
            session.append_lost(10).await;
        }
        session.append(13 * MIB).await;
    }
    fake.counts();
    (fake, session)
}
