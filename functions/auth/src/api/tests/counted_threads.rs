//! Hashes in the thread that asks, and counts.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use registry::auth::AuthenticationError;
use registry::budget::ClientKey;

use crate::accounts::{HashWork, PasswordThreads};

#[derive(Default)]
pub(super) struct CountedThreads(AtomicU64);

impl CountedThreads {
    /// The number of hashes since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl PasswordThreads for CountedThreads {
    async fn run(&self, _: &str, _: ClientKey, work: HashWork) -> Result<bool, AuthenticationError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(work())
    }

    fn was_right(&self, _: &str, _: ClientKey) {}
}
