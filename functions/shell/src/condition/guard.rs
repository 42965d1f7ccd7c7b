//! Checks the condition before each call to a store, and notes how the call ends.

use registry::store::StoreError;
use registry::store::wrapped::{CallEnd, Hook};

use super::Condition;
use super::steps::{Effect, PushStep, StoreKind, effect};

/// Allows or refuses the calls to one store.
pub(super) struct ConditionGuard {
    pub(super) condition: Condition,
    pub(super) kind: StoreKind,
}

impl Hook for ConditionGuard {
    fn before(&self, method: &'static str) -> Result<(), StoreError> {
        match effect(self.kind, method) {
            Effect::Reads => self.condition.may_read(),
            Effect::Changes => self.condition.may_change(),
            Effect::Stores => self.condition.may_store(),
        }
    }

    fn ended(&self, method: &'static str, end: CallEnd<'_>) {
        if let Some(step) = PushStep::of(self.kind, method) {
            self.condition.note_write(step, end);
        }
    }

    fn after(&self, _method: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    fn may_keep(&self) -> Result<(), StoreError> {
        self.condition.may_change()
    }
}
