//! Time that passes when a test says so, and randomness that a test can repeat.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use registry::Environment;
use registry::store::Timestamp;

pub(crate) struct Clock {
    now: AtomicU64,
    state: Mutex<u64>,
}

impl Clock {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: AtomicU64::new(1_900_000_000_000),
            state: Mutex::new(seed),
        }
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn random(&self, bytes: &mut [u8]) {
        // splitmix64
        let mut state = self.state.lock().expect("no test panics while it holds this");
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}
