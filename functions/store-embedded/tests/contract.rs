//! The contract suite, and concurrent pushes, deletions and collections, on a disk and a SQLite file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use contract::churn::ChurnOptions as Churn;
use contract::{Guard, TestStores};
use registry::Stores;
use rusqlite::Connection;
use store_embedded::{Embedded, EmbeddedOptions, Sync};
use tempfile::TempDir;

fn stores() -> TestStores {
    let directory = tempfile::tempdir().unwrap();
    let Embedded {
        blobs,
        metadata,
        sessions,
    } = Embedded::open(&EmbeddedOptions {
        data: directory.path().join("data"),
        sync: Sync::Full,
        upload_memory: 8 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap();
    let stores = Stores {
        blobs,
        sessions,
        collection: metadata.clone(),
        records: metadata.clone(),
        access: metadata.clone(),
        metadata,
    };
    let guard = Box::new(directory);
    TestStores { stores, guard }
}

/// The number of rows of each table.
fn rows(data: &Path) -> BTreeMap<String, u32> {
    let connection = Connection::open(data.join("metadata.db")).unwrap();
    let mut names = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
        .unwrap();
    let names = names.query_map([], |row| row.get(0)).unwrap();
    let names: Vec<String> = names.collect::<Result<_, _>>().unwrap();
    let count = |name: String| {
        let count = format!("SELECT count(*) FROM \"{name}\"");
        let count = connection.query_row(&count, [], |row| row.get(0)).unwrap();
        (name, count)
    };
    names.into_iter().map(count).collect()
}

/// All files below `blobs`, finished or not.
fn files(data: &Path) -> Vec<String> {
    let directories = std::fs::read_dir(data.join("blobs")).unwrap();
    let files = directories.flat_map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path().display().to_string()).collect()
}

/// Checks what the traits of the stores do not show: edges, back-links and referrers, parts of sessions, the row of the
/// collection pass, and unfinished files. Only rows that are never deleted may remain.
async fn assert_all_collected(guard: Guard) {
    let directory = guard.downcast::<TempDir>().expect("the stores' guard");
    let data = directory.path().join("data");
    let mut rows = rows(&data);
    for (table, minimum) in [("tag_history", 1), ("signing_key", 1), ("audit", 1)] {
        let left = rows.remove(table);
        assert!(left.is_some_and(|left| left >= minimum), "{left:?} in {table}");
    }
    assert!(rows.len() >= 12, "{rows:?}");
    rows.retain(|_, left| *left > 0);
    assert_eq!(rows, BTreeMap::new(), "tables with rows that were not collected");
    assert_eq!(files(&data), Vec::<String>::new());
}

contract::contract_tests!(async { stores() });
contract::churn_tests!(async { stores() }, Churn::default(), assert_all_collected);
