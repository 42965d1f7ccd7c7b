//! Manifests: published together with their tags, and only if their references exist.

use oci::{Algorithm, Digest};
use registry::store::metadata::{AllowAll, Content, ManifestPut, ManifestRecord, NewContent, PutManifest, Removal};

use super::{MetadataTest, digest, location, manifest, media_type, repository, tag};
use crate::metadata::DescribeManifest as _;
use crate::source::noise;

/// A manifest is read as it was put: its bytes, its media type, its subject and its artifact type.
pub async fn a_manifest_is_read_as_it_was_put(test: MetadataTest) {
    let name = repository("a");
    // Bytes that are no text, as many as a record may back_reference, with NUL bytes.
    let mut put = manifest(&name, noise(1, 32 * 1024)).about(digest("a subject that does not exist"));
    put.media_type = media_type("application/vnd.example.Thing+json");
    put.artifact_type = Some(media_type("application/vnd.example.artifact.v1"));
    assert_eq!(test.manifest(&name, &put.digest).await, None);
    let cx = test.cx();
    let answer = test
        .store
        .put_manifest(cx, &put, &AllowAll::shared())
        .await
        .expect("put_manifest");
    assert_eq!(answer, ManifestPut::Stored);
    let record = test.manifest(&name, &put.digest).await;
    let expected = ManifestRecord {
        media_type: put.media_type.clone(),
        size: put.size,
        content: Content::Inline(noise(1, 32 * 1024)),
        subject: Some(digest("a subject that does not exist")),
        artifact_type: put.artifact_type.clone(),
        uid: cx.uid,
    };
    assert_eq!(record, Some(expected));

    let mut plain = manifest(&name, "{}");
    plain.digest = Digest::of(Algorithm::Sha512, b"{}");
    test.put(&plain).await;
    let record = test.manifest(&name, &plain.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Inline("{}".into()));
    assert_eq!((record.subject, record.artifact_type), (None, None));
    assert_eq!(test.manifest(&name, &digest("{}")).await, None, "by its other digest");
}

/// A manifest exists in the repository where it was put, and in no other.
pub async fn a_manifest_belongs_to_one_repository(test: MetadataTest) {
    let name = repository("a/b");
    let put = manifest(&name, "manifest").tagged([tag("latest")]);
    test.put(&put).await;
    for other in ["a", "b", "a/b/c", "a/bc"] {
        let other = repository(other);
        assert_eq!(test.manifest(&other, &put.digest).await, None);
        assert_eq!(test.tag(&other, &tag("latest")).await, None);
        assert_eq!(test.delete_manifest(&other, &put.digest).await, Removal::Absent);
        assert!(!test.delete_tag(&other, &tag("latest")).await);
    }
    assert!(test.tag(&name, &tag("latest")).await.is_some());
}

/// A put of a manifest with missing references changes nothing, and the answer lists every missing reference.
pub async fn a_manifest_with_missing_references_is_refused(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let (present, missing, elsewhere) = (digest("present"), digest("missing"), digest("elsewhere"));
    test.commit(&name, &present).await;
    test.commit(&other, &elsewhere).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([present, missing, elsewhere])
        .about(subject)
        .tagged([tag("one"), tag("two")]);
    match test.try_put(&put).await {
        ManifestPut::Missing(mut digests) => {
            digests.sort();
            let mut expected = vec![missing, elsewhere];
            expected.sort();
            assert_eq!(digests, expected);
        }
        other => panic!("references are missing: {other:?}"),
    }
    assert_eq!(test.manifest(&name, &put.digest).await, None);
    for name_of_tag in ["one", "two"] {
        assert_eq!(test.tag(&name, &tag(name_of_tag)).await, None);
        assert!(test.history(&name, &tag(name_of_tag)).await.is_empty());
    }
    assert!(test.tags(&name, None, 10).await.items.is_empty());
    assert!(test.manifests(&name, None, 10).await.items.is_empty());
    assert!(test.referring(&name, &subject).await.is_empty());
    assert!(!test.is_listed(&name).await);
    assert_eq!(test.unlink(&name, &present).await, Removal::Removed, "no edge was left");

    for digest in [present, missing, elsewhere] {
        test.commit(&name, &digest).await;
    }
    test.put(&put).await;
    assert!(test.manifest(&name, &put.digest).await.is_some());
    assert_eq!(test.tags(&name, None, 10).await.items, [tag("one"), tag("two")]);
}

/// A refused large manifest leaves no blob location for its digest.
pub async fn a_refused_large_manifest_leaves_no_location(test: MetadataTest) {
    let name = repository("a");
    let put = manifest(&name, "large").requiring([digest("missing")]);
    let refused = test.try_put(&put.clone().stored_at(super::location(1))).await;
    assert_eq!(refused, ManifestPut::Missing(vec![digest("missing")]));
    test.commit(&name, &digest("missing")).await;
    test.put(&put.clone().stored_at(super::location(2))).await;
    let record = test.manifest(&name, &put.digest).await.expect("the manifest");
    assert_eq!(record.content, Content::Stored(super::location(2)));
}

