//! Pending deletions: an object has one, which waits from the last time that it was scheduled, and is removed only as
//! it was listed.

use registry::store::collection::{DeletionCheck, PendingDeletion};
use registry::store::metadata::Removal;
use registry::store::{Attempt, Context, Cursor, Location};

use super::{CollectionTest, GRACE, HOUR, PLAN};
use crate::metadata::{digest, location, repository};

/// Rounds of each race.
const ROUNDS: usize = 30;

/// Schedules `count` deletions, each at another time.
async fn schedule_some(test: &CollectionTest, count: usize) -> Vec<PendingDeletion> {
    for number in 0..count {
        test.advance(1000);
        schedule_deletion(test, number, &location(number)).await;
    }
    test.pending_deletions().await
}

/// Commits the blob of this number at a location and collects it. The pending deletion, if there was none before.
async fn schedule_deletion(test: &CollectionTest, number: usize, location: &Location) -> PendingDeletion {
    commit(test, number, location).await;
    unlink_and_collect(test, number).await;
    PendingDeletion {
        location: location.clone(),
        digest: Some(digest(format!("blob {number}"))),
        unfinished: false,
        at: test.now(),
    }
}

/// Commits the blob of this number.
async fn commit(test: &CollectionTest, number: usize, location: &Location) {
    let blob = digest(format!("blob {number}"));
    test.metadata().commit_at(&repository("a"), &blob, location).await;
    assert!(test.is_recorded_location(&blob, location).await);
}

/// Unlinks and collects the blob of this number.
async fn unlink_and_collect(test: &CollectionTest, number: usize) {
    let blob = digest(format!("blob {number}"));
    assert_eq!(test.metadata().unlink(&repository("a"), &blob).await, Removal::Removed);
    assert_eq!(test.run(&PLAN).await.scheduled, 1);
}

/// A pending deletion is listed when it is older than the given time, not at exactly that time.
pub async fn a_pending_deletion_is_not_listed_before_its_delay(test: CollectionTest) {
    let mut pending_deletions = schedule_some(&test, 5).await;
    assert_eq!(pending_deletions.len(), 5);
    pending_deletions.sort_by_key(|pending_deletion| pending_deletion.at);
    for (count, pending_deletion) in pending_deletions.iter().enumerate() {
        let mut due = test.pending_deletions_by(pending_deletion.at, 100).await;
        due.sort_by_key(|pending_deletion| pending_deletion.at);
        assert_eq!(due, pending_deletions[..count], "only older ones are listed");
        let due = test.pending_deletions_by(pending_deletion.at.plus_millis(1), 100).await;
        assert_eq!(due.len(), count + 1);
    }
}

/// Pending deletions are listed in slices, each once, also between others that are not due.
pub async fn pending_deletions_are_listed_in_slices(test: CollectionTest) {
    let pending_deletions = schedule_some(&test, 7).await;
    let before = test.now().plus_millis(1);
    test.advance(HOUR);
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
    // As a collection does: the deletions of a slice are forgotten before the next slice.
    let mut met = 0;
    let mut next: Option<Cursor> = None;
    loop {
        let slice = test.pending_deletions_slice(before, next.as_ref(), 2).await;
        met += slice.items.len();
        test.remove_pending_deletions(&slice.items).await;
        next = slice.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(met, pending_deletions.len());
    assert_eq!(test.pending_deletions_by(before, 100).await, []);
    assert_eq!(test.pending_deletions().await.len(), 5, "those that were not due");
}

/// `forget` takes many pending deletions, also some that do not exist, and leaves all others.
pub async fn forgetting_pending_deletions_is_idempotent(test: CollectionTest) {
    let pending_deletions = schedule_some(&test, 6).await;
    test.remove_pending_deletions(&[]).await;
    assert_eq!(test.pending_deletions().await, pending_deletions);
    test.remove_pending_deletions(&pending_deletions[..2]).await;
    test.remove_pending_deletions(&pending_deletions[..4]).await;
    test.remove_pending_deletions(&pending_deletions[..4]).await;
    assert_eq!(test.pending_deletions().await, pending_deletions[4..]);
    for pending_deletion in &pending_deletions {
        let digest = pending_deletion.digest.expect("it had a digest");
        assert!(!test.is_recorded_location(&digest, &pending_deletion.location).await);
    }
    test.remove_pending_deletions(&pending_deletions).await;
    assert_eq!(test.pending_deletions().await, []);
}

/// An object that came back into use, by a repeated final PUT, and was unreferenced again has one pending deletion,
/// with the later time.
pub async fn an_object_scheduled_twice_waits_from_the_last_time(test: CollectionTest) {
    let first = schedule_deletion(&test, 1, &location(1)).await;
    test.advance(HOUR);
    commit(&test, 1, &location(1)).await;
    test.advance(GRACE);
    unlink_and_collect(&test, 1).await;
    let last = PendingDeletion {
        at: test.now(),
        ..first.clone()
    };
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&last));
    let before_it = test.pending_deletions_by(last.at, 100).await;
    assert_eq!(before_it, [], "it is not due while its last redirect may be valid");
    test.advance(HOUR);
    assert_eq!(test.pending_deletions_by(last.at.plus_millis(1), 100).await, [last]);
}

