//! The graveyard: each object has one grave, which waits from the last burial, and is forgotten only as it was seen.

use super::{CollectionTest, GRACE, HOUR, PLAN};
use crate::metadata::{digest, location, repository};
use registry::store::collection::{PendingDeletion, Standing};
use registry::store::metadata::Removal;
use registry::store::sessions::Attempt;
use registry::store::{Context, Cursor, Location};

/// How often two meet.
const ROUNDS: usize = 30;

/// Digs `count` graves, each at a time of its own.
async fn dig(test: &CollectionTest, count: usize) -> Vec<PendingDeletion> {
    for number in 0..count {
        test.pass(1000);
        schedule_deletion(test, number, &location(number)).await;
    }
    test.pending_deletions().await
}

/// Gives the blob of this number its bytes at a place, and takes them away again; what its grave says if that is its
/// only burial.
async fn schedule_deletion(test: &CollectionTest, number: usize, place: &Location) -> PendingDeletion {
    name(test, number, place).await;
    lose(test, number).await;
    PendingDeletion {
        location: place.clone(),
        digest: Some(digest(format!("blob {number}"))),
        unfinished: false,
        at: test.now(),
    }
}

/// Commits the blob of this number.
async fn name(test: &CollectionTest, number: usize, place: &Location) {
    let blob = digest(format!("blob {number}"));
    test.names().commit_at(&repository("a"), &blob, place).await;
    assert!(test.is_named(&blob, place).await);
}

/// Takes the bytes of the blob of this number their name.
async fn lose(test: &CollectionTest, number: usize) {
    let blob = digest(format!("blob {number}"));
    assert_eq!(test.names().unlink(&repository("a"), &blob).await, Removal::Removed);
    assert_eq!(test.run(&PLAN).await.scheduled, 1);
}

/// Graves are due when they are older than was asked for, not at that very moment.
pub async fn pending_deletions_wait(test: CollectionTest) {
    let mut pending_deletions = dig(&test, 5).await;
    assert_eq!(pending_deletions.len(), 5);
    pending_deletions.sort_by_key(|pending_deletion| pending_deletion.at);
    for (count, pending_deletion) in pending_deletions.iter().enumerate() {
        let mut due = test.pending_deletions_by(pending_deletion.at, 100).await;
        due.sort_by_key(|pending_deletion| pending_deletion.at);
        assert_eq!(due, pending_deletions[..count], "older than the grave itself");
        let due = test.pending_deletions_by(pending_deletion.at.plus_millis(1), 100).await;
        assert_eq!(due.len(), count + 1);
    }
}

/// Graves come slice by slice, each once, also between others that are not due.
pub async fn pending_deletions_come_in_slices(test: CollectionTest) {
    let pending_deletions = dig(&test, 7).await;
    let before = test.now().plus_millis(1);
    test.pass(HOUR);
    for number in 100..105 {
        schedule_deletion(&test, number, &location(number)).await;
    }
    for limit in 1..=8 {
        assert_eq!(
            test.pending_deletions_by(before, limit).await,
            pending_deletions,
            "in slices of {limit}"
        );
    }
    // As a collection walks: what was met is forgotten before the next slice.
    let mut met = 0;
    let mut next: Option<Cursor> = None;
    loop {
        let slice = test.pending_deletions_slice(before, next.as_ref(), 2).await;
        met += slice.items.len();
        test.forget(&slice.items).await;
        next = slice.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(met, pending_deletions.len());
    assert_eq!(test.pending_deletions_by(before, 100).await, []);
    assert_eq!(test.pending_deletions().await.len(), 5, "those that were not due");
}

/// Forgetting takes many at once, those that are gone too, and leaves all others.
pub async fn forgetting_is_idempotent(test: CollectionTest) {
    let pending_deletions = dig(&test, 6).await;
    test.forget(&[]).await;
    assert_eq!(test.pending_deletions().await, pending_deletions);
    test.forget(&pending_deletions[..2]).await;
    test.forget(&pending_deletions[..4]).await;
    test.forget(&pending_deletions[..4]).await;
    assert_eq!(test.pending_deletions().await, pending_deletions[4..]);
    for pending_deletion in &pending_deletions {
        let digest = pending_deletion.digest.expect("it had a digest");
        assert!(!test.is_named(&digest, &pending_deletion.location).await);
    }
    test.forget(&pending_deletions).await;
    assert_eq!(test.pending_deletions().await, []);
}

/// An object that got its name back, by a final PUT that was repeated, and lost it again has one grave, that of its last
/// burial.
pub async fn an_object_buried_twice_waits_from_its_last_burial(test: CollectionTest) {
    let first = schedule_deletion(&test, 1, &location(1)).await;
    test.pass(HOUR);
    name(&test, 1, &location(1)).await;
    test.pass(GRACE);
    lose(&test, 1).await;
    let last = PendingDeletion {
        at: test.now(),
        ..first.clone()
    };
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&last));
    let before_it = test.pending_deletions_by(last.at, 100).await;
    assert_eq!(before_it, [], "it is not due as long as its last redirect may live");
    test.pass(HOUR);
    assert_eq!(test.pending_deletions_by(last.at.plus_millis(1), 100).await, [last]);
}

