//! Prevents collection passes during an import.
//!
//! An export may have the records of all blobs before the links to them. A collection that runs during an import sees
//! blobs whose links are not yet imported, and schedules their objects for deletion. Later the objects are deleted,
//! although the links were imported in the meantime. So the import takes the lease of the walk over the metadata before
//! it writes anything, and keeps it until its last record is written, even if it is interrupted several times.

use std::sync::Arc;

use registry::store::collection::{CollectionStore, PassStart, UNTIL_IMPORTED};
use registry::store::{Context, Cursor, StoreError, Timestamp, Uid};

use super::super::super::store::cx;
use crate::failure::Failure;
use shell::timestamp;

/// The cursor that an import stores instead of that of a collection pass.
const IMPORT: &str = "import";

/// The lease of an import on the walk over the metadata.
pub(super) struct ImportLease {
    collection: Arc<dyn CollectionStore>,
    import: Uid,
    /// Whether an earlier run of the same import had the lease, and no other process had it since. Then nothing was
    /// collected in between.
    pub(super) is_continued: bool,
}

impl ImportLease {
    /// Takes the lease for the import that `import` identifies. With `force`, also takes it from another import, which is
    /// abandoned.
    pub(super) async fn take(collection: Arc<dyn CollectionStore>, import: Uid, force: bool) -> Result<Self, Failure> {
        let cursor = Cursor(IMPORT.to_owned());
        let held = collection.checkpoint(cx(), import, Some(&cursor), UNTIL_IMPORTED).await;
        let is_continued = held.map_err(failed)?;
        if !is_continued {
            let mut begun = collection.begin_pass(cx(), import, UNTIL_IMPORTED).await;
            if force && matches!(begun, Ok(PassStart::Busy(until)) if until >= UNTIL_IMPORTED) {
                begun = collection.begin_pass(after_all_leases(), import, UNTIL_IMPORTED).await;
            }
            if let PassStart::Busy(until) = begun.map_err(failed)? {
                return Err(Failure::Failed(busy(until)));
            }
        }
        Ok(Self {
            collection,
            import,
            is_continued,
        })
    }

    /// Allows collection passes, because the import is complete.
    pub(super) async fn release(self) -> Result<(), Failure> {
        let now = cx();
        let released = self.collection.checkpoint(now, self.import, None, now.now).await;
        released.map(drop).map_err(failed)
    }
}

/// A context whose time is the end of all leases, even of those of imports.
fn after_all_leases() -> Context {
    let cx = cx();
    Context {
        now: UNTIL_IMPORTED,
        deadline: UNTIL_IMPORTED.plus_millis(cx.deadline.millis_since(cx.now)),
        ..cx
    }
}

fn busy(until: Timestamp) -> String {
    if until >= UNTIL_IMPORTED {
        return "the import of another file into this registry is not complete: finish that import, or abandon it and \
                merge the two files with --force"
            .into();
    }
    format!(
        "a collection pass is examining this registry, at least until {}: wait for its end, and run the import again",
        timestamp::seconds(until)
    )
}

fn failed(error: StoreError) -> Failure {
    Failure::failed("cannot prevent collection passes during the import", error)
}
