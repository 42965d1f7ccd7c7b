//! Manifests: published with their tags or not at all, only over what is there.

use oci::{Algorithm, Digest};

use super::{MetadataTrial, digest, location, manifest, media_type, repository, tag};
use crate::contract::source::noise;
use crate::store::metadata::{Content, ManifestPut, ManifestRecord, NewContent, PutManifest, Removal};

/// A manifest comes back as it was put: every byte, its type, and what it says of itself.
pub async fn a_manifest_comes_back_as_it_was_put(trial: MetadataTrial) {
    let name = repository("a");
    // No text, and as much as a record may hold; NUL bytes among them.
    let mut put = manifest(&name, noise(1, 32 * 1024)).about(digest("a subject that does not exist"));
    put.media_type = media_type("application/vnd.example.Thing+json");
    put.artifact_type = Some(media_type("application/vnd.example.artifact.v1"));
    assert_eq!(trial.manifest(&name, &put.digest).await, None);
    let cx = trial.cx();
    let answer = trial.store.put_manifest(cx, &put).await.expect("put_manifest");
    assert_eq!(answer, ManifestPut::Stored);
    let record = trial.manifest(&name, &put.digest).await;
    let expected = ManifestRecord {
        media_type: put.media_type.clone(),
        size: put.size,
        content: Content::Inline(noise(1, 32 * 1024)),
        subject: Some(digest("a subject that does not exist")),
        artifact_type: put.artifact_type.clone(),
        incarnation: cx.incarnation,
    };
    assert_eq!(record, Some(expected));

    let mut plain = manifest(&name, "{}");
    plain.digest = Digest::of(Algorithm::Sha512, b"{}");
    trial.put(&plain).await;
    let record = trial.manifest(&name, &plain.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Inline("{}".into()));
    assert_eq!((record.subject, record.artifact_type), (None, None));
    assert_eq!(trial.manifest(&name, &digest("{}")).await, None, "by its other digest");
}

/// A manifest is in the repository where it was put, and in no other.
pub async fn a_manifest_is_of_one_repository(trial: MetadataTrial) {
    let name = repository("a/b");
    let put = manifest(&name, "manifest").tagged([tag("latest")]);
    trial.put(&put).await;
    for other in ["a", "b", "a/b/c", "a/bc"] {
        let other = repository(other);
        assert_eq!(trial.manifest(&other, &put.digest).await, None);
        assert_eq!(trial.tag(&other, &tag("latest")).await, None);
        assert_eq!(trial.delete_manifest(&other, &put.digest).await, Removal::Absent);
        assert!(!trial.delete_tag(&other, &tag("latest")).await);
    }
    assert!(trial.tag(&name, &tag("latest")).await.is_some());
}

/// A manifest whose references are not all there changes nothing, and the answer names all that are missing.
pub async fn missing_references_refuse_the_manifest(trial: MetadataTrial) {
    let (name, other) = (repository("a"), repository("b"));
    let (present, missing, elsewhere) = (digest("present"), digest("missing"), digest("elsewhere"));
    trial.commit(&name, &present).await;
    trial.commit(&other, &elsewhere).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([present, missing, elsewhere])
        .about(subject)
        .tagged([tag("one"), tag("two")]);
    match trial.try_put(&put).await {
        ManifestPut::Missing(mut digests) => {
            digests.sort();
            let mut expected = vec![missing, elsewhere];
            expected.sort();
            assert_eq!(digests, expected);
        }
        other => panic!("references are missing: {other:?}"),
    }
    assert_eq!(trial.manifest(&name, &put.digest).await, None);
    for name_of_tag in ["one", "two"] {
        assert_eq!(trial.tag(&name, &tag(name_of_tag)).await, None);
        assert!(trial.history(&name, &tag(name_of_tag)).await.is_empty());
    }
    assert!(trial.tags(&name, None, 10).await.items.is_empty());
    assert!(trial.manifests(&name, None, 10).await.items.is_empty());
    assert!(trial.referring(&name, &subject).await.is_empty());
    assert!(!trial.is_listed(&name).await);
    assert_eq!(
        trial.unlink(&name, &present).await,
        Removal::Removed,
        "no edge was left"
    );

    for digest in [present, missing, elsewhere] {
        trial.commit(&name, &digest).await;
    }
    trial.put(&put).await;
    assert!(trial.manifest(&name, &put.digest).await.is_some());
    assert_eq!(trial.tags(&name, None, 10).await.items, [tag("one"), tag("two")]);
}

