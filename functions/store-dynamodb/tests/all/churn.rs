//! Concurrent pushes, deletions and collections over the real DynamoDB protocol, with blobs in memory. No blob is lost,
//! and in the end the tables have only rows that always stay. Run it with `cargo test -- --ignored` and
//! `ROADSTEAD_TEST_DYNAMODB`.

use std::sync::Arc;

use crate::service::{aws, options};
use crate::table::{client, key, rows};
use contract::churn::ChurnOptions;
use contract::{Guard, TestStores};
use registry::Stores;
use registry::store::memory::MemoryBlobs;
use store_dynamodb::DynamoStore;

/// The names of the tables, to read them at the end.
struct Tables(Vec<String>);

async fn stores(local: bool) -> TestStores {
    let options = options(local);
    DynamoStore::init(&options, &aws().await).await.unwrap();
    let store = Arc::new(DynamoStore::open(&options, &aws().await).await.unwrap());
    let mut tables = vec![options.table.clone()];
    tables.extend(options.local_table);
    let stores = Stores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store.clone(),
        access: store,
    };
    let guard = Box::new(Tables(tables));
    TestStores { stores, guard }
}

/// The amount of work, limited because the service may be slow.
fn workload() -> ChurnOptions {
    ChurnOptions {
        workers: 3,
        operations: 30,
        ..ChurnOptions::default()
    }
}

/// Checks that every row is one that always stays: the catalog, the history, tombstones, signing keys, the collection
/// pass, and the layout version.
async fn check_rows(guard: Guard) {
    let Tables(tables) = *guard.downcast::<Tables>().expect("the stores' guard");
    let client = client().await;
    let mut seen = 0;
    for table in tables {
        for row in rows(&client, &table).await {
            let (partition, sort) = key(&row);
            let stays = match partition.split('#').next() {
                Some("C" | "H" | "U") => true,
                Some("A") => sort == "audit",
                Some("K") => matches!(sort, "first" | "pass" | "schema") || sort.starts_with("upload#"),
                _ => false,
            };
            assert!(stays, "an unexpected row in {table}: {row:?}");
            seen += 1;
        }
    }
    assert!(seen > 0, "the tables have rows");
}

mod one_table {
    contract::churn_tests!(
        super::stores(false),
        super::workload(),
        super::check_rows,
        #[ignore = "needs a DynamoDB endpoint"]
    );
}

mod two_tables {
    contract::churn_tests!(
        super::stores(true),
        super::workload(),
        super::check_rows,
        #[ignore = "needs a DynamoDB endpoint"]
    );
}
