//! Where a registry keeps things.

use std::sync::Arc;

use crate::store::blobs::BlobStore;
use crate::store::collection::CollectionStore;
use crate::store::metadata::MetadataStore;
use crate::store::records::RecordStore;
use crate::store::sessions::SessionStore;

/// The stores of a registry. The first three serve requests; all five are for the work of an operator.
#[derive(Clone)]
pub struct Stores {
    /// Blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// Metadata: links, manifests, tags.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection over metadata and uploads.
    pub collection: Arc<dyn CollectionStore>,
    /// The metadata as records.
    pub records: Arc<dyn RecordStore>,
}
