//! Uploads of several bodies, also large ones, and events that disturb them: against the server in memory, and against
//! a real server.

use crate::fake::Fake;
use crate::session::{MIB, UploadSession, cx, read};
use contract::source::{Body, Stepped, noise};
use futures_util::future::join_all;
use registry::store::Attempt;
use registry::store::blobs::{BlobStore as _, Discarded, ObjectToDelete};
use store_s3::{Operation, Parts, S3Blobs};

/// Runs each scenario on the server in memory and on a real server, with growing parts and with equal parts.
macro_rules! scenarios {
    ($($name:ident,)*) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    for parts in [super::Parts::Growing, super::Parts::Equal] {
                        let fake = super::Fake::start().await;
                        fake.state(|state| {
                            state.accepts_repeated_completion = parts == super::Parts::Growing;
                            state.lists_whole_keys = parts == super::Parts::Equal;
                        });
                        super::$name(fake.store(|options| options.parts = parts).await).await;
                        super::no_upload_is_left(&fake).await;
                    }
                }
            )*
        }

        mod real {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs an S3 server"]
                async fn $name() {
                    for parts in [super::Parts::Growing, super::Parts::Equal] {
                        let store = crate::server::store_with(|options| options.parts = parts);
                        super::$name(store.await).await;
                    }
                }
            )*
        }
    };
}

scenarios! {
    bodies_of_any_sizes_are_joined,
    an_upload_continues_after_cut_bodies,
    an_upload_continues_after_crashes,
    an_attempt_that_still_writes_does_not_change_the_upload,
    a_session_continues_after_a_seal_that_was_not_published,
    racing_final_bodies_of_equal_length_are_not_mixed,
    racing_seals_yield_one_object,
    a_cancelled_upload_leaves_no_objects,
    an_expired_session_leaves_no_objects,
    unrecorded_uploads_are_left_to_collection,
    a_single_body_reports_whether_it_leaves_staged_bytes,
}

/// The uploads that cut bodies began are aborted by background tasks.
async fn no_upload_is_left(fake: &Fake) {
    for _ in 0..100 {
        if fake.state(|state| state.uploads.is_empty()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let left = fake.state(|state| {
        state
            .uploads
            .values()
            .map(|upload| upload.key.clone())
            .collect::<Vec<_>>()
    });
    panic!("uploads were not ended: {left:?}");
}

/// Small and large bodies, of the sizes at which the behaviour changes, in several orders.
async fn bodies_of_any_sizes_are_joined(store: S3Blobs) {
    let small = [1, 3 * MIB, 3 * MIB, 5 * MIB - 1, 5 * MIB, 1, 6 * MIB];
    let large = [5 * MIB, 20 * MIB, 1, 13 * MIB, 8 * MIB, 1000];
    let border = [13 * MIB - 1, 13 * MIB, 13 * MIB + 1, 60 * MIB, 4 * MIB];
    for sizes in [&small[..], &large, &border] {
        let mut session = UploadSession::new(&store);
        for size in sizes {
            session.append(*size).await;
        }
        let location = session.seal_and_check().await;
        assert_eq!(session.seal().await, location);
        session.end(Some(&location)).await;
        session.check(&location).await;
    }
}

/// The connection of a body of several parts is cut in the middle, after other bodies; the next body continues.
async fn an_upload_continues_after_cut_bodies(store: S3Blobs) {
    for (first, next) in [
        (20 * MIB, 20 * MIB),
        (60 * MIB, 1000),
        (1000, 30 * MIB),
        (6 * MIB, 7 * MIB),
    ] {
        let mut session = UploadSession::new(&store);
        session.append_cut(30 * MIB).await;
        session.append(first).await;
        session.append_cut(70 * MIB).await;
        session.append_cut(10).await;
        session.append(next).await;
        session.append_cut(25 * MIB).await;
        session.append(300).await;
        session.append_cut(25 * MIB).await;
        session.append(6 * MIB).await;
        session.append_cut(14 * MIB).await;
        let location = session.seal_and_check().await;
        session.end(Some(&location)).await;
        session.check(&location).await;
    }
}

/// The same, but each time the server has crashed.
async fn an_upload_continues_after_crashes(store: S3Blobs) {
    for (first, next) in [
        (20 * MIB, 20 * MIB),
        (60 * MIB, 1000),
        (1000, 30 * MIB),
        (6 * MIB, 7 * MIB),
    ] {
        let mut session = UploadSession::new(&store);
        session.append_lost(30 * MIB).await;
        session.append(first).await;
        session.append_lost(25 * MIB).await;
        session.append_lost(10).await;
        session.append(next).await;
        session.append_lost(25 * MIB).await;
        session.append(300).await;
        session.append(6 * MIB).await;
        let location = session.seal_and_check().await;
        session.end(Some(&location)).await;
        session.check(&location).await;
    }
}

/// Two attempts of one session send parts at once; the later one is saved, and the earlier one ends after it.
async fn an_attempt_that_still_writes_does_not_change_the_upload(store: S3Blobs) {
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    let attempt = session.attempt();
    let (mut source, steps) = Stepped::new(Body::of(&noise(3, 30 * MIB), 10 * MIB));
    let late = {
        let (store, state) = (store.clone(), session.state.clone());
        tokio::spawn(async move { store.append(cx(60), attempt, &state, &mut source).await })
    };
    steps.asked().await;
    steps.step().await;
    steps.step().await;
    session.append(20 * MIB).await;
    session.append(100).await;
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        steps.step().await;
        steps.step().await;
    })
    .await;
    // Its session was claimed by another attempt long ago, so either outcome is correct.
    drop(late.await.unwrap());
    let location = session.seal_and_check().await;
    session.end(Some(&location)).await;
    session.check(&location).await;
}

