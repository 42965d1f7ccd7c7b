//! The contract tests of blob stores against a real server, with growing parts and with equal parts.

use std::sync::Arc;

use contract::Guard;
use registry::store::blobs::BlobStore;
use store_s3::{Parts, S3Options};

async fn store(change: impl FnOnce(&mut S3Options)) -> (Arc<dyn BlobStore>, Guard) {
    (Arc::new(crate::server::store_with(change).await), Box::new(()))
}

mod growing {
    contract::blob_contract_tests!(super::store(|_| {}), #[ignore = "needs an S3 server"]);
}

mod equal {
    contract::blob_contract_tests!(
        super::store(|options| {
            options.parts = super::Parts::Equal;
            options.part_checksums = false;
        }),
        #[ignore = "needs an S3 server"]
    );
}
