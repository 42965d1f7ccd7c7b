//! Collections that are interrupted, stopped, or have failures: what they do nevertheless, and what the next run does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contract::faulty::{Fault, FaultKind, FaultPoint};
use registry::collection::{CollectionOptions, Report, collect};
use registry::store::collection::{CollectionStore, PassStart, PassStatistics, Plan, UNTIL_IMPORTED};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{StoreError, Uid};

use super::{GRACE, HOUR, tiny};
use crate::support::World;

/// Fails the chosen calls of one method, counted from 1.
struct Failing {
    method: StoreMethod,
    calls: Arc<AtomicUsize>,
    fails: fn(usize) -> Option<StoreError>,
}

impl Failing {
    fn new(method: StoreMethod, fails: fn(usize) -> Option<StoreError>) -> (Self, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let failing = Self {
            method,
            calls: calls.clone(),
            fails,
        };
        (failing, calls)
    }
}

impl Hook for Failing {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method != self.method {
            return Ok(());
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.fails)(call).map_or(Ok(()), Err)
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}

impl World {
    /// Makes chosen calls of collection fail. Returns the store as it was before, and the counter of the method's
    /// calls.
    fn fail_collection(
        &mut self,
        method: StoreMethod,
        fails: fn(usize) -> Option<StoreError>,
    ) -> (Arc<dyn CollectionStore>, Arc<AtomicUsize>) {
        let original = self.stores.collection.clone();
        let (failing, calls) = Failing::new(method, fails);
        self.stores.collection = Arc::new(Wrapped::new(original.clone(), failing));
        (original, calls)
    }

    /// `count` unreferenced objects, each with a due pending deletion.
    async fn schedule_deletion(&self, count: usize) {
        for number in 0..count {
            let digest = self.push_blob("a", format!("unreferenced {number:03}")).await;
            self.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
        }
        assert_eq!(self.collect().await.metadata.scheduled, count as u64);
        self.clock.pass(GRACE);
        // The sessions of these pushes.
        self.collect_until_swept().await;
    }

