//! Missing and damaged objects: what is recorded, which repositories report it, and how the objects are replaced.

use oci::{Digest, RepositoryName};
use registry::store::Location;
use registry::store::metadata::{Content, Defect, ManifestPut, ManifestRecord, NewContent, PutManifest, Removal};

use super::{MetadataTest, digest, location, manifest, repository};
use crate::metadata::DescribeManifest as _;

impl MetadataTest {
    pub(crate) async fn record_defect(
        &self,
        name: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Option<Location> {
        let recorded = self.store.record_defect(self.cx(), name, digest, location, defect);
        recorded.await.expect("record_defect")
    }

    async fn record_damaged_manifest(&self, name: &RepositoryName, digest: &Digest) {
        let recorded = self.store.record_damaged_manifest(self.cx(), name, digest).await;
        recorded.expect("record_damaged_manifest");
    }

    pub(crate) async fn clear_missing(&self, digest: &Digest, location: &Location) {
        let cleared = self.store.clear_missing(self.cx(), digest, location).await;
        cleared.expect("clear_missing");
    }

    async fn replace(&self, digest: &Digest, old: &Location, new: &Location) -> Option<Location> {
        let replaced = self.store.replace_location(self.cx(), digest, old, new, 1000).await;
        replaced.expect("replace_location")
    }

    /// The location and the defect of a link.
    async fn lies(&self, name: &RepositoryName, digest: &Digest) -> (Location, Option<Defect>) {
        let link = self.link(name, digest).await.expect("the link");
        (link.location, link.defect)
    }

    async fn content(&self, name: &RepositoryName, digest: &Digest) -> Content {
        self.manifest(name, digest).await.expect("the manifest").content
    }
}

/// A commit, and a put of a large manifest, answers where the bytes of the digest are stored: in its own object, or in
/// the one that was there before.
pub async fn a_push_answers_the_blob_location(test: MetadataTest) {
    let (one, two) = (repository("one"), repository("two"));
    let blob = digest("blob");
    for (name, number, lies_at) in [(&one, 1, 1), (&one, 2, 1), (&two, 3, 1), (&two, 1, 1)] {
        assert_eq!(test.committed(name, &blob, &location(number)).await, location(lies_at));
    }
    let put = |name, number| manifest(name, "large").stored_at(location(number));
    let elsewhere = || ManifestPut::StoredElsewhere(location(4));
    assert_eq!(test.try_put(&put(&one, 4)).await, ManifestPut::Stored);
    assert_eq!(test.try_put(&put(&one, 5)).await, elsewhere(), "put again");
    assert_eq!(test.try_put(&put(&two, 6)).await, elsewhere());
    assert_eq!(test.try_put(&put(&two, 4)).await, ManifestPut::Stored);
}

/// Every repository that has the digest, as a blob or as a large manifest, reports the defect of its object. Others do
/// not.
pub async fn a_defect_is_reported_in_every_repository(test: MetadataTest) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    let large = manifest(&three, "large").stored_at(location(2));
    let other = digest("other");
    test.commit_at(&one, &large.digest, &location(1)).await;
    assert!(test.mount(&two, &large.digest, &one).await);
    test.put(&large).await;
    test.commit_at(&one, &other, &location(3)).await;
    for (defect, reported) in [
        (Defect::Missing, Defect::Missing),
        (Defect::Damaged, Defect::Damaged),
        (Defect::Missing, Defect::Damaged),
    ] {
        let recorded = test
            .record_defect(Some(&one), &large.digest, &location(1), defect)
            .await;
        assert_eq!(recorded, None);
        for name in [&one, &two] {
            let before = test.link(name, &large.digest).await.expect("the link");
            assert_eq!(
                (&before.location, before.defect),
                (&location(1), Some(reported)),
                "{name}"
            );
            let kept = test.store.link_and_unmark(test.cx(), name, &large.digest).await;
            assert_eq!(kept.expect("link_and_unmark"), Some(before), "to pushes");
        }
        let content = test.content(&three, &large.digest).await;
        assert_eq!(content, Content::Defective(location(1), reported));
    }
    assert_eq!(test.lies(&one, &other).await, (location(3), None));
    assert_eq!(test.link(&three, &large.digest).await, None, "a manifest is no blob");

    // By a caller that knows the digest alone.
    assert_eq!(
        test.record_defect(None, &other, &location(3), Defect::Missing).await,
        None
    );
    assert_eq!(test.lies(&one, &other).await, (location(3), Some(Defect::Missing)));
}

