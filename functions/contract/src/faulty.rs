//! Stores that fail when they are told to: what is left behind when a store's fault cuts an operation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::store::StoreError;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::{Hook, Wrapped};

/// A blob store that fails as planned. Make it with `FaultyBlobs::new(store, faults.clone())`.
pub type FaultyBlobs = Wrapped<dyn BlobStore, Faults>;
/// A session store that fails as planned.
pub type FaultySessions = Wrapped<dyn SessionStore, Faults>;
/// A metadata store that fails as planned.
pub type FaultyMetadata = Wrapped<dyn MetadataStore, Faults>;
/// A collection that fails as planned.
pub type FaultyCollection = Wrapped<dyn CollectionStore, Faults>;
/// A store of records that fails as planned.
pub type FaultyRecords = Wrapped<dyn RecordStore, Faults>;

/// Which error a fault is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::Failed`].
    Failed,
}

/// Where in a call the fault lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Nothing was done.
    Before,
    /// All was done, and the answer was lost.
    After,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The method that fails; `None`: any.
    pub method: Option<&'static str>,
    /// Which of its calls, counted from 1 since the plan was made.
    pub nth: u64,
    /// The error.
    pub kind: Kind,
    /// Before or after the work.
    pub timestamp: FaultPoint,
}

/// When one store, or several together, will fail. Clones share the plan.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    matching: u64,
    calls: Vec<&'static str>,
    struck: u64,
}

impl Faults {
    /// No fault is planned.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Plans a fault, in place of what was planned before; counting begins again.
    pub fn plan(&self, fault: Fault) {
        *self.lock() = Plan {
            fault: Some(fault),
            ..Plan::default()
        };
    }

    /// Plans nothing any more; counting begins again.
    pub fn clear(&self) {
        *self.lock() = Plan::default();
    }

    /// The methods called since the plan was made, in order. Their number bounds [`Fault::nth`] for a test that lets
    /// each call of an operation fail in turn.
    #[must_use]
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }

    /// How many faults have struck since the plan was made.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// The planned fault, if it is due now in a call of `method`.
    fn due(&mut self, method: &str, timestamp: FaultPoint) -> Result<(), StoreError> {
        let Some(fault) = self.fault else {
            return Ok(());
        };
        if fault.method.is_some_and(|only| only != method) || fault.timestamp != timestamp {
            return Ok(());
        }
        self.matching += 1;
        if self.matching != fault.nth {
            return Ok(());
        }
        self.struck += 1;
        let cause = format!("planned fault in {method}");
        Err(match fault.kind {
            Kind::Unavailable => StoreError::unavailable(cause),
            Kind::Failed => StoreError::failed(cause),
        })
    }
}

impl Hook for Faults {
    fn before(&self, method: &'static str) -> Result<(), StoreError> {
        let mut plan = self.lock();
        plan.calls.push(method);
        plan.due(method, FaultPoint::Before)
    }

    fn after(&self, method: &'static str) -> Result<(), StoreError> {
        self.lock().due(method, FaultPoint::After)
    }
}
