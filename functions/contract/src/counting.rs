//! Stores that count their calls, for the number of reads and writes of an operation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use registry::store::StoreError;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::{Hook, Wrapped};

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

/// Methods that change nothing. `redirect` is not one of them, because it makes no request.
const READS: [&str; 24] = [
    // blobs
    "read",
    "stat",
    "objects",
    // sessions
    "get",
    "parts",
    "expired",
    "signing_keys",
    // metadata
    "link",
    "link_and_unmark",
    "manifest",
    "tag",
    "tagged_manifest",
    "tags",
    "history",
    "repository",
    "repositories",
    "manifests",
    "referrers",
    "linking_repositories",
    // collection
    "pending_deletions",
    "check_pending_deletion",
    // records
    "walk",
    "recorded_object",
    "missing_back_references",
];

/// The number of calls of one store or several. No two of the traits have a method of the same name. Clones share the
/// counts.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Without any calls.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of calls of the method with this name.
    #[must_use]
    pub fn of(&self, method: &str) -> u64 {
        self.all().get(method).copied().unwrap_or_default()
    }

    /// The number of calls of methods that change nothing.
    #[must_use]
    pub fn reads(&self) -> u64 {
        let calls = self.all();
        let reads = calls.iter().filter(|(method, _)| READS.contains(method));
        reads.map(|(_, count)| count).sum()
    }

    /// The number of calls of all other methods.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let calls = self.all();
        let writes = calls
            .iter()
            .filter(|(method, _)| !READS.contains(method) && **method != "redirect");
        writes.map(|(_, count)| count).sum()
    }

    /// The number of calls of every method that was called, by its name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Like [`Counts::all`], and sets the counts to zero.
    #[must_use = "use `Counts::new` to count apart"]
    pub fn take(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hook for Counts {
    fn before(&self, method: &'static str) -> Result<(), StoreError> {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(method)
            .or_default() += 1;
        Ok(())
    }

    fn after(&self, _method: &'static str) -> Result<(), StoreError> {
        Ok(())
    }
}