/// A defect of an object at a location that is not, or no longer, the location of the digest is not recorded.
pub async fn a_defect_of_another_object_is_not_recorded(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    for of in [Some(&name), None] {
        let unknown = test.record_defect(of, &blob, &location(1), Defect::Missing).await;
        assert_eq!(unknown, None, "of a digest that no repository has");
    }
    assert_eq!(test.link(&name, &blob).await, None);
    test.commit_at(&name, &blob, &location(1)).await;
    for of in [Some(&name), None] {
        for defect in [Defect::Missing, Defect::Damaged] {
            let lies_at = test.record_defect(of, &blob, &location(2), defect).await;
            assert_eq!(lies_at, Some(location(1)));
            assert_eq!(test.lies(&name, &blob).await, (location(1), None));
        }
    }
    test.clear_missing(&blob, &location(2)).await;
    test.record_defect(None, &blob, &location(1), Defect::Missing).await;
    let lies_at = test
        .record_defect(Some(&name), &blob, &location(2), Defect::Damaged)
        .await;
    assert_eq!(lies_at, None, "no readable object");
    assert_eq!(test.lies(&name, &blob).await, (location(1), Some(Defect::Missing)));
}

/// A manifest that refers to a defective blob is refused, and so is a mount of the blob. A manifest that exists already
/// stays, with its references.
pub async fn a_defective_blob_does_not_count_as_present(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    let child = manifest(&name, "large child").stored_at(location(2));
    test.commit_at(&name, &blob, &location(1)).await;
    test.put(&child).await;
    let parent = manifest(&name, "parent").requiring([blob, child.digest]);
    test.put(&parent).await;
    test.record_defect(Some(&name), &blob, &location(1), Defect::Missing)
        .await;
    test.record_defect(Some(&name), &child.digest, &location(2), Defect::Damaged)
        .await;

    let new = manifest(&name, "new").requiring([blob, child.digest]);
    let ManifestPut::Missing(mut missing) = test.try_put(&new).await else {
        panic!("it was stored");
    };
    missing.sort();
    let mut expected = vec![blob, child.digest];
    expected.sort();
    assert_eq!(missing, expected);
    assert!(!test.mount(&other, &blob, &name).await);
    assert_eq!(test.link(&other, &blob).await, None);
    test.put(&manifest(&name, "sparse").excepting([blob])).await;
    test.put(&parent).await;
    assert!(matches!(test.unlink(&name, &blob).await, Removal::Referenced(_)));
    assert!(matches!(
        test.delete_manifest(&name, &child.digest).await,
        Removal::Referenced(_)
    ));
}

/// One push of the right bytes, in any repository, replaces the object in every repository that has the digest.
pub async fn a_commit_replaces_a_defective_object_everywhere(test: MetadataTest) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    let large = manifest(&two, "large").stored_at(location(9));
    test.commit_at(&one, &large.digest, &location(1)).await;
    assert!(test.mount(&two, &large.digest, &one).await);
    test.put(&large).await;
    let mut number = 1;
    for defect in [Defect::Missing, Defect::Damaged] {
        for pusher in [&one, &three] {
            let before = test.link(&two, &large.digest).await.expect("the link");
            test.record_defect(Some(&two), &large.digest, &location(number), defect)
                .await;
            number += 1;
            let committed = test.committed(pusher, &large.digest, &location(number)).await;
            assert_eq!(committed, location(number));
            for name in [&one, &two, pusher] {
                assert_eq!(test.lies(name, &large.digest).await, (location(number), None));
            }
            let after = test.link(&two, &large.digest).await.expect("the link");
            assert_eq!(after.uid, before.uid, "the same link");
            let content = test.content(&two, &large.digest).await;
            assert_eq!(content, Content::Stored(location(number)));
        }
    }
    assert!(test.mount(&repository("four"), &large.digest, &two).await);
}

