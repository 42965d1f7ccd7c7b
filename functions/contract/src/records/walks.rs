//! Walks over all records.

use std::collections::BTreeSet;

use registry::store::metadata::{Content, Removal};
use registry::store::records::{EntryContent, Record};

use super::{MAX_SLICES, RecordTest, fill, lines, walk};
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};

/// An empty store has no records.
pub async fn an_empty_store_has_no_records(test: RecordTest) {
    assert_eq!(test.from().export().await, []);
}

/// The records agree with what reads answer, and each appears once.
pub async fn records_agree_with_reads(test: RecordTest) {
    let from = test.from();
    fill(&from).await;
    let metadata = from.metadata();
    let mut counts = [0; 6];
    for record in from.export().await {
        let kind = match record {
            Record::Repository { name, created, .. } => {
                assert!(metadata.is_listed(&name).await, "{name}");
                assert!(created <= test.now());
                0
            }
            Record::Blob {
                digest, location, size, ..
            } => {
                assert!(from.is_recorded_location(&digest, &location).await);
                assert!(size > 0);
                1
            }
            Record::Link {
                repository,
                digest,
                location,
                size,
                uid,
                ..
            } => {
                let link = metadata.link(&repository, &digest).await.expect("the link");
                assert_eq!((link.location, link.size, link.uid), (location, size, uid));
                2
            }
            Record::Manifest(entry) => {
                let record = metadata
                    .manifest(&entry.repository, &entry.digest)
                    .await
                    .expect("the manifest");
                let content = match entry.content {
                    EntryContent::Inline(bytes) => Content::Inline(bytes),
                    EntryContent::Stored(location) => Content::Stored(location),
                };
                assert_eq!(record.content, content);
                assert_eq!((record.media_type, record.size), (entry.media_type, entry.size));
                assert_eq!(record.artifact_type, entry.artifact_type);
                assert_eq!(record.uid, entry.uid);
                assert_eq!(record.subject, entry.subject.as_ref().map(|(subject, _)| *subject));
                if let Some((subject, row)) = entry.subject {
                    let rows = metadata.referrers(&entry.repository, &subject, None, 100).await.items;
                    assert!(rows.contains(&row), "{rows:?}");
                }
                let texts: Vec<String> = entry.references.iter().map(ToString::to_string).collect();
                assert!(texts.is_sorted(), "in the order of their text: {texts:?}");
                3
            }
            Record::Tag {
                repository,
                tag,
                target: record,
            } => {
                assert_eq!(metadata.tag(&repository, &tag).await, Some(record));
                4
            }
            Record::History {
                repository,
                tag,
                change,
            } => {
                assert!(metadata.history(&repository, &tag).await.contains(&change));
                5
            }
        };
        counts[kind] += 1;
    }
    // Repositories; blob records; links; manifests; tags; history entries: three tags created and two moved, `v0` and
    // `gone` deleted, `x` and `gone` created.
    assert_eq!(counts, [3, 3, 3, 9, 4, 10]);
}

/// A manifest's record names all its references, also excepted ones, but not its subject.
pub async fn a_manifest_is_recorded_with_its_references(test: RecordTest) {
    let from = test.from();
    let metadata = from.metadata();
    let name = repository("a");
    let (blob, foreign) = (digest("blob"), digest("foreign"));
    metadata.commit(&name, &blob).await;
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .excepting([foreign])
        .about(digest("subject"))
        .stored_at(location(1));
    metadata.put(&put).await;
    let entries: Vec<_> = from
        .export()
        .await
        .into_iter()
        .filter_map(|record| match record {
            Record::Manifest(entry) => Some(*entry),
            _ => None,
        })
        .collect();
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}");
    };
    let mut references = vec![blob, foreign];
    references.sort_by_key(ToString::to_string);
    assert_eq!(entry.references, references);
    assert_eq!(entry.subject, put.subject);
    assert_eq!(entry.at, test.now());
    assert_eq!(entry.content, EntryContent::Stored(location(1)));
}

/// Slices of any size visit every record.
pub async fn slices_visit_every_record(test: RecordTest) {
    let from = test.from();
    fill(&from).await;
    let all = lines(&from.export().await);
    for limit in [1, 2, 5, 1000] {
        let met = walk(&from.of(from.store.records.clone()), limit).await;
        assert_eq!(lines(&met), all, "in slices of {limit}");
        assert_eq!(met.len(), all.len(), "no record is visited twice while nothing changes");
    }
}

/// Records that are written or deleted during a walk do not prevent it from visiting all others.
pub async fn a_walk_visits_every_record_that_stays(test: RecordTest) {
    let from = test.from();
    fill(&from).await;
    let metadata = from.metadata();
    let all = lines(&from.export().await);
    let busy = repository("one");
    let mut met = Vec::new();
    let mut next = None;
    for round in 0..MAX_SLICES {
        let slice = from.store.records.records(test.cx(), next.as_ref(), 1).await;
        let slice = slice.expect("records");
        met.extend(slice.items);
        next = slice.next;
        if next.is_none() {
            break;
        }
        if round < 30 {
            let young = digest(format!("young {round}"));
            metadata.commit(&busy, &young).await;
            let put = manifest(&busy, format!("young manifest {round}"))
                .requiring([young])
                .tagged([tag("young")]);
            metadata.put(&put).await;
            if round % 2 == 0 {
                assert_eq!(metadata.delete_manifest(&busy, &put.digest).await, Removal::Removed);
                assert_eq!(metadata.unlink(&busy, &young).await, Removal::Removed);
            }
        }
    }
    assert!(next.is_none(), "the walk ends");
    let missed: BTreeSet<_> = all.difference(&lines(&met)).cloned().collect();
    assert!(missed.is_empty(), "not visited: {missed:#?}");
}

/// Marks, pending deletions and sessions are not exported: they belong to the store that made them.
pub async fn marks_and_pending_deletions_are_not_exported(test: RecordTest) {
    let from = test.from();
    let metadata = from.metadata();
    fill(&from).await;
    metadata.commit(&repository("one"), &digest("loose")).await;
    metadata
        .commit_at(&repository("one"), &digest("loose"), &location(7))
        .await;
    // An empty repository leaves the catalog.
    let but_for_the_empty = |mut records: Vec<Record>| {
        let empty = repository("three");
        records.retain(|record| !matches!(record, Record::Repository { name, .. } if *name == empty));
        lines(&records)
    };
    let all = but_for_the_empty(from.export().await);
    let sessions = from.sessions();
    sessions.claim(sessions.key(1)).await;
    test.advance(1000 * 3_600_000);
    let plan = registry::store::collection::Plan::default();
    assert_eq!(from.run(&plan).await.marked, 1);
    assert_eq!(but_for_the_empty(from.export().await), all);
}
