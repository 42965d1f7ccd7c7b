//! What every store must do for the audit trail: a change of content and its event are one.

use std::sync::Arc;

use oci::{Digest, RepositoryName, Tag};
use registry::store::access::{AuditEvent, AuditKind, AuditQuery, Author};
use registry::store::metadata::{
    AllowAll, Deletion, ManifestPut, Protected, Protection, PutManifest, Removal, TagGuard, TagRecord,
};
use registry::store::{Timestamp, Uid};

use super::collection::{CollectionTest, GRACE, PLAN};
use super::metadata::{DescribeManifest as _, author, digest, location, manifest, media_type, repository, tag};

/// How many callers race.
const RACERS: usize = 8;

/// Refuses every change of a tag.
#[derive(Debug)]
struct RefuseAll;

fn refused(tag: &Tag, digest: Digest) -> Result<(), Protected> {
    Err(Protected {
        tag: tag.clone(),
        why: Protection::CreateOnly { digest },
    })
}

impl TagGuard for RefuseAll {
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        _last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        refused(tag, *digest).map(|()| now)
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, _now: Timestamp) -> Result<(), Protected> {
        refused(tag, row.digest)
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, _now: Timestamp) -> Result<(), Protected> {
        refused(tag, row.digest)
    }

    fn allows_deletions(&self) -> bool {
        false
    }
}

impl CollectionTest {
    /// The events since `from`, in the order of time.
    async fn events_since(&self, from: Timestamp) -> Vec<AuditEvent> {
        let query = AuditQuery {
            from: Some(from),
            ..AuditQuery::default()
        };
        let access = self.of(self.store.access.clone());
        access.events_in_slices(&query, 100).await
    }

    /// Asserts that the changes since the last call of this have these events. The next ones are later.
    async fn assert_events(&self, expected: &[AuditEvent]) {
        let mut events = self.events_since(self.now()).await;
        for event in &mut events {
            // Any number.
            event.id = Uid(0);
        }
        assert_eq!(events, expected);
        self.advance(1);
    }

    /// An event now of [`author`].
    fn event(&self, kind: AuditKind, repository: &RepositoryName) -> AuditEvent {
        let Author {
            principal,
            credential,
            address,
            request,
            occasion: _,
        } = author();
        AuditEvent {
            credential,
            address,
            request,
            repository: Some(repository.clone()),
            ..AuditEvent::new(kind, principal, self.now(), Uid(0))
        }
    }

    /// The event of a push that sets tags, as its detail lists them.
    fn push(&self, put: &PutManifest, detail: Option<String>) -> AuditEvent {
        AuditEvent {
            reference: Some(put.digest.to_string()),
            after: Some(put.digest.to_string()),
            detail,
            ..self.event(AuditKind::ManifestPushed, &put.repository)
        }
    }

    /// The event of a deletion of something that was `before`.
    fn deletion(&self, kind: AuditKind, repository: &RepositoryName, reference: &str, before: &Digest) -> AuditEvent {
        AuditEvent {
            reference: Some(reference.to_owned()),
            before: Some(before.to_string()),
            ..self.event(kind, repository)
        }
    }
}

