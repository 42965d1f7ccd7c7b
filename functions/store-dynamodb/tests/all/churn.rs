//! Pushes, deletes and collections at once over the real protocol, bytes in memory: no byte is lost, and in the end the
//! tables hold what outlives everything. `cargo test -- --ignored` with `ROADSTEAD_TEST_DYNAMODB`.

use std::sync::Arc;

use crate::service::options;
use crate::table::{client, key, rows};
use contract::churn::Options;
use contract::{Guard, Stores};
use registry::store::memory::MemoryBlobs;
use store_dynamodb::DynamoStore;

/// What is looked at when all is over.
struct Tables(Vec<String>);

async fn stores(local: bool) -> Stores {
    let options = options(local);
    DynamoStore::init(&options).await.unwrap();
    let store = Arc::new(DynamoStore::open(&options).await.unwrap());
    let mut tables = vec![options.table.clone()];
    tables.extend(options.local_table);
    Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store,
        guard: Box::new(Tables(tables)),
    }
}

/// How much is done; bounded by the time that a slow service takes.
fn much() -> Options {
    Options {
        workers: 3,
        operations: 30,
        ..Options::default()
    }
}

/// Every row is one that outlives what it was of: the catalog, the history, the last version of a tag that was deleted,
/// keys that sign, the pass of the collection, the version of the layout.
async fn look(guard: Guard) {
    let Tables(tables) = *guard.downcast::<Tables>().expect("the stores' guard");
    let client = client().await;
    let mut seen = 0;
    for table in tables {
        for row in rows(&client, &table).await {
            let (partition, sort) = key(&row);
            let stays = match partition.split('#').next() {
                Some("C" | "H") => true,
                Some("K") => matches!(sort, "first" | "pass" | "schema") || sort.starts_with("upload#"),
                _ => false,
            };
            assert!(stays, "this is left in {table}: {row:?}");
            seen += 1;
        }
    }
    assert!(seen > 0, "the tables were looked at");
}

mod one_table {
    contract::churn_tests!(
        super::stores(false),
        super::much(),
        super::look,
        #[ignore = "needs a DynamoDB endpoint"]
    );
}

mod two_tables {
    contract::churn_tests!(
        super::stores(true),
        super::much(),
        super::look,
        #[ignore = "needs a DynamoDB endpoint"]
    );
}