/// An upload is sealed, but its claim is lost before it is published. The next attempt continues from the saved state.
async fn a_session_continues_after_a_seal_that_was_not_published(store: S3Blobs) {
    for end in [100, 6 * MIB, 20 * MIB] {
        let mut session = UploadSession::new(&store);
        session.append(20 * MIB).await;
        // A final body that is stored and sealed, but not saved.
        let mut lost = session.clone();
        lost.append(end).await;
        session.attempts = lost.attempts;
        let early = lost.seal_and_check().await;
        // An empty final body seals the session as it was saved; its claim is lost too.
        session.attempt();
        session.append(end).await;
        session.append(7).await;
        let location = session.seal_and_check().await;
        assert_ne!(location, early);
        lost.check(&early).await;
        session.end(Some(&location)).await;
        session.check(&location).await;
    }
}

/// Two final bodies of equal length with different bytes follow the same parts; the claim of the first is lost when the
/// second begins. Whichever seals first, the object of the second contains the bytes of the second.
async fn racing_final_bodies_of_equal_length_are_not_mixed(store: S3Blobs) {
    for end in [1000, 6 * MIB, 20 * MIB] {
        for first_seals in [true, false] {
            let mut session = UploadSession::new(&store);
            session.append(20 * MIB).await;
            let mut first = session.clone();
            first.append(end).await;
            let mut second = session.clone();
            second.attempts = first.attempts;
            second.append(end).await;
            assert!(first.whole != second.whole);
            if first_seals {
                first.seal_and_check().await;
            }
            let location = second.seal_and_check().await;
            // The first one seals its own bytes, or its seal fails.
            if let Ok(late) = first.try_seal().await {
                assert_ne!(late, location);
                first.check(&late).await;
            }
            second.check(&location).await;
            second.end(Some(&location)).await;
            second.check(&location).await;
        }
    }
}

/// Several tasks seal the same upload at once: with staged bytes at its end, and with bytes copied to its beginning.
async fn racing_seals_yield_one_object(store: S3Blobs) {
    for cut in [false, true] {
        let mut session = UploadSession::new(&store);
        session.append(60 * MIB).await;
        if cut {
            session.append_lost(10).await;
            session.append(20 * MIB).await;
        }
        session.append(1000).await;
        let seals = join_all((0..4).map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.seal().await })
        }))
        .await;
        let locations: Vec<_> = seals.into_iter().map(Result::unwrap).collect();
        assert!(
            locations.iter().all(|location| *location == locations[0]),
            "{locations:?}"
        );
        session.check(&locations[0]).await;
        session.end(Some(&locations[0])).await;
        session.check(&locations[0]).await;
    }
}

/// Cancels an upload in every state.
async fn a_cancelled_upload_leaves_no_objects(store: S3Blobs) {
    for sizes in [
        &[][..],
        &[1000],
        &[20 * MIB],
        &[20 * MIB, 1000],
        &[60 * MIB, 1000, 20 * MIB],
    ] {
        for cut in [false, true] {
            let mut session = UploadSession::new(&store);
            for size in sizes {
                session.append(*size).await;
            }
            if cut {
                session.append_cut(20 * MIB).await;
            }
            session.end(None).await;
            session.end(None).await;
            // The seal does not verify an upload of a single body.
            if sizes.len() > 1 {
                assert!(session.try_seal().await.is_err());
            }
            let left = store.objects(cx(60), None, 1000).await.unwrap().items;
            assert_eq!(left, []);
        }
    }
}

