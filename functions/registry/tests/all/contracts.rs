//! The reference stores pass their own contract tests, and record what the contracts require although nothing reads it
//! yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use contract::TestStores;
use contract::counting::{
    CountingAccess, CountingBlobs, CountingCollection, CountingMetadata, CountingRecords, CountingSessions, Counts,
};
use contract::faulty::{Fault, FaultKind, FaultPoint, Faults, FaultyMetadata, FaultySessions};
use contract::source::Body;
use oci::{Algorithm, Descriptor, Digest, MediaType, RepositoryName};
use registry::Stores;
use registry::store::access::Author;
use registry::store::blobs::{BlobStore, Discarded, ObjectToDelete, Reached, RedirectRequest, Upload};
use registry::store::memory::{MemoryBlobs, MemoryMetadata, MemorySessions, RecordCounts};
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest, Referrer, Removal};
use registry::store::sessions::{Claimed, Expected, SessionKey, SessionStore};
use registry::store::wrapped::StoreMethod;
use registry::store::{Attempt, Context, Location, SessionId, StoreError, Timestamp, Uid};

contract::contract_tests!(async { TestStores::in_memory() });

/// The wrappers pass every call on unchanged.
mod wrapped {
    use super::*;

    fn wrapped() -> TestStores {
        let TestStores { stores, guard } = TestStores::in_memory();
        let counts = Counts::new();
        let stores = Stores {
            blobs: Arc::new(CountingBlobs::new(stores.blobs, counts.clone())),
            metadata: Arc::new(CountingMetadata::new(stores.metadata, counts.clone())),
            sessions: Arc::new(CountingSessions::new(stores.sessions, counts.clone())),
            collection: Arc::new(CountingCollection::new(stores.collection, counts.clone())),
            records: Arc::new(CountingRecords::new(stores.records, counts.clone())),
            access: Arc::new(CountingAccess::new(stores.access, counts)),
        };
        TestStores { stores, guard }
    }

    contract::contract_tests!(async { wrapped() });
}

/// A clause that is missing in the lists of the macros would never run.
#[test]
fn every_clause_is_run() {
    let macros = include_str!("../../../contract/src/macros/clauses.rs");
    let sources = [
        include_str!("../../../contract/src/access/audit.rs"),
        include_str!("../../../contract/src/access/changes.rs"),
        include_str!("../../../contract/src/access/lists.rs"),
        include_str!("../../../contract/src/access/sizes.rs"),
        include_str!("../../../contract/src/access/tokens.rs"),
        include_str!("../../../contract/src/audit.rs"),
        include_str!("../../../contract/src/blobs/mod.rs"),
        include_str!("../../../contract/src/blobs/races.rs"),
        include_str!("../../../contract/src/blobs/walks.rs"),
        include_str!("../../../contract/src/sessions/mod.rs"),
        include_str!("../../../contract/src/sessions/endings.rs"),
        include_str!("../../../contract/src/metadata/defects.rs"),
        include_str!("../../../contract/src/metadata/links.rs"),
        include_str!("../../../contract/src/metadata/lists.rs"),
        include_str!("../../../contract/src/metadata/manifests.rs"),
        include_str!("../../../contract/src/metadata/races.rs"),
        include_str!("../../../contract/src/metadata/removals.rs"),
        include_str!("../../../contract/src/metadata/tags.rs"),
        include_str!("../../../contract/src/collection/blobs.rs"),
        include_str!("../../../contract/src/collection/catalog.rs"),
        include_str!("../../../contract/src/collection/links.rs"),
        include_str!("../../../contract/src/collection/passes.rs"),
        include_str!("../../../contract/src/collection/pending_deletions.rs"),
        include_str!("../../../contract/src/collection/races.rs"),
        include_str!("../../../contract/src/collection/session_table.rs"),
        include_str!("../../../contract/src/collection/sweeps.rs"),
        include_str!("../../../contract/src/records/moves.rs"),
        include_str!("../../../contract/src/records/walks.rs"),
    ];
    let mut clauses = BTreeSet::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        if let Some((name, _)) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split_once('(')) {
            assert!(clauses.insert(name), "two clauses are named {name}");
        }
    }
    assert!(clauses.len() > 150, "{}", clauses.len());
    for clause in clauses {
        assert!(macros.contains(&format!(" {clause},\n")), "no test runs {clause}");
    }
}

fn cx(uid: u64) -> Context {
    Context::internal(Timestamp(1_000_000), 1_000, Uid(uid))
}

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn location(key: &str) -> Location {
    Location::main(key)
}

fn manifest(text: &str) -> PutManifest {
    PutManifest {
        repository: name("a"),
        digest: digest(text),
        media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
        size: text.len() as u64,
        content: NewContent::Inline(Bytes::copy_from_slice(text.as_bytes())),
        artifact_type: None,
        subject: None,
        required: BTreeSet::new(),
        excepted: BTreeSet::new(),
        tags: Vec::new(),
        author: Author::new("alice"),
    }
}

