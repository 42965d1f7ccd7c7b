//! Authentication over the reference store, with a clock that the tests move.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failed_keys;
mod failed_reads;
mod first_start;
mod guesses;
mod login_log;
mod logins;
mod password_secret;
mod reads;
mod regions;
mod revocation;
mod rotated_keys;
mod shared_rules;
mod signers;
mod support;
mod token_requests;
