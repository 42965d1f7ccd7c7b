//! The contracts over the real DynamoDB protocol. The service is at `ROADSTEAD_TEST_DYNAMODB`; the AWS SDK finds
//! credentials and region. Run them with `cargo test -- --ignored`.

use std::sync::Arc;

use crate::service::{aws, options};
use contract::{Guard, MetadataStores};
use registry::store::access::AccessStore;
use store_dynamodb::DynamoStore;

/// An empty store over two tables.
async fn store() -> Arc<DynamoStore> {
    let options = options(true);
    DynamoStore::init(&options, &aws().await)
        .await
        .expect("tables are made");
    Arc::new(
        DynamoStore::open(&options, &aws().await)
            .await
            .expect("tables are there"),
    )
}

async fn metadata_stores() -> (MetadataStores, Guard) {
    let store = store().await;
    let stores = MetadataStores {
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store.clone(),
        access: store,
    };
    (stores, Box::new(()))
}

contract::session_contract_tests!(
    async {
        let (metadata_stores, guard) = metadata_stores().await;
        (metadata_stores.sessions, guard)
    },
    #[ignore = "needs a DynamoDB endpoint"]
);
contract::metadata_contract_tests!(
    async {
        let (metadata_stores, guard) = metadata_stores().await;
        (metadata_stores.metadata, guard)
    },
    #[ignore = "needs a DynamoDB endpoint"]
);
contract::access_contract_tests!(
    async {
        let guard: Guard = Box::new(());
        (store().await as Arc<dyn AccessStore>, guard)
    },
    #[ignore = "needs a DynamoDB endpoint"]
);
contract::collection_contract_tests!(metadata_stores(), #[ignore = "needs a DynamoDB endpoint"]);
contract::audit_contract_tests!(metadata_stores(), #[ignore = "needs a DynamoDB endpoint"]);
contract::record_contract_tests!(metadata_stores(), #[ignore = "needs a DynamoDB endpoint"]);
