//! Blobs: which repository may read which bytes, and their location.

use oci::{Algorithm, Digest};
use registry::store::Location;
use registry::store::metadata::{Content, Removal};

use super::{MetadataTest, digest, location, manifest, repository};
use crate::metadata::DescribeManifest as _;

/// A committed blob can be read in its repository: location, size and the uid of the commit.
pub async fn a_committed_blob_is_linked(test: MetadataTest) {
    let name = repository("library/alpine");
    let location = Location {
        store: "second-store".to_owned(),
        key: "0123456789abcdef.ff".to_owned(),
    };
    for (number, size) in (0..).zip([0, 1, u64::from(u32::MAX) + 1, i64::MAX.cast_unsigned()]) {
        let digest = digest(format!("blob {number}"));
        assert_eq!(test.link(&name, &digest).await, None);
        let location = Location {
            key: format!("{}{number}", location.key),
            ..location.clone()
        };
        let cx = test.cx();
        let committed = test.store.commit_blob(cx, &name, &digest, &location, size).await;
        committed.expect("commit_blob");
        let link = test.link(&name, &digest).await.expect("the link");
        assert_eq!(link.location, location);
        assert_eq!(link.size, size);
        assert_eq!(link.uid, cx.uid);
    }
}

/// A blob that is linked in one repository is not readable through another: knowing a digest grants nothing.
pub async fn a_link_belongs_to_one_repository(test: MetadataTest) {
    let digest = digest("blob");
    test.commit(&repository("a/b"), &digest).await;
    for other in ["a", "b", "a/b/c", "a/bc", "a.b"] {
        assert_eq!(test.link(&repository(other), &digest).await, None, "{other}");
    }
}

/// Committing a blob again changes nothing, at the same location or at another.
pub async fn committing_again_changes_nothing(test: MetadataTest) {
    let name = repository("a");
    let digest = digest("blob");
    test.commit_at(&name, &digest, &location(1)).await;
    let link = test.link(&name, &digest).await;
    for number in [1, 2, 1, 2, 3] {
        test.advance(10);
        test.commit_at(&name, &digest, &location(number)).await;
        assert_eq!(test.link(&name, &digest).await, link);
    }
    assert_eq!(test.linking_repositories(&digest).await, [name]);
}

/// A digest has one location: a commit of another object, in another repository, links the object that was there first.
pub async fn a_digest_has_one_location(test: MetadataTest) {
    let digest = digest("blob");
    for number in 1..=4 {
        let name = repository(&format!("repository{number}"));
        test.commit_at(&name, &digest, &location(number)).await;
        let link = test.link(&name, &digest).await.expect("the link");
        assert_eq!(link.location, location(1));
        assert_eq!(link.size, 1000);
    }
}

/// A mount creates a link of its own to the same object, without a copy.
pub async fn a_mount_links_the_same_object(test: MetadataTest) {
    let (from, to) = (repository("from"), repository("to"));
    let digest = digest("blob");
    test.commit_at(&from, &digest, &location(1)).await;
    let cx = test.cx();
    assert!(test.store.mount(cx, &to, &digest, &from).await.expect("mount"));
    let source = test.link(&from, &digest).await.expect("the source");
    let link = test.link(&to, &digest).await.expect("the link");
    assert_eq!(link.location, source.location);
    assert_eq!(link.size, source.size);
    assert_eq!(link.uid, cx.uid);

    assert!(test.mount(&to, &digest, &from).await, "again");
    assert_eq!(test.link(&to, &digest).await, Some(link), "changes nothing");
    assert!(test.mount(&to, &digest, &to).await, "from itself");

    assert_eq!(test.unlink(&from, &digest).await, Removal::Removed);
    assert!(
        test.link(&to, &digest).await.is_some(),
        "the mounted link stays without its source"
    );
    assert!(test.mount(&from, &digest, &to).await, "and can be one");
}

/// A mount needs a link in its source repository at that time. Otherwise it grants nothing.
pub async fn a_mount_needs_a_link_in_its_source(test: MetadataTest) {
    let (from, to, other) = (repository("from"), repository("to"), repository("other"));
    let digest = digest("blob");
    assert!(!test.mount(&to, &digest, &from).await, "of a digest without a record");
    test.commit(&other, &digest).await;
    assert!(!test.mount(&to, &digest, &from).await, "of a digest that another has");
    test.commit(&from, &digest).await;
    assert_eq!(test.unlink(&from, &digest).await, Removal::Removed);
    assert!(!test.mount(&to, &digest, &from).await, "of a link that is gone");
    assert_eq!(test.link(&to, &digest).await, None);
    assert_eq!(test.link(&from, &digest).await, None);
    assert_eq!(test.linking_repositories(&digest).await, [other]);
}

/// The linking repositories of a blob are listed once each, up to the limit.
pub async fn linking_repositories_lists_each_repository_once(test: MetadataTest) {
    let digest = digest("blob");
    assert!(test.linking_repositories(&digest).await.is_empty());
    let names: Vec<_> = (0..5).map(|number| repository(&format!("r{number}"))).collect();
    for name in &names {
        test.commit(name, &digest).await;
        test.commit(name, &digest).await;
    }
    test.commit(&repository("unrelated"), &super::digest("other")).await;
    assert_eq!(test.linking_repositories(&digest).await, names);
    for limit in 1..=6 {
        let some = test
            .store
            .linking_repositories(test.cx(), &digest, limit)
            .await
            .expect("linking_repositories");
        assert_eq!(some.len(), limit.min(5));
        assert!(some.iter().all(|name| names.contains(name)));
    }
    assert_eq!(test.unlink(&names[2], &digest).await, Removal::Removed);
    assert!(!test.linking_repositories(&digest).await.contains(&names[2]));
    test.commit(&names[2], &digest).await;
    assert_eq!(test.linking_repositories(&digest).await, names);
}

