//! Stores that record the deadlines of their calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry::Stores;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{Context, StoreError, Timestamp};

/// The latest deadline of the calls of each method. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Deadlines(Arc<Mutex<BTreeMap<StoreMethod, Timestamp>>>);

impl Deadlines {
    /// The same stores, with every call recorded here.
    #[must_use]
    pub fn of(&self, stores: &Stores) -> Stores {
        Stores {
            blobs: Arc::new(Wrapped::new(stores.blobs.clone(), self.clone())),
            metadata: Arc::new(Wrapped::new(stores.metadata.clone(), self.clone())),
            sessions: Arc::new(Wrapped::new(stores.sessions.clone(), self.clone())),
            collection: Arc::new(Wrapped::new(stores.collection.clone(), self.clone())),
            records: Arc::new(Wrapped::new(stores.records.clone(), self.clone())),
            access: Arc::new(Wrapped::new(stores.access.clone(), self.clone())),
        }
    }

    /// The latest deadline of each method that was called, and forgets them.
    #[must_use = "they are forgotten"]
    pub fn take(&self) -> BTreeMap<StoreMethod, Timestamp> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hook for Deadlines {
    fn called(&self, method: StoreMethod, cx: Context) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = latest.entry(method).or_insert(cx.deadline);
        *latest = cx.deadline.max(*latest);
    }

    fn before(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}