    /// Sweeps expired sessions, and deletes no object.
    async fn collect_until_swept(&self) {
        let mut at_uploads = |report: &Report| {
            if report.sessions_swept > 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let options = CollectionOptions {
            sessions: 1000,
            ..CollectionOptions::default()
        };
        let swept = collect(&self.stores, self.clock.clone(), &options, &mut at_uploads).await;
        let swept = swept.unwrap();
        assert!(swept.sessions_swept > 0 && swept.objects_deleted == 0, "{swept:?}");
    }
}

/// One call at a time, so that their order is known.
fn single_file() -> CollectionOptions {
    CollectionOptions { at_once: 1, ..tiny() }
}

/// If the table cannot be written, as on a full disk, sessions and pending deletions are processed nevertheless. The
/// lease of the metadata is not known then, so there is no walk over the metadata.
#[tokio::test]
async fn each_step_runs_even_if_others_fail() {
    for (method, what) in [
        (StoreMethod::BeginPass, "the pass over the metadata cannot begin"),
        (StoreMethod::CollectMetadata, "the metadata cannot be read"),
        (StoreMethod::Checkpoint, "the position of the pass cannot be recorded"),
        (StoreMethod::Expired, "expired uploads cannot be listed"),
    ] {
        let world = World::new().await;
        world.schedule_deletion(3).await;
        world.push_blob("a", "loose").await;
        world.abandon("a").await;
        world.clock.pass(GRACE);
        let _ = world.counts.take();
        world.faults.plan(Fault {
            method: Some(method),
            nth: 1,
            kind: FaultKind::Unavailable,
            point: FaultPoint::Before,
        });
        let interrupted = world.try_collect(&tiny()).await.unwrap_err();
        let report = &interrupted.report;
        assert!(interrupted.to_string().starts_with(what), "{interrupted}");
        assert_eq!((report.failed, report.complete), (1, false));
        assert_eq!(report.objects_deleted, 3, "{method:?}");
        assert_eq!(
            report.sessions_swept > 0,
            method != StoreMethod::Expired,
            "{method:?}: {report:?}"
        );
        assert_eq!(
            report.metadata.seen > 0,
            matches!(method, StoreMethod::Checkpoint | StoreMethod::Expired),
            "{method:?}"
        );
        if method == StoreMethod::BeginPass {
            assert_eq!(report.metadata, PassStatistics::default());
            assert_eq!(
                world.counts.of(StoreMethod::CollectMetadata),
                0,
                "no walk without the lease"
            );
        }
    }
}

/// An object that cannot be deleted, now or ever, does not prevent the deletion of others, on its page and after it.
#[tokio::test]
async fn an_object_that_cannot_be_deleted_does_not_prevent_other_deletions() {
    // The first page has three objects: all at once, then one by one, of which the second fails.
    let refuse: fn(usize) -> Option<StoreError> = |call| matches!(call, 1 | 3).then(|| StoreError::failed("immutable"));
    let busy: fn(usize) -> Option<StoreError> = |call| matches!(call, 1 | 3).then(|| StoreError::unavailable("busy"));
    for fails in [refuse, busy] {
        let mut world = World::new().await;
        world.schedule_deletion(7).await;
        let original = world.stores.blobs.clone();
        let (failing, calls) = Failing::new(StoreMethod::Delete, fails);
        world.stores.blobs = Arc::new(Wrapped::new(original.clone(), failing));
        let options = CollectionOptions {
            pending_deletions: 3,
            // More than one; otherwise the step is aborted at once when the store is unavailable.
            at_once: 2,
            ..CollectionOptions::default()
        };
        let interrupted = world.try_collect(&options).await.unwrap_err();
        let report = &interrupted.report;
        let text = interrupted.to_string();
        assert!(
            text.starts_with("the object ") && text.contains(" cannot be deleted: "),
            "{text}"
        );
        assert_eq!((report.failed, report.complete), (1, false));
        assert_eq!(report.objects_deleted, 6, "{report:?}");
        assert_eq!(
            report.deleted, None,
            "a failed call does not report what it has deleted"
        );
        assert_eq!(calls.load(Ordering::Relaxed), 1 + 3 + 2, "two more pages");
        assert_eq!((world.blobs.objects(), world.metadata.counts().deletion_queue), (1, 1));

        world.stores.blobs = original;
        let report = world.collect().await;
        assert_eq!((report.objects_deleted, report.failed, report.complete), (1, 0, true));
        world.assert_empty();
    }
}

/// An upload that cannot be swept, the first of all, prevents neither later sweeps nor deletions.
#[tokio::test]
async fn an_upload_that_cannot_be_swept_does_not_prevent_other_work() {
    let mut world = World::new().await;
    world.schedule_deletion(2).await;
    for _ in 0..7 {
        world.abandon("a").await;
    }
    world.clock.pass(GRACE);
    let (original, calls) = world.fail_collection(StoreMethod::Sweep, |call| {
        (call == 1).then(|| StoreError::failed("damaged"))
    });
    let interrupted = world.try_collect(&single_file()).await.unwrap_err();
    let report = &interrupted.report;
    let text = interrupted.to_string();
    assert!(
        text.starts_with("the upload ") && text.ends_with(" cannot be ended: store failed: damaged"),
        "{text}"
    );
    assert_eq!(
        (report.failed, report.sessions_swept, report.objects_deleted),
        (1, 6, 2)
    );
    assert_eq!(calls.load(Ordering::Relaxed), 7);
    world.stores.collection = original;
    for _ in 0..2 {
        assert!(world.collect().await.complete);
        world.clock.pass(GRACE);
    }
    world.assert_empty();
}

/// A pending deletion that cannot be read, and pending deletions that cannot be deleted.
#[tokio::test]
async fn pending_deletions_fail_one_by_one() {
    for (method, deleted, processed) in [
        (StoreMethod::CheckPendingDeletion, 4, 4),
        (StoreMethod::RemovePendingDeletions, 5, 3),
    ] {
        let mut world = World::new().await;
        world.schedule_deletion(5).await;
        let (original, _) = world.fail_collection(method, |call| (call == 1).then(|| StoreError::failed("damaged")));
        let interrupted = world.try_collect(&single_file()).await.unwrap_err();
        assert_eq!(interrupted.report.objects_deleted, deleted, "{method:?}");
        assert_eq!(world.metadata.counts().deletion_queue, 5 - processed, "{method:?}");
        world.stores.collection = original;
        world.collect().await;
        world.assert_empty();
    }
}

/// An unavailable store is not called for each of many items; the other steps run.
#[tokio::test]
async fn an_unavailable_store_is_not_called_for_every_item() {
    let mut world = World::new().await;
    world.schedule_deletion(3).await;
    for _ in 0..40 {
        world.abandon("a").await;
    }
    world.clock.pass(GRACE);
    let (_, calls) = world.fail_collection(StoreMethod::Sweep, |_| Some(StoreError::unavailable("away")));
    let options = CollectionOptions {
        at_once: 4,
        ..CollectionOptions::default()
    };
    let interrupted = world.try_collect(&options).await.unwrap_err();
    assert_eq!((interrupted.report.failed, interrupted.report.objects_deleted), (4, 3));
    assert!((4..=8).contains(&calls.load(Ordering::Relaxed)));
}

/// A run that is asked to stop ends at its next step. The next run continues without waiting for a lease.
#[tokio::test]
async fn a_stopped_run_ends_its_lease() {
    let mut steps = 1;
    loop {
        let world = World::new().await;
        world.schedule_deletion(5).await;
        for number in 0..10 {
            world.push_blob("a", format!("loose {number}")).await;
        }
        world.clock.pass(GRACE);
        let mut reports = 0;
        let mut stop = |_: &Report| {
            reports += 1;
            if reports < steps {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let report = collect(&world.stores, world.clock.clone(), &tiny(), &mut stop).await;
        let report = report.unwrap();
        assert!(reports <= steps, "the run must stop when it is asked to");
        if !report.stopped {
            assert!(report.complete);
            break;
        }
        assert!(!report.complete);
        let next = world.collect().await;
        assert!(next.complete && next.busy_until.is_none(), "after {steps}: {next:?}");
        assert_eq!(
            next.resumed,
            report.metadata.seen > 0 && report.metadata.seen < 20,
            "after {steps}"
        );
        assert!(
            report.metadata.marked + next.metadata.marked == 10,
            "after {steps}: {report:?}, {next:?}"
        );
        assert_eq!(report.objects_deleted + next.objects_deleted, 5);
        steps += 1;
    }
    assert!(steps > 20 / 3 + 10 / 2 + 5 / 2, "{steps}");
}

/// A collection may move between the threads of a runtime.
#[tokio::test]
async fn a_collection_moves_between_threads() {
    fn movable<T: Send>(future: T) -> T {
        future
    }
    let world = World::new().await;
    let mut on = |_: &Report| ControlFlow::Continue(());
    let report = movable(collect(&world.stores, world.clock.clone(), &tiny(), &mut on)).await;
    assert!(report.unwrap().complete);
}

/// The run before was interrupted in the middle of the metadata: this one continues there, and does not wait for a
/// lease.
#[tokio::test]
async fn the_next_run_continues_an_interrupted_one() {
    let world = World::new().await;
    for number in 0..10 {
        world.push_blob("a", format!("loose {number}")).await;
    }
    world.clock.pass(GRACE);
    world.faults.plan(Fault {
        method: Some(StoreMethod::CollectMetadata),
        nth: 3,
        kind: FaultKind::Unavailable,
        point: FaultPoint::Before,
    });
    let interrupted = world.try_collect(&tiny()).await.unwrap_err();
    assert_eq!(interrupted.report.metadata.marked, 6, "two slices of three");
    assert!(!interrupted.report.complete);
    assert!(interrupted.to_string().contains("planned fault"), "{interrupted}");
    world.faults.clear();

    let report = world.collect().await;
    assert!(report.resumed && report.complete);
    assert_eq!(report.metadata.marked, 4, "the rest");
    assert!(!world.collect().await.resumed);
}

/// A deep run does not continue one that was perhaps not deep.
#[tokio::test]
async fn a_deep_run_begins_at_the_beginning() {
    let world = World::new().await;
    for number in 0..10 {
        world.push_blob("a", format!("loose {number}")).await;
    }
    world.faults.plan(Fault {
        method: Some(StoreMethod::CollectMetadata),
        nth: 3,
        kind: FaultKind::Failed,
        point: FaultPoint::Before,
    });
    drop(world.try_collect(&tiny()).await.unwrap_err());
    world.faults.clear();
    let deep = CollectionOptions {
        plan: Plan {
            deep: true,
            ..Plan::default()
        },
        ..tiny()
    };
    let report = world.try_collect(&deep).await.unwrap();
    assert!(report.deep && !report.resumed);
    assert_eq!(report.metadata.seen, 20);
}

/// An interrupted deep run is continued as a deep run: by the next deep run, and by one that is not.
#[tokio::test]
async fn an_interrupted_deep_run_continues_as_a_deep_run() {
    let deep = CollectionOptions {
        plan: Plan {
            deep: true,
            ..Plan::default()
        },
        ..tiny()
    };
    for next in [deep, tiny()] {
        let world = World::new().await;
        for number in 0..10 {
            world.push_blob("a", format!("loose {number}")).await;
        }
        world.faults.plan(Fault {
            method: Some(StoreMethod::CollectMetadata),
            nth: 3,
            kind: FaultKind::Failed,
            point: FaultPoint::Before,
        });
        let interrupted = world.try_collect(&deep).await.unwrap_err();
        world.faults.clear();
        let report = world.try_collect(&next).await.unwrap();
        assert!(report.deep && report.resumed && report.complete);
        assert_eq!(interrupted.report.metadata.seen + report.metadata.seen, 20);
        let after = world.collect().await;
        assert!(!after.deep && !after.resumed);
    }
}

/// Each call of a collection fails once, before its work or after it. The next runs finish what that leaves; nothing in
/// use is ever lost.
#[tokio::test]
async fn a_collection_may_fail_anywhere() {
    for point in [FaultPoint::Before, FaultPoint::After] {
        let mut nth = 1;
        loop {
            let world = World::new().await;
            let manifests = world.push_content().await;
            world.abandon("b").await;
            world.push_blob("a", "loose").await;
            world.push_blob("b", "also loose").await;
            let mut struck = false;
            for _ in 0..4 {
                world.clock.pass(GRACE);
                if !struck {
                    world.faults.plan(Fault {
                        method: None,
                        nth,
                        kind: FaultKind::Failed,
                        point,
                    });
                }
                let interrupted = world.try_collect(&tiny()).await.is_err();
                struck |= world.faults.struck() > 0;
                // Ending the lease after a failure may fail too, and is not reported.
                assert!(struck || !interrupted);
                world.faults.clear();
                world.assert_whole(&manifests).await;
            }
            if !struck {
                break;
            }
            world.delete_manifests(&manifests).await;
            for _ in 0..5 {
                world.clock.pass(GRACE);
                assert!(world.collect().await.complete, "{point:?} of call {nth}");
            }
            world.assert_empty();
            nth += 1;
        }
        assert!(nth > 25, "{nth}");
    }
}

/// While another process has the lease of the metadata, sessions and pending deletions are processed nevertheless. A
/// process that has not renewed its lease in time loses it to another one, and finds that out.
#[tokio::test]
async fn one_process_walks_over_the_metadata() {
    let world = World::new().await;
    for number in 0..4 {
        world.push_blob("a", format!("loose {number}")).await;
    }
    world.abandon("a").await;
    world.clock.pass(GRACE);
    let until = world.cx().now.plus_millis(HOUR);
    let other = Uid(77);
    let begun = world
        .stores
        .collection
        .begin_pass(world.cx(), other, until)
        .await
        .unwrap();
    assert_eq!(begun, PassStart::New);
    let report = world.collect().await;
    assert_eq!(report.busy_until, Some(until));
    assert!(!report.complete);
    assert_eq!((report.metadata, report.sessions_swept), (PassStatistics::default(), 5));

    world.clock.pass(HOUR);
    // Taken over in the middle, by a process that takes the first one for crashed.
    let (stores, clock) = (world.stores.clone(), world.clock.clone());
    let mut taken = false;
    let options = tiny();
    let mut take_over = |_: &Report| {
        if !std::mem::replace(&mut taken, true) {
            clock.pass(options.lease_ms);
            let cx = world.cx();
            let taking = stores.collection.begin_pass(cx, other, cx.now.plus_millis(HOUR));
            let taken = futures_util::FutureExt::now_or_never(taking).unwrap().unwrap();
            assert_eq!(taken, PassStart::New, "nothing was recorded yet");
        }
        ControlFlow::Continue(())
    };
    let report = collect(&world.stores, world.clock.clone(), &options, &mut take_over).await;
    let report = report.unwrap();
    assert!(report.busy_until.is_some() && !report.complete);
    assert_eq!(report.metadata.seen, 3, "one slice");
}

/// The deletion queue may contain objects that the rest of an import will reference, since the registry may have
/// existed before.
#[tokio::test]
async fn an_incomplete_import_keeps_pending_deletions() {
    let world = World::new().await;
    world.schedule_deletion(3).await;
    let import = Uid(77);
    let collection = world.stores.collection.clone();
    let begun = collection.begin_pass(world.cx(), import, UNTIL_IMPORTED).await;
    assert_eq!(begun.unwrap(), PassStart::New);
    let report = world.collect().await;
    assert_eq!(report.busy_until, Some(UNTIL_IMPORTED));
    assert_eq!((report.objects_deleted, report.complete), (0, false));
    assert_eq!((world.blobs.objects(), world.metadata.counts().deletion_queue), (3, 3));

    let ended = collection.checkpoint(world.cx(), import, None, world.cx().now).await;
    assert!(ended.unwrap());
    let report = world.collect().await;
    assert_eq!((report.objects_deleted, report.complete), (3, true));
}
