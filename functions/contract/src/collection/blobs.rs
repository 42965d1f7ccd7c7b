//! Unreferenced blob records: the record is deleted, and its object is scheduled for deletion.

use oci::{Algorithm, Digest};
use registry::store::Location;
use registry::store::collection::{DeletionCheck, PassStatistics, PendingDeletion};
use registry::store::metadata::{Content, Defect, Removal};

use super::{CollectionTest, GRACE, HOUR, PLAN, own_location};
use crate::collection::Done as _;
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository};

/// Bytes without a linking repository are scheduled for deletion at once: the delay of the pending deletion protects
/// readers.
pub async fn unreferenced_blobs_are_scheduled_for_deletion(test: CollectionTest) {
    let metadata = test.metadata();
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    metadata.commit_at(&name, &blob, &location(1)).await;
    assert!(metadata.mount(&other, &blob, &name).await);
    assert!(test.is_recorded_location(&blob, &location(1)).await);
    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0), "another holds them");
    assert!(test.is_recorded_location(&blob, &location(1)).await);
    assert_eq!(metadata.unlink(&other, &blob).await, Removal::Removed);
    assert!(
        test.is_recorded_location(&blob, &location(1)).await,
        "only a pass schedules deletions"
    );

    test.advance(10);
    let statistics = test.run(&PLAN).await;
    assert_eq!((statistics.scheduled, statistics.scheduled_bytes), (1, 1000));
    assert!(!test.is_recorded_location(&blob, &location(1)).await);
    let pending_deletion = PendingDeletion {
        location: location(1),
        digest: Some(blob),
        unfinished: false,
        at: test.now(),
    };
    assert_eq!(test.pending_deletions().await, std::slice::from_ref(&pending_deletion));
    test.advance(HOUR);
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
    assert_eq!(
        test.pending_deletions().await,
        [pending_deletion],
        "nothing else changes a pending deletion"
    );
}

/// A digest whose object is scheduled for deletion can be pushed again: with a new object, or, by a repeated final PUT,
/// with the old one, which then is in use although its deletion is pending.
pub async fn a_blob_scheduled_for_deletion_can_be_pushed_again(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    for (number, again) in [(1, 2), (3, 3)] {
        let blob = digest(format!("blob {number}"));
        metadata.commit_at(&name, &blob, &location(number)).await;
        assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
        assert_eq!(test.run(&PLAN).await.scheduled, 1);
        metadata.commit_at(&name, &blob, &location(again)).await;
        let link = metadata.link(&name, &blob).await.expect("the link");
        assert_eq!(link.location, location(again));
        assert!(test.is_recorded_location(&blob, &location(again)).await);
        assert_eq!(
            test.is_recorded_location(&blob, &location(number)).await,
            number == again
        );
        assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
        assert_eq!(metadata.link(&name, &blob).await, Some(link));
    }
}

/// The bytes of a large manifest stay while it, or a blob or manifest with the same digest in another repository,
/// exists.
pub async fn a_large_manifest_protects_its_bytes(test: CollectionTest) {
    let metadata = test.metadata();
    let (one, two) = (repository("one"), repository("two"));
    let put = manifest(&one, "large").stored_at(location(1));
    metadata.put(&put).await;
    metadata.put(&manifest(&two, "large").stored_at(location(2))).await;
    metadata.commit_at(&two, &put.digest, &location(3)).await;
    let lost = vec![location(2), location(3)];
    assert_eq!(test.scheduled().await, lost, "objects that were not needed");

    for removal in [
        metadata.delete_manifest(&one, &put.digest).await,
        metadata.delete_manifest(&two, &put.digest).await,
    ] {
        assert_eq!(removal, Removal::Removed);
        assert_eq!(test.run_twice(&PLAN).await.scheduled, 0);
    }
    let link = metadata.link(&two, &put.digest).await.expect("the blob");
    assert_eq!(link.location, location(1));
    assert_eq!(metadata.unlink(&two, &put.digest).await, Removal::Removed);
    let statistics = test.run(&PLAN).await;
    assert_eq!((statistics.scheduled, statistics.scheduled_bytes), (1, put.size));
    assert_eq!(test.scheduled().await.len(), 3);

    metadata.put(&manifest(&one, "large").stored_at(location(4))).await;
    let record = metadata.manifest(&one, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(4)), "and it can be put again");
}

/// The sha256 and the sha512 digest of the same bytes are two records and two objects: collecting one leaves the other
/// (S26).
pub async fn digests_of_the_same_bytes_are_collected_separately(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let short = Digest::of(Algorithm::Sha256, b"bytes");
    let long = Digest::of(Algorithm::Sha512, b"bytes");
    metadata.commit_at(&name, &short, &location(1)).await;
    metadata.commit_at(&name, &long, &location(2)).await;
    metadata.put(&manifest(&name, "manifest").requiring([long])).await;
    test.advance(GRACE);
    assert_eq!(test.run(&PLAN).await.done(), (1, 0, 0, 0));
    test.advance(GRACE);
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 1, 1, 0));
    assert_eq!(test.scheduled().await, [location(1)]);
    assert!(!test.is_recorded_location(&short, &location(1)).await);
    assert!(test.is_recorded_location(&long, &location(2)).await);
    assert!(metadata.link(&name, &long).await.is_some());
    assert_eq!(metadata.link(&name, &short).await, None);
}

