//! The graveyard: each object has one grave, which waits from the last burial, and is forgotten only as it was seen.

use super::{CollectionTrial, GRACE, HOUR, PLAN};
use crate::contract::metadata::{digest, location, repository};
use crate::store::collection::{Grave, Standing};
use crate::store::metadata::Removal;
use crate::store::sessions::Attempt;
use crate::store::{Context, Cursor, Location};

/// How often two meet.
const ROUNDS: usize = 30;

/// Digs `count` graves, each at a time of its own.
async fn dig(trial: &CollectionTrial, count: usize) -> Vec<Grave> {
    for number in 0..count {
        trial.pass(1000);
        bury(trial, number, &location(number)).await;
    }
    trial.graves().await
}

/// Gives the blob of this number its bytes at a place, and takes them away again; what its grave says if that is its
/// only burial.
async fn bury(trial: &CollectionTrial, number: usize, place: &Location) -> Grave {
    name(trial, number, place).await;
    lose(trial, number).await;
    Grave {
        location: place.clone(),
        digest: Some(digest(format!("blob {number}"))),
        unfinished: false,
        at: trial.now(),
    }
}

/// Commits the blob of this number.
async fn name(trial: &CollectionTrial, number: usize, place: &Location) {
    let blob = digest(format!("blob {number}"));
    trial.names().commit_at(&repository("a"), &blob, place).await;
    assert!(trial.is_named(&blob, place).await);
}

/// Takes the bytes of the blob of this number their name.
async fn lose(trial: &CollectionTrial, number: usize) {
    let blob = digest(format!("blob {number}"));
    assert_eq!(trial.names().unlink(&repository("a"), &blob).await, Removal::Removed);
    assert_eq!(trial.run(&PLAN).await.buried, 1);
}

/// Graves are due when they are older than was asked for, not at that very moment.
pub async fn graves_wait(trial: CollectionTrial) {
    let mut graves = dig(&trial, 5).await;
    assert_eq!(graves.len(), 5);
    graves.sort_by_key(|grave| grave.at);
    for (count, grave) in graves.iter().enumerate() {
        let mut due = trial.graves_by(grave.at, 100).await;
        due.sort_by_key(|grave| grave.at);
        assert_eq!(due, graves[..count], "older than the grave itself");
        let due = trial.graves_by(grave.at.plus_millis(1), 100).await;
        assert_eq!(due.len(), count + 1);
    }
}

