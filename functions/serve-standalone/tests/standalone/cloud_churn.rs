//! Pushes, deletes and collections at once over S3 and DynamoDB together: no byte is lost, and in the end the bucket is
//! empty and the table holds what outlives everything.

use std::sync::Arc;

use aws_client::{AwsConfig, AwsSettings};
use contract::churn::ChurnOptions;
use contract::{Guard, TestStores};
use registry::Stores;
use store_dynamodb::DynamoStore;
use store_s3::S3Blobs;

use crate::support::cloud::{CloudStores, key};

async fn stores() -> TestStores {
    let cloud = CloudStores::new().await;
    let mut s3_options = store_s3::S3Options::new(&cloud.name);
    s3_options.endpoint = Some(cloud.s3.clone());
    "registry".clone_into(&mut s3_options.prefix);
    let table_options = store_dynamodb::TableOptions {
        table: cloud.name.clone(),
        endpoint: Some(cloud.dynamodb.clone()),
        ..store_dynamodb::TableOptions::default()
    };
    let aws = AwsConfig::load(&AwsSettings::default()).await;
    DynamoStore::init(&table_options, &aws).await.unwrap();
    let table = Arc::new(DynamoStore::open(&table_options, &aws).await.unwrap());
    let stores = Stores {
        blobs: Arc::new(S3Blobs::open(s3_options, &aws).await.unwrap()),
        metadata: table.clone(),
        sessions: table.clone(),
        collection: table.clone(),
        records: table.clone(),
        access: table,
    };
    let guard = Box::new(cloud);
    TestStores { stores, guard }
}

/// How much is done, with a largest blob that is sent in parts. Bounded by the time that slow services take: with its events,
/// and their comparison with the history at the end, an operation asks the table for half as much again as its changes do.
fn much() -> ChurnOptions {
    ChurnOptions {
        workers: 3,
        operations: 24,
        largest: 14 << 20,
        ..ChurnOptions::default()
    }
}

async fn look(guard: Guard) {
    let cloud = guard.downcast::<CloudStores>().expect("the stores' guard");
    assert_eq!(cloud.objects().await.keys().collect::<Vec<_>>(), [&""; 0], "objects");
    assert_eq!(cloud.uploads().await, [""; 0], "uploads in parts");
    let rows = cloud.rows().await;
    assert!(!rows.is_empty(), "the table was looked at");
    for row in rows {
        let (partition, sort) = key(&row);
        let stays = match partition.split('#').next() {
            // The catalog, what has happened to tags, and the audit trail with the time of its first event.
            Some("C" | "H" | "U") => true,
            Some("A") => sort == "audit",
            // Keys that sign, the pass of the collection, the version of the layout.
            Some("K") => matches!(sort, "first" | "pass" | "schema") || sort.starts_with("upload#"),
            _ => false,
        };
        assert!(stays, "this is left in the table: {row:?}");
    }
}

contract::churn_tests!(
    stores(),
    much(),
    look,
    #[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
);
