//! The API over the reference store, through a whole registry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod answers;
mod changes;
mod support;
