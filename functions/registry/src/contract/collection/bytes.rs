//! Bytes that nobody holds: their record goes, their object is buried, and the grave says what is known of it.

use oci::{Algorithm, Digest};

use super::{CollectionTrial, GRACE, HOUR, PLAN, place_of};
use crate::contract::metadata::{digest, location, manifest, repository};
use crate::store::Location;
use crate::store::collection::Grave;
use crate::store::metadata::{Content, Removal};

/// Bytes that no repository holds any more are buried at once: those who read them are protected by the grave.
pub async fn bytes_that_nobody_holds_are_buried(trial: CollectionTrial) {
    let names = trial.names();
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    names.commit_at(&name, &blob, &location(1)).await;
    assert!(names.mount(&other, &blob, &name).await);
    assert!(trial.is_named(&blob, &location(1)).await);
    assert_eq!(names.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(trial.run_twice(&PLAN).await.done(), (0, 0, 0, 0), "another holds them");
    assert!(trial.is_named(&blob, &location(1)).await);
    assert_eq!(names.unlink(&other, &blob).await, Removal::Removed);
    assert!(trial.is_named(&blob, &location(1)).await, "only a pass buries");

    trial.pass(10);
    let tally = trial.run(&PLAN).await;
    assert_eq!((tally.buried, tally.buried_bytes), (1, 1000));
    assert!(!trial.is_named(&blob, &location(1)).await);
    let grave = Grave {
        location: location(1),
        digest: Some(blob),
        unfinished: false,
        at: trial.now(),
    };
    assert_eq!(trial.graves().await, std::slice::from_ref(&grave));
    trial.pass(HOUR);
    assert_eq!(trial.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
    assert_eq!(trial.graves().await, [grave], "nothing else ever touches a grave");
}

/// A digest whose bytes were buried can be pushed again: at a new place, or, by a final PUT that is repeated, at the
/// old one, which then is in use although it has a grave.
pub async fn buried_bytes_can_be_pushed_again(trial: CollectionTrial) {
    let names = trial.names();
    let name = repository("a");
    for (number, again) in [(1, 2), (3, 3)] {
        let blob = digest(format!("blob {number}"));
        names.commit_at(&name, &blob, &location(number)).await;
        assert_eq!(names.unlink(&name, &blob).await, Removal::Removed);
        assert_eq!(trial.run(&PLAN).await.buried, 1);
        names.commit_at(&name, &blob, &location(again)).await;
        let link = names.link(&name, &blob).await.expect("the link");
        assert_eq!(link.location, location(again));
        assert!(trial.is_named(&blob, &location(again)).await);
        assert_eq!(trial.is_named(&blob, &location(number)).await, number == again);
        assert_eq!(trial.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
        assert_eq!(names.link(&name, &blob).await, Some(link));
    }
}

/// The bytes of a large manifest are held by it, and by every blob and manifest of other repositories that share them.
pub async fn large_manifests_hold_their_bytes(trial: CollectionTrial) {
    let names = trial.names();
    let (one, two) = (repository("one"), repository("two"));
    let put = manifest(&one, "large").stored_at(location(1));
    names.put(&put).await;
    names.put(&manifest(&two, "large").stored_at(location(2))).await;
    names.commit_at(&two, &put.digest, &location(3)).await;
    let lost = vec![location(2), location(3)];
    assert_eq!(trial.buried().await, lost, "objects that were not needed");

    for removal in [
        names.delete_manifest(&one, &put.digest).await,
        names.delete_manifest(&two, &put.digest).await,
    ] {
        assert_eq!(removal, Removal::Removed);
        assert_eq!(trial.run_twice(&PLAN).await.buried, 0);
    }
    let link = names.link(&two, &put.digest).await.expect("the blob");
    assert_eq!(link.location, location(1));
    assert_eq!(names.unlink(&two, &put.digest).await, Removal::Removed);
    let tally = trial.run(&PLAN).await;
    assert_eq!((tally.buried, tally.buried_bytes), (1, put.size));
    assert_eq!(trial.buried().await.len(), 3);

    names.put(&manifest(&one, "large").stored_at(location(4))).await;
    let record = names.manifest(&one, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(4)), "and it can be put again");
}

/// sha256 and sha512 names of the same bytes are two records and two objects: collecting one leaves the other (S26).
pub async fn names_of_the_same_bytes_are_collected_apart(trial: CollectionTrial) {
    let names = trial.names();
    let name = repository("a");
    let short = Digest::of(Algorithm::Sha256, b"bytes");
    let long = Digest::of(Algorithm::Sha512, b"bytes");
    names.commit_at(&name, &short, &location(1)).await;
    names.commit_at(&name, &long, &location(2)).await;
    names.put(&manifest(&name, "manifest").requiring([long])).await;
    trial.pass(GRACE);
    assert_eq!(trial.run(&PLAN).await.done(), (1, 0, 0, 0));
    trial.pass(GRACE);
    assert_eq!(trial.run_twice(&PLAN).await.done(), (0, 1, 1, 0));
    assert_eq!(trial.buried().await, [location(1)]);
    assert!(!trial.is_named(&short, &location(1)).await);
    assert!(trial.is_named(&long, &location(2)).await);
    assert!(names.link(&name, &long).await.is_some());
    assert_eq!(names.link(&name, &short).await, None);
}

/// A location that lost against an earlier one is in the graveyard, under the digest that it was to have.
pub async fn what_lost_its_race_is_buried(trial: CollectionTrial) {
    let names = trial.names();
    let name = repository("a");
    let blob = digest("blob");
    names.commit_at(&name, &blob, &location(1)).await;
    trial.pass(10);
    names.commit_at(&name, &blob, &location(2)).await;
    names.commit_at(&name, &blob, &location(1)).await;
    let grave = Grave {
        location: location(2),
        digest: Some(blob),
        unfinished: false,
        at: trial.now(),
    };
    assert_eq!(trial.graves().await, [grave]);
    assert!(trial.is_named(&blob, &location(1)).await);
    assert!(!trial.is_named(&blob, &location(2)).await);
}

/// Bytes are named by their digest at their place, and by nothing like it.
pub async fn a_name_is_a_digest_and_a_place(trial: CollectionTrial) {
    let names = trial.names();
    let blob = digest("blob");
    assert!(!trial.is_named(&blob, &place_of(&blob)).await);
    names.commit(&repository("a"), &blob).await;
    let place = place_of(&blob);
    assert!(trial.is_named(&blob, &place).await);
    let elsewhere = Location {
        store: "another".to_owned(),
        ..place.clone()
    };
    let longer = Location {
        key: format!("{}.0", place.key),
        ..place.clone()
    };
    assert!(!trial.is_named(&blob, &elsewhere).await);
    assert!(!trial.is_named(&blob, &longer).await);
    assert!(!trial.is_named(&blob, &location(1)).await);
    assert!(!trial.is_named(&digest("other"), &place).await);
    assert!(!trial.is_named(&Digest::of(Algorithm::Sha512, b"blob"), &place).await);
}
