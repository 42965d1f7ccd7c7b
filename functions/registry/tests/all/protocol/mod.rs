//! Protocol tests as tables: request → status, headers, body. One file for each family of endpoints.

mod again;
mod api;
mod authentication;
mod blobs;
mod challenges;
mod deadlines;
mod faults;
mod large_answers;
mod lists;
mod lost;
mod memory;
mod mounts;
mod paths;
mod pull;
mod push;
mod random;
mod references;
mod repeated;
mod repository_settings;
mod request_ids;
mod sessions;
mod tokens;
mod upload_bodies;
mod uploads;
