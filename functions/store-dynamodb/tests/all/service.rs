//! The service that the tests are given, with tables of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use store_dynamodb::Options;

/// The service's address.
pub(crate) fn endpoint() -> String {
    std::env::var("ROADSTEAD_TEST_DYNAMODB").expect("the address of a DynamoDB endpoint")
}

/// Where tables can be made that no other test uses: one, or one and its local table.
pub(crate) fn options(local: bool) -> Options {
    static TABLES: AtomicU64 = AtomicU64::new(0);
    let random = getrandom::u64().expect("randomness");
    let table = format!("roadstead-{random:016x}-{}", TABLES.fetch_add(1, Ordering::Relaxed));
    Options {
        local_table: local.then(|| format!("{table}-local")),
        table,
        endpoint: Some(endpoint()),
        ..Options::default()
    }
}