/// An unlinked blob can be pushed again. Its new link has another uid, and leads to an object that was sealed.
pub async fn an_unlinked_blob_can_be_pushed_again(test: MetadataTest) {
    let name = repository("a");
    let digest = digest("blob");
    let mut uids = Vec::new();
    for number in 1..=3 {
        test.commit_at(&name, &digest, &location(number)).await;
        let link = test.link(&name, &digest).await.expect("the link");
        let sealed: Vec<_> = (1..=number).map(location).collect();
        assert!(sealed.contains(&link.location));
        assert!(!uids.contains(&link.uid));
        uids.push(link.uid);
        assert_eq!(test.unlink(&name, &digest).await, Removal::Removed);
        assert_eq!(test.link(&name, &digest).await, None);
        assert!(test.linking_repositories(&digest).await.is_empty());
    }
}

/// The sha256 and the sha512 digest of the same bytes are two blobs: a change of one does not affect the other.
pub async fn two_digests_of_the_same_bytes_are_two_blobs(test: MetadataTest) {
    let name = repository("a");
    let short = Digest::of(Algorithm::Sha256, b"bytes");
    let long = Digest::of(Algorithm::Sha512, b"bytes");
    test.commit_at(&name, &short, &location(1)).await;
    assert_eq!(test.link(&name, &long).await, None);
    test.commit_at(&name, &long, &location(2)).await;
    let link = test.link(&name, &long).await.expect("the link");
    assert_eq!(link.location, location(2));

    let parent = manifest(&name, "needs the long one").requiring([long]);
    test.put(&parent).await;
    assert_eq!(test.unlink(&name, &short).await, Removal::Removed);
    assert_eq!(test.unlink(&name, &long).await, Removal::Referenced(parent.digest));
    assert_eq!(test.link(&name, &short).await, None);
    assert_eq!(test.link(&name, &long).await, Some(link));
    assert!(!test.mount(&repository("b"), &short, &name).await);
    assert!(test.mount(&repository("b"), &long, &name).await);
}

/// A manifest cannot be read as a blob, whether its bytes are in the record or in an object, unless the same bytes were
/// also pushed as a blob.
pub async fn a_manifest_is_not_a_blob(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let small = manifest(&name, "small");
    let large = manifest(&name, "large").stored_at(location(1));
    for put in [&small, &large] {
        test.put(put).await;
        assert_eq!(test.link(&name, &put.digest).await, None);
        assert!(!test.mount(&other, &put.digest, &name).await);
        assert!(test.linking_repositories(&put.digest).await.is_empty());
        assert_eq!(test.unlink(&name, &put.digest).await, Removal::Absent);
        assert_eq!(test.link(&other, &put.digest).await, None);
        assert!(test.manifest(&name, &put.digest).await.is_some());
    }
    test.commit_at(&name, &small.digest, &location(2)).await;
    test.commit_at(&name, &large.digest, &location(3)).await;
    let link = test.link(&name, &small.digest).await.expect("the link");
    assert_eq!(link.location, location(2));
    let link = test.link(&name, &large.digest).await.expect("the link");
    assert_eq!(
        link.location,
        location(1),
        "the bytes of the digest lie where they lay first"
    );
    assert_eq!(
        test.linking_repositories(&large.digest).await,
        std::slice::from_ref(&name)
    );

    assert_eq!(test.delete_manifest(&name, &large.digest).await, Removal::Removed);
    assert_eq!(test.manifest(&name, &large.digest).await, None);
    assert_eq!(
        test.link(&name, &large.digest).await,
        Some(link),
        "the blob is another thing"
    );
    assert!(test.mount(&other, &large.digest, &name).await);
    assert_eq!(test.unlink(&name, &small.digest).await, Removal::Removed);
    assert!(
        test.manifest(&name, &small.digest).await.is_some(),
        "and so is the manifest"
    );
}

/// The bytes of a large manifest have one location in all repositories.
pub async fn a_large_manifest_has_one_location(test: MetadataTest) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    let put = manifest(&one, "large").stored_at(location(1));
    test.put(&put).await;
    let record = test.manifest(&one, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(1)));
    assert_eq!(record.size, put.size);

    test.put(&put.clone().stored_at(location(2))).await;
    assert_eq!(test.manifest(&one, &put.digest).await, Some(record), "put again");
    test.put(&manifest(&two, "large").stored_at(location(3))).await;
    let record = test.manifest(&two, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(1)), "in another repository");

    let blob = digest("pushed as a blob first");
    test.commit_at(&one, &blob, &location(4)).await;
    test.put(&manifest(&three, "pushed as a blob first").stored_at(location(5)))
        .await;
    let record = test.manifest(&three, &blob).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(4)));
    assert_eq!(test.link(&three, &blob).await, None);

    assert_eq!(test.delete_manifest(&one, &put.digest).await, Removal::Removed);
    let record = test.manifest(&two, &put.digest).await.expect("the manifest");
    assert_eq!(
        record.content,
        Content::Stored(location(1)),
        "it stays without the first manifest"
    );
}
