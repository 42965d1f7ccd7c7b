//! The API over the reference store, through a whole registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod answers;
mod broken_trail;
mod by_token;
mod changes;
mod counted_threads;
mod deadlines;
mod explain;
mod first_administrator;
mod key_file;
mod meanwhile;
mod own_changes;
mod pages;
mod races;
mod repositories;
mod scanner;
mod slow_bodies;
mod slow_promotions;
mod support;
mod trail;
