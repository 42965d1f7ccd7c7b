//! A collection pass over a million records uses bounded memory, and its slices occupy the writer for a bounded time.
//!
//! This test runs alone in its process, so that the memory of the process is the memory of the pass.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use registry::store::collection::{CollectionStore, GracePeriods, PassStatistics, Plan};
use registry::store::records::RecordStore;
use registry::store::{Context, Cursor, Timestamp, Uid};
use rusqlite::Connection;
use store_embedded::{Embedded, EmbeddedOptions, Sync};

/// The number of blobs. Each has a link and a back-link, so there are a million records.
const BLOBS: u64 = 333_400;

/// The maximum additional memory during the walk, in bytes.
const MEMORY: u64 = 24 << 20;

fn cx(now: u64) -> Context {
    Context::internal(Timestamp(now), 60_000, Uid(1))
}

/// The maximum memory that this process has used so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_million_records_are_collected_in_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        data: directory.path().to_owned(),
        sync: Sync::Off,
        upload_memory: 1 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    };
    Embedded::open(&options).unwrap().close();
    // SQL inserts all rows in one transaction, because pushing them takes longer than the test.
    let connection = Connection::open(directory.path().join("metadata.db")).unwrap();
    let numbers = format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {BLOBS})");
    let digest = "'sha256:' || printf('%064x', n)";
    let repository = "'library/app' || (n % 10)";
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = OFF; BEGIN; \
             {numbers} INSERT INTO blob SELECT {digest}, 'main', printf('%032x.1', n), 10, 1, NULL FROM n; \
             {numbers} INSERT INTO backlink SELECT {digest}, {repository}, n, 'blob', 1 FROM n; \
             {numbers} INSERT INTO link SELECT {repository}, {digest}, 'main', printf('%032x.1', n), 10, n, 1, NULL FROM n; \
             COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .unwrap();
    drop(connection);

    let store = Embedded::open(&options).unwrap().metadata;
    let short = GracePeriods {
        link_ms: 10,
        session_ms: 10,
        deletion_ms: 10,
        orphan_ms: 10,
    };
    let before = peak();
    let mut longest = Duration::ZERO;
    let mut statistics = Vec::new();
    // The first pass marks; the second one unlinks and schedules deletions.
    for now in [1_000, 2_000] {
        let plan = Plan {
            dry_run: false,
            deep: now == 1_000,
            grace_periods: short,
        };
        let (mut total, mut after) = (PassStatistics::default(), None::<Cursor>);
        loop {
            let begun = Instant::now();
            let slice = store
                .collect_metadata(cx(now), &plan, after.as_ref(), 1_000_000)
                .await
                .unwrap();
            longest = longest.max(begun.elapsed());
            total.seen += slice.statistics.seen;
            total.marked += slice.statistics.marked;
            total.unlinked += slice.statistics.unlinked;
            total.scheduled += slice.statistics.scheduled;
            after = slice.next;
            if after.is_none() {
                break;
            }
        }
        statistics.push(total);
    }
    assert_eq!((statistics[0].seen, statistics[0].marked), (3 * BLOBS, BLOBS));
    assert_eq!((statistics[1].unlinked, statistics[1].scheduled), (BLOBS, BLOBS));

    // Walks over the pending deletions like a collection.
    let mut deleted = 0;
    loop {
        let pending_deletions = store
            .pending_deletions(cx(3_000), Timestamp(3_000), None, 1_000)
            .await
            .unwrap()
            .items;
        if pending_deletions.is_empty() {
            break;
        }
        deleted += pending_deletions.len() as u64;
        store
            .remove_pending_deletions(cx(3_000), &pending_deletions)
            .await
            .unwrap();
    }
    assert_eq!(deleted, BLOBS);
    let left = store
        .records(cx(3_000), Some(&Cursor("links  ".to_owned())), 10)
        .await
        .unwrap();
    assert_eq!(left.items, []);

    let used = peak() - before;
    assert!(used < MEMORY, "the pass used {used} bytes");
    assert!(longest < Duration::from_secs(5), "a slice took {longest:?}");
}
