//! Concurrent pushes, deletes and collections over a real server, with metadata in memory. No byte may be lost. At the
//! end the bucket must be empty, without parts of unfinished uploads.

use std::sync::Arc;

use contract::churn::ChurnOptions;
use contract::{Guard, TestStores};
use registry::Stores;
use store_s3::{Operation, S3Blobs};

use crate::server::{self, BUCKET};
use crate::session::MIB;

/// The amount of work, with blobs of up to `largest` bytes. It is bounded by the time that a slow server needs.
fn options(largest: usize) -> ChurnOptions {
    ChurnOptions {
        workers: 4,
        operations: 80,
        largest,
        ..ChurnOptions::default()
    }
}

/// The store and its prefix, which are checked at the end.
struct StoreToCheck {
    store: S3Blobs,
    prefix: String,
}

async fn stores(change: impl FnOnce(&mut store_s3::S3Options)) -> TestStores {
    let mut prefix = String::new();
    let store = server::store_with(|options| {
        change(options);
        prefix.clone_from(&options.prefix);
    })
    .await;
    let stores = Stores {
        blobs: Arc::new(store.clone()),
        ..TestStores::in_memory().stores
    };
    let guard = Box::new(StoreToCheck { store, prefix });
    TestStores { stores, guard }
}

/// Checks the bucket with requests of its own, since the store's listing may omit objects.
async fn check(guard: Guard) {
    let StoreToCheck { store, prefix } = *guard.downcast::<StoreToCheck>().expect("the stores' guard");
    let statistics = store.statistics();
    for operation in [
        Operation::PutObject,
        Operation::UploadPart,
        Operation::CompleteMultipartUpload,
    ] {
        assert!(statistics.sent(operation) > 0, "{} in {statistics:?}", operation.name());
    }
    let client = server::client().await;
    let objects = client.list_objects_v2().bucket(BUCKET).prefix(&prefix).send();
    let objects = objects.await.unwrap();
    assert_eq!(objects.contents(), [], "objects are left");
    let uploads = client.list_multipart_uploads().bucket(BUCKET).prefix(&prefix).send();
    let uploads = uploads.await.unwrap();
    assert_eq!(uploads.uploads(), [], "uploads in parts are left");
}

mod growing {
    use super::MIB;

    contract::churn_tests!(
        super::stores(|_| {}),
        super::options(14 * MIB),
        super::check,
        #[ignore = "needs an S3 server"]
    );
}

mod equal {
    use super::MIB;

    contract::churn_tests!(
        super::stores(|options| {
            options.parts = store_s3::Parts::Equal;
            options.part_checksums = false;
        }),
        // One part of 52 MiB, and one smaller part.
        super::options(53 * MIB),
        super::check,
        #[ignore = "needs an S3 server"]
    );
}