/// A repeated commit offers the same object again. If that object was found to be lost since, the link that the commit
/// creates reports the defect.
pub async fn a_repeated_commit_reports_a_lost_object(test: MetadataTest) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    for (number, defect) in [Defect::Missing, Defect::Damaged].into_iter().enumerate() {
        let large = manifest(&three, format!("large {number}")).stored_at(location(number));
        test.commit_at(&one, &large.digest, &location(number)).await;
        test.record_defect(None, &large.digest, &location(number), defect).await;
        // In a repository with a link, and in one without.
        for name in [&one, &two] {
            let lies_at = test.committed(name, &large.digest, &location(number)).await;
            assert_eq!(lies_at, location(number));
            assert_eq!(test.lies(name, &large.digest).await, (location(number), Some(defect)));
        }
        test.put(&large).await;
        let content = test.content(&three, &large.digest).await;
        assert_eq!(content, Content::Defective(location(number), defect));

        let lies_at = test.committed(&two, &large.digest, &location(10 + number)).await;
        assert_eq!(lies_at, location(10 + number));
        for name in [&one, &two] {
            assert_eq!(test.lies(name, &large.digest).await, (location(10 + number), None));
        }
    }
}

/// A large manifest whose object is lost must be put again with its bytes in an object. It keeps its uid and its tags.
pub async fn a_large_manifest_replaces_a_defective_object(test: MetadataTest) {
    let (one, two) = (repository("one"), repository("two"));
    let put = manifest(&one, "large").tagged([super::tag("v1")]);
    test.put(&put.clone().stored_at(location(1))).await;
    test.put(&manifest(&two, "large").stored_at(location(2))).await;
    test.record_defect(Some(&two), &put.digest, &location(1), Defect::Missing)
        .await;
    let before = test.manifest(&one, &put.digest).await.expect("the manifest");
    let mut unchanged = put.clone().tagged([super::tag("v2")]);
    for content in [unchanged.content.clone(), NewContent::Unchanged] {
        unchanged.content = content;
        assert_eq!(test.try_put(&unchanged).await, ManifestPut::Gone);
    }
    assert_eq!(test.tag(&one, &super::tag("v2")).await, None);
    assert_eq!(test.manifest(&one, &put.digest).await, Some(before.clone()));

    let again = unchanged.stored_at(location(3));
    assert_eq!(test.try_put(&again).await, ManifestPut::Stored);
    let after = test.manifest(&one, &put.digest).await.expect("the manifest");
    assert_eq!(after.content, Content::Stored(location(3)));
    assert_eq!(after.uid, before.uid);
    assert_eq!(test.content(&two, &put.digest).await, Content::Stored(location(3)));
    for tag in ["v1", "v2"] {
        assert!(test.tag(&one, &super::tag(tag)).await.is_some());
    }
}

/// A manifest whose record holds other bytes than its digest says gets the right bytes with the next put, and keeps its
/// uid and its tags: with a new tag, with the tag that it has, and without a tag.
pub async fn a_manifest_put_again_replaces_damaged_bytes(test: MetadataTest) {
    let name = repository("a");
    for (number, tags) in [&["v1"][..], &["v2"], &[], &["v1", "v2"], &["v1"]]
        .into_iter()
        .enumerate()
    {
        let put = manifest(&name, format!("small {number}")).tagged(tags.iter().map(|name| super::tag(name)));
        let damaged = match number {
            4 => PutManifest {
                size: put.size + 1,
                ..put.clone()
            },
            _ => PutManifest {
                content: NewContent::Inline(format!("smell {number}").into()),
                tags: vec![super::tag("v1")],
                ..put.clone()
            },
        };
        test.put(&damaged).await;
        let before = test.manifest(&name, &put.digest).await.expect("the manifest");
        assert_eq!(test.try_put(&put).await, ManifestPut::Stored);
        let after = test.manifest(&name, &put.digest).await.expect("the manifest");
        assert_eq!(
            after.content,
            Content::Inline(format!("small {number}").into()),
            "{tags:?}"
        );
        assert_eq!((after.size, after.uid), (put.size, before.uid));
        assert_eq!(
            test.tag(&name, &super::tag("v1")).await.expect("the tag").digest,
            put.digest
        );
    }
}

/// A manifest of this repository with damaged bytes in its record, under the tags `v1` and `v2`.
async fn with_damaged_record(test: &MetadataTest, name: &RepositoryName, bytes: &str) -> PutManifest {
    let put = manifest(name, bytes);
    let damaged = PutManifest {
        content: NewContent::Inline(bytes.to_uppercase().into()),
        ..put.clone()
    };
    test.put(&damaged.tagged([super::tag("v1"), super::tag("v2")])).await;
    put
}

