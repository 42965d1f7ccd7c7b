//! What `roadstead --version` prints.

use std::sync::OnceLock;

use shell::stores::{SCHEMA_ACCESS_VERSION, SCHEMA_VERSION, TABLE_ACCESS_VERSION, TABLE_LAYOUT_VERSION};

use crate::commands::EXPORT_VERSION;

/// The text of `--version` after the name of the program: its version, the commit that it was built from, and the versions of
/// its stored formats, which tell an operator whether another version can read the same data. The commit is that of the
/// first call.
pub(crate) fn long(commit: Option<&str>) -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        // An empty variable counts as unset: build scripts leave variables empty.
        let commit = commit
            .filter(|commit| !commit.is_empty())
            .unwrap_or("unknown (ROADSTEAD_COMMIT was not set when this was built)");
        format!(
            "{}\ncommit: {commit}\nlayouts: SQLite schema {SCHEMA_VERSION} ({SCHEMA_ACCESS_VERSION} with accounts), DynamoDB \
             table {TABLE_LAYOUT_VERSION} ({TABLE_ACCESS_VERSION} with accounts), export {EXPORT_VERSION}",
            env!("CARGO_PKG_VERSION"),
        )
    })
}
