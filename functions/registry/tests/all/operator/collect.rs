//! Collection over all stores: what it keeps, and what it reports. [`failures`] has the tests of interrupted runs.

mod failures;

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::FutureExt as _;
use oci::Digest;
use registry::collection::{CollectionOptions, Interrupted, Report, collect};
use registry::store::access::Author;
use registry::store::blobs::DeletedObjects;
use registry::store::collection::{CollectionStore as _, PassStatistics, Plan};
use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, RecordCounts};
use registry::store::metadata::MetadataStore as _;
use registry::store::sessions::{Claimed, Expected, SessionKey, SessionStore};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{Context, SessionId, StoreError, Timestamp, Uid};
use serde_json::json;

use crate::support::content::{bytes_of, image, index, padded};
use crate::support::{Setup, World, sha256};

const HOUR: u64 = 3_600_000;

/// Longer than every grace period of the default plan.
const GRACE: u64 = 26 * HOUR;

/// Slices so small that every walk has several.
fn tiny() -> CollectionOptions {
    CollectionOptions {
        records: 3,
        sessions: 2,
        pending_deletions: 2,
        ..CollectionOptions::default()
    }
}

impl World {
    async fn try_collect(&self, options: &CollectionOptions) -> Result<Report, Interrupted> {
        collect(&self.stores, self.clock.clone(), options, &mut |_| {
            ControlFlow::Continue(())
        })
        .await
    }

    pub(crate) async fn collect(&self) -> Report {
        self.try_collect(&tiny()).await.unwrap()
    }

    fn cx(&self) -> Context {
        use registry::Environment as _;
        let now = self.clock.now();
        Context::internal(now, 1000, Uid(now.0))
    }

    /// An image with a large manifest, an index over it and another image, and a mounted layer.
    async fn push_content(&self) -> Vec<(&'static str, Digest)> {
        let one = self.push_image("a", "one", "one").await;
        self.push_blob("a", "{}").await;
        let large = padded(&image(b"{}", &[]), 40_000);
        self.put_manifest("a", "large", large.clone()).await.expect(201);
        let list = bytes_of(&index(&[&one.manifest, &large]));
        self.put_manifest("a", "list", list.clone()).await.expect(201);
        let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", one.layer);
        self.post(mount).send().await.expect(201);
        self.push_blob("b", "{}").await;
        self.put_manifest("b", "mounted", bytes_of(&image(b"{}", &[b"layer of one"])))
            .await
            .expect(201);
        vec![
            ("a", sha256(&list)),
            ("a", sha256(&large)),
            ("a", one.digest),
            ("b", sha256(&bytes_of(&image(b"{}", &[b"layer of one"])))),
        ]
    }