/// A damaged record is reported until the manifest is put with its bytes: with a new tag, with a tag that it has, and
/// without a tag. Nothing else of it changes, and undamaged records stay as they are.
pub async fn a_damaged_record_is_reported_until_the_manifest_is_put_again(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let is_suspect = async |tag: &str| {
        let record = test.tag(&name, &super::tag(tag)).await.expect("the tag");
        record.is_suspect
    };
    for (number, tags) in [&["v1"][..], &["v3"], &[], &["v2", "v3"]].into_iter().enumerate() {
        let put = with_damaged_record(&test, &name, &format!("small {number}")).await;
        test.put(&manifest(&other, format!("small {number}"))).await;
        let before = test.manifest(&name, &put.digest).await.expect("the manifest");
        assert!(!is_suspect("v1").await);
        for _ in 0..2 {
            test.record_damaged_manifest(&name, &put.digest).await;
            test.record_damaged_manifest(&other, &put.digest).await;
        }
        let answer = test.manifest(&name, &put.digest).await.expect("the manifest");
        let bytes = format!("SMALL {number}").into();
        let expected = ManifestRecord {
            content: Content::Damaged(bytes),
            ..before.clone()
        };
        assert_eq!(answer, expected);
        assert!(is_suspect("v1").await && is_suspect("v2").await);
        let whole = Content::Inline(format!("small {number}").into());
        assert_eq!(test.content(&other, &put.digest).await, whole, "another record");

        let index = manifest(&name, format!("index {number}")).requiring([put.digest]);
        assert_eq!(test.try_put(&index).await, ManifestPut::Missing(vec![put.digest]));
        let sparse = manifest(&name, format!("sparse {number}")).excepting([put.digest]);
        test.put(&sparse).await;
        let answer = test.content(&name, &put.digest).await;
        assert!(matches!(answer, Content::Damaged(_)), "a reference repairs nothing");

        let again = put.clone().tagged(tags.iter().map(|name| super::tag(name)));
        assert_eq!(test.try_put(&again).await, ManifestPut::Stored, "{tags:?}");
        let after = test.manifest(&name, &put.digest).await.expect("the manifest");
        let expected = ManifestRecord {
            content: whole,
            ..before
        };
        assert_eq!(after, expected, "{tags:?}");
        test.record_damaged_manifest(&name, &put.digest).await;
        assert_eq!(test.manifest(&name, &put.digest).await, Some(after));
        test.put(&index).await;
        // A tag that is written anew says nothing of the earlier damage.
        test.put(&manifest(&name, "other").tagged([super::tag("v1"), super::tag("v2")]))
            .await;
        assert!(!is_suspect("v1").await && !is_suspect("v2").await);
    }
}

/// Bytes in an object do not repair a record that holds damaged bytes. A manifest that does not exist, or is large, has
/// no such record.
pub async fn a_damaged_record_needs_inline_bytes(test: MetadataTest) {
    let name = repository("a");
    let put = with_damaged_record(&test, &name, "small").await;
    test.record_damaged_manifest(&name, &put.digest).await;
    let mut other = put.clone().tagged([super::tag("v3")]);
    for content in [NewContent::Unchanged, NewContent::Sealed(location(7))] {
        other.content = content;
        assert_eq!(test.try_put(&other).await, ManifestPut::Gone);
    }
    assert_eq!(test.tag(&name, &super::tag("v3")).await, None);
    assert!(matches!(test.content(&name, &put.digest).await, Content::Damaged(_)));
    assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
    test.record_damaged_manifest(&name, &put.digest).await;
    assert_eq!(test.manifest(&name, &put.digest).await, None);
    test.put(&put).await;
    assert_eq!(test.content(&name, &put.digest).await, Content::Inline("small".into()));

    let large = manifest(&name, "large");
    test.put(&large.clone().stored_at(location(8))).await;
    test.record_damaged_manifest(&name, &large.digest).await;
    assert_eq!(test.content(&name, &large.digest).await, Content::Stored(location(8)));
}

/// An object that was recorded as missing and is there again is used again.
pub async fn a_missing_object_can_come_back(test: MetadataTest) {
    let (one, two) = (repository("one"), repository("two"));
    let put = manifest(&two, "large").stored_at(location(2));
    test.commit_at(&one, &put.digest, &location(1)).await;
    test.put(&put).await;
    let link = test.link(&one, &put.digest).await;
    test.record_defect(None, &put.digest, &location(1), Defect::Missing)
        .await;
    test.clear_missing(&put.digest, &location(3)).await;
    assert_ne!(test.link(&one, &put.digest).await, link, "of another object");
    test.clear_missing(&put.digest, &location(1)).await;
    assert_eq!(test.link(&one, &put.digest).await, link);
    assert_eq!(test.content(&two, &put.digest).await, Content::Stored(location(1)));
    assert!(test.mount(&two, &put.digest, &one).await);
}

