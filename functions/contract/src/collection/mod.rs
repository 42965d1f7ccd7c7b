//! What a [`CollectionStore`] must do: [`links`] without references, [`blobs`] without links, empty repositories in the
//! [`catalog`], [`pending_deletions`], session expiry in [`sweeps`], every state and event of a session in
//! [`session_table`], [`passes`] over all metadata, and [`races`] with pushes and deletions.
//!
//! [`CollectionStore`]: registry::store::collection::CollectionStore

pub mod blobs;
pub mod catalog;
pub mod links;
pub mod passes;
pub mod pending_deletions;
pub mod races;
pub mod session_table;
pub mod sweeps;

use std::collections::BTreeSet;

use oci::{Digest, RepositoryName};
use registry::store::collection::{Collected, DeletionCheck, PassStatistics, PendingDeletion, Plan};
use registry::store::metadata::Link;
use registry::store::records::{Record, RecordedObject};
use registry::store::sessions::{Session, SessionKey};
use registry::store::{Cursor, Location, Slice, Timestamp};

use super::every_record::{line, walk};
use super::metadata::MetadataTest;
use super::sessions::SessionTest;
use super::{ContractTest, MetadataStores};

pub use blobs::*;
pub use catalog::*;
pub use links::*;
pub use passes::*;
pub use pending_deletions::*;
pub use races::*;
pub use session_table::*;
pub use sweeps::*;

/// The test of a clause about collection.
pub type CollectionTest = ContractTest<MetadataStores>;

/// An hour, in milliseconds.
const HOUR: u64 = 3_600_000;

/// Longer than every grace period of the default plan.
pub(crate) const GRACE: u64 = 26 * HOUR;

/// The maximum number of slices of a walk.
const MAX_SLICES: usize = 10_000;

/// The default plan, and the one that also removes orphaned records.
pub(crate) const PLAN: Plan = Plan {
    dry_run: false,
    deep: false,
    grace_periods: registry::store::collection::GracePeriods {
        link_ms: 24 * HOUR,
        session_ms: HOUR,
        deletion_ms: 25 * HOUR,
        orphan_ms: 24 * HOUR,
    },
};
const DEEP: Plan = Plan { deep: true, ..PLAN };
const DRY: Plan = Plan { dry_run: true, ..PLAN };

impl CollectionTest {
    /// The metadata store of the collection.
    pub(super) fn metadata(&self) -> MetadataTest {
        self.of(self.store.metadata.clone())
    }

    /// The session store of the collection.
    pub(super) fn sessions(&self) -> SessionTest {
        self.of(self.store.sessions.clone())
    }

    pub(super) async fn slice(&self, plan: &Plan, after: Option<&Cursor>, limit: usize) -> Collected {
        let answer = self
            .store
            .collection
            .collect_metadata(self.cx(), plan, after, limit)
            .await;
        answer.expect("collect_metadata")
    }

    /// One pass over all metadata, in slices of `limit`.
    pub(super) async fn pass_by(&self, plan: &Plan, limit: usize) -> PassStatistics {
        let mut total = PassStatistics::default();
        let mut next = None;
        for _ in 0..MAX_SLICES {
            let collected = self.slice(plan, next.as_ref(), limit).await;
            total += collected.statistics;
            next = collected.next;
            if next.is_none() {
                return total;
            }
        }
        panic!("the walk does not end");
    }

    /// One pass over all metadata.
    pub(super) async fn run(&self, plan: &Plan) -> PassStatistics {
        self.pass_by(plan, 100).await
    }

    /// Two passes, one after the other: what the first one unlinks is scheduled for deletion by the second at the
    /// latest, whatever the order of the walk.
    pub(super) async fn run_twice(&self, plan: &Plan) -> PassStatistics {
        let mut total = self.run(plan).await;
        total += self.run(plan).await;
        total
    }

