//! The store against servers: one in memory that fails as a test asks ([`fake`]), and real ones.
//!
//! What needs a real server is ignored unless asked for: `cargo test -- --ignored`, with `ROADSTEAD_TEST_S3` and the
//! SDK's own variables (see [`server`]).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod churn;
mod contract;
mod fake;
mod faults;
mod options;
mod orderly;
mod parts;
mod pulls;
mod removal;
mod requests;
mod server;
mod session;
mod starved;
mod uploads;
mod world;
