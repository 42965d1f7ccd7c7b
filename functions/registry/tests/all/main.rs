//! The tests of the core over its reference stores. One program, because the core is compiled again for each.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod churn;
mod contracts;
mod operator;
mod protocol;
mod requests;
mod security;