/// A refused large manifest leaves nothing of itself: its digest has no location yet.
pub async fn a_refused_large_manifest_leaves_no_location(trial: MetadataTrial) {
    let name = repository("a");
    let put = manifest(&name, "large").requiring([digest("missing")]);
    let refused = trial.try_put(&put.clone().stored_at(super::location(1))).await;
    assert_eq!(refused, ManifestPut::Missing(vec![digest("missing")]));
    trial.commit(&name, &digest("missing")).await;
    trial.put(&put.clone().stored_at(super::location(2))).await;
    let record = trial.manifest(&name, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(super::location(2)));
}

/// What is required may be a blob or a manifest of the same repository, large ones too.
pub async fn a_reference_is_a_blob_or_a_manifest(trial: MetadataTrial) {
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    let small = manifest(&name, "small");
    let large = manifest(&name, "large").stored_at(super::location(1));
    let index = manifest(&name, "index").requiring([blob, small.digest, large.digest]);
    trial.put(&manifest(&other, "small")).await;
    match trial.try_put(&index).await {
        ManifestPut::Missing(digests) => assert_eq!(digests.len(), 3),
        other => panic!("a manifest of another repository: {other:?}"),
    }
    trial.commit(&name, &blob).await;
    trial.put(&small).await;
    trial.put(&large).await;
    trial.put(&index).await;
    assert!(trial.manifest(&name, &index.digest).await.is_some());
}

/// What is excepted need not be there.
pub async fn an_excepted_reference_need_not_exist(trial: MetadataTrial) {
    let name = repository("a");
    let put = manifest(&name, "manifest").excepting([digest("foreign layer"), digest("sparse child")]);
    trial.put(&put).await;
    assert!(trial.manifest(&name, &put.digest).await.is_some());
}

/// A manifest may refer to more than a transaction of any store holds.
pub async fn a_manifest_may_refer_to_much(trial: MetadataTrial) {
    let name = repository("a");
    let blobs: Vec<_> = (0..150).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        trial.commit(&name, blob).await;
    }
    let excepted = (0..4000).map(|number| digest(format!("foreign {number}")));
    let put = manifest(&name, "manifest").requiring(blobs.clone()).excepting(excepted);
    let refused = manifest(&name, "refused")
        .requiring(blobs.clone())
        .requiring([digest("missing")]);
    assert_eq!(
        trial.try_put(&refused).await,
        ManifestPut::Missing(vec![digest("missing")])
    );
    trial.put(&put).await;
    for blob in [&blobs[0], &blobs[99], &blobs[149]] {
        assert_eq!(trial.unlink(&name, blob).await, Removal::Referenced(put.digest));
    }
    let absent = digest("foreign 3999");
    trial.commit(&name, &absent).await;
    assert_eq!(trial.unlink(&name, &absent).await, Removal::Referenced(put.digest));
    assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);
    for blob in blobs.iter().chain([&absent]) {
        assert_eq!(trial.unlink(&name, blob).await, Removal::Removed);
    }
}