/// A push that makes a manifest or sets tags has one event, which lists the tags that it sets with what they named before.
pub async fn a_push_has_one_event(test: CollectionTest) {
    let (name, metadata) = (repository("a/b"), test.metadata());
    let one = manifest(&name, "one").tagged([tag("v1"), tag("v2")]);
    metadata.put(&one).await;
    let detail = r#"[{"tag":"v1"},{"tag":"v2"}]"#;
    test.assert_events(&[test.push(&one, Some(detail.to_owned()))]).await;

    let other = manifest(&name, "other").tagged([tag("v1"), tag("v3")]);
    metadata.put(&other).await;
    let detail = format!(r#"[{{"tag":"v1","before":"{}"}},{{"tag":"v3"}}]"#, one.digest);
    test.assert_events(&[test.push(&other, Some(detail))]).await;

    let untagged = manifest(&name, "untagged");
    metadata.put(&untagged).await;
    test.assert_events(&[test.push(&untagged, None)]).await;

    // Only one of its tags is not set yet.
    let again = manifest(&name, "one").tagged([tag("v1"), tag("v2")]);
    metadata.put(&again).await;
    let detail = format!(r#"[{{"tag":"v1","before":"{}"}}]"#, other.digest);
    test.assert_events(&[test.push(&again, Some(detail))]).await;

    // A tag that was deleted named nothing before.
    assert!(metadata.delete_tag(&name, &tag("v1")).await);
    test.advance(1);
    metadata.put(&again).await;
    let detail = r#"[{"tag":"v1"}]"#;
    test.assert_events(&[test.push(&again, Some(detail.to_owned()))]).await;
}

/// A push of as many tags as are allowed has one event, which lists them all.
pub async fn a_push_of_twenty_tags_has_one_event(test: CollectionTest) {
    let (name, metadata) = (repository("a"), test.metadata());
    let tags: Vec<Tag> = (0..20).map(|number| tag(&format!("v{number:02}"))).collect();
    let one = manifest(&name, "one").tagged(tags.clone());
    metadata.put(&one).await;
    test.advance(1);
    let subject = digest("a subject");
    let other = manifest(&name, "other").tagged(tags.clone()).about(subject);
    metadata.put(&other).await;
    let rows = tags
        .iter()
        .map(|tag| format!(r#"{{"tag":"{tag}","before":"{}"}}"#, one.digest));
    let detail = format!("[{}]", rows.collect::<Vec<_>>().join(","));
    test.assert_events(&[test.push(&other, Some(detail))]).await;
}

/// A deletion has one event, whatever it deletes, and so has the creation of a repository.
pub async fn deletions_and_creations_have_one_event_each(test: CollectionTest) {
    let (name, metadata) = (repository("a"), test.metadata());
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    test.assert_events(&[]).await;
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .tagged([tag("v1"), tag("v2"), tag("v3")]);
    metadata.put(&put).await;
    test.advance(1);

    assert!(metadata.delete_tag(&name, &tag("v1")).await);
    let event = test.deletion(AuditKind::TagDeleted, &name, "v1", &put.digest);
    test.assert_events(&[event]).await;

    assert_eq!(metadata.delete_manifest(&name, &put.digest).await, Removal::Removed);
    let mut event = test.deletion(AuditKind::ManifestDeleted, &name, &put.digest.to_string(), &put.digest);
    event.detail = Some(r#"[{"tag":"v2"},{"tag":"v3"}]"#.to_owned());
    test.assert_events(&[event]).await;

    let untagged = manifest(&name, "untagged").requiring([blob]);
    metadata.put(&untagged).await;
    test.advance(1);
    assert_eq!(
        metadata.delete_manifest(&name, &untagged.digest).await,
        Removal::Removed
    );
    let reference = untagged.digest.to_string();
    let event = test.deletion(AuditKind::ManifestDeleted, &name, &reference, &untagged.digest);
    test.assert_events(&[event]).await;

    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Removed);
    let event = test.deletion(AuditKind::BlobDeleted, &name, &blob.to_string(), &blob);
    test.assert_events(&[event]).await;

    // The push has listed it.
    assert!(!metadata.create_repository(&name).await);
    let mut event = test.event(AuditKind::RepositoryCreated, &name);
    event.detail = Some("was listed before".to_owned());
    test.assert_events(&[event]).await;

    let new = repository("new");
    assert!(metadata.create_repository(&new).await);
    test.assert_events(&[test.event(AuditKind::RepositoryCreated, &new)])
        .await;
}

/// The tags that the detail of a deletion lists.
fn deleted_tags(event: &AuditEvent) -> Vec<String> {
    let detail = event.detail.as_deref().unwrap_or_default();
    let list = detail
        .strip_prefix(r#"[{"tag":""#)
        .and_then(|list| list.strip_suffix(r#""}]"#));
    let list = list.unwrap_or_else(|| panic!("{event:?}"));
    list.split(r#""},{"tag":""#).map(ToOwned::to_owned).collect()
}

/// A manifest whose tags are deleted in several transactions has an event for each, which lists the tags that it deletes. The
/// last one says that the manifest is deleted.
pub async fn a_manifest_with_many_tags_is_deleted_with_events_for_all(test: CollectionTest) {
    let (name, metadata) = (repository("a"), test.metadata());
    let put = manifest(&name, "manifest");
    let mut tags: Vec<Tag> = (0..520).map(|number| tag(&format!("v{number:03}"))).collect();
    for some in tags.chunks(20) {
        metadata.put(&put.clone().tagged(some.to_vec())).await;
    }
    test.advance(1);
    assert_eq!(metadata.delete_manifest(&name, &put.digest).await, Removal::Removed);
    let events = test.events_since(test.now()).await;
    let mut deleted = Vec::new();
    for event in &events {
        let expected = AuditEvent {
            id: event.id,
            detail: event.detail.clone(),
            ..test.deletion(event.event, &name, &put.digest.to_string(), &put.digest)
        };
        assert_eq!(*event, expected);
        deleted.extend(deleted_tags(event));
    }
    let manifests = events.iter().filter(|event| event.event == AuditKind::ManifestDeleted);
    assert_eq!(manifests.count(), 1);
    let others = events.iter().filter(|event| event.event == AuditKind::TagDeleted);
    assert!(others.count() > 1, "{events:?}");
    deleted.sort_unstable();
    tags.sort_unstable();
    assert!(deleted.iter().eq(tags.iter().map(Tag::as_str)), "{deleted:?}");
}

/// A request that is refused, or that changes nothing, has no event.
pub async fn a_refused_or_unchanged_request_has_no_event(test: CollectionTest) {
    let (name, metadata) = (repository("a"), test.metadata());
    let refuse_all: Arc<dyn TagGuard> = Arc::new(RefuseAll);
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    let put = manifest(&name, "manifest")
        .requiring([blob])
        .tagged([tag("v1"), tag("v2")]);
    metadata.put(&put).await;
    let index = manifest(&name, "index").requiring([put.digest]);
    metadata.put(&index).await;
    metadata.create_repository(&name).await;
    test.advance(1);

    // As it was, with any number of tags.
    for tags in [&["v1", "v2"] as &[&str], &["v1"], &[]] {
        let mut again = put.clone();
        again.tags = tags.iter().map(|name| tag(name)).collect();
        metadata.put(&again).await;
    }
    assert!(!metadata.create_repository(&name).await);
    test.assert_events(&[]).await;

    let missing = manifest(&name, "missing")
        .requiring([digest("absent")])
        .tagged([tag("v3")]);
    assert!(matches!(metadata.try_put(&missing).await, ManifestPut::Missing(_)));
    let mut other_type = put.clone();
    other_type.media_type = media_type("application/vnd.example+json");
    assert!(matches!(metadata.try_put(&other_type).await, ManifestPut::OtherType(_)));
    for moved in [
        manifest(&name, "moved").tagged([tag("v1")]),
        manifest(&name, "created").tagged([tag("new")]),
        put.clone().tagged([tag("new")]),
        manifest(&name, "large").tagged([tag("v1")]).stored_at(location(1)),
    ] {
        let outcome = metadata.store.put_manifest(test.cx(), &moved, &refuse_all).await;
        assert!(matches!(outcome, Ok(ManifestPut::Protected(_))), "{outcome:?}");
    }
    test.assert_events(&[]).await;

    assert!(!metadata.delete_tag(&name, &tag("absent")).await);
    let removal = metadata
        .store
        .delete_tag(test.cx(), &name, &tag("v1"), &author(), &refuse_all)
        .await;
    assert!(matches!(removal, Ok(Removal::Protected(_))), "{removal:?}");
    assert_eq!(
        metadata.delete_manifest(&name, &digest("absent")).await,
        Removal::Absent
    );
    assert_eq!(
        metadata.delete_manifest(&name, &put.digest).await,
        Removal::Referenced(index.digest)
    );
    assert_eq!(metadata.delete_manifest(&name, &index.digest).await, Removal::Removed);
    test.advance(1);
    let removal = metadata
        .store
        .delete_manifest(test.cx(), &name, &put.digest, &author(), &refuse_all)
        .await;
    assert!(matches!(removal, Ok(Removal::Protected(_))), "{removal:?}");
    assert_eq!(metadata.unlink(&name, &digest("absent")).await, Removal::Absent);
    assert_eq!(metadata.unlink(&name, &blob).await, Removal::Referenced(put.digest));
    test.assert_events(&[]).await;
}

/// Each change of a tag has its event, however many callers change it at once: the history and the trail agree.
pub async fn racing_changes_have_one_event_each(test: CollectionTest) {
    let (name, latest) = (repository("a"), tag("latest"));
    let from = test.now();
    let removed = test
        .together(RACERS, |number| {
            let (metadata, name, latest) = (test.metadata(), name.clone(), latest.clone());
            async move {
                if number % 3 == 2 {
                    return metadata.delete_tag(&name, &latest).await;
                }
                // Two callers put the same manifest.
                let put = manifest(&name, format!("manifest {}", number / 2)).tagged([latest]);
                metadata.put(&put).await;
                false
            }
        })
        .await;
    let events = test.events_since(from).await;
    let detail = |before: Option<Digest>| match before {
        Some(before) => format!(r#"[{{"tag":"latest","before":"{before}"}}]"#),
        None => r#"[{"tag":"latest"}]"#.to_owned(),
    };
    let history = test.metadata().assert_chain(&name, &latest).await;
    let mut expected: Vec<_> = history
        .iter()
        .map(|change| match change.after {
            Some(after) => (
                AuditKind::ManifestPushed,
                after.to_string(),
                Some(detail(change.before)),
            ),
            None => (AuditKind::TagDeleted, latest.to_string(), None),
        })
        .collect();
    let mut found: Vec<_> = events
        .into_iter()
        .map(|event| (event.event, event.reference.unwrap_or_default(), event.detail))
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let deletions = found.iter().filter(|(kind, ..)| *kind == AuditKind::TagDeleted);
    assert_eq!(deletions.count(), removed.iter().filter(|removed| **removed).count());
}

/// One of racing deletions, and one of racing creations, has the event.
pub async fn one_of_racing_requests_has_the_event(test: CollectionTest) {
    let name = repository("a");
    let put = manifest(&name, "manifest").tagged([tag("v1")]);
    let blob = digest("blob");
    test.metadata().put(&put).await;
    test.metadata().commit(&name, &blob).await;
    test.advance(1);
    let from = test.now();
    test.together(RACERS, |number| {
        let (metadata, name, digest) = (test.metadata(), name.clone(), put.digest);
        async move {
            match number % 3 {
                0 => {
                    metadata.delete_manifest(&name, &digest).await;
                }
                1 => {
                    metadata.unlink(&name, &blob).await;
                }
                _ => {
                    metadata.create_repository(&repository("new")).await;
                }
            }
        }
    })
    .await;
    let mut kinds: Vec<_> = test.events_since(from).await.iter().map(|event| event.event).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            AuditKind::ManifestDeleted,
            AuditKind::BlobDeleted,
            AuditKind::RepositoryCreated
        ]
    );
}

/// What a collection removes has no event: nobody has asked for it.
pub async fn a_collection_has_no_events(test: CollectionTest) {
    let (name, metadata) = (repository("a"), test.metadata());
    let blob = digest("blob");
    metadata.commit(&name, &blob).await;
    let from = test.now();
    for _ in 0..3 {
        test.advance(GRACE);
        test.run(&PLAN).await;
    }
    assert_eq!(metadata.link(&name, &blob).await, None, "it is collected");
    assert_eq!(test.events_since(from).await, []);
}

/// A put that the store answers with another location has its event too.
pub async fn a_large_manifest_has_one_event(test: CollectionTest) {
    let (names, metadata) = (["a", "b"].map(repository), test.metadata());
    for (number, name) in names.iter().enumerate() {
        let large = manifest(name, "large").tagged([tag("v1")]).stored_at(location(number));
        let outcome = metadata
            .store
            .put_manifest(test.cx(), &large, &AllowAll::shared())
            .await;
        assert_eq!(
            outcome.is_ok_and(|outcome| matches!(outcome, ManifestPut::StoredElsewhere(_))),
            number == 1
        );
        let detail = r#"[{"tag":"v1"}]"#;
        test.assert_events(&[test.push(&large, Some(detail.to_owned()))]).await;
        // The same manifest again, in an object of its own, changes nothing that a client sees.
        metadata.put(&large.stored_at(location(10 + number))).await;
        test.assert_events(&[]).await;
    }
}