    async fn delete_manifests(&self, manifests: &[(&'static str, Digest)]) {
        for (repository, digest) in manifests {
            self.delete(format!("/v2/{repository}/manifests/{digest}"))
                .send()
                .await
                .expect(202);
        }
    }

    /// An upload that is abandoned after a chunk.
    async fn abandon(&self, repository: &str) {
        let location = self.open_upload(repository).await;
        self.patch(&location).bytes("abandoned").send().await.expect(202);
    }

    /// Everything that can be pulled is complete.
    async fn assert_whole(&self, manifests: &[(&'static str, Digest)]) {
        for (repository, digest) in manifests {
            let answer = self
                .get(format!("/v2/{repository}/manifests/{digest}"))
                .send()
                .await
                .expect(200);
            assert_eq!(sha256(&answer.body), *digest);
        }
        for (repository, bytes) in [("a", "{}"), ("a", "layer of one"), ("b", "layer of one"), ("b", "{}")] {
            let blob = self.blob(repository, &sha256(bytes.as_bytes())).await;
            assert_eq!(blob.unwrap(), bytes, "of {repository}");
        }
    }

    fn assert_empty(&self) {
        let counts = self.metadata.counts();
        let empty = RecordCounts {
            history: counts.history,
            catalog: counts.catalog,
            ..RecordCounts::default()
        };
        assert_eq!(counts, empty);
        assert_eq!(self.blobs.objects(), 0);
        assert_eq!(self.sessions.sessions(), 0);
    }
}

/// What is in use stays, however many passes run. After everything was deleted and the grace periods have passed,
/// nothing is left.
#[tokio::test]
async fn collection_keeps_what_is_in_use_and_deletes_the_rest() {
    let world = World::new().await;
    let manifests = world.push_content().await;
    world.abandon("a").await;
    world.push_blob("a", "loose").await;
    for _ in 0..5 {
        world.clock.pass(GRACE);
        assert!(world.collect().await.complete);
        world.assert_whole(&manifests).await;
    }
    assert_eq!(world.sessions.sessions(), 0);
    assert_eq!(world.blob("a", &sha256(b"loose")).await, None);

    world.delete_manifests(&manifests).await;
    for _ in 0..4 {
        world.clock.pass(GRACE);
        world.collect().await;
    }
    world.assert_empty();
    assert_eq!(world.metadata.counts().catalog, 0);
}

/// No request searches for what an upload may have left. Collection does, and what is in use stays.
#[tokio::test]
async fn collection_deletes_what_only_a_search_finds() {
    let world = World::with(Setup {
        blobs: MemoryBlobs::littering(),
        ..Setup::default()
    })
    .await;
    let digest = sha256(b"whole");
    let location = world.open_upload("a").await;
    let location = world
        .patch(&location)
        .bytes("whole")
        .send()
        .await
        .expect(202)
        .location();
    let last = format!("{location}?digest={digest}");
    // Repeated, as after a lost response.
    for _ in 0..2 {
        world.put(&last).bytes("").send().await.expect(201);
        assert_eq!((world.blobs.objects(), world.sessions.sessions()), (2, 1));
    }
    world.get(&location).send().await.expect(404);
    world.delete(&location).send().await.expect(404);
    let cancelled = world.open_upload("a").await;
    let cancelled = world
        .patch(&cancelled)
        .bytes("other")
        .send()
        .await
        .expect(202)
        .location();
    world.delete(&cancelled).send().await.expect(204);
    assert_eq!(world.blobs.objects(), 3);
    assert_eq!(world.counts.of(StoreMethod::Tidy), 0);

    world
        .put_manifest("a", "1", bytes_of(&image(b"whole", &[])))
        .await
        .expect(201);
    for _ in 0..3 {
        world.clock.pass(GRACE);
        world.collect().await;
    }
    assert_eq!(world.blob("a", &digest).await.unwrap(), "whole");
    assert_eq!((world.blobs.objects(), world.sessions.sessions()), (1, 0));
    assert_eq!(world.counts.of(StoreMethod::Tidy), 1);
}

/// Every step is reported by the run that takes it, and is taken after its grace period.
#[tokio::test]
async fn a_report_says_what_was_done() {
    let world = World::new().await;
    world.abandon("a").await;
    world.push_blob("a", "loose").await;
    let nothing = Report {
        metadata: PassStatistics {
            seen: 2,
            ..PassStatistics::default()
        },
        complete: true,
        ..Report::default()
    };
    assert_eq!(world.collect().await, nothing);

    world.clock.pass(GRACE);
    let marked = Report {
        metadata: PassStatistics {
            seen: 2,
            marked: 1,
            marked_bytes: 5,
            ..PassStatistics::default()
        },
        sessions_swept: 2,
        objects_scheduled: 1,
        ..nothing
    };
    assert_eq!(world.collect().await, marked);

    world.clock.pass(GRACE);
    let report = world.collect().await;
    let unlinked = Report {
        metadata: PassStatistics {
            seen: 2,
            unlinked: 1,
            scheduled: 1,
            scheduled_bytes: 5,
            ..PassStatistics::default()
        },
        objects_deleted: 1,
        deleted: Some(DeletedObjects { objects: 1, bytes: 9 }),
        ..nothing
    };
    assert_eq!(report, unlinked);
    assert_eq!(
        serde_json::to_value(report).unwrap(),
        json!({
            "dry_run": false, "deep": false, "resumed": false, "busy_until": null,
            "seen": 2, "marked": 0, "marked_bytes": 0, "waiting": 0, "waiting_bytes": 0, "unlinked": 1, "scheduled": 1, "scheduled_bytes": 5, "orphaned_records": 0, "repositories": 0,
            "sessions_swept": 0, "objects_scheduled": 0, "sessions_skipped": 0,
            "objects_deleted": 1, "deleted": { "objects": 1, "bytes": 9 }, "deletions_cancelled": 0,
            "failed": 0, "stopped": false, "complete": true,
        })
    );

    world.clock.pass(GRACE);
    let deleted = Report {
        metadata: PassStatistics::default(),
        objects_deleted: 1,
        deleted: Some(DeletedObjects { objects: 1, bytes: 5 }),
        ..nothing
    };
    assert_eq!(world.collect().await, deleted);
    world.assert_empty();
}

/// The progress grows to the report, slice by slice.
#[tokio::test]
async fn progress_is_reported_after_every_slice() {
    let world = World::new().await;
    for number in 0..10 {
        world.push_blob("a", format!("loose {number}")).await;
    }
    world.clock.pass(GRACE);
    let mut reports = Vec::new();
    let report = collect(&world.stores, world.clock.clone(), &tiny(), &mut |report| {
        reports.push(*report);
        ControlFlow::Continue(())
    })
    .await;
    let report = report.unwrap();
    assert_eq!(report.metadata.marked, 10);
    assert!(reports.len() >= 20 / 3 + 10 / 2);
    assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].metadata.seen <= pair[1].metadata.seen)
    );
    assert_eq!(
        Report {
            complete: true,
            ..*reports.last().unwrap()
        },
        report
    );
}

/// A dry run counts what a run would do now, and writes nothing.
#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let world = World::new().await;
    let manifests = world.push_content().await;
    world.abandon("a").await;
    world.push_blob("a", "loose").await;
    world.delete_manifests(&manifests).await;
    let dry = CollectionOptions {
        plan: Plan {
            dry_run: true,
            deep: true,
            ..Plan::default()
        },
        ..tiny()
    };
    for _ in 0..4 {
        let _ = world.counts.take();
        let planned = world.try_collect(&dry).await.unwrap();
        assert_eq!(
            world.counts.of(StoreMethod::Delete)
                + world.counts.of(StoreMethod::Sweep)
                + world.counts.of(StoreMethod::RemovePendingDeletions),
            0
        );
        assert_eq!(
            world.counts.of(StoreMethod::BeginPass) + world.counts.of(StoreMethod::Checkpoint),
            0
        );
        let done = world.collect().await;
        assert_eq!(planned.metadata.marked, done.metadata.marked);
        assert_eq!(planned.metadata.unlinked, done.metadata.unlinked);
        assert_eq!(planned.sessions_swept, done.sessions_swept);
        assert_eq!(planned.objects_scheduled, done.objects_scheduled);
        assert_eq!(planned.objects_deleted, done.objects_deleted);
        assert!(planned.dry_run && planned.deep && !done.dry_run);
        world.clock.pass(GRACE);
    }
    world.assert_empty();
}

