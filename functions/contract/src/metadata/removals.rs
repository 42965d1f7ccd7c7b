//! Removals: refused while a reference to the target exists, and complete otherwise.

use registry::store::access::Author;
use registry::store::metadata::{AllowAll, Removal};

use super::{MetadataTest, WHO, digest, manifest, repository, tag};
use crate::metadata::DescribeManifest as _;

/// A blob to which a manifest of the repository refers cannot be unlinked, and the answer names that manifest. It can
/// be once the last such manifest is deleted.
pub async fn a_referenced_blob_is_not_unlinked(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    test.commit(&name, &blob).await;
    test.commit(&other, &blob).await;
    let one = manifest(&name, "one").requiring([blob]);
    let two = manifest(&name, "two").requiring([blob]);
    test.put(&one).await;
    test.put(&two).await;
    let link = test.link(&name, &blob).await;
    match test.unlink(&name, &blob).await {
        Removal::Referenced(parent) => assert!([one.digest, two.digest].contains(&parent)),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(test.link(&name, &blob).await, link, "a refusal changes nothing");
    assert_eq!(
        test.unlink(&other, &blob).await,
        Removal::Removed,
        "nothing refers to it there"
    );

    assert_eq!(test.delete_manifest(&name, &one.digest).await, Removal::Removed);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Referenced(two.digest));
    assert_eq!(test.delete_manifest(&name, &two.digest).await, Removal::Removed);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.link(&name, &blob).await, None);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Absent);
}

/// Deleting what never existed is answered as absent: neither refused nor failed.
pub async fn deleting_what_does_not_exist_answers_absent(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    assert_eq!(test.unlink(&name, &blob).await, Removal::Absent);
    assert_eq!(test.delete_manifest(&name, &blob).await, Removal::Absent);
    assert!(!test.delete_tag(&name, &tag("latest")).await);
    test.commit(&name, &blob).await;
    assert_eq!(
        test.delete_manifest(&name, &blob).await,
        Removal::Absent,
        "a blob is no manifest"
    );
}

/// A manifest that is part of an index cannot be deleted, and the answer names the index, at any depth of nesting.
pub async fn a_child_of_an_index_is_not_deleted(test: MetadataTest) {
    let name = repository("a");
    let child = manifest(&name, "child").tagged([tag("child")]);
    let index = manifest(&name, "index").requiring([child.digest]);
    let outer = manifest(&name, "outer").requiring([index.digest]);
    for put in [&child, &index, &outer] {
        test.put(put).await;
    }
    let record = test.manifest(&name, &child.digest).await;
    assert_eq!(
        test.delete_manifest(&name, &child.digest).await,
        Removal::Referenced(index.digest)
    );
    assert_eq!(
        test.delete_manifest(&name, &index.digest).await,
        Removal::Referenced(outer.digest)
    );
    assert_eq!(test.manifest(&name, &child.digest).await, record);
    assert!(
        test.tag(&name, &tag("child")).await.is_some(),
        "a refusal deletes no tag"
    );
    assert_eq!(test.history(&name, &tag("child")).await.len(), 1);
    for put in [&outer, &index, &child] {
        assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
    }
}

/// A reference to a digest that is both a blob and a manifest prevents the removal of both.
pub async fn a_reference_protects_the_blob_and_the_manifest_of_a_digest(test: MetadataTest) {
    let name = repository("a");
    let child = manifest(&name, "child");
    test.put(&child).await;
    test.commit(&name, &child.digest).await;
    let index = manifest(&name, "index").requiring([child.digest]);
    test.put(&index).await;
    let refused = Removal::Referenced(index.digest);
    assert_eq!(test.unlink(&name, &child.digest).await, refused);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, refused);
    assert_eq!(test.delete_manifest(&name, &index.digest).await, Removal::Removed);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, Removal::Removed);
    assert!(test.link(&name, &child.digest).await.is_some());
    assert_eq!(test.unlink(&name, &child.digest).await, Removal::Removed);
}

