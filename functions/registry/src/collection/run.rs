//! What a collection is told, what it reports, and what its steps share.

use std::sync::Arc;

use serde::Serialize;

use crate::budget::ClientKey;
use crate::environment::{Environment, context};
use crate::store::blobs::DeletedObjects;
use crate::store::collection::{PassStatistics, Plan};
use crate::store::{Context, StoreError, Timestamp};
use crate::stores::Stores;

/// How a collection runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it does, and what it leaves alone.
    pub plan: Plan,
    /// Names in a slice.
    pub names: usize,
    /// Sessions in a page.
    pub sessions: usize,
    /// Graves in a page: as many objects are deleted at once. What a page has done stays done when a later one fails, so
    /// that a slow store gets on.
    pub pending_deletions: usize,
    /// How many single reads, sweeps and deletions are under way at once. When as many in a row find a store
    /// unavailable, their step is given up.
    pub at_once: usize,
    /// For how many milliseconds a pass over the names is held without a sign of life; more than a slice takes.
    pub lease_ms: u64,
    /// Milliseconds that a store may spend on one call, retries included.
    pub store_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            names: 500,
            sessions: 200,
            pending_deletions: 100,
            at_once: 16,
            lease_ms: 300_000,
            store_ms: 60_000,
        }
    }
}

/// What a collection has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that a report states, not states of anything"
)]
pub struct Report {
    /// Nothing was written: these are the things that a run would do now.
    pub dry_run: bool,
    /// Leftovers among the names were looked for.
    pub deep: bool,
    /// The pass over the names went on where another run had been cut off.
    pub resumed: bool,
    /// Another process is at the names, or has taken them over, and said so until this moment: only sessions and graves
    /// were looked at; and no graves while it is an import
    /// ([`UNTIL_IMPORTED`](crate::store::collection::UNTIL_IMPORTED)).
    pub busy_until: Option<Timestamp>,
    /// What was done to the names.
    #[serde(flatten)]
    pub metadata: PassStatistics,
    /// Upload sessions that were ended for good.
    pub sessions_swept: u64,
    /// Graves that they left.
    pub objects_scheduled: u64,
    /// Sessions past their end that were left alone: somebody writes under them, or they have changed meanwhile.
    pub sessions_spared: u64,
    /// Keys of objects that were deleted; also those under which nothing was, as most that an upload leaves.
    pub objects_deleted: u64,
    /// What was there under these keys, if the store has told of all of them.
    pub deleted: Option<DeletedObjects>,
    /// Graves whose object was in use, and is.
    pub deletions_cancelled: u64,
    /// Things that could not be done: a step, an upload that could not be ended, an object that could not be deleted.
    pub failed: u64,
    /// It was told to stop before it was through.
    pub stopped: bool,
    /// All was gone over, to the end, and nothing has failed.
    pub complete: bool,
}

/// Something has failed in a collection. All else was done, and the next run tries it again.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Interrupted {
    /// What was done; how many things were not is among it.
    pub report: Box<Report>,
    /// The first thing that was not done, in words: `the object abc.1 cannot be deleted`.
    pub what: String,
    /// Why not.
    #[source]
    pub source: StoreError,
}

/// What a step needs; shared by calls that are under way at once.
pub(super) struct Over<'a> {
    pub(super) stores: &'a Stores,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) options: &'a Options,
}

impl Over<'_> {
    pub(super) fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, self.options.store_ms)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.environment.now()
    }

    /// What ended before this moment has rested for `grace_ms`.
    pub(super) fn due(&self, grace_ms: u64) -> Timestamp {
        Timestamp(self.now().0.saturating_sub(grace_ms))
    }
}
