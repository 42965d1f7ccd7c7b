//! The clock and the random source of the operating system, and a bound for the memory of requests, for the core.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use registry::Environment;
use registry::environment::Room;
use registry::store::{StoreError, Timestamp};
use tokio::sync::Semaphore;

/// The unit in which memory is counted, in bytes.
const UNIT: usize = 1 << 10;

/// How long a request waits for memory: longer than the core lets a manifest take to arrive.
const PATIENCE: Duration = Duration::from_secs(40);

/// Bytes taken from the operating system at once: a system call for each id would show in the cost of a request.
const POOL: usize = 512;

struct Pool {
    bytes: [u8; POOL],
    left: usize,
}

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], left: 0 }) };
}

/// Wall time, the operating system's randomness, and so much memory.
#[derive(Debug)]
pub(crate) struct SystemEnvironment {
    memory: Arc<Semaphore>,
    units: u32,
}

impl SystemEnvironment {
    /// With `memory` bytes for all requests together.
    pub(crate) fn new(memory: u64) -> Self {
        let units = u32::try_from(memory / UNIT as u64).unwrap_or(u32::MAX).max(1);
        Self {
            memory: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }
}

#[async_trait]
impl Environment for SystemEnvironment {
    fn now(&self) -> Timestamp {
        now()
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }

    async fn room(&self, bytes: usize) -> Result<Room, StoreError> {
        // What is more than there is gets all of it, and is alone then.
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        match tokio::time::timeout(PATIENCE, Arc::clone(&self.memory).acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(Box::new(permit)),
            Ok(Err(closed)) => Err(StoreError::failed(closed)),
            Err(_) => Err(StoreError::unavailable(
                "too many requests at once: no memory became free",
            )),
        }
    }
}

/// Wall time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The operating system's randomness.
pub(crate) fn random(bytes: &mut [u8]) {
    RANDOM.with_borrow_mut(|pool| {
        if bytes.len() > POOL {
            return fill(bytes);
        }
        if pool.left < bytes.len() {
            fill(&mut pool.bytes);
            pool.left = POOL;
        }
        let start = pool.left - bytes.len();
        let taken = &mut pool.bytes[start..pool.left];
        bytes.copy_from_slice(taken);
        // What was handed out must not be found in memory later.
        taken.fill(0);
        pool.left = start;
    });
}

/// A process that cannot get randomness must not go on: its ids and keys could be guessed.
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides randomness");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_values_differ_across_refills_and_threads() {
        let draw = || {
            let mut seen = Vec::new();
            for _ in 0..200 {
                let mut id = [0; 16];
                random(&mut id);
                seen.push(id);
            }
            seen
        };
        let mut all: HashSet<[u8; 16]> = HashSet::new();
        let other = std::thread::spawn(draw);
        all.extend(draw());
        all.extend(other.join().expect("the thread ends"));
        assert_eq!(all.len(), 400);
        let mut large = [0; POOL + 1];
        random(&mut large);
        assert!(large.iter().any(|byte| *byte != 0));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_waited_for() {
        async fn waits(system: &SystemEnvironment, bytes: usize) -> bool {
            let room = tokio::time::timeout(Duration::from_millis(10), system.room(bytes));
            room.await.is_err()
        }
        let system = SystemEnvironment::new(8 << 10);
        let most = system.room(7 << 10).await.expect("there is room");
        assert!(waits(&system, 2 << 10).await);
        let rest = system.room(1 << 10).await.expect("there is room");
        drop((most, rest));
        let all = system.room(1 << 30).await.expect("what is too much gets all there is");
        assert!(waits(&system, 1).await);
        drop(all);
        assert!(!waits(&system, 1).await);
    }
}
