//! The clock and the random source of the operating system, and a bound for the memory of requests, for the core.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use registry::Environment;
use registry::budget::{Budget, ClientKey};
use registry::environment::Memory;
use registry::store::{StoreError, Timestamp};

/// How long a request waits for memory: longer than the core lets a manifest take to arrive.
const PATIENCE: Duration = Duration::from_secs(40);

/// How many requests wait for memory at once.
const MAX_WAITING: usize = 4096;

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
    memory: Budget,
}

impl SystemEnvironment {
    /// With `memory` bytes for all requests together.
    pub(crate) fn new(memory: u64) -> Self {
        Self {
            memory: Budget::new(memory.max(1), MAX_WAITING),
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

    async fn memory(&self, client: ClientKey, bytes: usize) -> Result<Memory, StoreError> {
        match tokio::time::timeout(PATIENCE, self.memory.take(client, bytes as u64)).await {
            Ok(Ok(grant)) => Ok(Box::new(grant)),
            Ok(Err(refused)) => Err(StoreError::unavailable(refused)),
            Err(_) => Err(StoreError::unavailable(
                "too many requests at once: no memory became free",
            )),
        }
    }

    async fn sleep(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
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
            let memory = tokio::time::timeout(Duration::from_millis(10), system.memory(ClientKey::INTERNAL, bytes));
            memory.await.is_err()
        }
        let client = ClientKey::INTERNAL;
        let system = SystemEnvironment::new(8 << 10);
        let first = system.memory(client, 6 << 10).await.expect("there is memory");
        assert!(waits(&system, 4 << 10).await);
        drop(first);
        let all = system
            .memory(client, 1 << 30)
            .await
            .expect("what is too much gets all there is");
        assert!(waits(&system, 1).await);
        drop(all);
        assert!(!waits(&system, 1).await);
    }
}
