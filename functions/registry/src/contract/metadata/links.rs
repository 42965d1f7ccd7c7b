//! Blobs: which repository may read which bytes, and where they lie.

use oci::{Algorithm, Digest};

use super::{MetadataTrial, digest, location, manifest, repository};
use crate::store::Location;
use crate::store::metadata::{Content, Removal};

/// A committed blob can be read in its repository: location, size and the incarnation of the commit.
pub async fn a_committed_blob_is_linked(trial: MetadataTrial) {
    let name = repository("library/alpine");
    let place = Location {
        store: "second-store".to_owned(),
        key: "0123456789abcdef.ff".to_owned(),
    };
    for (number, size) in (0..).zip([0, 1, u64::from(u32::MAX) + 1, i64::MAX.cast_unsigned()]) {
        let digest = digest(format!("blob {number}"));
        assert_eq!(trial.link(&name, &digest).await, None);
        let place = Location {
            key: format!("{}{number}", place.key),
            ..place.clone()
        };
        let cx = trial.cx();
        let committed = trial.store.commit_blob(cx, &name, &digest, &place, size).await;
        committed.expect("commit_blob");
        let link = trial.link(&name, &digest).await.expect("the link");
        assert_eq!(link.location, place);
        assert_eq!(link.size, size);
        assert_eq!(link.incarnation, cx.incarnation);
    }
}

/// Knowing a digest grants nothing: what one repository links, no other one does.
pub async fn a_link_is_of_one_repository(trial: MetadataTrial) {
    let digest = digest("blob");
    trial.commit(&repository("a/b"), &digest).await;
    for other in ["a", "b", "a/b/c", "a/bc", "a.b"] {
        assert_eq!(trial.link(&repository(other), &digest).await, None, "{other}");
    }
}

/// Committing again changes nothing, at the same location or at another.
pub async fn committing_again_changes_nothing(trial: MetadataTrial) {
    let name = repository("a");
    let digest = digest("blob");
    trial.commit_at(&name, &digest, &location(1)).await;
    let link = trial.link(&name, &digest).await;
    for number in [1, 2, 1, 2, 3] {
        trial.pass(10);
        trial.commit_at(&name, &digest, &location(number)).await;
        assert_eq!(trial.link(&name, &digest).await, link);
    }
    assert_eq!(trial.holders(&digest).await, [name]);
}

/// A digest has one location: a commit elsewhere, in another repository, links the bytes that were there first.
pub async fn a_digest_has_one_location(trial: MetadataTrial) {
    let digest = digest("blob");
    for number in 1..=4 {
        let name = repository(&format!("repository{number}"));
        trial.commit_at(&name, &digest, &location(number)).await;
        let link = trial.link(&name, &digest).await.expect("the link");
        assert_eq!(link.location, location(1));
        assert_eq!(link.size, 1000);
    }
}

/// A mount links the same bytes without a copy, as a link of its own.
pub async fn a_mount_links_the_same_bytes(trial: MetadataTrial) {
    let (from, to) = (repository("from"), repository("to"));
    let digest = digest("blob");
    trial.commit_at(&from, &digest, &location(1)).await;
    let cx = trial.cx();
    assert!(trial.store.mount(cx, &to, &digest, &from).await.expect("mount"));
    let source = trial.link(&from, &digest).await.expect("the source");
    let link = trial.link(&to, &digest).await.expect("the link");
    assert_eq!(link.location, source.location);
    assert_eq!(link.size, source.size);
    assert_eq!(link.incarnation, cx.incarnation);

    assert!(trial.mount(&to, &digest, &from).await, "again");
    assert_eq!(trial.link(&to, &digest).await, Some(link), "changes nothing");
    assert!(trial.mount(&to, &digest, &to).await, "from itself");

    assert_eq!(trial.unlink(&from, &digest).await, Removal::Removed);
    assert!(trial.link(&to, &digest).await.is_some(), "outlives its source");
    assert!(trial.mount(&from, &digest, &to).await, "and can be one");
}

/// A mount needs a link in its source, now; it grants nothing otherwise.
pub async fn a_mount_needs_its_source(trial: MetadataTrial) {
    let (from, to, other) = (repository("from"), repository("to"), repository("other"));
    let digest = digest("blob");
    assert!(!trial.mount(&to, &digest, &from).await, "of a digest that nobody has");
    trial.commit(&other, &digest).await;
    assert!(!trial.mount(&to, &digest, &from).await, "of a digest that another has");
    trial.commit(&from, &digest).await;
    assert_eq!(trial.unlink(&from, &digest).await, Removal::Removed);
    assert!(!trial.mount(&to, &digest, &from).await, "of a link that is gone");
    assert_eq!(trial.link(&to, &digest).await, None);
    assert_eq!(trial.link(&from, &digest).await, None);
    assert_eq!(trial.holders(&digest).await, [other]);
}

/// Holders are the repositories that link the blob, each once, no more than were asked for.
pub async fn holders_are_those_that_link(trial: MetadataTrial) {
    let digest = digest("blob");
    assert!(trial.holders(&digest).await.is_empty());
    let names: Vec<_> = (0..5).map(|number| repository(&format!("r{number}"))).collect();
    for name in &names {
        trial.commit(name, &digest).await;
        trial.commit(name, &digest).await;
    }
    trial.commit(&repository("unrelated"), &super::digest("other")).await;
    assert_eq!(trial.holders(&digest).await, names);
    for limit in 1..=6 {
        let some = trial.store.holders(trial.cx(), &digest, limit).await.expect("holders");
        assert_eq!(some.len(), limit.min(5));
        assert!(some.iter().all(|name| names.contains(name)));
    }
    assert_eq!(trial.unlink(&names[2], &digest).await, Removal::Removed);
    assert!(!trial.holders(&digest).await.contains(&names[2]));
    trial.commit(&names[2], &digest).await;
    assert_eq!(trial.holders(&digest).await, names);
}