/// A manifest and all tags pushed with it appear together.
pub async fn a_manifest_appears_with_all_its_tags(trial: MetadataTrial) {
    let name = repository("a");
    let tags: Vec<_> = (10..30).map(|number| tag(&format!("v{number}"))).collect();
    let put = manifest(&name, "manifest").tagged(tags.clone());
    trial.put(&put).await;
    assert_eq!(trial.tags(&name, None, 100).await.items, tags);
    for tag in &tags {
        let record = trial.tag(&name, tag).await.expect("the tag");
        assert_eq!(record.digest, put.digest);
        assert_eq!(record.media_type, put.media_type);
        assert_eq!(record.size, put.size);
        assert_eq!(record.at, trial.now());
    }
}

/// Putting a manifest again changes nothing of it, whatever comes with it; tags are added or moved.
pub async fn putting_again_only_moves_tags(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("blob");
    trial.commit(&name, &blob).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .about(subject)
        .tagged([tag("one")]);
    trial.put(&put).await;
    let record = trial.manifest(&name, &put.digest).await;
    let rows = trial.referrers(&name, &subject, None, 10).await;
    let one = trial.tag(&name, &tag("one")).await;
    let other = manifest(&name, "other").tagged([tag("two")]);
    trial.put(&other).await;

    trial.pass(1000);
    let mut again = put.clone();
    again.tags = vec![tag("one"), tag("two"), tag("three")];
    let mut of_other_type = again.clone();
    of_other_type.media_type = media_type("application/vnd.other+json");
    let outcome = trial.try_put(&of_other_type).await;
    assert_eq!(outcome, ManifestPut::OtherType(put.media_type.clone()));
    let two = trial.tag(&name, &tag("two")).await.expect("the tag");
    assert_eq!(two.digest, other.digest, "nothing has changed");
    assert_eq!(trial.tag(&name, &tag("three")).await, None);
    trial.put(&again).await;
    assert_eq!(trial.manifest(&name, &put.digest).await, record);
    assert_eq!(trial.referrers(&name, &subject, None, 10).await, rows);
    let mut manifests = vec![put.digest, other.digest];
    manifests.sort();
    assert_eq!(trial.manifests(&name, None, 10).await.items, manifests);

    let unmoved = trial.tag(&name, &tag("one")).await.expect("the tag");
    let one = one.expect("the tag");
    assert_eq!((unmoved.digest, unmoved.version), (one.digest, one.version));
    assert_eq!(
        trial.history(&name, &tag("one")).await.len(),
        1,
        "nothing has happened to it"
    );
    for moved in ["two", "three"] {
        let record = trial.tag(&name, &tag(moved)).await.expect("the tag");
        assert_eq!(record.digest, put.digest);
        assert_eq!(record.media_type, put.media_type, "the manifest's own type");
    }
    assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);
    assert_eq!(
        trial.unlink(&name, &blob).await,
        Removal::Removed,
        "edges are not doubled"
    );
}

/// A manifest that was deleted can be put again, as a new life of it.
pub async fn a_manifest_can_be_put_again(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("blob");
    trial.commit(&name, &blob).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .about(subject)
        .tagged([tag("latest")]);
    let mut lives = Vec::new();
    for _ in 0..3 {
        trial.put(&put).await;
        let record = trial.manifest(&name, &put.digest).await.expect("the manifest");
        assert!(!lives.contains(&record.incarnation));
        lives.push(record.incarnation);
        assert_eq!(trial.unlink(&name, &blob).await, Removal::Referenced(put.digest));
        assert_eq!(trial.referring(&name, &subject).await, [put.digest]);
        assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);
        assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Absent);
        assert!(trial.referring(&name, &subject).await.is_empty());
    }
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed);
    let refused = trial.try_put(&put).await;
    assert_eq!(refused, ManifestPut::Missing(vec![blob]), "its references count again");
    assert_eq!(trial.history(&name, &tag("latest")).await.len(), 6);
}

