//! Stores that fail on request, to test what an interrupted operation leaves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::store::StoreError;
use registry::store::access::AccessStore;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};

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
/// A store of accounts, policy and audit that fails as planned.
pub type FaultyAccess = Wrapped<dyn AccessStore, Faults>;

/// The error of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::Failed`].
    Failed,
}

/// Where in a call the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPoint {
    /// Before the call has done anything.
    Before,
    /// After the call has done everything: the answer is lost.
    After,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The method that fails; `None`: any method.
    pub method: Option<StoreMethod>,
    /// The number of the call that fails, counted from 1 since the fault was planned.
    pub nth: u64,
    /// The error.
    pub kind: FaultKind,
    /// Before or after the work of the call.
    pub point: FaultPoint,
}

/// When one store, or several together, will fail. Clones share the plan.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<FaultPlan>>);

#[derive(Debug, Default)]
struct FaultPlan {
    fault: Option<Fault>,
    matching: u64,
    calls: Vec<StoreMethod>,
    struck: u64,
}

impl Faults {
    /// Without a planned fault.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Plans a fault, which replaces the planned one, and counts from zero.
    pub fn plan(&self, fault: Fault) {
        *self.lock() = FaultPlan {
            fault: Some(fault),
            ..FaultPlan::default()
        };
    }

    /// Removes the planned fault, and counts from zero.
    pub fn clear(&self) {
        *self.lock() = FaultPlan::default();
    }

    /// The methods that were called since the fault was planned, in order. Their number bounds [`Fault::nth`] for a
    /// test that lets each call of an operation fail in turn.
    #[must_use]
    pub fn calls(&self) -> Vec<StoreMethod> {
        self.lock().calls.clone()
    }

    /// How many faults have happened since the fault was planned.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    fn lock(&self) -> MutexGuard<'_, FaultPlan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultPlan {
    /// The planned fault, if it is due now in a call of `method`.
    fn due(&mut self, method: StoreMethod, point: FaultPoint) -> Result<(), StoreError> {
        let Some(fault) = self.fault else {
            return Ok(());
        };
        if fault.method.is_some_and(|only| only != method) || fault.point != point {
            return Ok(());
        }
        self.matching += 1;
        if self.matching != fault.nth {
            return Ok(());
        }
        self.struck += 1;
        let cause = format!("planned fault in {method:?}");
        Err(match fault.kind {
            FaultKind::Unavailable => StoreError::unavailable(cause),
            FaultKind::Failed => StoreError::failed(cause),
        })
    }
}

impl Hook for Faults {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        let mut plan = self.lock();
        plan.calls.push(method);
        plan.due(method, FaultPoint::Before)
    }

    fn after(&self, method: StoreMethod) -> Result<(), StoreError> {
        self.lock().due(method, FaultPoint::After)
    }
}
