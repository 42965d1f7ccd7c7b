//! The store over the real protocol of DynamoDB. One program, because each takes long to compile and to link.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;
mod table;

mod churn;
mod contracts;
mod neighbours;
mod tables;
