//! A start on an address that other hosts reach, with stores that cannot be opened.

use std::path::Path;

use rusqlite::Connection;

use super::administration::Registry;
use crate::support::run;

/// A schema version that no program has.
const NEWER: i64 = 1_000;

/// Raises the version of the schema in `data`.
fn make_newer(data: &Path) {
    let database = Connection::open(data.join("metadata.db")).unwrap();
    database.pragma_update(None, "user_version", NEWER).unwrap();
}

/// Replaces the metadata in `data` by a file of another kind.
fn make_unreadable(data: &Path) {
    std::fs::write(
        data.join("metadata.db"),
        "not a database, and longer than the head of one ".repeat(100),
    )
    .unwrap();
}

/// Puts a file in the place of the directory `data`.
fn make_a_file(data: &Path) {
    std::fs::remove_dir_all(data).unwrap();
    std::fs::write(data, "").unwrap();
}

/// The operator must not be told that there are no accounts, and least of all to let everyone in.
#[test]
fn stores_that_cannot_be_opened_are_not_taken_for_stores_without_accounts() {
    for (what, spoil, reported) in [
        ("newer", make_newer as fn(&Path), "schema version 1000"),
        ("unreadable", make_unreadable, "metadata.db"),
        ("a file", make_a_file, "is not a directory"),
    ] {
        let registry = Registry::new();
        registry.run(&["user", "add", "root", "--admin", "--no-password"]);
        let data = registry.path("data");
        spoil(Path::new(&data));
        let output = run(["serve", "--log", "text", "--listen", "0.0.0.0:0", "--data", &data]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {stderr}");
        assert!(stderr.contains(reported), "{what}: {stderr}");
        for wrong in ["without authentication", "--allow-anonymous", "user add"] {
            assert!(!stderr.contains(wrong), "{what}: {stderr}");
        }
    }
}
