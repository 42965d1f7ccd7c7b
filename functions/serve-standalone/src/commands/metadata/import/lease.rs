//! Keeping collection away from half of a registry.
//!
//! An export may hold all bytes before the links to them. A collection over what has been imported so far would find
//! bytes that nobody holds, and bury them; when their graves are due, the links have come, and the objects go all the
//! same. So an import takes the walk over the names before it writes anything, and holds it until its last record is
//! written, however often it is interrupted in between.

use std::sync::Arc;

use registry::store::collection::{CollectionStore, PassStart, UNTIL_IMPORTED};
use registry::store::{Context, Cursor, StoreError, Timestamp, Uid};

use super::super::super::store::cx;
use crate::failure::Failure;
use shell::timestamp;

/// What stands in the place of a pass' cursor.
const IMPORT: &str = "import";

/// The walk over the names, held by an import.
pub(super) struct ImportLease {
    collection: Arc<dyn CollectionStore>,
    import: Uid,
    /// An earlier run of the same import had it, and nobody else since: nothing was collected in between.
    pub(super) is_gone_on_with: bool,
}

impl ImportLease {
    /// Takes the walk for an import that is the same whenever it has the same name. With `force` also from another
    /// import, which is given up.
    pub(super) async fn take(collection: Arc<dyn CollectionStore>, import: Uid, force: bool) -> Result<Self, Failure> {
        let place = Cursor(IMPORT.to_owned());
        let held = collection.checkpoint(cx(), import, Some(&place), UNTIL_IMPORTED).await;
        let is_gone_on_with = held.map_err(failed)?;
        if !is_gone_on_with {
            let mut begun = collection.begin_pass(cx(), import, UNTIL_IMPORTED).await;
            if force && matches!(begun, Ok(PassStart::Busy(until)) if until >= UNTIL_IMPORTED) {
                begun = collection.begin_pass(at_the_end(), import, UNTIL_IMPORTED).await;
            }
            if let PassStart::Busy(until) = begun.map_err(failed)? {
                return Err(Failure::Failed(busy(until)));
            }
        }
        Ok(Self {
            collection,
            import,
            is_gone_on_with,
        })
    }

    /// Collection may come: the registry is whole.
    pub(super) async fn release(self) -> Result<(), Failure> {
        let now = cx();
        let released = self.collection.checkpoint(now, self.import, None, now.now).await;
        released.map(drop).map_err(failed)
    }
}

/// When nobody holds anything any more, not even an import.
fn at_the_end() -> Context {
    let cx = cx();
    Context {
        now: UNTIL_IMPORTED,
        deadline: UNTIL_IMPORTED.plus_millis(cx.deadline.millis_since(cx.now)),
        ..cx
    }
}

fn busy(until: Timestamp) -> String {
    if until >= UNTIL_IMPORTED {
        return "the import of another file into this registry is not through: go on with that one, or give it up and \
                mix the two with --force"
            .into();
    }
    format!(
        "a collection goes over this registry until {}, unless it goes on: try again when it is through",
        timestamp::seconds(until)
    )
}

fn failed(error: StoreError) -> Failure {
    Failure::failed("cannot keep collection away", error)
}
