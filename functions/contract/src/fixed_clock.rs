//! An environment in which no time passes.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use registry::environment::Environment;
use registry::store::Timestamp;

/// A fixed time, and distinct numbers instead of random ones.
#[derive(Debug)]
pub struct FixedClock {
    now: Timestamp,
    next: AtomicU64,
}

impl FixedClock {
    /// The time is always `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        let next = AtomicU64::new(1);
        Self { now, next }
    }
}

#[async_trait]
impl Environment for FixedClock {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }

    async fn sleep(&self, _millis: u64) {
        std::future::pending::<()>().await;
    }
}