/// However two schedules of one object differ, and in whichever order they are written, its pending deletion has the
/// later time, a digest if one of them has it, and whether it may be unfinished.
pub async fn two_schedules_of_an_object_are_joined(test: CollectionTest) {
    let sessions = test.sessions();
    let start = test.now();
    for (id, swept_later) in [(1, true), (2, false)] {
        let key = sessions.key(id);
        let attempt = sessions.claim(key).await.attempt;
        let location = Location::main(attempt.to_string());
        test.advance(GRACE);
        let scheduled = schedule_deletion(&test, attempt.number as usize + 10 * id as usize, &location).await;
        let session = sessions.row(key).await;
        test.advance(HOUR);
        // The other case: an expiry that read its clock long before it writes.
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
        test.remove_pending_deletions(&[expected]).await;
        assert_eq!(test.pending_deletions().await, []);
    }
}

/// `forget` removes a pending deletion only as it was listed: an object that was scheduled again meanwhile is still to
/// be deleted.
pub async fn forgetting_an_old_pending_deletion_leaves_the_new_one(test: CollectionTest) {
    let old = schedule_deletion(&test, 1, &location(1)).await;
    let other = schedule_deletion(&test, 2, &location(2)).await;
    test.advance(HOUR);
    commit(&test, 1, &location(1)).await;
    test.advance(GRACE);
    unlink_and_collect(&test, 1).await;
    let new = PendingDeletion {
        at: test.now(),
        ..old.clone()
    };
    test.remove_pending_deletions(&[old.clone(), other]).await;
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&new));
    test.remove_pending_deletions(&[old]).await;
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&new));
    test.remove_pending_deletions(&[new]).await;
    assert_eq!(test.pending_deletions().await, []);
}

/// An object in use is not due, whatever its pending deletion says. An unused one is due if its pending deletion is as
/// it was listed.
pub async fn an_object_in_use_is_not_due(test: CollectionTest) {
    let pending_deletion = schedule_deletion(&test, 1, &location(1)).await;
    assert_eq!(test.check_pending_deletion(&pending_deletion).await, DeletionCheck::Due);
    commit(&test, 1, &location(1)).await;
    assert_eq!(
        test.check_pending_deletion(&pending_deletion).await,
        DeletionCheck::InUse
    );
    test.remove_pending_deletions(std::slice::from_ref(&pending_deletion))
        .await;
    assert_eq!(
        test.check_pending_deletion(&pending_deletion).await,
        DeletionCheck::InUse
    );

    // Its digest has another location.
    let lost = schedule_deletion(&test, 2, &location(2)).await;
    commit(&test, 2, &location(3)).await;
    assert_eq!(test.check_pending_deletion(&lost).await, DeletionCheck::Due);
    test.remove_pending_deletions(std::slice::from_ref(&lost)).await;
    assert_eq!(
        test.check_pending_deletion(&lost).await,
        DeletionCheck::Changed,
        "the deletion was done"
    );

    // The object of an attempt has no digest.
    let sessions = test.sessions();
    let key = sessions.key(1);
    let attempt: Attempt = sessions.claim(key).await.attempt;
    test.advance(GRACE);
    let session = sessions.row(key).await;
    assert_eq!(test.sweep(key, &session).await, Some(1));
    let left = test.pending_deletions().await;
    assert_eq!(left[0].location, Location::main(attempt.to_string()));
    assert_eq!(test.check_pending_deletion(&left[0]).await, DeletionCheck::Due);
    test.remove_pending_deletions(&left).await;
    assert_eq!(test.check_pending_deletion(&left[0]).await, DeletionCheck::Changed);
}

/// An object that becomes unreferenced after its old pending deletion was listed is not due: redirects to it were made
/// until now.
pub async fn an_object_that_was_in_use_until_now_is_not_due(test: CollectionTest) {
    schedule_deletion(&test, 1, &location(1)).await;
    test.advance(HOUR);
    commit(&test, 1, &location(1)).await;
    test.advance(GRACE);
    let listed = test.pending_deletions().await;
    assert_eq!(listed.len(), 1);
    unlink_and_collect(&test, 1).await;
    assert_eq!(test.check_pending_deletion(&listed[0]).await, DeletionCheck::Changed);
    test.remove_pending_deletions(&listed).await;
    let left = test.pending_deletions().await;
    assert_eq!((left.len(), left[0].at), (1, test.now()));
    assert_eq!(test.check_pending_deletion(&left[0]).await, DeletionCheck::Due);
}

/// The same at the same time: an old pending deletion is never due.
pub async fn a_check_of_an_old_pending_deletion_races_a_new_schedule(test: CollectionTest) {
    for round in 0..ROUNDS {
        let old = schedule_deletion(&test, round, &location(round)).await;
        commit(&test, round, &location(round)).await;
        test.advance(GRACE);
        let blob = digest(format!("blob {round}"));
        let unlinked = test.metadata().unlink(&repository("a"), &blob).await;
        assert_eq!(unlinked, Removal::Removed);
        let look = {
            let (test, old) = (test.clone(), old.clone());
            async move { test.check_pending_deletion(&old).await }
        };
        let collect = {
            let test = test.clone();
            async move { test.run(&PLAN).await.scheduled }
        };
        let (check, scheduled) = test.race(round % 2 == 0, look, collect).await;
        assert_ne!(check, DeletionCheck::Due, "round {round}");
        assert_eq!(scheduled, 1, "round {round}");
        test.remove_pending_deletions(&[old]).await;
        let left = test.pending_deletions().await;
        assert_eq!((left.len(), left[0].at), (1, test.now()), "round {round}");
        test.remove_pending_deletions(&left).await;
    }
}