/// An unlinked blob can be pushed again; its new link is a new life, and its bytes are some that were sealed.
pub async fn a_blob_can_be_linked_again(trial: MetadataTrial) {
    let name = repository("a");
    let digest = digest("blob");
    let mut lives = Vec::new();
    for number in 1..=3 {
        trial.commit_at(&name, &digest, &location(number)).await;
        let link = trial.link(&name, &digest).await.expect("the link");
        let sealed: Vec<_> = (1..=number).map(location).collect();
        assert!(sealed.contains(&link.location));
        assert!(!lives.contains(&link.incarnation));
        lives.push(link.incarnation);
        assert_eq!(trial.unlink(&name, &digest).await, Removal::Removed);
        assert_eq!(trial.link(&name, &digest).await, None);
        assert!(trial.holders(&digest).await.is_empty());
    }
}

/// Two names of the same bytes, by sha256 and by sha512, are two blobs: what happens to one does not happen to the
/// other.
pub async fn two_digests_of_the_same_bytes_are_two_blobs(trial: MetadataTrial) {
    let name = repository("a");
    let short = Digest::of(Algorithm::Sha256, b"bytes");
    let long = Digest::of(Algorithm::Sha512, b"bytes");
    trial.commit_at(&name, &short, &location(1)).await;
    assert_eq!(trial.link(&name, &long).await, None);
    trial.commit_at(&name, &long, &location(2)).await;
    let link = trial.link(&name, &long).await.expect("the link");
    assert_eq!(link.location, location(2));

    let parent = manifest(&name, "needs the long one").requiring([long]);
    trial.put(&parent).await;
    assert_eq!(trial.unlink(&name, &short).await, Removal::Removed);
    assert_eq!(trial.unlink(&name, &long).await, Removal::Referenced(parent.digest));
    assert_eq!(trial.link(&name, &short).await, None);
    assert_eq!(trial.link(&name, &long).await, Some(link));
    assert!(!trial.mount(&repository("b"), &short, &name).await);
    assert!(trial.mount(&repository("b"), &long, &name).await);
}

/// A manifest is not a blob, whether its bytes are in the record or in an object; the same bytes pushed as a blob are.
pub async fn a_manifest_is_not_a_blob(trial: MetadataTrial) {
    let (name, other) = (repository("a"), repository("b"));
    let small = manifest(&name, "small");
    let large = manifest(&name, "large").stored_at(location(1));
    for put in [&small, &large] {
        trial.put(put).await;
        assert_eq!(trial.link(&name, &put.digest).await, None);
        assert!(!trial.mount(&other, &put.digest, &name).await);
        assert!(trial.holders(&put.digest).await.is_empty());
        assert_eq!(trial.unlink(&name, &put.digest).await, Removal::Absent);
        assert_eq!(trial.link(&other, &put.digest).await, None);
        assert!(trial.manifest(&name, &put.digest).await.is_some());
    }
    trial.commit_at(&name, &small.digest, &location(2)).await;
    trial.commit_at(&name, &large.digest, &location(3)).await;
    let link = trial.link(&name, &small.digest).await.expect("the link");
    assert_eq!(link.location, location(2));
    let link = trial.link(&name, &large.digest).await.expect("the link");
    assert_eq!(
        link.location,
        location(1),
        "the bytes of the digest lie where they lay first"
    );
    assert_eq!(trial.holders(&large.digest).await, std::slice::from_ref(&name));

    assert_eq!(trial.delete_manifest(&name, &large.digest).await, Removal::Removed);
    assert_eq!(trial.manifest(&name, &large.digest).await, None);
    assert_eq!(
        trial.link(&name, &large.digest).await,
        Some(link),
        "the blob is another thing"
    );
    assert!(trial.mount(&other, &large.digest, &name).await);
    assert_eq!(trial.unlink(&name, &small.digest).await, Removal::Removed);
    assert!(
        trial.manifest(&name, &small.digest).await.is_some(),
        "and so is the manifest"
    );
}

/// A large manifest's bytes lie in one place too, wherever they were stored first.
pub async fn a_large_manifest_has_one_location(trial: MetadataTrial) {
    let (one, two, three) = (repository("one"), repository("two"), repository("three"));
    let put = manifest(&one, "large").stored_at(location(1));
    trial.put(&put).await;
    let record = trial.manifest(&one, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(1)));
    assert_eq!(record.size, put.size);

    trial.put(&put.clone().stored_at(location(2))).await;
    assert_eq!(trial.manifest(&one, &put.digest).await, Some(record), "put again");
    trial.put(&manifest(&two, "large").stored_at(location(3))).await;
    let record = trial.manifest(&two, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(1)), "in another repository");

    let blob = digest("pushed as a blob first");
    trial.commit_at(&one, &blob, &location(4)).await;
    trial
        .put(&manifest(&three, "pushed as a blob first").stored_at(location(5)))
        .await;
    let record = trial.manifest(&three, &blob).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(4)));
    assert_eq!(trial.link(&three, &blob).await, None);

    assert_eq!(trial.delete_manifest(&one, &put.digest).await, Removal::Removed);
    let record = trial.manifest(&two, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(location(1)), "outlives the first one");
}