/// Graves come slice by slice, each once, also between others that are not due.
pub async fn graves_come_in_slices(trial: CollectionTrial) {
    let graves = dig(&trial, 7).await;
    let before = trial.now().plus_millis(1);
    trial.pass(HOUR);
    for number in 100..105 {
        bury(&trial, number, &location(number)).await;
    }
    for limit in 1..=8 {
        assert_eq!(trial.graves_by(before, limit).await, graves, "in slices of {limit}");
    }
    // As a collection walks: what was met is forgotten before the next slice.
    let mut met = 0;
    let mut next: Option<Cursor> = None;
    loop {
        let slice = trial.graves_slice(before, next.as_ref(), 2).await;
        met += slice.items.len();
        trial.forget(&slice.items).await;
        next = slice.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(met, graves.len());
    assert_eq!(trial.graves_by(before, 100).await, []);
    assert_eq!(trial.graves().await.len(), 5, "those that were not due");
}

/// Forgetting takes many at once, those that are gone too, and leaves all others.
pub async fn forgetting_is_idempotent(trial: CollectionTrial) {
    let graves = dig(&trial, 6).await;
    trial.forget(&[]).await;
    assert_eq!(trial.graves().await, graves);
    trial.forget(&graves[..2]).await;
    trial.forget(&graves[..4]).await;
    trial.forget(&graves[..4]).await;
    assert_eq!(trial.graves().await, graves[4..]);
    for grave in &graves {
        let digest = grave.digest.expect("it had a digest");
        assert!(!trial.is_named(&digest, &grave.location).await);
    }
    trial.forget(&graves).await;
    assert_eq!(trial.graves().await, []);
}

/// An object that got its name back, by a final PUT that was repeated, and lost it again has one grave, that of its last
/// burial.
pub async fn an_object_buried_twice_waits_from_its_last_burial(trial: CollectionTrial) {
    let first = bury(&trial, 1, &location(1)).await;
    trial.pass(HOUR);
    name(&trial, 1, &location(1)).await;
    trial.pass(GRACE);
    lose(&trial, 1).await;
    let last = Grave {
        at: trial.now(),
        ..first.clone()
    };
    assert_eq!(trial.graves().await, std::slice::from_ref(&last));
    let before_it = trial.graves_by(last.at, 100).await;
    assert_eq!(before_it, [], "it is not due as long as its last redirect may live");
    trial.pass(HOUR);
    assert_eq!(trial.graves_by(last.at.plus_millis(1), 100).await, [last]);
}

/// Whatever two burials of an object say, and in whatever order they are written: its grave says the later time, a
/// digest if any names one, and whether it may be unfinished.
pub async fn burials_of_an_object_are_joined(trial: CollectionTrial) {
    let sessions = trial.sessions();
    let start = trial.now();
    for (id, swept_later) in [(1, true), (2, false)] {
        let key = sessions.key(id);
        let attempt = sessions.claim(key).await.attempt;
        let place = Location::main(attempt.to_string());
        trial.pass(GRACE);
        let buried = bury(&trial, attempt.number as usize + 10 * id as usize, &place).await;
        let session = sessions.row(key).await;
        trial.pass(HOUR);
        // The other case: a sweep that read its clock long before it writes.
        let now = if swept_later { trial.now() } else { start };
        let cx = Context { now, ..trial.cx() };
        assert_eq!(
            trial.store.collection.sweep(cx, key, &session).await.ok(),
            Some(Some(1))
        );
        let expected = Grave {
            unfinished: true,
            at: buried.at.max(now),
            ..buried
        };
        assert_eq!(trial.graves().await, std::slice::from_ref(&expected), "{attempt}");
        trial.forget(&[expected]).await;
        assert_eq!(trial.graves().await, []);
    }
}

/// A grave is forgotten as it was seen: what was buried again meanwhile is still to be deleted.
pub async fn forgetting_an_old_grave_leaves_the_new_one(trial: CollectionTrial) {
    let old = bury(&trial, 1, &location(1)).await;
    let other = bury(&trial, 2, &location(2)).await;
    trial.pass(HOUR);
    name(&trial, 1, &location(1)).await;
    trial.pass(GRACE);
    lose(&trial, 1).await;
    let new = Grave {
        at: trial.now(),
        ..old.clone()
    };
    trial.forget(&[old.clone(), other]).await;
    assert_eq!(trial.graves().await, std::slice::from_ref(&new));
    trial.forget(&[old]).await;
    assert_eq!(trial.graves().await, std::slice::from_ref(&new));
    trial.forget(&[new]).await;
    assert_eq!(trial.graves().await, []);
}

/// What is named is in use, whatever its grave says; what is not is due as long as its grave is as it was seen.
pub async fn a_name_stands_before_its_grave(trial: CollectionTrial) {
    let grave = bury(&trial, 1, &location(1)).await;
    assert_eq!(trial.standing(&grave).await, Standing::Due);
    name(&trial, 1, &location(1)).await;
    assert_eq!(trial.standing(&grave).await, Standing::Named);
    trial.forget(std::slice::from_ref(&grave)).await;
    assert_eq!(trial.standing(&grave).await, Standing::Named);

    // Its digest has bytes, but elsewhere.
    let lost = bury(&trial, 2, &location(2)).await;
    name(&trial, 2, &location(3)).await;
    assert_eq!(trial.standing(&lost).await, Standing::Due);
    trial.forget(std::slice::from_ref(&lost)).await;
    assert_eq!(
        trial.standing(&lost).await,
        Standing::Changed,
        "somebody has seen to it"
    );

    // What an attempt has left has no digest.
    let sessions = trial.sessions();
    let key = sessions.key(1);
    let attempt: Attempt = sessions.claim(key).await.attempt;
    trial.pass(GRACE);
    let session = sessions.row(key).await;
    assert_eq!(trial.sweep(key, &session).await, Some(1));
    let left = trial.graves().await;
    assert_eq!(left[0].location, Location::main(attempt.to_string()));
    assert_eq!(trial.standing(&left[0]).await, Standing::Due);
    trial.forget(&left).await;
    assert_eq!(trial.standing(&left[0]).await, Standing::Changed);
}

/// An object whose name goes after its old grave was listed is not deleted: redirects to it were made until now.
pub async fn an_object_whose_name_goes_is_left_alone(trial: CollectionTrial) {
    bury(&trial, 1, &location(1)).await;
    trial.pass(HOUR);
    name(&trial, 1, &location(1)).await;
    trial.pass(GRACE);
    let listed = trial.graves().await;
    assert_eq!(listed.len(), 1);
    lose(&trial, 1).await;
    assert_eq!(trial.standing(&listed[0]).await, Standing::Changed);
    trial.forget(&listed).await;
    let left = trial.graves().await;
    assert_eq!((left.len(), left[0].at), (1, trial.now()));
    assert_eq!(trial.standing(&left[0]).await, Standing::Due);
}

/// The same while the name goes: an old grave is never due, whatever the look meets.
pub async fn a_look_at_an_old_grave_races_a_burial(trial: CollectionTrial) {
    for round in 0..ROUNDS {
        let old = bury(&trial, round, &location(round)).await;
        name(&trial, round, &location(round)).await;
        trial.pass(GRACE);
        let blob = digest(format!("blob {round}"));
        let unlinked = trial.names().unlink(&repository("a"), &blob).await;
        assert_eq!(unlinked, Removal::Removed);
        let look = {
            let (trial, old) = (trial.clone(), old.clone());
            async move { trial.standing(&old).await }
        };
        let collect = {
            let trial = trial.clone();
            async move { trial.run(&PLAN).await.buried }
        };
        let (standing, buried) = trial.race(round % 2 == 0, look, collect).await;
        assert_ne!(standing, Standing::Due, "round {round}");
        assert_eq!(buried, 1, "round {round}");
        trial.forget(&[old]).await;
        let left = trial.graves().await;
        assert_eq!((left.len(), left[0].at), (1, trial.now()), "round {round}");
        trial.forget(&left).await;
    }
}
