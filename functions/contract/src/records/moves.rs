//! Records that are inserted into another store, or again into the same one.

use registry::store::collection::Plan;
use registry::store::metadata::{Defect, ManifestPut, Removal};
use registry::store::records::{Record, RecordedObject};
use registry::store::{Timestamp, Uid};

use super::{RecordTest, fill, lines};
use crate::collection::Done as _;
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};

/// Longer than every grace period of the default plan, in milliseconds.
const GRACE: u64 = 26 * 3_600_000;

impl RecordTest {
    /// Moves all records in small slices.
    async fn move_all(&self) -> Vec<Record> {
        let records = self.from().export().await;
        for some in records.chunks(3) {
            self.to().import(some).await;
        }
        records
    }

    /// Asserts that both stores answer every read the same.
    async fn assert_alike(&self) {
        let (from, to) = (self.from().metadata(), self.to().metadata());
        let repositories = from.repositories(None, 1000).await;
        assert_eq!(to.repositories(None, 1000).await, repositories);
        for name in &repositories.items {
            assert!(to.is_listed(name).await);
            let tags = from.tags(name, None, 1000).await;
            assert_eq!(to.tags(name, None, 1000).await, tags);
            let manifests = from.manifests(name, None, 1000).await;
            assert_eq!(to.manifests(name, None, 1000).await, manifests);
            for tag in &tags.items {
                assert_eq!(to.tag(name, tag).await, from.tag(name, tag).await);
            }
            for text in ["latest", "v0", "v1", "v2", "x", "gone"] {
                let history = from.history(name, &tag(text)).await;
                assert_eq!(to.history(name, &tag(text)).await, history);
            }
            for digest in &manifests.items {
                assert_eq!(to.manifest(name, digest).await, from.manifest(name, digest).await);
                let referrers = from.referrers(name, digest, None, 1000).await;
                assert_eq!(to.referrers(name, digest, None, 1000).await, referrers);
            }
            let absent = digest("a subject that is not there");
            let referrers = from.referrers(name, &absent, None, 1000).await;
            assert_eq!(to.referrers(name, &absent, None, 1000).await, referrers);
            for blob in ["shared", "other", "foreign", "image 1\0\u{ff}"].map(digest) {
                assert_eq!(to.link(name, &blob).await, from.link(name, &blob).await);
                assert_eq!(
                    to.linking_repositories(&blob).await,
                    from.linking_repositories(&blob).await
                );
            }
        }
    }
}

/// Every record of one store can be inserted into another, which then answers every read the same.
pub async fn every_record_can_be_moved_to_another_store(test: RecordTest) {
    fill(&test.from()).await;
    let records = test.move_all().await;
    assert_eq!(lines(&test.to().export().await), lines(&records));
    test.assert_alike().await;
}

/// Inserting records again changes nothing, and the order of the records does not matter.
pub async fn inserting_again_changes_nothing(test: RecordTest) {
    fill(&test.from()).await;
    let mut records = test.from().export().await;
    let to = test.to();
    records.reverse();
    to.import(&records).await;
    test.assert_alike().await;
    records.sort_by_key(super::line);
    for record in &records {
        to.import(std::slice::from_ref(record)).await;
    }
    to.import(&records).await;
    to.import(&[]).await;
    assert_eq!(lines(&to.export().await), lines(&records));
    test.assert_alike().await;
    test.advance(GRACE);
    assert_eq!(
        to.run_twice(&Plan::default()).await.done(),
        (0, 0, 0, 0),
        "nothing is there twice"
    );
}

/// Inserting a record replaces the existing one, with everything that belonged to it.
pub async fn inserting_a_record_replaces_it(test: RecordTest) {
    let (from, to) = (test.from(), test.to());
    let name = repository("a");
    let blobs = [digest("blob 0"), digest("blob 1")];
    for (which, world) in [&from, &to].into_iter().enumerate() {
        let metadata = world.metadata();
        for blob in &blobs {
            metadata.commit_at(&name, blob, &location(which)).await;
        }
        let put = manifest(&name, "manifest")
            .requiring([blobs[which]])
            .about(digest(format!("subject {which}")))
            .stored_at(location(10 + which));
        metadata.put(&put).await;
        let tagged = manifest(&name, format!("tagged {which}")).tagged([tag("latest")]);
        metadata.put(&tagged).await;
        test.advance(1000);
    }
    let records = from.export().await;
    to.import(&records).await;

    let metadata = to.metadata();
    for blob in &blobs {
        assert_eq!(
            metadata.link(&name, blob).await,
            from.metadata().link(&name, blob).await
        );
        assert_eq!(metadata.linking_repositories(blob).await.len(), 1);
    }
    let put = digest("manifest");
    assert_eq!(
        metadata.manifest(&name, &put).await,
        from.metadata().manifest(&name, &put).await
    );
    assert_eq!(metadata.referring(&name, &digest("subject 0")).await, [put]);
    assert!(metadata.referring(&name, &digest("subject 1")).await.is_empty());
    let latest = metadata.tag(&name, &tag("latest")).await.expect("the tag");
    assert_eq!(latest.digest, digest("tagged 0"));
    assert_eq!(
        metadata.delete_manifest(&name, &digest("tagged 1")).await,
        Removal::Removed
    );
    assert!(
        metadata.tag(&name, &tag("latest")).await.is_some(),
        "it names another manifest by now"
    );
    assert_eq!(metadata.unlink(&name, &blobs[0]).await, Removal::Referenced(put));
    assert_eq!(
        metadata.unlink(&name, &blobs[1]).await,
        Removal::Removed,
        "the old reference is gone"
    );
    assert_eq!(metadata.delete_manifest(&name, &put).await, Removal::Removed);
    assert_eq!(metadata.unlink(&name, &blobs[0]).await, Removal::Removed);
    assert_eq!(
        to.run_twice(&Plan::default()).await.scheduled,
        3,
        "and no back-reference of an old uid protects anything"
    );
}