/// An object that is not needed, because the digest has an earlier location, is scheduled for deletion, with its
/// digest.
pub async fn the_object_of_a_lost_race_is_scheduled_for_deletion(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blob = digest("blob");
    metadata.commit_at(&name, &blob, &location(1)).await;
    test.advance(10);
    metadata.commit_at(&name, &blob, &location(2)).await;
    metadata.commit_at(&name, &blob, &location(1)).await;
    let pending_deletion = PendingDeletion {
        location: location(2),
        digest: Some(blob),
        unfinished: false,
        at: test.now(),
    };
    assert_eq!(test.pending_deletions().await, [pending_deletion]);
    assert!(test.is_recorded_location(&blob, &location(1)).await);
    assert!(!test.is_recorded_location(&blob, &location(2)).await);
}

/// An object is in use if the record of its digest has exactly its location.
pub async fn an_object_is_in_use_at_the_exact_location_of_its_digest(test: CollectionTest) {
    let metadata = test.metadata();
    let blob = digest("blob");
    assert!(!test.is_recorded_location(&blob, &own_location(&blob)).await);
    metadata.commit(&repository("a"), &blob).await;
    let own = own_location(&blob);
    assert!(test.is_recorded_location(&blob, &own).await);
    let elsewhere = Location {
        store: "another".to_owned(),
        ..own.clone()
    };
    let longer = Location {
        key: format!("{}.0", own.key),
        ..own.clone()
    };
    assert!(!test.is_recorded_location(&blob, &elsewhere).await);
    assert!(!test.is_recorded_location(&blob, &longer).await);
    assert!(!test.is_recorded_location(&blob, &location(1)).await);
    assert!(!test.is_recorded_location(&digest("other"), &own).await);
    assert!(
        !test
            .is_recorded_location(&Digest::of(Algorithm::Sha512, b"blob"), &own)
            .await
    );
}

/// An object that was replaced, because it was missing or damaged, is scheduled for deletion: it may exist after all.
/// The object that replaced it is in use, although a commit had scheduled its deletion before.
pub async fn a_replaced_object_is_scheduled_for_deletion(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let (known, unknown) = (digest("known to be lost"), digest("found by a push"));
    for (blob, number) in [(&known, 1), (&unknown, 2)] {
        metadata.commit_at(&name, blob, &location(number)).await;
        metadata
            .put(&manifest(&name, format!("{blob}")).requiring([*blob]))
            .await;
    }
    test.advance(HOUR);
    let recorded = metadata
        .store
        .record_defect(metadata.cx(), Some(&name), &known, &location(1), Defect::Damaged)
        .await;
    recorded.expect("record_defect");
    assert_eq!(test.scheduled().await, [], "its blob record stays");
    assert_eq!(metadata.committed(&name, &known, &location(3)).await, location(3));
    assert_eq!(metadata.committed(&name, &unknown, &location(4)).await, location(2));
    let replaced = metadata
        .store
        .replace_location(metadata.cx(), &unknown, &location(2), &location(4), 1000)
        .await;
    assert_eq!(replaced.expect("replace_location"), Some(location(4)));

    let pending_deletions = test.pending_deletions().await;
    let pending_deletion = |number, digest| PendingDeletion {
        location: location(number),
        digest: Some(digest),
        unfinished: false,
        at: test.now(),
    };
    assert_eq!(
        pending_deletions,
        [
            pending_deletion(1, known),
            pending_deletion(2, unknown),
            pending_deletion(4, unknown)
        ]
    );
    for (pending_deletion, check) in
        pending_deletions
            .iter()
            .zip([DeletionCheck::Due, DeletionCheck::Due, DeletionCheck::InUse])
    {
        assert_eq!(
            test.check_pending_deletion(pending_deletion).await,
            check,
            "{pending_deletion:?}"
        );
    }
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0));
    assert!(test.is_recorded_location(&known, &location(3)).await);
}

/// A defective blob is collected like every other, with its object, which may exist after all.
pub async fn a_blob_with_a_defect_is_collected(test: CollectionTest) {
    let metadata = test.metadata();
    let name = repository("a");
    let blob = digest("blob");
    metadata.commit_at(&name, &blob, &location(1)).await;
    let recorded = metadata
        .store
        .record_defect(metadata.cx(), None, &blob, &location(1), Defect::Missing)
        .await;
    recorded.expect("record_defect");
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 0, 0), "it is young");
    let mut total = PassStatistics::default();
    for _ in 0..2 {
        test.advance(GRACE);
        total += test.run_twice(&PLAN).await;
    }
    assert_eq!((total.marked, total.unlinked, total.scheduled), (1, 1, 1));
    assert_eq!(metadata.link(&name, &blob).await, None);
    assert_eq!(test.scheduled().await, [location(1)]);
    assert_eq!(metadata.committed(&name, &blob, &location(2)).await, location(2));
    let link = metadata.link(&name, &blob).await.expect("the link");
    assert_eq!((link.location, link.defect), (location(2), None));
}