/// A required reference may be a blob or a manifest of the same repository, also a large one.
pub async fn a_reference_is_a_blob_or_a_manifest(test: MetadataTest) {
    let (name, other) = (repository("a"), repository("b"));
    let blob = digest("blob");
    let small = manifest(&name, "small");
    let large = manifest(&name, "large").stored_at(super::location(1));
    let index = manifest(&name, "index").requiring([blob, small.digest, large.digest]);
    test.put(&manifest(&other, "small")).await;
    match test.try_put(&index).await {
        ManifestPut::Missing(digests) => assert_eq!(digests.len(), 3),
        other => panic!("a manifest of another repository: {other:?}"),
    }
    test.commit(&name, &blob).await;
    test.put(&small).await;
    test.put(&large).await;
    test.put(&index).await;
    assert!(test.manifest(&name, &index.digest).await.is_some());
}

/// An excepted reference need not exist.
pub async fn an_excepted_reference_need_not_exist(test: MetadataTest) {
    let name = repository("a");
    let put = manifest(&name, "manifest").excepting([digest("foreign layer"), digest("sparse child")]);
    test.put(&put).await;
    assert!(test.manifest(&name, &put.digest).await.is_some());
}

/// A manifest may have more references than a transaction of any store holds.
pub async fn a_manifest_may_have_more_references_than_a_transaction_holds(test: MetadataTest) {
    let name = repository("a");
    let blobs: Vec<_> = (0..150).map(|number| digest(format!("blob {number}"))).collect();
    for blob in &blobs {
        test.commit(&name, blob).await;
    }
    let excepted = (0..4000).map(|number| digest(format!("foreign {number}")));
    let put = manifest(&name, "manifest").requiring(blobs.clone()).excepting(excepted);
    let refused = manifest(&name, "refused")
        .requiring(blobs.clone())
        .requiring([digest("missing")]);
    assert_eq!(
        test.try_put(&refused).await,
        ManifestPut::Missing(vec![digest("missing")])
    );
    test.put(&put).await;
    for blob in [&blobs[0], &blobs[99], &blobs[149]] {
        assert_eq!(test.unlink(&name, blob).await, Removal::Referenced(put.digest));
    }
    let absent = digest("foreign 3999");
    test.commit(&name, &absent).await;
    assert_eq!(test.unlink(&name, &absent).await, Removal::Referenced(put.digest));
    assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
    for blob in blobs.iter().chain([&absent]) {
        assert_eq!(test.unlink(&name, blob).await, Removal::Removed);
    }
}

/// A manifest and all tags that are pushed with it appear together.
pub async fn a_manifest_appears_with_all_its_tags(test: MetadataTest) {
    let name = repository("a");
    let tags: Vec<_> = (10..30).map(|number| tag(&format!("v{number}"))).collect();
    let put = manifest(&name, "manifest").tagged(tags.clone());
    test.put(&put).await;
    assert_eq!(test.tags(&name, None, 100).await.items, tags);
    for tag in &tags {
        let record = test.tag(&name, tag).await.expect("the tag");
        assert_eq!(record.digest, put.digest);
        assert_eq!(record.media_type, put.media_type);
        assert_eq!(record.size, put.size);
        assert_eq!(record.at, test.now());
    }
}

/// Putting a manifest again changes nothing of the manifest. It only adds or moves tags.
pub async fn putting_a_manifest_again_changes_only_tags(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit(&name, &blob).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .about(subject)
        .tagged([tag("one")]);
    test.put(&put).await;
    let record = test.manifest(&name, &put.digest).await;
    let rows = test.referrers(&name, &subject, None, 10).await;
    let one = test.tag(&name, &tag("one")).await;
    let other = manifest(&name, "other").tagged([tag("two")]);
    test.put(&other).await;

    test.advance(1000);
    let mut again = put.clone();
    again.tags = vec![tag("one"), tag("two"), tag("three")];
    let mut of_other_type = again.clone();
    of_other_type.media_type = media_type("application/vnd.other+json");
    let outcome = test.try_put(&of_other_type).await;
    assert_eq!(outcome, ManifestPut::OtherType(put.media_type.clone()));
    let two = test.tag(&name, &tag("two")).await.expect("the tag");
    assert_eq!(two.digest, other.digest, "nothing has changed");
    assert_eq!(test.tag(&name, &tag("three")).await, None);
    test.put(&again).await;
    assert_eq!(test.manifest(&name, &put.digest).await, record);
    assert_eq!(test.referrers(&name, &subject, None, 10).await, rows);
    let mut manifests = vec![put.digest, other.digest];
    manifests.sort();
    assert_eq!(test.manifests(&name, None, 10).await.items, manifests);

    let unmoved = test.tag(&name, &tag("one")).await.expect("the tag");
    let one = one.expect("the tag");
    assert_eq!((unmoved.digest, unmoved.version), (one.digest, one.version));
    assert_eq!(
        test.history(&name, &tag("one")).await.len(),
        1,
        "nothing has happened to it"
    );
    for moved in ["two", "three"] {
        let record = test.tag(&name, &tag(moved)).await.expect("the tag");
        assert_eq!(record.digest, put.digest);
        assert_eq!(record.media_type, put.media_type, "the manifest's own type");
    }
    assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
    assert_eq!(
        test.unlink(&name, &blob).await,
        Removal::Removed,
        "edges are not doubled"
    );
}

