//! The objects of a store: each one, all of them in a walk, and that deletions are complete.

use registry::store::blobs::{BodyError, DeletedObjects, ObjectToDelete, StoredObject};
use registry::store::collection::{Clearing, PendingDeletion, remains};
use registry::store::sessions::{Progress, Publishing, SessionKey, State};
use registry::store::{Attempt, Location, SessionId, Timestamp, sessions};

use super::{BlobTest, StoredUpload, to_delete};
use crate::source::{Body, noise};

/// The maximum number of slices of a walk.
const MAX_SLICES: usize = 10_000;

impl BlobTest {
    async fn stat(&self, location: &Location) -> Option<u64> {
        self.store.stat(self.cx(), location).await.expect("stat")
    }

    async fn walk(&self, limit: usize) -> Vec<StoredObject> {
        let mut all = Vec::new();
        let mut next = None;
        for _ in 0..MAX_SLICES {
            let slice = self.store.objects(self.cx(), next.as_ref(), limit).await;
            let slice = slice.expect("objects");
            all.extend(slice.items);
            next = slice.next;
            if next.is_none() {
                all.sort_by(|one, other| one.location.key.cmp(&other.location.key));
                return all;
            }
        }
        panic!("the walk does not end");
    }

    async fn doom(&self, to_delete: &[ObjectToDelete]) {
        self.store.delete(self.cx(), to_delete).await.expect("delete");
    }
}

/// The deletions that collection schedules for a session: a committing one, if its object was sealed, else a cancelled
/// one.
pub(super) fn pending_deletions_of(session: &StoredUpload, sealed: Option<&Location>) -> Vec<PendingDeletion> {
    let key = SessionKey {
        expires: Timestamp(0),
        id: session.id,
    };
    let publishing = sealed.map(|location| Publishing {
        digest: oci::Digest::of(oci::Algorithm::Sha256, b""),
        location: location.clone(),
        size: session.size,
    });
    let row = sessions::Session {
        version: 1,
        state: publishing.map_or(State::Cancelled(None), State::Committing),
        attempts: session.attempts,
        progress: Progress::default(),
    };
    remains(key, &row, Timestamp(0)).collect()
}

/// Deletes these as collection does, while the object at `keep` is in use.
pub(super) fn clearing_of(pending_deletions: Vec<PendingDeletion>, keep: Option<&Location>) -> Clearing {
    let settled = pending_deletions.into_iter().map(|pending_deletion| {
        let in_use = Some(&pending_deletion.location) == keep;
        (pending_deletion, in_use)
    });
    settled.collect()
}

/// A store that reports what a deletion has freed reports every object that existed, once, and nothing else.
pub async fn a_deletion_counts_what_it_has_deleted(test: BlobTest) {
    let mut objects: Vec<_> = Vec::new();
    for (id, size) in (1..).zip([0, 1, 70_000]) {
        objects.push(to_delete(&test.object(id, &noise(1, size)).await, false));
    }
    let session = SessionId(200);
    let never = Location::main(Attempt { session, number: 1 }.to_string());
    objects.push(to_delete(&never, true));
    let there = DeletedObjects {
        objects: 3,
        bytes: 70_001,
    };
    for expected in [there, DeletedObjects::default()] {
        let deleted = test.store.delete(test.cx(), &objects).await.expect("delete");
        assert_eq!(deleted.unwrap_or(expected), expected);
    }
}

/// The size of an object is answered without reading it. An absent object has none.
pub async fn the_size_of_an_object_is_read(test: BlobTest) {
    for (id, size) in (1..).zip([0, 1, 70_000, 300_000]) {
        let location = test.object(id, &noise(1, size)).await;
        assert_eq!(test.stat(&location).await, Some(size as u64));
        test.delete(std::slice::from_ref(&location)).await;
        assert_eq!(test.stat(&location).await, None);
    }
    let mut session = StoredUpload::new(100);
    for size in [10, 20] {
        test.append(&mut session, &noise(2, size), 7).await;
    }
    let location = test.seal(&session).await;
    assert_eq!(test.stat(&location).await, Some(30));
    let session = SessionId(200);
    let never = Attempt { session, number: 1 }.to_string();
    assert_eq!(test.stat(&Location { key: never, ..location }).await, None);
}

/// A walk visits every object with its size, in slices of any size, and no deleted one.
pub async fn a_walk_visits_every_object(test: BlobTest) {
    assert_eq!(test.walk(10).await, [], "the store is empty");
    let mut expected = Vec::new();
    for id in 0..9_u128 {
        // Ids that differ in their first and in their last digits.
        let id = if id % 2 == 0 { id << 124 } else { id };
        let size = usize::try_from(id % 1000).expect("a small number") * 100;
        let location = test.object(id, &noise(1, size)).await;
        expected.push(StoredObject {
            location,
            size: size as u64,
        });
    }
    let mut joined = StoredUpload::new(77);
    for size in [100, 200, 300] {
        test.append(&mut joined, &noise(3, size), 64).await;
    }
    let location = test.seal(&joined).await;
    test.discard(&joined, Some(&location)).await;
    expected.push(StoredObject { location, size: 600 });
    let lost = test.object(78, &noise(1, 10)).await;
    test.delete(&[lost]).await;
    expected.sort_by(|one, other| one.location.key.cmp(&other.location.key));
    for limit in [1, 2, 3, 1000] {
        assert_eq!(test.walk(limit).await, expected, "in slices of {limit}");
    }
}