/// An object that is referenced again when its pending deletion is due stays: for instance, after a repeated final PUT.
#[tokio::test]
async fn a_pending_deletion_of_an_object_in_use_is_cancelled() {
    let world = World::new().await;
    let digest = world.push_blob("a", "blob").await;
    let link = world
        .stores
        .metadata
        .link(world.cx(), &"a".parse().unwrap(), &digest)
        .await;
    let location = link.unwrap().unwrap().location;
    world.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
    assert_eq!(world.collect().await.metadata.scheduled, 1);
    let metadata = &world.stores.metadata;
    let name = "a".parse().unwrap();
    metadata
        .commit_blob(world.cx(), &name, &digest, &location, 4)
        .await
        .unwrap();
    metadata.link_and_unmark(world.cx(), &name, &digest).await.unwrap();

    world.clock.pass(GRACE);
    let report = world.collect().await;
    assert_eq!((report.objects_deleted, report.deletions_cancelled), (0, 1));
    assert_eq!(world.blob("a", &digest).await.unwrap(), "blob");
    assert_eq!(world.metadata.counts().deletion_queue, 0);
}

/// Deletes the last reference of an object between the listing of its old pending deletion and the last check.
struct Losing {
    metadata: Arc<MemoryMetadata>,
    collection: MemoryCollection,
    digest: Digest,
    cx: Context,
}

