//! The contract suite, and pushes, deletes and collections at once, on a disk and a SQLite file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use registry::contract::Stores;
use store_embedded::{Embedded, Options, Sync};

fn stores() -> Stores {
    let directory = tempfile::tempdir().unwrap();
    let Embedded {
        blobs,
        metadata,
        sessions,
    } = Embedded::open(&Options {
        data: directory.path().join("data"),
        sync: Sync::Full,
        upload_memory: 8 << 20,
    })
    .unwrap();
    Stores {
        blobs,
        sessions,
        collection: metadata.clone(),
        records: metadata.clone(),
        metadata,
        guard: Box::new(directory),
    }
}

registry::contract_tests!(async { stores() });
registry::churn_tests!(async { stores() });
