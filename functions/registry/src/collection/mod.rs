//! Collection over all stores: the order of its steps. What each step does to the records is the store's
//! ([`store::collection`](crate::store::collection)); here nothing is decided, and nothing waits.
//!
//! 1. Names, slice by slice: links, and bytes that nobody holds. How far it has come is recorded after every slice,
//!    so that a run that was cut off is gone on with by the next one, and that two do not do the same work.
//! 2. Upload sessions past their end, unless somebody still writes under them.
//! 3. Graves that are due. What is named again is spared, but for what was begun beside it and never finished, and
//!    what was buried again is left for later; all else is deleted, many objects at once, and then its grave is removed,
//!    so that a run which was cut off in between deletes again, and never forgets.
//!
//! Each step is taken whatever became of those before it: a table that cannot be written because the disk is full must
//! not keep the graves that would make room. And one thing that cannot be done keeps nothing back but itself.
//!
//! Memory is bounded by the sizes in [`Options`]. Nothing is locked: a registry serves meanwhile, and any number of
//! collections at once are as safe as one.

mod metadata;
mod pending_deletions;
mod progress;
mod run;
mod uploads;

use std::ops::ControlFlow;
use std::sync::Arc;

use self::progress::RunningReport;
use self::run::Over;
pub use self::run::{Interrupted, Options, Report};
use crate::environment::Environment;
use crate::store::collection::UNTIL_IMPORTED;
use crate::stores::Stores;

/// Collects once. `progress` is told how far it has come, after every slice and page; when it breaks, the run stops
/// there, notes how far it came, and lets go of the names, so that the next one need not wait.
///
/// A second run is needed to see everything go: what is unlinked now is in the graveyard for a while, and a link is
/// only marked by the first.
///
/// # Errors
/// When anything could not be done. What is whole all the same is in the report.
pub async fn collect(
    stores: &Stores,
    environment: Arc<dyn Environment>,
    options: &Options,
    progress: &mut (dyn FnMut(&Report) -> ControlFlow<()> + Send),
) -> Result<Report, Interrupted> {
    let over = Over {
        stores,
        environment,
        options,
    };
    let mut told = RunningReport::new(options, progress);
    metadata::walk_metadata(&over, &mut told).await;
    if !told.is_stopped() {
        uploads::uploads(&over, &mut told).await;
    }
    // What is in the graveyard may be what an import has still to name again.
    let is_half = told.report.busy_until.is_some_and(|until| until >= UNTIL_IMPORTED);
    if !told.is_stopped() && !is_half {
        pending_deletions::delete_due(&over, &mut told).await;
    }
    told.end()
}