/// Whatever two burials of an object say, and in whatever order they are written: its grave says the later time, a
/// digest if any names one, and whether it may be unfinished.
pub async fn burials_of_an_object_are_joined(test: CollectionTest) {
    let sessions = test.sessions();
    let start = test.now();
    for (id, swept_later) in [(1, true), (2, false)] {
        let key = sessions.key(id);
        let attempt = sessions.claim(key).await.attempt;
        let place = Location::main(attempt.to_string());
        test.pass(GRACE);
        let scheduled = schedule_deletion(&test, attempt.number as usize + 10 * id as usize, &place).await;
        let session = sessions.row(key).await;
        test.pass(HOUR);
        // The other case: a sweep that read its clock long before it writes.
        let now = if swept_later { test.now() } else { start };
        let cx = Context { now, ..test.cx() };
        assert_eq!(test.store.collection.sweep(cx, key, &session).await.ok(), Some(Some(1)));
        let expected = PendingDeletion {
            unfinished: true,
            at: scheduled.at.max(now),
            ..scheduled
        };
        assert_eq!(
            test.pending_deletions().await,
            std::slice::from_ref(&expected),
            "{attempt}"
        );
        test.forget(&[expected]).await;
        assert_eq!(test.pending_deletions().await, []);
    }
}

/// A grave is forgotten as it was seen: what was buried again meanwhile is still to be deleted.
pub async fn forgetting_an_old_grave_leaves_the_new_one(test: CollectionTest) {
    let old = schedule_deletion(&test, 1, &location(1)).await;
    let other = schedule_deletion(&test, 2, &location(2)).await;
    test.pass(HOUR);
    name(&test, 1, &location(1)).await;
    test.pass(GRACE);
    lose(&test, 1).await;
    let new = PendingDeletion {
        at: test.now(),
        ..old.clone()
    };
    test.forget(&[old.clone(), other]).await;
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&new));
    test.forget(&[old]).await;
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&new));
    test.forget(&[new]).await;
    assert_eq!(test.pending_deletions().await, []);
}

/// What is named is in use, whatever its grave says; what is not is due as long as its grave is as it was seen.
pub async fn a_name_stands_before_its_grave(test: CollectionTest) {
    let pending_deletion = schedule_deletion(&test, 1, &location(1)).await;
    assert_eq!(test.standing(&pending_deletion).await, Standing::Due);
    name(&test, 1, &location(1)).await;
    assert_eq!(test.standing(&pending_deletion).await, Standing::Named);
    test.forget(std::slice::from_ref(&pending_deletion)).await;
    assert_eq!(test.standing(&pending_deletion).await, Standing::Named);

    // Its digest has bytes, but elsewhere.
    let lost = schedule_deletion(&test, 2, &location(2)).await;
    name(&test, 2, &location(3)).await;
    assert_eq!(test.standing(&lost).await, Standing::Due);
    test.forget(std::slice::from_ref(&lost)).await;
    assert_eq!(test.standing(&lost).await, Standing::Changed, "somebody has seen to it");

    // What an attempt has left has no digest.
    let sessions = test.sessions();
    let key = sessions.key(1);
    let attempt: Attempt = sessions.claim(key).await.attempt;
    test.pass(GRACE);
    let session = sessions.row(key).await;
    assert_eq!(test.sweep(key, &session).await, Some(1));
    let left = test.pending_deletions().await;
    assert_eq!(left[0].location, Location::main(attempt.to_string()));
    assert_eq!(test.standing(&left[0]).await, Standing::Due);
    test.forget(&left).await;
    assert_eq!(test.standing(&left[0]).await, Standing::Changed);
}

/// An object whose name goes after its old grave was listed is not deleted: redirects to it were made until now.
pub async fn an_object_whose_name_goes_is_left_alone(test: CollectionTest) {
    schedule_deletion(&test, 1, &location(1)).await;
    test.pass(HOUR);
    name(&test, 1, &location(1)).await;
    test.pass(GRACE);
    let listed = test.pending_deletions().await;
    assert_eq!(listed.len(), 1);
    lose(&test, 1).await;
    assert_eq!(test.standing(&listed[0]).await, Standing::Changed);
    test.forget(&listed).await;
    let left = test.pending_deletions().await;
    assert_eq!((left.len(), left[0].at), (1, test.now()));
    assert_eq!(test.standing(&left[0]).await, Standing::Due);
}

/// The same while the name goes: an old grave is never due, whatever the look meets.
pub async fn a_look_at_an_old_grave_races_a_burial(test: CollectionTest) {
    for round in 0..ROUNDS {
        let old = schedule_deletion(&test, round, &location(round)).await;
        name(&test, round, &location(round)).await;
        test.pass(GRACE);
        let blob = digest(format!("blob {round}"));
        let unlinked = test.names().unlink(&repository("a"), &blob).await;
        assert_eq!(unlinked, Removal::Removed);
        let look = {
            let (test, old) = (test.clone(), old.clone());
            async move { test.standing(&old).await }
        };
        let collect = {
            let test = test.clone();
            async move { test.run(&PLAN).await.scheduled }
        };
        let (standing, scheduled) = test.race(round % 2 == 0, look, collect).await;
        assert_ne!(standing, Standing::Due, "round {round}");
        assert_eq!(scheduled, 1, "round {round}");
        test.forget(&[old]).await;
        let left = test.pending_deletions().await;
        assert_eq!((left.len(), left[0].at), (1, test.now()), "round {round}");
        test.forget(&left).await;
    }
}