/// A session that a crash ended is deleted by the numbers of its attempts. Another session is not affected.
async fn an_expired_session_leaves_no_objects(store: S3Blobs) {
    let mut neighbour = UploadSession::new(&store);
    neighbour.append(20 * MIB).await;
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    session.attempt();
    session.append(20 * MIB).await;
    session.append(1000).await;
    let location = session.seal_and_check().await;
    session.attempt();
    session.append(100).await;
    let to_delete = |keep: Option<&registry::store::Location>| -> Vec<ObjectToDelete> {
        (1..=session.attempts)
            .map(|number| Attempt {
                session: session.id,
                number,
            })
            .map(|attempt| ObjectToDelete {
                location: registry::store::Location::main(attempt.to_string()),
                unfinished: true,
            })
            .filter(|to_delete| Some(&to_delete.location) != keep)
            .collect()
    };
    store.delete(cx(60), &to_delete(Some(&location))).await.unwrap();
    let size = session.whole.len() - 100;
    assert!(read(&store, &location, size).await == session.whole[..size]);
    store.delete(cx(60), &to_delete(None)).await.unwrap();
    let mut left = store.objects(cx(60), None, 1000).await.unwrap().items;
    left.retain(|stored| stored.location.key.starts_with(&session.id.to_string()));
    assert_eq!(left, []);
    let location = neighbour.seal_and_check().await;
    assert_eq!(store.stat(cx(60), &location).await.unwrap(), Some(20 * MIB as u64));
}

/// A body was stored but not saved, because its claim was lost. It left an upload that no state records. No request
/// searches for it, whether the session is published or cancelled. `discard` reports that it may exist, and collection
/// finds it.
async fn unrecorded_uploads_are_left_to_collection(store: S3Blobs) {
    for published in [true, false] {
        let mut session = UploadSession::new(&store);
        let mut lost = session.clone();
        lost.append(20 * MIB).await;
        session.attempts = lost.attempts;
        session.append(20 * MIB).await;
        session.append(1000).await;
        let kept = if published {
            Some(session.seal_and_check().await)
        } else {
            None
        };
        let before = store.statistics().sent(Operation::ListMultipartUploads);
        assert_eq!(session.discard(kept.as_ref()).await, Discarded::Known);
        assert_eq!(store.statistics().sent(Operation::ListMultipartUploads), before);
        session.end(kept.as_ref()).await;
        assert!(store.statistics().sent(Operation::ListMultipartUploads) > before);
        if let Some(kept) = kept {
            session.check(&kept).await;
        }
    }
    // Without such an attempt, all uploads are known.
    let mut session = UploadSession::new(&store);
    session.append(20 * MIB).await;
    session.append(1000).await;
    let location = session.seal_and_check().await;
    assert_eq!(session.discard(Some(&location)).await, Discarded::All);
}

/// After one body, the core discards only if the store reports objects besides the sealed one: with equal parts, the
/// end of a large body is staged. Deleting the sealed object also deletes the staged bytes.
async fn a_single_body_reports_whether_it_leaves_staged_bytes(store: S3Blobs) {
    for (size, discards) in [(MIB, true), (60 * MIB, true), (60 * MIB, false)] {
        let mut session = UploadSession::new(&store);
        session.append(size).await;
        let location = session.seal_and_check().await;
        if discards && store.leaves_something(&session.state) {
            session.end(Some(&location)).await;
        }
        session.check(&location).await;
        let own = format!("{}.", session.id);
        if discards {
            assert_eq!(
                keys_of(&store, &own).await,
                std::slice::from_ref(&location.key),
                "of {size} bytes"
            );
        }
        let to_delete = ObjectToDelete {
            location,
            unfinished: false,
        };
        store.delete(cx(60), &[to_delete]).await.unwrap();
        assert_eq!(keys_of(&store, &own).await, [""; 0], "of {size} bytes");
    }
}

/// The keys of a session's objects in the store's listing.
async fn keys_of(store: &S3Blobs, own: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let slice = store.objects(cx(60), after.as_ref(), 1000).await.unwrap();
        let keys = slice.items.into_iter().map(|stored| stored.location.key);
        found.extend(keys.filter(|key| key.starts_with(own)));
        after = slice.next;
        if after.is_none() {
            return found;
        }
    }
}
