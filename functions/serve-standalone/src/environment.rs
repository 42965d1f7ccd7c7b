//! The clock and the random source of the operating system, for the core.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use registry::Environment;
use registry::store::Timestamp;

/// Bytes taken from the operating system at once: a system call for each id would show in the cost of a request.
const POOL: usize = 512;

struct Pool {
    bytes: [u8; POOL],
    left: usize,
}

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], left: 0 }) };
}

/// Wall time, and the operating system's randomness.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self, bytes: &mut [u8]) {
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
                SystemEnvironment.random(&mut id);
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
        SystemEnvironment.random(&mut large);
        assert!(large.iter().any(|byte| *byte != 0));
    }
}
