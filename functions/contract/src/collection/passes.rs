//! Collection passes: one at a time, resumable, in slices of any size, without damage.

use registry::store::collection::{LONGEST_LEASE_MS, PassStart, PassStatistics, Plan, UNTIL_IMPORTED};
use registry::store::metadata::Removal;
use registry::store::sessions::End;
use registry::store::{Cursor, Timestamp, Uid};

use super::{CollectionTest, DEEP, DRY, GRACE, HOUR, MAX_SLICES, PLAN};
use crate::collection::Done as _;
use crate::metadata::DescribeManifest as _;
use crate::metadata::{digest, location, manifest, repository, tag};
use crate::sessions::progress;

/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

impl CollectionTest {
    async fn begin(&self, pass: u64) -> PassStart {
        let until = self.now().plus_millis(MINUTE);
        let answer = self.store.collection.begin_pass(self.cx(), Uid(pass), until).await;
        answer.expect("begin_pass")
    }

    async fn checkpoint(&self, pass: u64, next: Option<&Cursor>) -> bool {
        let until = self.now().plus_millis(MINUTE);
        let answer = self
            .store
            .collection
            .checkpoint(self.cx(), Uid(pass), next, until)
            .await;
        answer.expect("checkpoint")
    }

    /// Links `count` unreferenced blobs in several repositories.
    async fn loose(&self, count: usize) {
        let metadata = self.metadata();
        for number in 0..count {
            let name = repository(&format!("r{}", number % 3));
            metadata.commit(&name, &digest(format!("loose {number}"))).await;
        }
    }

    async fn cursor(&self) -> Cursor {
        let next = self.slice(&PLAN, None, 1).await.next;
        next.expect("there is more than one blob record")
    }
}

/// A lease that a process with a wrong clock has taken does not block others for longer than the maximum lease. An
/// import blocks whatever the time is.
pub async fn s33_a_lease_of_a_wrong_clock_blocks_no_other_pass(test: CollectionTest) {
    const YEARS: u64 = 5 * 365 * 24 * HOUR;
    let begin = async |pass, until| {
        let collection = &test.store.collection;
        collection
            .begin_pass(test.cx(), Uid(pass), until)
            .await
            .expect("begin_pass")
    };
    assert_eq!(begin(1, test.now().plus_millis(YEARS)).await, PassStart::New);
    let longest = test.now().plus_millis(LONGEST_LEASE_MS);
    assert_eq!(
        begin(2, longest).await,
        PassStart::New,
        "a lease of years is cut to the maximum"
    );
    assert_eq!(
        begin(3, longest).await,
        PassStart::Busy(longest),
        "the longest lease is one"
    );
    test.advance(LONGEST_LEASE_MS);
    assert_eq!(
        begin(3, test.now().plus_millis(LONGEST_LEASE_MS + 1)).await,
        PassStart::New
    );
    assert_eq!(
        begin(4, UNTIL_IMPORTED).await,
        PassStart::New,
        "one past the longest is none"
    );
    assert_eq!(begin(5, longest).await, PassStart::Busy(UNTIL_IMPORTED));
}

/// One pass runs at a time: while its lease lasts, no other begins; when the lease has expired, another may.
pub async fn one_pass_runs_at_a_time(test: CollectionTest) {
    assert_eq!(test.begin(1).await, PassStart::New);
    let until = test.now().plus_millis(MINUTE);
    assert_eq!(test.begin(2).await, PassStart::Busy(until));
    assert!(!test.checkpoint(2, None).await, "a refused pass cannot checkpoint");
    assert_eq!(test.begin(3).await, PassStart::Busy(until));
    test.advance(MINUTE - 1);
    assert_eq!(test.begin(2).await, PassStart::Busy(until));
    test.advance(1);
    assert_eq!(
        test.begin(2).await,
        PassStart::New,
        "nothing was recorded of how far it had come"
    );
    assert!(!test.checkpoint(1, None).await, "it was taken over");
    assert!(matches!(test.begin(1).await, PassStart::Busy(_)));
    assert!(test.checkpoint(2, None).await);
    assert_eq!(test.begin(1).await, PassStart::New, "it has ended");
}

