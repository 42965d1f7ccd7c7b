//! Tests of the store against servers: one in memory that fails on request ([`fake`]), and real ones.
//!
//! Tests that need a real server are ignored by default: `cargo test -- --ignored` runs them, with `ROADSTEAD_TEST_S3`
//! and the SDK's own variables (see [`server`]).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod churn;
mod contract;
mod failed_bodies;
mod fake;
mod faults;
mod memory;
mod options;
mod parts;
mod pulls;
mod removal;
mod requests;
mod server;
mod session;
mod test_registry;
mod uploads;
