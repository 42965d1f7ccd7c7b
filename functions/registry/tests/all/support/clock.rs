//! A clock that a test advances, randomness that a test can repeat, and memory that a test can count.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use registry::Environment;
use registry::budget::ClientKey;
use registry::memory::{Memory, MemoryBudget, MemoryPermit, Purpose};
use registry::random::SplitMix64;
use registry::store::{StoreError, Timestamp};
use tokio::sync::Notify;

pub(crate) struct Clock {
    now: AtomicU64,
    random: Mutex<SplitMix64>,
    grants: Mutex<Vec<(Purpose, usize)>>,
    held: Arc<AtomicUsize>,
    full: AtomicBool,
    /// Whether sleeping advances the clock.
    flows: AtomicBool,
    /// Wakes the sleepers when the clock advances.
    passed: Notify,
    slow: Arc<AtomicBool>,
}

/// Memory that is released when this is dropped.
struct Held {
    bytes: usize,
    all: Arc<AtomicUsize>,
    slow: Arc<AtomicBool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[async_trait]
impl MemoryPermit for Held {
    fn try_grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::SeqCst);
        true
    }

    fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.all.fetch_sub(less, Ordering::SeqCst);
    }

    async fn must_give_way(&mut self, _: u64) {
        if !self.slow.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn look(&mut self, _: u64, _: bool) -> Option<u64> {
        (!self.slow.load(Ordering::SeqCst)).then_some(1_000)
    }
}

impl Clock {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: AtomicU64::new(1_900_000_000_000),
            random: Mutex::new(SplitMix64::new(seed)),
            grants: Mutex::default(),
            held: Arc::default(),
            full: AtomicBool::new(false),
            flows: AtomicBool::new(false),
            passed: Notify::new(),
            slow: Arc::default(),
        }
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
        self.passed.notify_waiters();
    }

    /// From now on a sleep advances the clock itself.
    pub(crate) fn flow(&self) {
        self.flows.store(true, Ordering::SeqCst);
    }

    /// From now on there is no free memory, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// From now on every body arrives too slowly while others wait for memory.
    pub(crate) fn slow_arrivals(&self) {
        self.slow.store(true, Ordering::SeqCst);
    }

    /// The memory that was granted since the last call, in bytes.
    pub(crate) fn granted(&self) -> Vec<(Purpose, usize)> {
        std::mem::take(&mut *self.grants.lock().expect("not poisoned"))
    }

    /// The memory in use, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().expect("no test panics while it holds this");
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.bits().to_le_bytes()[..chunk.len()]);
        }
    }

    async fn sleep(&self, millis: u64) {
        if self.flows.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
            return self.pass(millis);
        }
        let until = self.now().plus_millis(millis);
        loop {
            // Registered before the clock is read, so that no step of it is missed.
            let mut passed = std::pin::pin!(self.passed.notified());
            passed.as_mut().enable();
            if self.now() >= until {
                return;
            }
            passed.await;
        }
    }
}

#[async_trait]
impl MemoryBudget for Clock {
    async fn memory(&self, client: ClientKey, purpose: Purpose, bytes: usize) -> Result<Memory, StoreError> {
        self.memory_at_once(client, purpose, bytes)
            .ok_or_else(|| StoreError::unavailable("planned fault: no memory"))
    }

    fn memory_at_once(&self, _: ClientKey, purpose: Purpose, bytes: usize) -> Option<Memory> {
        if self.full.load(Ordering::SeqCst) {
            return None;
        }
        self.grants.lock().expect("not poisoned").push((purpose, bytes));
        self.held.fetch_add(bytes, Ordering::SeqCst);
        Some(Box::new(Held {
            bytes,
            all: self.held.clone(),
            slow: self.slow.clone(),
        }))
    }
}