/// An excepted reference also prevents the removal of its target, as soon as that is pushed.
pub async fn an_excepted_reference_protects_its_target(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("foreign layer");
    let child = manifest(&name, "sparse child");
    let parent = manifest(&name, "parent").excepting([blob, child.digest]);
    test.put(&parent).await;
    assert_eq!(test.unlink(&name, &blob).await, Removal::Absent);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, Removal::Absent);
    test.commit(&name, &blob).await;
    test.put(&child).await;
    let refused = Removal::Referenced(parent.digest);
    assert_eq!(test.unlink(&name, &blob).await, refused);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, refused);
    assert_eq!(test.delete_manifest(&name, &parent.digest).await, Removal::Removed);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, Removal::Removed);
}

/// A subject can be deleted. One that is also a child of the same manifest cannot.
pub async fn a_subject_that_is_also_a_child_is_protected(test: MetadataTest) {
    let name = repository("a");
    let child = manifest(&name, "child");
    test.put(&child).await;
    let both = manifest(&name, "both").requiring([child.digest]).about(child.digest);
    test.put(&both).await;
    assert_eq!(
        test.delete_manifest(&name, &child.digest).await,
        Removal::Referenced(both.digest)
    );
    assert_eq!(test.delete_manifest(&name, &both.digest).await, Removal::Removed);
    assert_eq!(test.delete_manifest(&name, &child.digest).await, Removal::Removed);
}

/// Deleting a manifest deletes all its tags, also more than one push may have, and records each in the history. Tags
/// that have moved to another manifest stay.
pub async fn deleting_a_manifest_deletes_its_tags(test: MetadataTest) {
    let name = repository("a");
    let tags: Vec<_> = (10..60).map(|number| tag(&format!("v{number}"))).collect();
    let put = manifest(&name, "manifest");
    for some in tags.chunks(20) {
        test.put(&put.clone().tagged(some.to_vec())).await;
    }
    let other = manifest(&name, "other").tagged([tags[7].clone(), tag("other")]);
    test.put(&other).await;
    let elsewhere = manifest(&repository("b"), "manifest").tagged(tags[..3].to_vec());
    test.put(&elsewhere).await;

    test.advance(10);
    let cx = test.cx();
    let removed = test
        .store
        .delete_manifest(cx, &name, &put.digest, &Author::new("the deleter"), &AllowAll::shared())
        .await;
    assert_eq!(removed.expect("delete_manifest"), Removal::Removed);
    assert_eq!(test.manifest(&name, &put.digest).await, None);
    assert_eq!(test.tags(&name, None, 100).await.items, [tag("other"), tags[7].clone()]);
    for (number, tag) in tags.iter().enumerate() {
        let history = test.assert_chain(&name, tag).await;
        assert_eq!(history.len(), 2);
        if number == 7 {
            assert_eq!(history[0].after, Some(other.digest));
            assert_eq!(history[0].principal, WHO);
        } else {
            assert_eq!(test.tag(&name, tag).await, None);
            assert_eq!((history[0].before, history[0].after), (Some(put.digest), None));
            assert_eq!(history[0].principal, "the deleter");
            assert_eq!(history[0].at, test.now());
        }
    }
    assert_eq!(test.tags(&repository("b"), None, 100).await.items, tags[..3]);
}

/// An unlinked blob is gone from its repository at once, and from no other.
pub async fn unlinking_affects_one_repository(test: MetadataTest) {
    let names = ["a", "b", "c"].map(repository);
    let blob = digest("blob");
    for name in &names {
        test.commit(name, &blob).await;
    }
    assert_eq!(test.unlink(&names[0], &blob).await, Removal::Removed);
    assert_eq!(test.link(&names[0], &blob).await, None);
    assert_eq!(test.linking_repositories(&blob).await, names[1..]);
    for name in &names[1..] {
        let link = test.link(name, &blob).await.expect("the link");
        assert_eq!(link.size, 1000);
    }
}