/// A moved registry works: references protect their targets, tags have their history, blobs can be mounted, and
/// everything can be deleted.
pub async fn a_moved_registry_works(test: RecordTest) {
    fill(&test.from()).await;
    test.move_all().await;
    let to = test.to();
    let metadata = to.metadata();
    let (one, two) = (repository("one"), repository("two/deep"));
    let shared = digest("shared");

    assert!(matches!(metadata.unlink(&one, &shared).await, Removal::Referenced(_)));
    let child = digest("image 0\0\u{ff}");
    assert_eq!(
        metadata.delete_manifest(&one, &child).await,
        Removal::Referenced(digest("index"))
    );
    assert!(metadata.mount(&repository("new"), &shared, &two).await);
    let before = metadata.history(&one, &tag("latest")).await;
    let again = manifest(&one, "image 0\0\u{ff}").tagged([tag("latest")]);
    assert_eq!(metadata.try_put(&again).await, ManifestPut::Stored);
    let after = metadata.assert_chain(&one, &tag("latest")).await;
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after[1..], before);
    metadata.assert_chain(&one, &tag("v0")).await;

    test.advance(GRACE);
    let statistics = to
        .run_twice(&Plan {
            deep: true,
            ..Plan::default()
        })
        .await;
    assert_eq!(
        statistics.done(),
        (1, 0, 0, 0),
        "only what was mounted now and is not used"
    );
    for name in [&one, &two] {
        for _ in 0..3 {
            for digest in metadata.manifests(name, None, 100).await.items {
                assert_ne!(metadata.delete_manifest(name, &digest).await, Removal::Absent);
            }
        }
        assert!(metadata.tags(name, None, 10).await.items.is_empty());
    }
    for _ in 0..3 {
        test.advance(GRACE);
        to.run(&Plan {
            deep: true,
            ..Plan::default()
        })
        .await;
    }
    let pending_deletions = to.pending_deletions().await;
    assert_eq!(
        pending_deletions.len(),
        3,
        "both blobs and the large manifest: {pending_deletions:#?}"
    );
    to.remove_pending_deletions(&pending_deletions).await;
    to.assert_empty().await;
}

/// A collection in the new store uses the ages of the old one: an old unreferenced link is not young there.
pub async fn ages_are_moved(test: RecordTest) {
    let (from, to) = (test.from(), test.to());
    let name = repository("a");
    from.metadata().commit(&name, &digest("blob")).await;
    test.advance(GRACE);
    test.move_all().await;
    assert_eq!(to.run(&Plan::default()).await.marked, 1);
}

/// Records hold every value that their types allow, also values that no operation writes.
pub async fn records_hold_extreme_values(test: RecordTest) {
    let to = test.to();
    let name = repository("a");
    let at = Timestamp(i64::MAX.cast_unsigned() >> 12);
    let size = i64::MAX.cast_unsigned();
    let blob = digest("blob");
    let records = [
        Record::Repository {
            name: name.clone(),
            created: Timestamp(0),
            permanent: true,
        },
        Record::Blob {
            digest: blob,
            location: location(1),
            size,
            at,
        },
        Record::Link {
            repository: name.clone(),
            digest: blob,
            location: location(1),
            size,
            uid: Uid(u64::MAX),
            at,
        },
        Record::Link {
            repository: repository("b"),
            digest: blob,
            location: location(1),
            size: 0,
            uid: Uid(0),
            at: Timestamp(0),
        },
    ];
    to.import(&records).await;
    assert_eq!(lines(&to.export().await), lines(&records));
    let link = to.metadata().link(&name, &blob).await.expect("the link");
    assert_eq!((link.size, link.uid), (size, Uid(u64::MAX)));
    assert_eq!(to.metadata().unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(to.metadata().linking_repositories(&blob).await, [repository("b")]);
}

/// A known defect of an object is reported with its record, and is not exported: the copy may be intact.
pub async fn a_defect_is_reported_and_not_exported(test: RecordTest) {
    let (from, to) = (test.from(), test.to());
    let (name, blob) = (repository("a"), digest("blob"));
    from.metadata().commit_at(&name, &blob, &location(1)).await;
    for defect in [None, Some(Defect::Missing), None, Some(Defect::Damaged)] {
        match defect {
            Some(defect) => drop(from.metadata().record_defect(None, &blob, &location(1), defect).await),
            None => from.metadata().clear_missing(&blob, &location(1)).await,
        }
        let recorded = RecordedObject {
            location: location(1),
            size: 1000,
            defect,
        };
        assert_eq!(from.recorded_object(&blob).await, Some(recorded.clone()));
        to.import(&from.export().await).await;
        assert_eq!(
            to.recorded_object(&blob).await,
            Some(RecordedObject {
                defect: None,
                ..recorded
            })
        );
    }
    assert_eq!(from.recorded_object(&digest("another")).await, None);
}
