//! The reference stores under everything at once; and that a churn notices what it is there to notice.

use std::sync::Arc;

use registry::contract::Stores;
use registry::contract::churn::Options;
use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};

fn stores() -> Stores {
    let metadata = Arc::new(MemoryMetadata::new());
    let sessions = Arc::new(MemorySessions::new());
    Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: metadata.clone(),
        sessions: sessions.clone(),
        collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions)),
        records: metadata,
        guard: Box::new(()),
    }
}

mod one {
    registry::churn_tests!(async { super::stores() });
}

mod another {
    use super::Options;

    registry::churn_tests!(
        async { super::stores() },
        Options {
            seed: 20_301_124,
            workers: 6,
            operations: 200,
            ..Options::default()
        }
    );
}
