//! Makes the operations of tasks interleave, and interrupts operations.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use registry::store::StoreError;
use registry::store::wrapped::{Hook, StoreMethod};

use super::clock::Random;

/// Lets a store call yield to other tasks before it begins, at random. Clones share the random numbers.
#[derive(Clone, Debug)]
pub(super) struct Jitter(Arc<Mutex<Random>>);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Random::new(seed ^ 0x7177))))
    }
}

impl Hook for Jitter {
    fn before(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn pauses(&self) -> u32 {
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match random.below(8) {
            0..=3 => 0,
            4..=6 => 1,
            _ => 1 + u32::try_from(random.below(6)).unwrap_or(0),
        }
    }
}

/// Runs `work` until it has waited `waits` times, and drops it then: `None`. Without a number, to its end.
pub(super) async fn cut<T>(work: impl Future<Output = T>, waits: Option<usize>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = waits;
    poll_fn(|task| match work.as_mut().poll(task) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == Some(0) => Poll::Ready(None),
        Poll::Pending => {
            left = left.map(|left| left - 1);
            Poll::Pending
        }
    })
    .await
}