/// A deleted manifest can be put again, and gets another uid.
pub async fn a_deleted_manifest_can_be_put_again(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit(&name, &blob).await;
    let subject = digest("subject");
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .about(subject)
        .tagged([tag("latest")]);
    let mut uids = Vec::new();
    for _ in 0..3 {
        test.put(&put).await;
        let record = test.manifest(&name, &put.digest).await.expect("the manifest");
        assert!(!uids.contains(&record.uid));
        uids.push(record.uid);
        assert_eq!(test.unlink(&name, &blob).await, Removal::Referenced(put.digest));
        assert_eq!(test.referring(&name, &subject).await, [put.digest]);
        assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);
        assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Absent);
        assert!(test.referring(&name, &subject).await.is_empty());
    }
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed);
    let refused = test.try_put(&put).await;
    assert_eq!(refused, ManifestPut::Missing(vec![blob]), "its references count again");
    assert_eq!(test.history(&name, &tag("latest")).await.len(), 6);
}

/// A put that finds everything as it should be writes nothing, and its answer says so.
pub async fn a_put_answers_whether_it_has_written(test: MetadataTest) {
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
        assert_eq!(test.try_put(&tagged(tags)).await, expected, "{tags:?}");
    }
    test.put(&manifest(&name, "other").tagged([tag("a")])).await;
    assert_eq!(test.try_put(&tagged(&["a"])).await, ManifestPut::Stored, "it was moved");
    let large = manifest(&name, "large").tagged([tag("l")]);
    test.put(&large.clone().stored_at(location(1))).await;
    let unchanged = PutManifest {
        content: NewContent::Unchanged,
        ..large
    };
    assert_eq!(test.try_put(&unchanged).await, ManifestPut::AsItWas);
    let again = unchanged.tagged([tag("m")]);
    assert_eq!(test.try_put(&again).await, ManifestPut::Stored);
}

/// Putting a manifest again does not check its references: a policy that has become stricter does not prevent tagging
/// an existing manifest.
pub async fn putting_a_manifest_again_does_not_check_its_references(test: MetadataTest) {
    let name = repository("a");
    let absent = digest("absent");
    test.put(&manifest(&name, "manifest").excepting([absent])).await;
    let again = manifest(&name, "manifest").requiring([absent]).tagged([tag("latest")]);
    assert_eq!(test.try_put(&again).await, ManifestPut::Stored);
    let record = test.tag(&name, &tag("latest")).await.expect("the tag");
    assert_eq!(record.digest, again.digest);
}

/// A large manifest that exists can be tagged without its bytes. If it was deleted meanwhile, the put changes nothing,
/// and the client must put it with its bytes.
pub async fn an_existing_large_manifest_is_tagged_without_its_bytes(test: MetadataTest) {
    let name = repository("a");
    let blob = digest("blob");
    test.commit(&name, &blob).await;
    let put = manifest(&name, "large").requiring([blob]).stored_at(super::location(1));
    let mut unchanged = put.clone().tagged([tag("latest")]);
    unchanged.content = NewContent::Unchanged;

    assert_eq!(test.try_put(&unchanged).await, ManifestPut::Gone, "it was never there");
    assert_eq!(test.manifest(&name, &put.digest).await, None);
    assert_eq!(test.tag(&name, &tag("latest")).await, None);
    assert!(!test.is_listed(&name).await);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed, "no edge was left");

    test.commit(&name, &blob).await;
    test.put(&put).await;
    let record = test.manifest(&name, &put.digest).await;
    test.put(&unchanged).await;
    assert_eq!(test.manifest(&name, &put.digest).await, record);
    let latest = test.tag(&name, &tag("latest")).await.expect("the tag");
    assert_eq!(latest.digest, put.digest);
    assert_eq!(test.delete_manifest(&name, &put.digest).await, Removal::Removed);

    unchanged.tags.push(tag("another"));
    assert_eq!(test.try_put(&unchanged).await, ManifestPut::Gone, "it was deleted");
    assert!(test.tags(&name, None, 10).await.items.is_empty());
    assert_eq!(test.history(&name, &tag("latest")).await.len(), 2);
    assert_eq!(test.unlink(&name, &blob).await, Removal::Removed, "no edge was left");
    test.commit(&name, &blob).await;
    test.put(&put.clone().stored_at(super::location(2))).await;
    test.put(&unchanged).await;
    assert_eq!(test.tags(&name, None, 10).await.items, [tag("another"), tag("latest")]);
}
