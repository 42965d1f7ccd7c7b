//! Objects from one body or from several, and the files that remain after a deletion.

use registry::store::blobs::Discarded;

use super::*;
use crate::files::recorded::FileCall::{Copy, Remove, Rename};

#[tokio::test]
async fn an_object_from_one_body_needs_no_write() {
    let store = Store::new(8 << 20);
    let appended = store
        .append(1, &[], &mut Body::of(&noise(1, 1000), 1000))
        .await
        .unwrap();
    store.files.calls();
    let location = store.seal(appended, 1000).await.unwrap();
    assert_eq!(store.files.calls(), []);
    assert_eq!(location.key, segment(1).to_string());
}

#[tokio::test]
async fn a_joined_object_gets_its_name_when_it_is_complete() {
    let store = Store::new(8 << 20);
    let (first, second) = (noise(1, 1000), noise(2, 500));
    let appended = store.append(1, &[], &mut Body::of(&first, 1000)).await.unwrap();
    let appended = store
        .append(2, &appended.state, &mut Body::of(&second, 500))
        .await
        .unwrap();
    store.files.calls();

    // A fault in each step before the last one: the last segment is unchanged, and sealing again completes the object.
    let object = segment(2);
    for step in [Copy, SyncFile, Rename] {
        store.files.fail(Some((step, IO_ERROR)));
        store.seal(appended.clone(), 1500).await.unwrap_err();
        assert_eq!(store.files.look(object).unwrap(), Some(500), "{step:?}");
    }
    store.files.fail(Some((SyncDirectory, IO_ERROR)));
    store.seal(appended.clone(), 1500).await.unwrap_err();
    assert!(store.files.is_volatile(object));
    store.files.fail(None);

    store.files.calls();
    let location = store.seal(appended.clone(), 1500).await.unwrap();
    // The object was found complete; only its name was not durable.
    assert_eq!(store.files.calls(), [(SyncDirectory, FileForm::Segment, 2)]);
    assert!(!store.files.is_volatile(object));
    assert_eq!(location.key, object.to_string());
    assert_eq!(store.bytes(&location, 1500).await, [first, second].concat());

    // The same without a fault.
    let store = Store::new(8 << 20);
    let appended = store.append(1, &[], &mut Body::of(&noise(1, 10), 10)).await.unwrap();
    let appended = store
        .append(2, &appended.state, &mut Body::of(&noise(2, 20), 20))
        .await
        .unwrap();
    store.files.calls();
    store.seal(appended, 30).await.unwrap();
    let joining = |call| (call, FileForm::Joining, 2);
    let calls = [
        joining(Create),
        joining(Copy),
        joining(Copy),
        joining(SyncFile),
        joining(Rename),
        (SyncDirectory, FileForm::Segment, 2),
    ];
    assert_eq!(store.files.calls(), calls);
}

/// A seal whose claim has expired, so the upload does not end. The session continues after the joined segments.
#[tokio::test]
async fn joined_segments_can_be_joined_again() {
    let store = Store::new(8 << 20);
    let bodies: Vec<_> = [700, 0, 300, 500, 90]
        .iter()
        .zip(1..)
        .map(|(size, seed)| noise(seed, *size))
        .collect();
    let (mut state, mut parts, mut size) = (Vec::new(), Vec::new(), 0);
    for (body, number) in bodies.iter().zip(1..) {
        let appended = store.append(number, &state, &mut Body::of(body, 64)).await.unwrap();
        size += body.len();
        state = appended.state;
        parts.extend(appended.part);
        let upload = Upload {
            session: SESSION,
            state: state.clone(),
            parts: parts.clone(),
            size: size as u64,
        };
        for _ in 0..2 {
            let location = store.blobs.seal(cx(), &upload).await.unwrap();
            let whole = bodies[..number as usize].concat();
            assert!(store.bytes(&location, size).await == whole, "after body {number}");
        }
    }
    // An object that was sealed earlier is still complete.
    let third = location(segment(3));
    assert!(store.bytes(&third, 1000).await == bodies[..3].concat());
    assert_eq!(store.files(), 5);
}

#[tokio::test]
async fn discarding_removes_all_files_except_the_kept_object() {
    let store = Store::new(8 << 20);
    let first = store.append(1, &[], &mut Body::of(&noise(1, 100), 100)).await.unwrap();
    let second = store
        .append(2, &first.state, &mut Body::of(&noise(2, 100), 100))
        .await
        .unwrap();
    let location = store.seal(second, 200).await.unwrap();
    assert_eq!(store.files(), 2);
    let discarded = store.blobs.discard(cx(), SESSION, 2, &[], Some(&location)).await;
    assert_eq!(discarded.unwrap(), Discarded::All);
    assert_eq!(store.files(), 1);
    assert!(store.files.calls().contains(&(Remove, FileForm::Segment, 1)));
    let discarded = store.blobs.discard(cx(), SESSION, 2, &[], None).await;
    assert_eq!(discarded.unwrap(), Discarded::All);
    assert_eq!(store.files(), 0);
}

#[tokio::test]
async fn deleting_an_attempt_removes_its_unfinished_join() {
    let store = Store::new(8 << 20);
    let first = store.append(1, &[], &mut Body::of(&noise(1, 100), 100)).await.unwrap();
    let second = store
        .append(2, &first.state, &mut Body::of(&noise(2, 100), 100))
        .await
        .unwrap();
    // A crash leaves such a file.
    store.files.create_or_open(segment(2).joining()).unwrap();
    // An object of an older version, in the same directory.
    let older = FileName::new(SESSION, 2, FileForm::Joined);
    store.files.create(older).unwrap();
    assert_eq!(store.files(), 4);
    for _ in 0..2 {
        let to_delete = (1..=2).map(|number| ObjectToDelete {
            location: location(segment(number)),
            unfinished: true,
        });
        store.blobs.delete(cx(), &to_delete.collect::<Vec<_>>()).await.unwrap();
        assert_eq!(store.files(), 1);
    }
    assert_eq!(store.blobs.stat(cx(), &location(older)).await.unwrap(), Some(0));
    assert_eq!(store.blobs.stat(cx(), &location(segment(2))).await.unwrap(), None);
    assert!(store.seal(second, 200).await.is_err());
}