impl Hook for Losing {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::CheckPendingDeletion {
            let name = "a".parse().unwrap();
            let at_once = "stores in memory never wait";
            let unlinked = self
                .metadata
                .unlink(self.cx, &name, &self.digest, &Author::operator())
                .now_or_never();
            unlinked.expect(at_once)?;
            let plan = Plan::default();
            let scheduled = self.collection.collect_metadata(self.cx, &plan, None, 100);
            scheduled.now_or_never().expect(at_once)?;
        }
        Ok(())
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

/// An object that loses its last reference after its old pending deletion was listed stays as long as redirects to it
/// may be valid, and no longer.
#[tokio::test]
async fn an_old_pending_deletion_of_an_object_that_loses_its_reference_now_is_not_due() {
    let mut world = World::new().await;
    let digest = world.push_blob("a", "blob").await;
    let name = "a".parse().unwrap();
    let metadata = world.metadata.clone();
    let link = metadata.link(world.cx(), &name, &digest).await.unwrap().unwrap();
    world.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
    assert_eq!(world.collect().await.metadata.scheduled, 1);
    let again = metadata.commit_blob(world.cx(), &name, &digest, &link.location, 4);
    again.await.unwrap();
    world.clock.pass(GRACE);

    let original = world.stores.collection.clone();
    let losing = Losing {
        metadata: metadata.clone(),
        collection: MemoryCollection::new(metadata.clone(), world.sessions.clone()),
        digest,
        cx: world.cx(),
    };
    world.stores.collection = Arc::new(Wrapped::new(original.clone(), losing));
    let report = world.collect().await;
    assert_eq!((report.objects_deleted, report.deletions_cancelled), (0, 0));
    assert_eq!((world.blobs.objects(), metadata.counts().deletion_queue), (1, 1));
    assert!(metadata.link(world.cx(), &name, &digest).await.unwrap().is_none());

    world.stores.collection = original;
    world.clock.pass(GRACE - 2 * HOUR);
    assert_eq!(world.collect().await.objects_deleted, 0);
    world.clock.pass(2 * HOUR);
    assert_eq!(world.collect().await.objects_deleted, 1);
    world.assert_empty();
}

/// An expired session is skipped while a request writes under it.
#[tokio::test]
async fn a_session_with_a_valid_claim_is_not_swept() {
    let world = World::new().await;
    let key = SessionKey {
        expires: Timestamp(world.cx().now.0 + HOUR),
        id: SessionId(7),
    };
    world.clock.pass(10 * HOUR);
    let until = world.cx().now.plus_millis(60_000);
    let claimed = world
        .sessions
        .claim(world.cx(), key, Expected::New, until, u32::MAX)
        .await;
    let claimed = claimed.unwrap();
    assert!(matches!(claimed, Claimed::Granted(_)));
    let report = world.collect().await;
    assert_eq!((report.sessions_swept, report.sessions_skipped), (0, 1));
    world.clock.pass(60_000);
    let report = world.collect().await;
    assert_eq!((report.sessions_swept, report.objects_scheduled), (1, 1));
}

/// A page of pending deletions costs one call that deletes objects, whatever its size, and one that deletes the pending
/// deletions.
#[tokio::test]
async fn objects_are_deleted_many_at_once() {
    let world = World::new().await;
    for number in 0..50 {
        let digest = world.push_blob("a", format!("blob {number}")).await;
        world.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
    }
    assert_eq!(world.collect().await.metadata.scheduled, 50);
    world.clock.pass(GRACE);
    let _ = world.counts.take();
    let options = CollectionOptions {
        pending_deletions: 20,
        ..CollectionOptions::default()
    };
    let report = world.try_collect(&options).await.unwrap();
    assert_eq!(report.objects_deleted, 50);
    assert_eq!(
        (
            world.counts.of(StoreMethod::Delete),
            world.counts.of(StoreMethod::RemovePendingDeletions)
        ),
        (3, 3)
    );
    assert_eq!(world.blobs.objects(), 0);
}

/// A body whose claim was lost to another body leaves nothing, although it was written last: the upload is done, and no
/// sweep would delete it.
#[tokio::test]
async fn a_late_body_of_a_finished_upload_is_discarded() {
    use crate::support::Script;

    let world = World::new().await;
    let location = world.open_upload("a").await;
    let digest = sha256(b"the other");
    let (other, clock) = (world.clone(), world.clock.clone());
    let target = format!("{location}?digest={digest}");
    let body = Script::new().data("too ").meanwhile(async move {
        clock.pass(120_000);
        other.put(target).bytes("the other").send().await.expect(201);
    });
    let late = world.patch(&location).stream(body.data("late")).send().await;
    assert!(late.status >= 400, "{}", late.status);
    assert_eq!(world.blobs.objects(), 1, "the published one");
    assert_eq!(world.blob("a", &digest).await.unwrap(), "the other");
    let stored = world.stores.blobs.objects(world.cx(), None, 10).await.unwrap();
    assert_eq!(stored.items.len(), 1);
    drop(Arc::clone(&world.registry));
}
