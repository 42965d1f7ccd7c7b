//! Slices that are written at the same time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::FutureExt as _;
use registry::store::Context;
use registry::store::metadata::HistoryRecord;
use registry::store::records::RecordStore as _;

use super::*;
use crate::DynamoStore;
use crate::memory::{FaultRates, MemoryTable};
use crate::retrying::{RetryEnvironment, TestRetryEnvironment};
use crate::scheduler::{Random, Rules, Scheduler};

const NOW: Timestamp = Timestamp(1_900_000_000_000);

fn store_over(table: &MemoryTable, seed: u64) -> DynamoStore {
    let environment: Arc<dyn RetryEnvironment> = Arc::new(TestRetryEnvironment::new(seed));
    DynamoStore::over(Arc::new(table.clone()), Arc::new(table.clone()), &environment)
}

fn cx() -> Context {
    Context::internal(NOW, 30_000, Uid(1))
}

fn deletion(tag: &str, version: u64) -> Record {
    Record::History {
        repository: "team/app".parse().unwrap(),
        tag: tag.parse().unwrap(),
        change: HistoryRecord {
            version,
            before: None,
            after: None,
            principal: "user".into(),
            promoted_from: None,
            at: NOW.plus_millis(version),
            since: None,
        },
    }
}

fn tombstone(table: &MemoryTable, tag: &str) -> Option<Tombstone> {
    let key = keys::tombstone(&"team/app".parse().unwrap(), &tag.parse().unwrap());
    let attributes = table.look(|items| items.attributes(&key.partition, &key.sort).cloned());
    attributes.map(|attributes| Tombstone::read(&Item { key, attributes }).unwrap())
}

/// Three slices have deletions of the same tags. Their requests come in any order, and some are applied late. The
/// tombstone still has the last deletion.
#[test]
fn concurrent_inserts_keep_the_last_deletion_of_a_tag() {
    for seed in 0..2_000 {
        let scheduler = Scheduler::new(false);
        let faults = if seed % 2 == 0 {
            FaultRates::NONE
        } else {
            FaultRates::LATE
        };
        let table = MemoryTable::scheduled(faults, seed, &scheduler);
        let slices = [[("a", 3), ("b", 1)], [("a", 1), ("b", 3)], [("a", 2), ("b", 2)]];
        let tasks = slices.into_iter().zip(1..).map(|(slice, number)| {
            let store = store_over(&table, seed * 10 + number);
            let records: Vec<Record> = slice.iter().map(|(tag, version)| deletion(tag, *version)).collect();
            async move { store.insert(cx(), &records).await.unwrap() }.boxed()
        });
        let mut watch = || Ok(());
        let mut rules = Rules {
            crashes: 0,
            watch: &mut watch,
        };
        let mut random = Random::new(seed);
        scheduler.run(tasks.collect(), &mut random, &mut rules).unwrap();
        for tag in ["a", "b"] {
            let last = Tombstone {
                version: 3,
                at: NOW.plus_millis(3),
                before: None,
                since: None,
            };
            assert_eq!(tombstone(&table, tag), Some(last), "{tag}, seed {seed}");
        }
    }
}

/// Within one slice and in later slices, the order of the records does not matter.
#[tokio::test]
async fn an_older_deletion_does_not_replace_the_tombstone() {
    let table = MemoryTable::new();
    let store = store_over(&table, 1);
    let version = || tombstone(&table, "a").map(|tombstone| tombstone.version);
    for (slice, last) in [(&[5, 7, 6][..], 7), (&[4], 7), (&[7], 7), (&[2, 9, 3], 9)] {
        let records: Vec<Record> = slice.iter().map(|version| deletion("a", *version)).collect();
        store.insert(cx(), &records).await.unwrap();
        assert_eq!(version(), Some(last), "after {slice:?}");
    }
}