/// A checkpoint renews the lease of its pass, also a late one if no other pass has begun.
pub async fn a_checkpoint_renews_the_lease(test: CollectionTest) {
    test.loose(3).await;
    let cursor = test.cursor().await;
    assert_eq!(test.begin(1).await, PassStart::New);
    for _ in 0..3 {
        test.advance(MINUTE - 1);
        assert!(test.checkpoint(1, Some(&cursor)).await);
        assert_eq!(test.begin(2).await, PassStart::Busy(test.now().plus_millis(MINUTE)));
    }
    test.advance(MINUTE * 2);
    assert!(
        test.checkpoint(1, Some(&cursor)).await,
        "late, but no other pass has begun"
    );
    assert!(matches!(test.begin(2).await, PassStart::Busy(_)));
}

/// An interrupted pass is resumed at its checkpoint by another process. A completed pass leaves nothing to resume.
pub async fn an_interrupted_pass_is_resumed(test: CollectionTest) {
    test.loose(9).await;
    test.advance(GRACE);
    assert_eq!(test.begin(1).await, PassStart::New);
    let mut total = PassStatistics::default();
    let mut next = None;
    for _ in 0..4 {
        let slice = test.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.statistics;
        next = slice.next;
        assert!(test.checkpoint(1, next.as_ref()).await);
    }
    test.advance(MINUTE);
    let cursor = next.expect("the walk has not ended");
    assert_eq!(test.begin(2).await, PassStart::Resumed(cursor.clone()));
    assert!(!test.checkpoint(1, None).await, "it was taken over");
    let mut next = Some(cursor);
    for _ in 0..MAX_SLICES {
        let slice = test.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.statistics;
        next = slice.next;
        assert!(test.checkpoint(2, next.as_ref()).await);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(total.marked, 9, "each was visited once");
    assert!(!test.checkpoint(2, None).await, "it has ended");
    assert_eq!(test.begin(3).await, PassStart::New);
}

/// Of several passes that are started at the same time, one begins.
pub async fn one_of_racing_passes_begins(test: CollectionTest) {
    for round in 0..8 {
        let begun = test
            .together(8, |number| {
                let test = test.clone();
                async move { test.begin(round * 8 + number as u64 + 1).await }
            })
            .await;
        let granted = begun
            .iter()
            .filter(|begun| !matches!(begun, PassStart::Busy(_)))
            .count();
        assert_eq!(granted, 1, "{begun:?}");
        test.advance(MINUTE);
    }
}

/// Slices of any size visit every record, with the same result.
pub async fn slices_of_any_size_visit_every_record(test: CollectionTest) {
    let metadata = test.metadata();
    let kept = repository("kept");
    for number in 0..5 {
        let blob = digest(format!("kept {number}"));
        metadata.commit(&kept, &blob).await;
        metadata
            .put(&manifest(&kept, format!("manifest {number}")).requiring([blob]))
            .await;
    }
    for limit in [1, 2, 3, 7, 1000] {
        test.loose(13).await;
        assert_eq!(test.pass_by(&PLAN, limit).await.done(), (0, 0, 0, 0));
        test.advance(GRACE);
        assert_eq!(test.pass_by(&PLAN, limit).await.marked, 13, "in slices of {limit}");
        test.advance(GRACE);
        let mut statistics = test.pass_by(&PLAN, limit).await;
        assert_eq!(statistics.unlinked, 13, "in slices of {limit}");
        statistics += test.pass_by(&PLAN, limit).await;
        assert_eq!(
            (statistics.scheduled, statistics.scheduled_bytes),
            (13, 13_000),
            "in slices of {limit}"
        );
        let pending_deletions = test.pending_deletions().await;
        assert_eq!(pending_deletions.len(), 13);
        test.remove_pending_deletions(&pending_deletions).await;
    }
    for number in 0..5 {
        assert!(metadata.link(&kept, &digest(format!("kept {number}"))).await.is_some());
    }
}

/// Records that are written and deleted during a walk do not prevent it from visiting all others.
pub async fn a_walk_visits_what_stays_while_records_change(test: CollectionTest) {
    let metadata = test.metadata();
    test.loose(12).await;
    test.advance(GRACE);
    let busy = repository("r1");
    let mut total = PassStatistics::default();
    let mut next = None;
    for round in 0..MAX_SLICES {
        let slice = test.slice(&PLAN, next.as_ref(), 2).await;
        total += slice.statistics;
        next = slice.next;
        if next.is_none() {
            break;
        }
        if round < 20 {
            let young = digest(format!("young {round}"));
            metadata.commit(&busy, &young).await;
            if round % 2 == 0 {
                assert_eq!(metadata.unlink(&busy, &young).await, Removal::Removed);
            }
        }
    }
    assert!(next.is_none(), "the walk ends");
    assert_eq!(total.marked, 12);
    assert_eq!(total.unlinked, 0, "young records stay");
}

/// Fills a registry with records of every kind: mounted and shared blobs, both digests of the same bytes, images, an
/// index, large manifests, a signature, moved and deleted tags; and garbage of each kind.
async fn fill(test: &CollectionTest) {
    let metadata = test.metadata();
    let (one, two) = (repository("one"), repository("two/deep"));
    let shared = digest("shared layer");
    metadata.commit(&one, &shared).await;
    assert!(metadata.mount(&two, &shared, &one).await);
    let mut images = Vec::new();
    for number in 0..4 {
        let config = digest(format!("config {number}"));
        metadata.commit(&one, &config).await;
        let mut image = manifest(&one, format!("image {number}"))
            .requiring([shared, config])
            .excepting([digest("foreign")])
            .tagged([tag("latest"), tag(&format!("v{number}"))]);
        if number % 2 == 1 {
            image = image.stored_at(location(number));
        }
        metadata.put(&image).await;
        images.push(image.digest);
    }
    let index = manifest(&one, "index")
        .requiring([images[0], images[1]])
        .tagged([tag("index")]);
    metadata.put(&index).await;
    metadata
        .put(
            &manifest(&one, "signature")
                .about(index.digest)
                .requiring([digest("config 0")]),
        )
        .await;
    metadata
        .put(&manifest(&two, "image 1").requiring([shared]).stored_at(location(9)))
        .await;
    assert!(metadata.delete_tag(&one, &tag("v3")).await);
    metadata.commit(&two, &digest("loose")).await;
    assert_eq!(metadata.unlink(&two, &digest("loose")).await, Removal::Removed);
}

/// Deletes every manifest of a repository, parents first.
async fn delete_all(test: &CollectionTest, name: &str) {
    let metadata = test.metadata();
    let name = repository(name);
    for _ in 0..MAX_SLICES {
        let manifests = metadata.manifests(&name, None, 100).await.items;
        if manifests.is_empty() {
            return;
        }
        for digest in manifests {
            assert_ne!(metadata.delete_manifest(&name, &digest).await, Removal::Absent);
        }
    }
    panic!("manifests refer to each other");
}

/// No plan changes a young record: pushes in progress look like garbage.
pub async fn young_records_are_not_collected(test: CollectionTest) {
    fill(&test).await;
    assert_eq!(
        test.run_twice(&PLAN).await.done(),
        (0, 0, 1, 0),
        "only the unreferenced bytes"
    );
    test.loose(3).await;
    let before = test.everything().await;
    for plan in [PLAN, DEEP] {
        let statistics = test.run_twice(&plan).await;
        assert_eq!(statistics.done(), (0, 0, 0, 0));
        assert!(statistics.seen > 0);
        test.advance(HOUR * 8);
    }
    assert_eq!(test.everything().await, before);
}

/// A deep pass removes nothing from a registry in which nothing was interrupted, however old it is.
pub async fn a_deep_pass_removes_nothing_from_a_consistent_registry(test: CollectionTest) {
    fill(&test).await;
    assert_eq!(test.run_twice(&PLAN).await.done(), (0, 0, 1, 0));
    let before = test.everything().await;
    for _ in 0..3 {
        test.advance(GRACE * 10);
        assert_eq!(test.run_twice(&DEEP).await.done(), (0, 0, 0, 0));
    }
    assert_eq!(test.everything().await, before);
}

/// A dry run counts what a run would do, and writes nothing, not even a mark.
pub async fn a_dry_run_writes_nothing(test: CollectionTest) {
    let metadata = test.metadata();
    fill(&test).await;
    test.loose(5).await;
    let deep = Plan { deep: true, ..DRY };
    for step in ["young", "to be marked", "to be unlinked", "to be scheduled"] {
        if step == "to be scheduled" {
            let statistics = test.run(&DRY).await;
            assert_eq!(statistics.unlinked, 0, "{step}");
        }
        let before = test.everything().await;
        let pending_deletions = test.pending_deletions().await;
        let dry = test.run(&DRY).await;
        assert_eq!(test.run(&DRY).await, dry, "{step}: nothing has changed");
        assert_eq!(test.run(&deep).await.done(), dry.done(), "{step}");
        assert_eq!(test.everything().await, before, "{step}");
        assert_eq!(test.pending_deletions().await, pending_deletions, "{step}");
        let real = test.run(&PLAN).await;
        assert_eq!((dry.marked, dry.unlinked), (real.marked, real.unlinked), "{step}");
        assert!(
            real.scheduled >= dry.scheduled,
            "{step}: a run also schedules what it has unlinked"
        );
        match step {
            "young" => assert_eq!(dry.done(), (0, 0, 1, 0)),
            "to be marked" => assert_eq!(dry.done(), (5, 0, 0, 0)),
            "to be unlinked" => assert_eq!(dry.done(), (0, 5, 0, 0)),
            _ => {}
        }
        test.advance(GRACE);
    }
    let loose = metadata.link(&repository("r0"), &digest("loose 0")).await;
    assert_eq!(loose, None);
}

/// When everything was deleted and the grace periods have passed, only the history is left.
pub async fn collection_leaves_only_the_history(test: CollectionTest) {
    let (metadata, sessions) = (test.metadata(), test.sessions());
    fill(&test).await;
    test.loose(3).await;
    for id in 0..6 {
        let key = sessions.key(id);
        let claim = sessions.claim(key).await;
        match id {
            0 => {}
            1 => sessions.release(&claim).await,
            2 => assert!(sessions.save(&claim, progress(5), Some(b"part")).await),
            3 => drop(sessions.cancel(key).await),
            4 => assert!(sessions.commit(&claim, &digest("interrupted")).await),
            _ => {
                assert!(sessions.commit(&claim, &digest("done")).await);
                sessions.finish(&claim, End::Done).await;
            }
        }
    }
    for name in ["one", "two/deep"] {
        delete_all(&test, name).await;
    }
    for _ in 0..3 {
        test.advance(GRACE);
        test.run(&DEEP).await;
        let due = Timestamp(test.now().0 - PLAN.grace_periods.session_ms);
        for (key, session) in sessions.expired(due, None, 100).await {
            assert!(test.sweep(key, &session).await.is_some());
        }
    }
    let pending_deletions = test.pending_deletions().await;
    // Two large manifests and an object that one of them did not need, four configs and their layer, four unreferenced
    // blobs, and the attempts of five sessions.
    assert_eq!(pending_deletions.len(), 17, "{pending_deletions:#?}");
    for pending_deletion in &pending_deletions {
        if let Some(digest) = &pending_deletion.digest {
            assert!(!test.is_recorded_location(digest, &pending_deletion.location).await);
        }
    }
    test.remove_pending_deletions(&pending_deletions).await;
    test.assert_empty().await;
    assert_eq!(metadata.repositories(None, 100).await.items, [], "the catalog is empty");
}