/// Every record exists while it is needed. After a deletion, only the records that must stay are left.
#[tokio::test]
async fn memory_keeps_every_required_record() {
    let store = MemoryMetadata::new();
    let (a, b) = (name("a"), name("b"));
    let blob = digest("blob");
    store.commit_blob(cx(1), &a, &blob, &location("1"), 4).await.unwrap();
    store.commit_blob(cx(2), &b, &blob, &location("2"), 4).await.unwrap();
    store.commit_blob(cx(3), &b, &blob, &location("2"), 4).await.unwrap();
    assert!(store.mount(cx(4), &name("c"), &blob, &a).await.unwrap());
    let mut put = manifest("manifest");
    put.required.insert(blob);
    put.excepted.insert(digest("foreign"));
    put.content = NewContent::Sealed(location("3"));
    put.tags = vec!["one".parse().unwrap(), "two".parse().unwrap()];
    let row = Referrer {
        descriptor: Descriptor::new(put.media_type.clone(), put.digest, put.size),
        annotations_omitted: false,
    };
    put.subject = Some((digest("subject"), row));
    assert_eq!(
        store.put_manifest(cx(5), &put, &AllowAll::shared()).await.unwrap(),
        ManifestPut::Stored
    );
    put.content = NewContent::Sealed(location("4"));
    let elsewhere = ManifestPut::StoredElsewhere(location("3"));
    assert_eq!(
        store.put_manifest(cx(6), &put, &AllowAll::shared()).await.unwrap(),
        elsewhere
    );
    let full = RecordCounts {
        links: 3,
        manifests: 1,
        edges: 2,
        referrers: 1,
        tags: 2,
        tagged: 2,
        history: 2,
        catalog: 1,
        blobs: 2,
        back_links: 4,
        deletion_queue: 2,
    };
    assert_eq!(store.counts(), full);
    assert_eq!(store.deletion_queue(), [location("2"), location("4")]);

    assert_eq!(
        store
            .delete_manifest(cx(7), &a, &put.digest, &Author::new("x"), &AllowAll::shared())
            .await
            .unwrap(),
        Removal::Removed
    );
    for repository in ["a", "b", "c"] {
        let removal = store
            .unlink(cx(8), &name(repository), &blob, &Author::new("x"))
            .await
            .unwrap();
        assert_eq!(removal, Removal::Removed);
    }
    let empty = RecordCounts {
        history: 4,
        catalog: 1,
        blobs: 2,
        deletion_queue: 2,
        ..RecordCounts::default()
    };
    assert_eq!(store.counts(), empty);
}

/// 32 commits of one digest schedule 31 objects for deletion, and never the linked one.
#[tokio::test]
async fn memory_schedules_objects_that_lost_a_race_for_deletion() {
    let store = MemoryMetadata::new();
    for number in 0..32 {
        let location = location(&number.to_string());
        store
            .commit_blob(cx(number), &name("a"), &digest("blob"), &location, 1)
            .await
            .unwrap();
    }
    let link = store.link(cx(99), &name("a"), &digest("blob")).await.unwrap().unwrap();
    assert_eq!(store.counts().deletion_queue, 31);
    assert!(!store.deletion_queue().contains(&link.location));
}

/// The objects of uploads can be counted: a seal makes no further object of one body, and one more of several.
#[tokio::test]
async fn memory_counts_its_objects() {
    let store = MemoryBlobs::new();
    let session = SessionId(1);
    let mut upload = Upload {
        session,
        state: Vec::new(),
        parts: Vec::new(),
        size: 0,
    };
    for number in 1..=2 {
        let mut body = Body::of(&Bytes::from_static(b"body"), 2);
        let appended = store
            .append(cx(0), Attempt { session, number }, &upload.state, &mut body)
            .await
            .unwrap();
        upload.state = appended.state;
        upload.parts.extend(appended.part);
        upload.size += 4;
        store.seal(cx(1), &upload).await.unwrap();
    }
    assert_eq!((store.objects(), store.sealed()), (3, 2));
    let kept = store.seal(cx(1), &upload).await.unwrap();
    let discarded = store.discard(cx(2), session, 2, &upload.state, Some(&kept)).await;
    assert_eq!(discarded.unwrap(), Discarded::All);
    assert_eq!((store.objects(), store.sealed()), (1, 1));
}

