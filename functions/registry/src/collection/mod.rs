//! Collection over all stores: the order of its steps. Each step is implemented by the stores, and specified in
//! [`store::collection`](crate::store::collection). This module makes no decisions about records, and it does not
//! sleep.
//!
//! 1. Metadata, slice by slice: links, and records of objects without back-links. The position is recorded after every
//!    slice. So the next run continues an interrupted one, and two runs do not do the same work.
//! 2. Upload sessions that have expired and have no valid claim.
//! 3. Pending deletions that are due. If the object is referenced again, it is kept, and only incomplete uploads under
//!    its key are deleted. If it was scheduled again, a later run handles it. All other objects are deleted first and
//!    their pending deletions afterwards, so an interrupted run repeats the deletion.
//!
//! Each step runs even if the steps before it failed. For instance, a full disk may prevent writes to the table, and
//! then the due deletions must still free space. An item that fails does not prevent the work on other items.
//!
//! The sizes in [`CollectionOptions`] bound the memory. No request waits for a collection, and concurrent collections are as safe
//! as one. A lease lets one run at a time walk over the metadata. It only saves work, and correctness does not depend
//! on it. (An import also takes the lease.)

mod metadata;
mod pending_deletions;
mod progress;
mod run;
mod uploads;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::progress::RunningReport;
use self::run::CollectionSetup;
pub use self::run::{CollectionOptions, Interrupted, Report};
use crate::environment::Environment;
use crate::store::collection::UNTIL_IMPORTED;
use crate::stores::Stores;

/// Runs one collection. Calls `progress` after every slice and page. When that breaks, the run stops there, records its
/// position, and ends its lease, so that the next run need not wait.
///
/// One run does not delete everything that is unreferenced: it only marks links, and objects stay in the deletion queue
/// for their grace period.
///
/// # Errors
/// If anything failed. The report in the error says what was done nevertheless.
pub async fn collect(
    stores: &Stores,
    environment: Arc<dyn Environment>,
    options: &CollectionOptions,
    progress: &mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
) -> Result<Report, Interrupted> {
    let setup = CollectionSetup {
        stores,
        environment,
        options,
    };
    let mut running = RunningReport::new(options, progress);
    metadata::walk_metadata(&setup, &mut running).await;
    if !running.is_stopped() {
        uploads::sweep_expired(&setup, &mut running).await;
    }
    // The deletion queue may contain objects that the rest of the import will reference.
    let is_interrupted_import = running.report.busy_until.is_some_and(|until| until >= UNTIL_IMPORTED);
    if !running.is_stopped() && !is_interrupted_import {
        pending_deletions::delete_due(&setup, &mut running).await;
    }
    running.end()
}
