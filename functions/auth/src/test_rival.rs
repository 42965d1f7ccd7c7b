//! Another administrator, who comes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use registry::store::StoreError;
use registry::store::wrapped::{Hook, StoreMethod};

type Change = Box<dyn FnOnce() + Send>;

/// Makes other changes just before changes are written: one before each write, in their order. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Rival(Arc<Mutex<VecDeque<Change>>>);

impl Rival {
    /// Makes this change before the next one, after those of earlier calls.
    pub(crate) fn comes_first(&self, change: impl FnOnce() + Send + 'static) {
        self.changes(|changes| changes.push_back(Box::new(change)));
    }

    /// How many changes are left to make.
    pub(crate) fn left(&self) -> usize {
        self.changes(|changes| changes.len())
    }

    fn changes<T>(&self, work: impl FnOnce(&mut VecDeque<Change>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hook for Rival {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        if method == StoreMethod::Apply
            && let Some(change) = self.changes(VecDeque::pop_front)
        {
            change();
        }
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}
