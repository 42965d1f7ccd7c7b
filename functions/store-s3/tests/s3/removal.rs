//! What an upload leaves, and how it goes.

use std::time::{Duration, Instant};

use registry::store::blobs::{BlobStore as _, Discarded, ObjectToDelete};
use registry::store::{Location, StoreError};

use crate::fake::Fake;
use crate::session::{MIB, Session, cx};

/// `MinIO` takes the prefix of a list of uploads for a whole key.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_found_where_only_whole_keys_are_listed() {
    let fake = Fake::start().await;
    fake.held(|held| held.lists_whole_keys = true);
    let store = fake.store(|options| options.prefix = "p".to_owned()).await;
    let mut session = Session::new(&store);
    session.append(20 * MIB).await;
    // Stored and never saved, twice: only the store knows of these uploads.
    for _ in 0..2 {
        let mut lost = Session {
            state: Vec::new(),
            ..session.clone()
        };
        lost.append(20 * MIB).await;
        session.attempts = lost.attempts;
    }
    let location = session.seal_and_check().await;
    assert_eq!(fake.held(|held| held.uploads.len()), 2);
    session.end(Some(&location)).await;
    session.check(&location).await;
    assert_eq!(fake.held(|held| held.uploads.len()), 0);
}

/// Somebody waits for the end of an upload: what many bodies have left is deleted by one request, and the rest is left to
/// collection.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_upload_deletes_what_one_request_can() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for (bodies, discarded) in [(500, Discarded::All), (501, Discarded::Known)] {
        let mut session = Session::new(&store);
        for _ in 0..bodies {
            session.append(1).await;
        }
        let location = session.seal_and_check().await;
        fake.counts();
        assert_eq!(session.discard(Some(&location)).await, discarded, "{bodies}");
        let counts = fake.counts();
        assert_eq!((counts["DeleteObjects"], counts.len()), (1, 1), "{bodies}: {counts:?}");
        let left = fake.held(|held| held.objects.len());
        assert_eq!(left, bodies - 499, "{bodies}");
        session.end(Some(&location)).await;
        assert_eq!(fake.held(|held| held.objects.len()), 1, "{bodies}");
        session.check(&location).await;
        session.end(None).await;
    }
}

/// A delete of many whose keys fail one by one is tried again, after a while; a store that goes on so is busy, and not
/// broken.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_deleted_yet_are_tried_again_later() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.attempts = 6).await;
    let to_delete = [ObjectToDelete {
        location: Location::main(format!("{:032x}.1", 7)),
        unfinished: false,
    }];
    let undeleted = |codes: &[&'static str]| fake.held(|held| held.undeleted = codes.iter().copied().collect());
    undeleted(&["SlowDown", "InternalError", "SlowDown", "SlowDown", "SlowDown"]);
    let began = Instant::now();
    store.delete(cx(60), &to_delete).await.unwrap();
    assert_eq!(fake.counts()["DeleteObjects"], 6);
    // Five pauses of up to 100, 200, 400, 800 and 1,600 ms.
    assert!(began.elapsed() > Duration::from_millis(60), "{:?}", began.elapsed());

    undeleted(&["SlowDown"; 10]);
    let error = store.delete(cx(60), &to_delete).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(fake.counts()["DeleteObjects"], 6);

    undeleted(&["AccessDenied"]);
    let error = store.delete(cx(60), &to_delete).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert_eq!(fake.counts()["DeleteObjects"], 1);
    undeleted(&["NoSuchKey"]);
    store.delete(cx(60), &to_delete).await.unwrap();
}
