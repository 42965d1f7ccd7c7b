//! Which reads may run on the threads that run all requests.
//!
//! A read of what is in memory takes some microseconds, less than handing it to another thread and back. The same call
//! takes as long as the disk or another process likes when it must wait for one of them, and nobody can tell before.
//! So such calls are made at once by all worker threads of the runtime but one: whatever is stuck, one worker goes on
//! with everything else. A call that comes while the others are occupied runs on a thread that may block.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

/// How many calls run on worker threads now. One number for the process, because its stores share the threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Leave to run one call on this thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct Inline(());

impl Inline {
    /// `None`: the call must run on a thread that may block.
    pub(crate) fn enter() -> Option<Self> {
        // In a runtime of one thread there is nobody to leave free.
        let limit = workers().saturating_sub(1).max(1);
        if RUNNING.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(Self(()));
        }
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker threads of this runtime; 1 outside of any.
pub(crate) fn workers() -> usize {
    Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}
