//! The options and the report of a collection, and what its steps share.

use std::sync::Arc;

use serde::Serialize;

use crate::budget::ClientKey;
use crate::environment::{Environment, context};
use crate::store::blobs::DeletedObjects;
use crate::store::collection::{PassStatistics, Plan};
use crate::store::{Context, StoreError, Timestamp};
use crate::stores::Stores;

/// The options of a collection.
#[derive(Clone, Copy, Debug)]
pub struct CollectionOptions {
    /// What it does, and the grace periods.
    pub plan: Plan,
    /// Records of metadata in a slice.
    pub records: usize,
    /// Sessions in a page.
    pub sessions: usize,
    /// Pending deletions in a page, whose objects are deleted in one call. A completed page stays done if a later one
    /// fails, so a slow store still makes progress.
    pub pending_deletions: usize,
    /// The maximum number of concurrent single reads, sweeps and deletions. If as many calls in a row find a store
    /// unavailable, the step is aborted.
    pub at_once: usize,
    /// The duration of the lease of a pass without a renewal, in milliseconds; longer than a slice takes.
    pub lease_ms: u64,
    /// The timeout of one store call in milliseconds, including retries.
    pub store_ms: u64,
}

impl Default for CollectionOptions {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            records: 500,
            sessions: 200,
            pending_deletions: 100,
            at_once: 16,
            lease_ms: 300_000,
            store_ms: 60_000,
        }
    }
}

/// What a collection has done, or, in a dry run, would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that a report states, not states of anything"
)]
pub struct Report {
    /// It was a dry run: nothing was written, and the numbers say what a run would do now.
    pub dry_run: bool,
    /// The pass was a deep one: it looked for orphaned records in the metadata.
    pub deep: bool,
    /// The pass over the metadata continued an interrupted one.
    pub resumed: bool,
    /// Another process had the lease of the metadata, or has taken it over, until this time. Only sessions and pending
    /// deletions were processed; and no pending deletions if the process is an import
    /// ([`UNTIL_IMPORTED`](crate::store::collection::UNTIL_IMPORTED)).
    pub busy_until: Option<Timestamp>,
    /// What the pass over the metadata has done.
    #[serde(flatten)]
    pub metadata: PassStatistics,
    /// Upload sessions that were swept.
    pub sessions_swept: u64,
    /// Objects that these have scheduled for deletion.
    pub objects_scheduled: u64,
    /// Expired sessions that were skipped: a request writes under them, or they have changed meanwhile.
    pub sessions_skipped: u64,
    /// Keys of objects that were deleted. Includes keys without an object, as most keys of an upload are.
    pub objects_deleted: u64,
    /// The objects that existed under these keys; `None` if the store did not report all of them.
    pub deleted: Option<DeletedObjects>,
    /// Pending deletions that were cancelled, because their object is in use.
    pub deletions_cancelled: u64,
    /// Failures: steps that were aborted, uploads that could not be swept, objects that could not be deleted.
    pub failed: u64,
    /// The run was stopped before its end.
    pub stopped: bool,
    /// Everything was processed, and nothing has failed.
    pub complete: bool,
}

/// A collection in which something failed. Everything else was done, and the next run tries again what failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Interrupted {
    /// What was done, with the number of failures.
    pub report: Box<Report>,
    /// The first failure, as text: `the object abc.1 cannot be deleted`.
    pub what: String,
    /// The cause of the first failure.
    #[source]
    pub source: StoreError,
}

/// What the steps share, also among concurrent calls.
pub(super) struct CollectionSetup<'a> {
    pub(super) stores: &'a Stores,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) options: &'a CollectionOptions,
}

impl CollectionSetup<'_> {
    pub(super) fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, self.options.store_ms)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.environment.now()
    }

    /// Something that ended before this time has a completed grace period of `grace_ms`.
    pub(super) fn due(&self, grace_ms: u64) -> Timestamp {
        Timestamp(self.now().0.saturating_sub(grace_ms))
    }
}
