//! Where a registry keeps things.

use std::sync::Arc;

use crate::store::blobs::BlobStore;
use crate::store::collection::CollectionStore;
use crate::store::metadata::MetadataStore;
use crate::store::records::RecordStore;
use crate::store::sessions::SessionStore;

/// Where a registry keeps things.
#[derive(Clone)]
pub struct Stores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
}

/// Everything that a registry keeps, and how to go over it: for the work of an operator.
#[derive(Clone)]
pub struct AllStores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection over names and uploads.
    pub collection: Arc<dyn CollectionStore>,
    /// The names as records.
    pub records: Arc<dyn RecordStore>,
}

impl AllStores {
    /// What a registry needs to serve.
    #[must_use]
    pub fn serving(&self) -> Stores {
        Stores {
            blobs: self.blobs.clone(),
            metadata: self.metadata.clone(),
            sessions: self.sessions.clone(),
        }
    }
}