/// Objects that never existed can be deleted, with and without a search for unfinished uploads. Nothing else is
/// deleted, also no object whose key begins with the same characters.
pub async fn deleting_absent_objects_is_no_error(test: BlobTest) {
    let bytes = noise(1, 1000);
    let neighbour = test.object(2, &bytes).await;
    // Attempt 1 is not attempt 10.
    let mut session = StoredUpload::new(1);
    for _ in 0..9 {
        session.attempt();
    }
    test.append(&mut session, &bytes, 1000).await;
    let tenth = test.seal(&session).await;
    let missing = |session: u128, number: u32| Location {
        key: Attempt {
            session: SessionId(session),
            number,
        }
        .to_string(),
        ..neighbour.clone()
    };
    assert_eq!(
        tenth,
        missing(1, 10),
        "an object of one body has the key of its attempt"
    );
    for unfinished in [false, true] {
        for _ in 0..2 {
            let absent = [missing(1, 1), missing(2, 2), missing(3, 1), missing(3, 2)];
            test.doom(&absent.map(|location| to_delete(&location, unfinished)))
                .await;
        }
        test.doom(&[]).await;
        for location in [&neighbour, &tenth] {
            test.assert_holds(location, &bytes).await;
        }
    }
    assert_eq!(test.walk(10).await.len(), 2);
}

/// The deletions that the expiry of an unpublished upload schedules are complete: bodies that were stored, interrupted,
/// or never arrived, and objects that were sealed and not published.
pub async fn an_expired_upload_leaves_no_object(test: BlobTest) {
    let bytes = noise(1, 6000);
    let kept = test.object(u128::MAX, &bytes).await;
    for (id, sealed_early, sealed) in [(1, false, false), (2, true, false), (3, true, true)] {
        let mut session = StoredUpload::new(id);
        test.append(&mut session, &bytes, 1000).await;
        let mut cut = Body::of(&bytes, 1000).failing(BodyError::Cut);
        drop(test.append_failing(&mut session, &mut cut).await);
        test.append(&mut session, &bytes, 1000).await;
        if sealed_early {
            test.seal(&session).await;
        }
        test.append(&mut session, &bytes, 1000).await;
        if sealed {
            test.seal(&session).await;
        }
        session.attempt();
        let pending_deletions = pending_deletions_of(&session, None);
        assert_eq!(pending_deletions.len(), session.attempts as usize);
        let Clearing { to_delete, .. } = clearing_of(pending_deletions, None);
        test.doom(&to_delete).await;
        let left = test.walk(1000).await;
        assert_eq!(left.len(), 1, "all but the other session's object: {left:?}");
        assert!(test.store.seal(test.cx(), &session.upload()).await.is_err());
        test.doom(&to_delete).await;
        test.assert_holds(&kept, &bytes).await;
    }
}

/// The deletions that the expiry of a published upload schedules leave its object if that is left out, and delete it
/// otherwise.
pub async fn an_expired_published_upload_keeps_its_object(test: BlobTest) {
    for bodies in 1..=4_u64 {
        let mut session = StoredUpload::new(bodies.into());
        let mut whole = Vec::new();
        for seed in 0..bodies {
            let mut cut = Body::of(&noise(9, 5000), 1000).failing(BodyError::Cut);
            drop(test.append_failing(&mut session, &mut cut).await);
            let body = noise(seed, 3000);
            test.append(&mut session, &body, 1000).await;
            whole.extend_from_slice(&body);
            if seed == 1 {
                test.seal(&session).await;
            }
        }
        let location = test.seal(&session).await;
        let attempts = (1..=session.attempts).map(|number| {
            let session = session.id;
            Attempt { session, number }.to_string()
        });
        let named = attempts
            .filter_map(|attempt| location.key.strip_prefix(&attempt))
            .any(|rest| rest.is_empty() || rest.starts_with('.'));
        assert!(named, "{} does not begin with an attempt of its session", location.key);
        let pending_deletions = pending_deletions_of(&session, Some(&location));
        let own = pending_deletions
            .iter()
            .filter(|pending_deletion| pending_deletion.location == location);
        let own: Vec<_> = own
            .map(|pending_deletion| to_delete(&location, pending_deletion.unfinished))
            .collect();
        assert_eq!(own.len(), 1);
        let others = clearing_of(pending_deletions, Some(&location));
        test.doom(&others.to_delete).await;
        for _ in 0..2 {
            test.store.tidy(test.cx(), &others.kept).await.expect("tidy");
        }
        test.assert_holds(&location, &whole.clone().into()).await;
        let left = test.walk(1000).await;
        assert_eq!(left.len(), 1, "{left:?}");
        test.doom(&own).await;
        assert_eq!(test.walk(1000).await, []);
    }
}
