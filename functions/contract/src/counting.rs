//! Stores that count their calls, for the number of reads and writes of an operation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry::store::StoreError;
use registry::store::access::AccessStore;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::{Effect, Hook, StoreMethod, Wrapped};

/// A blob store that counts. Make it with `CountingBlobs::new(store, counts.clone())`.
pub type CountingBlobs = Wrapped<dyn BlobStore, Counts>;
/// A session store that counts.
pub type CountingSessions = Wrapped<dyn SessionStore, Counts>;
/// A metadata store that counts.
pub type CountingMetadata = Wrapped<dyn MetadataStore, Counts>;
/// A collection that counts.
pub type CountingCollection = Wrapped<dyn CollectionStore, Counts>;
/// A store of records that counts.
pub type CountingRecords = Wrapped<dyn RecordStore, Counts>;
/// A store of accounts, policy and audit that counts.
pub type CountingAccess = Wrapped<dyn AccessStore, Counts>;

/// The number of calls of one store or several. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<StoreMethod, u64>>>);

impl Counts {
    /// Without any calls.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of calls of the method.
    #[must_use]
    pub fn of(&self, method: StoreMethod) -> u64 {
        self.all().get(&method).copied().unwrap_or_default()
    }

    /// The number of calls of methods that read.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.with(|effect| effect == Effect::Reads)
    }

    /// The number of calls of methods that change or store something.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.with(|effect| matches!(effect, Effect::Changes | Effect::Stores))
    }

    fn with(&self, counts: impl Fn(Effect) -> bool) -> u64 {
        let calls = self.all();
        let counted = calls.iter().filter(|(method, _)| counts(method.effect()));
        counted.map(|(_, count)| count).sum()
    }

    /// The number of calls of every method that was called.
    #[must_use]
    pub fn all(&self) -> BTreeMap<StoreMethod, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Like [`Counts::all`], and sets the counts to zero.
    #[must_use = "use `Counts::new` to count apart"]
    pub fn take(&self) -> BTreeMap<StoreMethod, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hook for Counts {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(method)
            .or_default() += 1;
        Ok(())
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }
}
