//! The objects that an upload leaves, and their removal.

use std::time::{Duration, Instant};

use registry::store::blobs::{BlobStore as _, Discarded, ObjectToDelete};
use registry::store::{Location, StoreError};

use crate::fake::Fake;
use crate::session::{MIB, UploadSession, cx};

/// `MinIO` treats the prefix of a list of uploads as a whole key.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_found_if_the_store_lists_only_whole_keys() {
    let fake = Fake::start().await;
    fake.state(|state| state.lists_whole_keys = true);
    let store = fake.store(|options| options.prefix = "p".to_owned()).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    // Stored but never saved, twice: only the store knows these uploads.
    for _ in 0..2 {
        let mut lost = UploadSession {
            state: Vec::new(),
            ..session.clone()
        };
        lost.append(20 * MIB).await;
        session.attempts = lost.attempts;
    }
    let location = session.seal_and_check().await;
    assert_eq!(fake.state(|state| state.uploads.len()), 2);
    session.end(Some(&location)).await;
    session.check(&location).await;
    assert_eq!(fake.state(|state| state.uploads.len()), 0);
}

/// A client waits for the end of an upload. One request deletes the objects of its last bodies; collection removes the
/// rest.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_upload_deletes_as_many_objects_as_fit_one_request() {
    let fake = Fake::start().await;
    let store = fake.store(|_| {}).await;
    for (bodies, discarded) in [(500, Discarded::All), (501, Discarded::Known)] {
        let mut session = UploadSession::new(&store);
        for _ in 0..bodies {
            session.append(1).await;
        }
        let location = session.seal_and_check().await;
        fake.counts();
        assert_eq!(session.discard(Some(&location)).await, discarded, "{bodies}");
        let counts = fake.counts();
        assert_eq!((counts["DeleteObjects"], counts.len()), (1, 1), "{bodies}: {counts:?}");
        let left = fake.state(|state| state.objects.len());
        assert_eq!(left, bodies - 499, "{bodies}");
        session.end(Some(&location)).await;
        assert_eq!(fake.state(|state| state.objects.len()), 1, "{bodies}");
        session.check(&location).await;
        session.end(None).await;
    }
}

/// If single keys of a delete request fail, they are tried again after a delay. A store that continues to fail is
/// unavailable, not broken.
#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_deletion_failed_are_retried() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.attempts = 6).await;
    let to_delete = [ObjectToDelete {
        location: Location::main(format!("{:032x}.1", 7)),
        unfinished: false,
    }];
    let delete_errors =
        |codes: &[&'static str]| fake.state(|state| state.delete_errors = codes.iter().copied().collect());
    delete_errors(&["SlowDown", "InternalError", "SlowDown", "SlowDown", "SlowDown"]);
    let began = Instant::now();
    store.delete(cx(60), &to_delete).await.unwrap();
    assert_eq!(fake.counts()["DeleteObjects"], 6);
    // Five delays of up to 100, 200, 400, 800 and 1,600 ms.
    assert!(began.elapsed() > Duration::from_millis(60), "{:?}", began.elapsed());

    delete_errors(&["SlowDown"; 10]);
    let error = store.delete(cx(60), &to_delete).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(fake.counts()["DeleteObjects"], 6);

    delete_errors(&["AccessDenied"]);
    let error = store.delete(cx(60), &to_delete).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    assert_eq!(fake.counts()["DeleteObjects"], 1);
    delete_errors(&["NoSuchKey"]);
    store.delete(cx(60), &to_delete).await.unwrap();
}