/// Whoever asks whether writes are taken learns nothing from a put that finds all as it is to be.
pub async fn a_put_says_whether_it_has_written(trial: MetadataTrial) {
    let name = repository("a");
    let tagged = |tags: &[&str]| manifest(&name, "manifest").tagged(tags.iter().map(|name| tag(name)));
    for (tags, expected) in [
        (&[][..], ManifestPut::Stored),
        (&[], ManifestPut::AsItWas),
        (&["a"], ManifestPut::Stored),
        (&["a"], ManifestPut::AsItWas),
        (&[], ManifestPut::AsItWas),
        (&["a", "b"], ManifestPut::Stored),
        (&["b"], ManifestPut::AsItWas),
    ] {
        assert_eq!(trial.try_put(&tagged(tags)).await, expected, "{tags:?}");
    }
    trial.put(&manifest(&name, "other").tagged([tag("a")])).await;
    assert_eq!(
        trial.try_put(&tagged(&["a"])).await,
        ManifestPut::Stored,
        "it was moved"
    );
    let large = manifest(&name, "large").tagged([tag("l")]);
    trial.put(&large.clone().stored_at(location(1))).await;
    let unchanged = PutManifest {
        content: NewContent::Unchanged,
        ..large
    };
    assert_eq!(trial.try_put(&unchanged).await, ManifestPut::AsItWas);
    let again = unchanged.tagged([tag("m")]);
    assert_eq!(trial.try_put(&again).await, ManifestPut::Stored);
}

/// Putting a manifest again does not look at what it refers to: a policy that has become stricter since does not keep
/// anyone from tagging what is there.
pub async fn a_manifest_that_is_there_is_only_tagged(trial: MetadataTrial) {
    let name = repository("a");
    let absent = digest("absent");
    trial.put(&manifest(&name, "manifest").excepting([absent])).await;
    let again = manifest(&name, "manifest").requiring([absent]).tagged([tag("latest")]);
    assert_eq!(trial.try_put(&again).await, ManifestPut::Stored);
    let record = trial.tag(&name, &tag("latest")).await.expect("the tag");
    assert_eq!(record.digest, again.digest);
}

/// A large manifest that is there can be tagged without its bytes: they stay where they are. When it is gone meanwhile
/// it must be put with its bytes, and nothing has changed.
pub async fn an_unchanged_manifest_is_tagged_or_gone(trial: MetadataTrial) {
    let name = repository("a");
    let blob = digest("blob");
    trial.commit(&name, &blob).await;
    let put = manifest(&name, "large").requiring([blob]).stored_at(super::location(1));
    let mut unchanged = put.clone().tagged([tag("latest")]);
    unchanged.content = NewContent::Unchanged;

    assert_eq!(trial.try_put(&unchanged).await, ManifestPut::Gone, "it was never there");
    assert_eq!(trial.manifest(&name, &put.digest).await, None);
    assert_eq!(trial.tag(&name, &tag("latest")).await, None);
    assert!(!trial.is_listed(&name).await);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed, "no edge was left");

    trial.commit(&name, &blob).await;
    trial.put(&put).await;
    let record = trial.manifest(&name, &put.digest).await;
    trial.put(&unchanged).await;
    assert_eq!(trial.manifest(&name, &put.digest).await, record);
    let latest = trial.tag(&name, &tag("latest")).await.expect("the tag");
    assert_eq!(latest.digest, put.digest);
    assert_eq!(trial.delete_manifest(&name, &put.digest).await, Removal::Removed);

    unchanged.tags.push(tag("another"));
    assert_eq!(trial.try_put(&unchanged).await, ManifestPut::Gone, "it was deleted");
    assert!(trial.tags(&name, None, 10).await.items.is_empty());
    assert_eq!(trial.history(&name, &tag("latest")).await.len(), 2);
    assert_eq!(trial.unlink(&name, &blob).await, Removal::Removed, "no edge was left");
    trial.commit(&name, &blob).await;
    trial.put(&put.clone().stored_at(super::location(2))).await;
    trial.put(&unchanged).await;
    assert_eq!(trial.tags(&name, None, 10).await.items, [tag("another"), tag("latest")]);
}
