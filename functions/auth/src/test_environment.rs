//! The shell of unit tests.

use std::sync::Mutex;

use async_trait::async_trait;
use proptest::test_runner::Config as ProptestConfig;
use registry::Environment;
use registry::random::SplitMix64;
use registry::store::Timestamp;

/// The configuration of a property whose cases are expensive: one in `n` of the cases that others try.
pub(crate) fn one_in(n: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(n),
        ..usual
    }
}

/// A clock that stands still, and random bytes that a seed repeats.
pub(crate) struct TestEnvironment(Mutex<SplitMix64>);

impl TestEnvironment {
    pub(crate) const NOW: Timestamp = Timestamp(1_796_000_000_123);

    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix64::new(seed)))
    }
}

#[async_trait]
impl Environment for TestEnvironment {
    fn now(&self) -> Timestamp {
        Self::NOW
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut random = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for byte in bytes {
            *byte = random.bits().to_be_bytes()[0];
        }
    }

    async fn sleep(&self, _: u64) {}
}