#[tokio::test]
async fn memory_redirects_when_configured() {
    let request = || RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::ByAll,
    };
    let now = Timestamp(0);
    let store = MemoryBlobs::new();
    assert!(
        store
            .redirect(now, &location("1.1"), request())
            .await
            .unwrap()
            .is_none()
    );
    let store = MemoryBlobs::redirecting("https://objects.example/bucket");
    let redirect = store.redirect(now, &location("1.1"), request()).await.unwrap().unwrap();
    assert_eq!(
        redirect.url,
        "https://objects.example/bucket/1.1?response-content-type=application%2Foctet-stream"
    );
}

/// An object of another store is neither absent nor deleted: the call fails.
#[tokio::test]
async fn memory_refuses_locations_of_other_stores() {
    let store = MemoryBlobs::new();
    let elsewhere = Location {
        store: "s3".to_owned(),
        key: "1.1".to_owned(),
    };
    assert!(matches!(
        store.read(cx(2), &elsewhere, 0..1).await,
        Err(StoreError::Failed(_))
    ));
    assert!(matches!(
        store.stat(cx(3), &elsewhere).await,
        Err(StoreError::Failed(_))
    ));
    let to_delete = ObjectToDelete {
        location: elsewhere,
        unfinished: false,
    };
    let deleted = store.delete(cx(1), &[to_delete]).await;
    assert!(matches!(deleted, Err(StoreError::Failed(_))));
}

#[tokio::test]
async fn counts_distinguish_reads_from_writes() {
    let Stores {
        blobs,
        metadata,
        sessions,
        ..
    } = TestStores::in_memory().stores;
    let counts = Counts::new();
    let blobs = CountingBlobs::new(blobs, counts.clone());
    let metadata = CountingMetadata::new(metadata, counts.clone());
    let sessions = CountingSessions::new(sessions, counts.clone());
    let key = SessionKey {
        expires: Timestamp(5),
        id: SessionId(1),
    };
    metadata.link(cx(1), &name("a"), &digest("blob")).await.unwrap();
    metadata.link(cx(2), &name("a"), &digest("blob")).await.unwrap();
    sessions.get(cx(3), key).await.unwrap();
    let claimed = sessions.claim(cx(4), key, Expected::New, Timestamp(9), u32::MAX).await;
    claimed.unwrap();
    let request = RedirectRequest {
        content_type: "a/b",
        reached_by: Reached::ByAll,
    };
    blobs.redirect(Timestamp(0), &location("1.1"), request).await.unwrap();
    assert_eq!((counts.of(StoreMethod::Link), counts.of(StoreMethod::Unlink)), (2, 0));
    assert_eq!((counts.reads(), counts.writes()), (3, 1));
    let all = [
        (StoreMethod::Claim, 1),
        (StoreMethod::Get, 1),
        (StoreMethod::Link, 2),
        (StoreMethod::Redirect, 1),
    ];
    assert_eq!(counts.take(), all.into());
    assert_eq!((counts.reads(), counts.writes()), (0, 0));
}

#[tokio::test]
async fn faults_strike_when_they_are_planned() {
    let memory = Arc::new(MemoryMetadata::new());
    let faults = Faults::none();
    let store = FaultyMetadata::new(memory.clone(), faults.clone());
    let commit = async |text: &str| {
        let location = location(text);
        store.commit_blob(cx(1), &name("a"), &digest(text), &location, 1).await
    };
    commit("one").await.unwrap();
    faults.plan(Fault {
        method: Some(StoreMethod::CommitBlob),
        nth: 2,
        kind: FaultKind::Unavailable,
        point: FaultPoint::Before,
    });
    store.link(cx(1), &name("a"), &digest("one")).await.unwrap();
    commit("two").await.unwrap();
    assert!(matches!(commit("three").await, Err(StoreError::Unavailable(_))));
    commit("four").await.unwrap();
    assert_eq!(memory.counts().links, 3, "nothing was done");
    assert_eq!(faults.struck(), 1);
    assert_eq!(
        faults.calls(),
        [
            StoreMethod::Link,
            StoreMethod::CommitBlob,
            StoreMethod::CommitBlob,
            StoreMethod::CommitBlob
        ]
    );

    faults.plan(Fault {
        method: None,
        nth: 1,
        kind: FaultKind::Failed,
        point: FaultPoint::After,
    });
    assert!(matches!(commit("five").await, Err(StoreError::Failed(_))));
    assert_eq!(memory.counts().links, 4, "the work was done, and the response was lost");
    faults.clear();
    commit("six").await.unwrap();

    let sessions = FaultySessions::new(Arc::new(MemorySessions::new()), faults.clone());
    let key = SessionKey {
        expires: Timestamp(5),
        id: SessionId(1),
    };
    let claimed = sessions.claim(cx(1), key, Expected::New, Timestamp(9), u32::MAX).await;
    let claimed = claimed.unwrap();
    assert!(matches!(claimed, Claimed::Granted(_)));
    assert_eq!(faults.calls(), [StoreMethod::CommitBlob, StoreMethod::Claim]);
}
