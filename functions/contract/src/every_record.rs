//! Reads all records of a store, for the clauses about records and about collection.

use registry::store::records::{Record, RecordStore};

use super::ContractTest;

/// The maximum number of slices of a walk.
pub(super) const MAX_SLICES: usize = 100_000;

/// All records of a store, in slices of `limit`. A walk may meet a record twice.
pub(super) async fn walk(test: &ContractTest<dyn RecordStore>, limit: usize) -> Vec<Record> {
    let mut all = Vec::new();
    let mut next = None;
    for _ in 0..MAX_SLICES {
        let slice = test.store.records(test.cx(), next.as_ref(), limit).await;
        let slice = slice.expect("records");
        all.extend(slice.items);
        next = slice.next;
        if next.is_none() {
            return all;
        }
    }
    panic!("the walk does not end");
}

/// A record as a line of an export.
pub(super) fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("records are JSON")
}
