//! The protocol as tables: request → status, headers, body. A file for each family of endpoints.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test binary uses its own part")]
mod support;

mod again;
mod blobs;
mod faults;
mod lists;
mod lost;
mod mounts;
mod paths;
mod pull;
mod push;
mod random;
mod references;
mod repeated;
mod room;
mod sessions;
mod uploads;
