//! The stores of a registry, opened.

use std::fmt;
use std::sync::Arc;

use registry::Stores;
use registry::store::Context;

use crate::condition::Condition;
use crate::probe::{MetadataProbe, ObjectStoreProbe, OperationCounts, TableCounts};

/// A registry's stores, and what a shell knows of them.
#[derive(Clone)]
pub struct Opened {
    /// All of them. Whoever serves requests asks them through [`Condition::guarding`].
    pub stores: Stores,
    /// What they have counted.
    pub statistics: Statistics,
    /// In what condition they are.
    pub condition: Condition,
    /// Where blobs are, for people: nothing secret.
    pub blobs_description: String,
    /// Where metadata is, for people: nothing secret.
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
    /// Whether asking the stores costs money and a way over a network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        let is_remote = |probe: &Arc<dyn MetadataProbe>| probe.is_remote();
        self.statistics.object_store.is_some() || self.statistics.metadata.as_ref().is_some_and(is_remote)
    }

    /// Where the metadata is, for people, and so that no other place is described alike: a table of the same name in
    /// another region or account, or made later, is another one. The error is a sentence for the operator.
    pub async fn identify_metadata(&self, cx: Context) -> Result<String, String> {
        let described = &self.metadata_description;
        let identity = match &self.statistics.metadata {
            Some(probe) => probe.identity(cx).await,
            None => Ok(None),
        };
        match identity.map_err(|error| format!("cannot tell {described} from others: {error}"))? {
            Some(identity) => Ok(format!("{described}, table {identity}")),
            None => Ok(described.clone()),
        }
    }
}

/// What the stores in use count.
#[derive(Clone, Default)]
pub struct Statistics {
    /// The metadata; `None` counts nothing.
    pub metadata: Option<Arc<dyn MetadataProbe>>,
    /// The object store; `None` when there is none.
    pub object_store: Option<Arc<dyn ObjectStoreProbe>>,
    /// In what condition the stores are.
    pub condition: Condition,
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}

impl Statistics {
    /// What was asked of the tables of metadata and sessions.
    #[must_use]
    pub fn table(&self) -> TableCounts {
        self.metadata.as_ref().map(|probe| probe.counts()).unwrap_or_default()
    }

    /// What was asked of the object store, by operation; `None` when there is none.
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
    }
}
