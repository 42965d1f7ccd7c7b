//! A pass over a million records: in bounded memory, in slices that hold the writer for a bounded time.
//!
//! Alone in its process, so that what the process holds is what the pass holds.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use registry::store::collection::{CollectionStore, GracePeriods, PassStatistics, Plan};
use registry::store::records::RecordStore;
use registry::store::{Context, Cursor, Timestamp, Uid};
use rusqlite::Connection;
use store_embedded::{Embedded, Options, Sync};

/// Blobs, with a link and a back-link each: together a million records.
const BLOBS: u64 = 333_400;

/// How much more memory may be held during the walk than before it, in bytes.
const MEMORY: u64 = 24 << 20;

fn cx(now: u64) -> Context {
    Context {
        now: Timestamp(now),
        deadline: Timestamp(now + 60_000),
        uid: Uid(1),
        client: registry::budget::ClientKey::INTERNAL,
    }
}

/// The most memory that this process has held so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_million_records_are_collected_in_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        data: directory.path().to_owned(),
        sync: Sync::Off,
        upload_memory: 1 << 20,
        memory_timeout: Options::MEMORY_TIMEOUT,
    };
    Embedded::open(&options).unwrap().close();
    // By hand, in one transaction: pushing them takes longer than the test.
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
        leftover_ms: 10,
    };
    let before = peak();
    let mut longest = Duration::ZERO;
    let mut tallies = Vec::new();
    // Marked, then unlinked and buried.
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
        tallies.push(total);
    }
    assert_eq!((tallies[0].seen, tallies[0].marked), (3 * BLOBS, BLOBS));
    assert_eq!((tallies[1].unlinked, tallies[1].scheduled), (BLOBS, BLOBS));

    // The graves, as a collection walks over them.
    let mut forgotten = 0;
    loop {
        let pending_deletions = store
            .pending_deletions(cx(3_000), Timestamp(3_000), None, 1_000)
            .await
            .unwrap()
            .items;
        if pending_deletions.is_empty() {
            break;
        }
        forgotten += pending_deletions.len() as u64;
        store.forget(cx(3_000), &pending_deletions).await.unwrap();
    }
    assert_eq!(forgotten, BLOBS);
    let left = store
        .records(cx(3_000), Some(&Cursor("links  ".to_owned())), 10)
        .await
        .unwrap();
    assert_eq!(left.items, []);

    let held = peak() - before;
    assert!(held < MEMORY, "the pass held {held} bytes");
    assert!(longest < Duration::from_secs(5), "a slice took {longest:?}");
}
