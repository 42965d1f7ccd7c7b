//! The protocol as tables: request → status, headers, body. A file for each family of endpoints.

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
