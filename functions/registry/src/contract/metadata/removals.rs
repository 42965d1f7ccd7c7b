//! Removals: refused while something refers to their victim, and complete when they are not.

use super::{MetadataTrial, WHO, digest, manifest, repository, tag};
use crate::store::metadata::Removal;

/// A blob to which a manifest of the repository refers cannot be unlinked, and the answer names that manifest; with
/// the last such manifest the refusal ends.
pub async fn a_blob_in_use_is_not_unlinked(trial: MetadataTrial) {
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    trial.commit(&name, &blob).await;
    trial.commit(&other, &blob).await;
    let one = manifest(&name, "one").requiring([blob]);
    let two = manifest(&name, "two").requiring([blob]);
    trial.put(&one).await;
    trial.put(&two).await;
    let link = trial.link(&name, &blob).await;
    match trial.unlink(&name, &blob).await {
        Removal::Referenced(parent) => assert!([one.digest, two.digest].contains(&parent)),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(trial.link(&name, &blob).await, link, "a refusal changes nothing");
    assert_eq!(
        trial.unlink(&other, &blob).await,
        Removal::Removed,
        "nothing refers to it there"
    );

    assert_eq!(trial.delete_manifest(&name, &one.digest).await, Removal::Removed);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Referenced(two.digest));
    assert_eq!(trial.delete_manifest(&name, &two.digest).await, Removal::Removed);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(trial.link(&name, &blob).await, None);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Absent);
}

/// What was never there is absent, not refused and not a failure.
pub async fn what_is_not_there_is_absent(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("blob");
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Absent);
    assert_eq!(trial.delete_manifest(&name, &blob).await, Removal::Absent);
    assert!(!trial.delete_tag(&name, &tag("latest")).await);
    trial.commit(&name, &blob).await;
    assert_eq!(
        trial.delete_manifest(&name, &blob).await,
        Removal::Absent,
        "a blob is no manifest"
    );
}

/// A manifest in an index is not deleted, and the answer names the index, however deep they are nested.
pub async fn a_child_of_an_index_is_not_deleted(trial: MetadataTrial) {
    let name = repository("a");
    let child = manifest(&name, "child").tagged([tag("child")]);
    let index = manifest(&name, "index").requiring([child.digest]);
    let outer = manifest(&name, "outer").requiring([index.digest]);
    for put in [&child, &index, &outer] {
        trial.put(put).await;
    }
    let record = trial.manifest(&name, &child.digest).await;
    assert_eq!(
        trial.delete_manifest(&name, &child.digest).await,
        Removal::Referenced(index.digest)
    );
    assert_eq!(
        trial.delete_manifest(&name, &index.digest).await,
        Removal::Referenced(outer.digest)
    );
    assert_eq!(trial.manifest(&name, &child.digest).await, record);
    assert!(
        trial.tag(&name, &tag("child")).await.is_some(),
        "a refusal deletes no tag"
    );
    assert_eq!(trial.history(&name, &tag("child")).await.len(), 1);
    for put in [&outer, &index, &child] {
        assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);
    }
}

/// A digest that is a blob and a manifest is held in both forms by what refers to it.
pub async fn a_reference_holds_both_forms_of_a_digest(trial: MetadataTrial) {
    let name = repository("a");
    let child = manifest(&name, "child");
    trial.put(&child).await;
    trial.commit(&name, &child.digest).await;
    let index = manifest(&name, "index").requiring([child.digest]);
    trial.put(&index).await;
    let refused = Removal::Referenced(index.digest);
    assert_eq!(trial.unlink(&name, &child.digest).await, refused);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, refused);
    assert_eq!(trial.delete_manifest(&name, &index.digest).await, Removal::Removed);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, Removal::Removed);
    assert!(trial.link(&name, &child.digest).await.is_some());
    assert_eq!(trial.unlink(&name, &child.digest).await, Removal::Removed);
}

/// A reference that need not exist holds what it names all the same, from when that is pushed.
pub async fn an_excepted_reference_holds_what_it_names(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("foreign layer");
    let child = manifest(&name, "sparse child");
    let parent = manifest(&name, "parent").excepting([blob, child.digest]);
    trial.put(&parent).await;
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Absent);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, Removal::Absent);
    trial.commit(&name, &blob).await;
    trial.put(&child).await;
    let refused = Removal::Referenced(parent.digest);
    assert_eq!(trial.unlink(&name, &blob).await, refused);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, refused);
    assert_eq!(trial.delete_manifest(&name, &parent.digest).await, Removal::Removed);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, Removal::Removed);
}

/// A manifest that is a subject and something more is held for the more.
pub async fn a_subject_that_is_also_a_child_is_held(trial: MetadataTrial) {
    let name = repository("a");
    let child = manifest(&name, "child");
    trial.put(&child).await;
    let both = manifest(&name, "both").requiring([child.digest]).about(child.digest);
    trial.put(&both).await;
    assert_eq!(
        trial.delete_manifest(&name, &child.digest).await,
        Removal::Referenced(both.digest)
    );
    assert_eq!(trial.delete_manifest(&name, &both.digest).await, Removal::Removed);
    assert_eq!(trial.delete_manifest(&name, &child.digest).await, Removal::Removed);
}

/// With a manifest go all its tags, more of them than one push may bring, each with its history; tags that moved away
/// stay.
pub async fn a_deleted_manifest_takes_its_tags_along(trial: MetadataTrial) {
    let name = repository("a");
    let tags: Vec<_> = (10..60).map(|number| tag(&format!("v{number}"))).collect();
    let put = manifest(&name, "manifest");
    for some in tags.chunks(20) {
        trial.put(&put.clone().tagged(some.to_vec())).await;
    }
    let other = manifest(&name, "other").tagged([tags[7].clone(), tag("other")]);
    trial.put(&other).await;
    let elsewhere = manifest(&repository("b"), "manifest").tagged(tags[..3].to_vec());
    trial.put(&elsewhere).await;

    trial.pass(10);
    let cx = trial.cx();
    let removed = trial.store.delete_manifest(cx, &name, &put.digest, "the deleter").await;
    assert_eq!(removed.expect("delete_manifest"), Removal::Removed);
    assert_eq!(trial.manifest(&name, &put.digest).await, None);
    assert_eq!(
        trial.tags(&name, None, 100).await.items,
        [tag("other"), tags[7].clone()]
    );
    for (number, tag) in tags.iter().enumerate() {
        let history = trial.assert_chain(&name, tag).await;
        assert_eq!(history.len(), 2);
        if number == 7 {
            assert_eq!(history[0].after, Some(other.digest));
            assert_eq!(history[0].who, WHO);
        } else {
            assert_eq!(trial.tag(&name, tag).await, None);
            assert_eq!((history[0].before, history[0].after), (Some(put.digest), None));
            assert_eq!(history[0].who, "the deleter");
            assert_eq!(history[0].at, trial.now());
        }
    }
    assert_eq!(trial.tags(&repository("b"), None, 100).await.items, tags[..3]);
}

/// An unlinked blob is gone from its repository at once, and from no other.
pub async fn unlinking_is_of_one_repository(trial: MetadataTrial) {
    let names = ["a", "b", "c"].map(repository);
    let blob = digest("blob");
    for name in &names {
        trial.commit(name, &blob).await;
    }
    assert_eq!(trial.unlink(&names[0], &blob).await, Removal::Removed);
    assert_eq!(trial.link(&names[0], &blob).await, None);
    assert_eq!(trial.holders(&blob).await, names[1..]);
    for name in &names[1..] {
        let link = trial.link(name, &blob).await.expect("the link");
        assert_eq!(link.size, 1000);
    }
}
