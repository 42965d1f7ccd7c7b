//! The clock and the random source of the operating system.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use registry::Environment;
use registry::store::Timestamp;

/// Number of random bytes that are read in one system call. A system call for each id would make requests slower.
const POOL: usize = 512;

struct Pool {
    bytes: [u8; POOL],
    left: usize,
}

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], left: 0 }) };
}

/// Wall time, in milliseconds since the Unix epoch.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Fills `bytes` with the operating system's randomness, fit for keys and ids.
///
/// # Panics
///
/// Panics if the operating system has no randomness. A process without it must not continue, because its ids and keys could
/// be guessed.
pub fn random(bytes: &mut [u8]) {
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
        // Keys that were made of these bytes must not be found in this memory later.
        taken.fill(0);
        pool.left = start;
    });
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system provides randomness");
}

/// The clock and the random source of the operating system, for the core.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

#[async_trait]
impl Environment for SystemEnvironment {
    fn now(&self) -> Timestamp {
        now()
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }

    async fn sleep(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
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
}