/// An object with wrong bytes is never used again, although it exists.
pub async fn a_damaged_object_cannot_come_back(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit_at(&name, &blob, &location(1)).await;
    test.record_defect(Some(&name), &blob, &location(1), Defect::Damaged)
        .await;
    test.clear_missing(&blob, &location(1)).await;
    assert_eq!(test.lies(&name, &blob).await, (location(1), Some(Defect::Damaged)));
}

/// A location at which there is no object is replaced in every repository, also when no read has reported it.
pub async fn a_location_is_replaced_everywhere(test: MetadataTest) {
    let names: Vec<_> = (0..120).map(|number| repository(&format!("r{number:03}"))).collect();
    let large = manifest(&names[0], "large").stored_at(location(9));
    for name in &names {
        test.commit_at(name, &large.digest, &location(1)).await;
    }
    test.put(&large).await;
    let replaced = test.replace(&large.digest, &location(1), &location(2)).await;
    assert_eq!(replaced, Some(location(2)));
    for name in &names {
        assert_eq!(test.lies(name, &large.digest).await, (location(2), None), "{name}");
    }
    let content = test.content(&names[0], &large.digest).await;
    assert_eq!(content, Content::Stored(location(2)));
    let again = test.replace(&large.digest, &location(1), &location(2)).await;
    assert_eq!(again, Some(location(2)), "again");
    assert_eq!(
        test.committed(&names[3], &large.digest, &location(3)).await,
        location(2)
    );
}

/// A location that another client has replaced before stays. A digest that no repository has is not replaced.
pub async fn a_location_is_replaced_only_if_it_is_as_expected(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    assert_eq!(test.replace(&blob, &location(1), &location(2)).await, None);
    assert_eq!(test.link(&name, &blob).await, None);
    test.commit_at(&name, &blob, &location(1)).await;
    let kept = test.replace(&blob, &location(2), &location(3)).await;
    assert_eq!(kept, Some(location(1)));
    assert_eq!(test.lies(&name, &blob).await, (location(1), None));
}

/// A defective blob can be deleted and pushed again.
pub async fn a_blob_with_a_defect_can_be_unlinked(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit_at(&name, &blob, &location(1)).await;
    test.record_defect(Some(&name), &blob, &location(1), Defect::Missing)
        .await;
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.link(&name, &blob).await, None);
    assert_eq!(test.committed(&name, &blob, &location(2)).await, location(2));
    assert_eq!(test.lies(&name, &blob).await, (location(2), None));
}

/// Readers that find no object, pushes to several repositories and a mount run at the same time. Afterwards one more
/// push gives every repository one object without a recorded defect.
pub async fn racing_defects_commits_and_mounts_end_consistent(test: MetadataTest) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    for round in 0..20_usize {
        let blob = digest(format!("blob {round}"));
        let at = |number: usize| location(100 * round + number);
        test.commit_at(&one, &blob, &at(0)).await;
        test.commit_at(&two, &blob, &at(0)).await;
        let lost = at(0);
        test.together(6, |task| {
            let (test, lost, own) = (test.clone(), lost.clone(), at(task + 1));
            let (one, two, three) = (one.clone(), two.clone(), three.clone());
            async move {
                match task {
                    0 => drop(test.record_defect(Some(&one), &blob, &lost, Defect::Missing).await),
                    1 => drop(test.record_defect(Some(&two), &blob, &lost, Defect::Missing).await),
                    2 => drop(test.mount(&three, &blob, &two).await),
                    _ => {
                        let name = [&one, &two, &three][task - 3];
                        let lies_at = test.committed(name, &blob, &own).await;
                        if lies_at == lost {
                            test.replace(&blob, &lost, &own).await;
                        }
                    }
                }
            }
        })
        .await;
        let lies_at = test.committed(&one, &blob, &at(9)).await;
        assert_ne!(lies_at, lost);
        for name in [&one, &two, &three] {
            assert_eq!(
                test.lies(name, &blob).await,
                (lies_at.clone(), None),
                "round {round}, {name}"
            );
        }
    }
}
