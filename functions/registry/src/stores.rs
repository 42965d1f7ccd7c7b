//! The stores of a registry.

use std::sync::Arc;

use crate::store::access::AccessStore;
use crate::store::blobs::BlobStore;
use crate::store::collection::CollectionStore;
use crate::store::metadata::MetadataStore;
use crate::store::records::RecordStore;
use crate::store::sessions::SessionStore;

/// The stores of a registry. The first three and `access` serve requests. Collection, check, export and import use all of
/// them.
#[derive(Clone)]
pub struct Stores {
    /// Blobs.
    pub blobs: Arc<dyn BlobStore>,
    /// Metadata: links, manifests, tags.
    pub metadata: Arc<dyn MetadataStore>,
    /// Upload sessions.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection of unreferenced metadata and expired sessions.
    pub collection: Arc<dyn CollectionStore>,
    /// The metadata as records.
    pub records: Arc<dyn RecordStore>,
    /// Accounts, the policy, the audit trail, and what instances share about tokens and guesses.
    pub access: Arc<dyn AccessStore>,
}