    pub(super) async fn pending_deletions_slice(
        &self,
        before: Timestamp,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Slice<PendingDeletion> {
        let answer = self
            .store
            .collection
            .pending_deletions(self.cx(), before, after, limit)
            .await;
        let slice = answer.expect("pending_deletions");
        assert!(slice.items.len() <= limit, "more than {limit}");
        slice
    }

    /// The pending deletions that were scheduled before this time, in slices of `limit`, sorted by object key.
    pub(super) async fn pending_deletions_by(&self, before: Timestamp, limit: usize) -> Vec<PendingDeletion> {
        let mut pending_deletions = Vec::new();
        let mut next = None;
        for _ in 0..MAX_SLICES {
            let slice = self.pending_deletions_slice(before, next.as_ref(), limit).await;
            pending_deletions.extend(slice.items);
            next = slice.next;
            if next.is_none() {
                pending_deletions.sort_by(|one, other| one.location.key.cmp(&other.location.key));
                return pending_deletions;
            }
        }
        panic!("the walk does not end");
    }

    /// All pending deletions, sorted by object key.
    pub(super) async fn pending_deletions(&self) -> Vec<PendingDeletion> {
        self.pending_deletions_by(self.now().plus_millis(1), 1000).await
    }

    pub(super) async fn check_pending_deletion(&self, pending_deletion: &PendingDeletion) -> DeletionCheck {
        let answer = self
            .store
            .collection
            .check_pending_deletion(self.cx(), pending_deletion)
            .await;
        answer.expect("check_pending_deletion")
    }

    pub(super) async fn scheduled(&self) -> Vec<Location> {
        self.pending_deletions()
            .await
            .into_iter()
            .map(|pending_deletion| pending_deletion.location)
            .collect()
    }

    pub(crate) async fn recorded_object(&self, digest: &Digest) -> Option<RecordedObject> {
        let answer = self.store.records.recorded_object(self.cx(), digest).await;
        answer.expect("recorded_object")
    }

    pub(super) async fn is_recorded_location(&self, digest: &Digest, location: &Location) -> bool {
        let object = self.recorded_object(digest).await;
        object.is_some_and(|object| object.location == *location)
    }

    pub(super) async fn remove_pending_deletions(&self, pending_deletions: &[PendingDeletion]) {
        self.store
            .collection
            .remove_pending_deletions(self.cx(), pending_deletions)
            .await
            .expect("remove_pending_deletions");
    }

    pub(super) async fn sweep(&self, key: SessionKey, session: &Session) -> Option<u64> {
        let answer = self.store.collection.sweep(self.cx(), key, session).await;
        answer.expect("sweep")
    }

    pub(super) async fn link_and_unmark(&self, repository: &RepositoryName, digest: &Digest) -> Option<Link> {
        let answer = self.store.metadata.link_and_unmark(self.cx(), repository, digest).await;
        answer.expect("link_and_unmark")
    }

    pub(super) async fn marked_link(&self, repository: &RepositoryName, digest: &Digest) -> Option<(Link, bool)> {
        let answer = self.store.metadata.marked_link(self.cx(), repository, digest).await;
        answer.expect("marked_link")
    }

    /// All records, as text.
    pub(super) async fn everything(&self) -> BTreeSet<String> {
        let all = walk(&self.of(self.store.records.clone()), 1000).await;
        all.iter().map(line).collect()
    }

    /// Asserts that only the history is left.
    pub(super) async fn assert_empty(&self) {
        let all = walk(&self.of(self.store.records.clone()), 1000).await;
        for record in &all {
            let stays = matches!(record, Record::History { .. });
            assert!(stays, "this is left: {record:?}");
        }
        assert_eq!(self.pending_deletions().await, [], "pending deletions are left");
        let sessions = self.sessions().expired(Timestamp(u64::MAX >> 1), None, 10).await;
        assert_eq!(sessions, [], "sessions are left");
    }
}

/// What of a pass's statistics the clauses compare.
pub(crate) trait Done {
    /// How many links and blob records were marked, unlinked and scheduled for deletion, and how many orphaned records were
    /// removed; without what was only looked at.
    fn done(&self) -> (u64, u64, u64, u64);
}

impl Done for PassStatistics {
    fn done(&self) -> (u64, u64, u64, u64) {
        (self.marked, self.unlinked, self.scheduled, self.orphaned_records)
    }
}

/// The location at which [`MetadataTest::commit`] commits a digest.
pub(super) fn own_location(digest: &Digest) -> Location {
    super::metadata::own_location(digest)
}
