//! An audit trail that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry::store::StoreError;
use registry::store::wrapped::{Hook, StoreMethod};

/// Whether the audit trail fails, for reasons that do not pass.
#[derive(Clone, Default)]
pub(super) struct BrokenTrail(Arc<AtomicBool>);

impl BrokenTrail {
    pub(super) fn set(&self, is_broken: bool) {
        self.0.store(is_broken, Ordering::SeqCst);
    }
}

impl Hook for BrokenTrail {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::Audit && self.0.load(Ordering::SeqCst) {
            return Err(StoreError::failed("the trail is broken"));
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}
