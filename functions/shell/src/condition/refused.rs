//! Writes of pushes that a store has refused. Only a write shows such a fault, so it is reported until a write of the
//! same kind succeeds. The kinds are those of [`PushStep`].

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry::store::wrapped::CallEnd;
use registry::store::{Reason, StoreError};

use super::steps::PushStep;

#[derive(Debug)]
struct RefusedWrite {
    reason: Reason,
    text: String,
    /// Whether it was refused because of the minimum free space, or less than that was free since. Then it counts only until
    /// a check finds enough free space. If a file system refuses a write because of a limit of its own, only another write
    /// shows the end of that.
    is_of_floor: bool,
}

/// The last refused write of each kind, until a write of that kind succeeds.
#[derive(Debug, Default)]
pub(super) struct RefusedWrites(Mutex<BTreeMap<PushStep, RefusedWrite>>);

impl RefusedWrites {
    /// Notes the result of a write. `is_of_floor` says whether an error is because of the minimum free space, and not from
    /// the file system.
    pub(super) fn note(&self, step: PushStep, end: CallEnd<'_>, is_of_floor: impl FnOnce(&StoreError) -> bool) {
        match end {
            CallEnd::Done => {
                if self.all().remove(&step).is_some() {
                    tracing::info!(store = step.store(), "writes to this store succeed again");
                }
            }
            CallEnd::NothingWritten => {}
            CallEnd::Failed(error) => self.note_failed(step, error, is_of_floor),
        }
    }

    fn note_failed(&self, step: PushStep, error: &StoreError, is_of_floor: impl FnOnce(&StoreError) -> bool) {
        let reason = error.reason();
        if matches!(
            reason,
            Reason::NoSpace | Reason::NotWritable | Reason::ObjectStoreRefuses | Reason::MetadataRefuses
        ) {
            let write = RefusedWrite {
                reason,
                text: error.to_string(),
                is_of_floor: is_of_floor(error),
            };
            self.all().insert(step, write);
        }
    }

    /// Notes that less than the minimum space is free. Writes that were refused for lack of space then count only until
    /// enough space is free again.
    pub(super) fn below_floor(&self) {
        for write in self.all().values_mut() {
            write.is_of_floor |= write.reason == Reason::NoSpace;
        }
    }

    /// Adds why pushes would be refused. `has_space` says that a check has found more than the minimum free space.
    pub(super) fn add_to(&self, blocks: &mut BTreeMap<Reason, String>, has_space: bool) {
        for write in self.all().values().filter(|write| !(write.is_of_floor && has_space)) {
            blocks.entry(write.reason).or_insert_with(|| write.text.clone());
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PushStep, RefusedWrite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
