//! The opened stores of a registry.

use std::fmt;
use std::sync::Arc;

use registry::Stores;
use registry::store::Context;

use crate::condition::Condition;
use crate::probe::{MetadataProbe, ObjectStoreProbe, OperationCounts, TableCounts};

/// The stores of a registry, and what a shell knows about them.
#[derive(Clone)]
pub struct Opened {
    /// All stores. A server uses them through [`Condition::guarding`].
    pub stores: Stores,
    /// The counters of the stores.
    pub statistics: StoreStatistics,
    /// The condition of the stores.
    pub condition: Condition,
    /// A description of where blobs are, for people, without secrets.
    pub blobs_description: String,
    /// A description of where metadata is, for people, without secrets.
    pub metadata_description: String,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("blobs", &self.blobs_description)
            .field("metadata", &self.metadata_description)
            .finish_non_exhaustive()
    }
}

impl Opened {
    /// Whether a request to the stores costs money and goes over a network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        let is_remote = |probe: &Arc<dyn MetadataProbe>| probe.is_remote();
        self.statistics.object_store.is_some() || self.statistics.metadata.as_ref().is_some_and(is_remote)
    }

    /// A unique description of where the metadata is, for people. A table of the same name in another region or account, or
    /// one that was created later, has another description. The error is a text for the operator.
    pub async fn identify_metadata(&self, cx: Context) -> Result<String, String> {
        let described = &self.metadata_description;
        let identity = match &self.statistics.metadata {
            Some(probe) => probe.identity(cx).await,
            None => Ok(None),
        };
        match identity.map_err(|error| format!("cannot identify {described}: {error}"))? {
            Some(identity) => Ok(format!("{described}, table {identity}")),
            None => Ok(described.clone()),
        }
    }
}

/// The counters of the stores.
#[derive(Clone, Default)]
pub struct StoreStatistics {
    /// The store of metadata; `None` if it has no counters.
    pub metadata: Option<Arc<dyn MetadataProbe>>,
    /// The object store; `None` if there is none.
    pub object_store: Option<Arc<dyn ObjectStoreProbe>>,
}

impl fmt::Debug for StoreStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreStatistics").finish_non_exhaustive()
    }
}

impl StoreStatistics {
    /// Reads and writes of metadata and upload sessions.
    #[must_use]
    pub fn table(&self) -> TableCounts {
        self.metadata.as_ref().map(|probe| probe.counts()).unwrap_or_default()
    }

    /// Requests to the object store, by operation; `None` if there is none.
    #[must_use]
    pub fn requests(&self) -> Option<Vec<OperationCounts>> {
        self.object_store.as_ref().map(|probe| probe.counts())
    }
}

/// Stores in memory over `metadata`.
#[cfg(test)]
pub(crate) fn in_memory(metadata: &Arc<registry::store::memory::MemoryMetadata>) -> Stores {
    use registry::store::memory::{MemoryBlobs, MemoryCollection, MemorySessions};

    let sessions = Arc::new(MemorySessions::new());
    Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: metadata.clone(),
        sessions: sessions.clone(),
        collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions)),
        records: metadata.clone(),
        access: metadata.clone(),
    }
}
