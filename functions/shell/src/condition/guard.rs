//! Checks the condition before each call to a store, and notes how the call ends.

use registry::store::StoreError;
use registry::store::wrapped::{CallEnd, Effect, Hook, StoreMethod};

use super::Condition;
use super::steps::PushStep;

/// Allows or refuses the calls to a store.
pub(super) struct ConditionGuard(pub(super) Condition);

impl Hook for ConditionGuard {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        match method.effect() {
            Effect::NoRequest | Effect::Reads => self.0.may_read(),
            Effect::Changes => self.0.may_change(),
            Effect::Stores => self.0.may_store(),
        }
    }

    fn ended(&self, method: StoreMethod, end: CallEnd<'_>) {
        if let Some(step) = PushStep::of(method) {
            self.0.note_write(step, end);
        }
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn may_keep(&self) -> Result<(), StoreError> {
        self.0.may_change()
    }
}
