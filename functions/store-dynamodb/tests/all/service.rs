//! The DynamoDB endpoint of the tests, and tables that only one test uses.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_client::{AwsConfig, AwsSettings};
use store_dynamodb::TableOptions;

/// The URL of the endpoint.
pub(crate) fn endpoint() -> String {
    std::env::var("ROADSTEAD_TEST_DYNAMODB").expect("the address of a DynamoDB endpoint")
}

/// Options with table names that no other test uses: one table, or one and a local table.
pub(crate) fn options(local: bool) -> TableOptions {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let random = getrandom::u64().expect("randomness");
    let table = format!("roadstead-{random:016x}-{}", TABLES.fetch_add(1, Ordering::Relaxed));
    TableOptions {
        local_table: local.then(|| format!("{table}-local")),
        table,
        endpoint: Some(endpoint()),
    }
}

/// AWS as the environment says it.
pub(crate) async fn aws() -> AwsConfig {
    AwsConfig::load(&AwsSettings::default()).await
}
