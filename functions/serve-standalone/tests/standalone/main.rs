//! The program as its users meet it: started as a process, spoken to over real connections on loopback, and ended by
//! signals. The protocol has its own tests in the core; these are of what a shell adds.
//!
//! Rows of the table of bug classes are named in the tests: `s14_…`, `s15_…` and so on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod administration;
mod answers;
mod challenges;
mod cloud;
mod cloud_churn;
mod cloud_clock;
mod cloud_import;
mod cloud_lost;
mod cloud_requests;
#[cfg(target_os = "linux")]
mod credential_process;
mod drain;
mod edge;
mod fair_answers;
mod fair_connections;
mod foreign;
mod fsck;
mod garbage_collection;
mod heads;
mod hosts;
mod interrupted;
mod logs;
mod lost;
mod metrics;
mod metrics_access;
mod moving;
mod new_keys;
mod operator;
mod own_host;
mod passwords;
mod policies;
mod probes;
mod protocol;
mod public_start;
mod readiness;
mod releases;
mod resets;
mod s3_options;
mod s3_options_redirects;
mod slow;
mod slow_readers;
mod start;
mod starved_uploads;
mod stores;
mod stuck;
mod support;
mod tls;
mod tls_files;
mod tokens;
mod users;
mod users_file;
