//! The reference stores keep their own contracts.

use std::sync::Arc;

use registry::contract::Stores;
use registry::store::memory::{MemoryBlobs, MemoryMetadata, MemorySessions};

fn stores() -> Stores {
    Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: Arc::new(MemoryMetadata::new()),
        sessions: Arc::new(MemorySessions::new()),
        guard: Box::new(()),
    }
}

registry::contract_tests!(async { stores() });
