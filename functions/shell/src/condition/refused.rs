//! Writes of pushes that a store has refused: what only a write can tell counts until one succeeds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry::store::wrapped::CallEnd;
use registry::store::{Reason, StoreError};

use super::steps::PushStep;

#[derive(Debug)]
struct RefusedWrite {
    reason: Reason,
    text: String,
    /// Whether it was refused because of a floor, or less than that was free since: then it counts no longer than until
    /// enough is free, which looks tell. What a file system refuses for other limits of its own, only a write tells.
    is_of_floor: bool,
}

/// Writes that were refused, and none of their kind has succeeded since.
#[derive(Debug, Default)]
pub(super) struct RefusedWrites(Mutex<BTreeMap<PushStep, RefusedWrite>>);

impl RefusedWrites {
    /// Notes how a write has ended. `is_of_floor`: whether an error comes from the floor, and not from the file system.
    pub(super) fn note(&self, step: PushStep, end: CallEnd<'_>, is_of_floor: impl FnOnce(&StoreError) -> bool) {
        match end {
            CallEnd::Done => {
                if self.all().remove(&step).is_some() {
                    tracing::info!(store = step.store(), "a write has succeeded again");
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

    /// Less is free than is to stay free: when enough is again, what was refused for want of space counts no more.
    pub(super) fn below_floor(&self) {
        for write in self.all().values_mut() {
            write.is_of_floor |= write.reason == Reason::NoSpace;
        }
    }

    /// Adds why pushes would be refused. `has_space`: a look has found more free than is to stay free.
    pub(super) fn add_to(&self, blocks: &mut BTreeMap<Reason, String>, has_space: bool) {
        for write in self.all().values().filter(|write| !(write.is_of_floor && has_space)) {
            blocks.entry(write.reason).or_insert_with(|| write.text.clone());
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<PushStep, RefusedWrite>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
