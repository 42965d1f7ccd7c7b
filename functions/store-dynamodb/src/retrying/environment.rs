//! The time and randomness of retries. Tests inject their own.

use std::time::{Duration, Instant};

use async_trait::async_trait;

/// Time and randomness for retries. Neither is ever stored in a record.
#[async_trait]
pub(crate) trait RetryEnvironment: Send + Sync + 'static {
    /// The time since a fixed point in the past. It never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits for this time.
    async fn sleep(&self, time: Duration);

    /// Completes when [`RetryEnvironment::elapsed`] reaches `at`, if no other event comes first.
    async fn alarm(&self, at: Duration);

    /// 64 random bits.
    fn random(&self) -> u64;

    /// A unique text of at most 36 characters.
    fn token(&self) -> String {
        format!("{:016x}{:016x}", self.random(), self.random())
    }
}

/// The clock and the randomness of the operating system.
pub(crate) struct SystemRetryEnvironment {
    start: Instant,
}

impl SystemRetryEnvironment {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

#[async_trait]
impl RetryEnvironment for SystemRetryEnvironment {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn alarm(&self, at: Duration) {
        tokio::time::sleep(at.saturating_sub(self.elapsed())).await;
    }

    fn random(&self) -> u64 {
        // Without randomness no token is unique, and nothing may be written.
        getrandom::u64().expect("the operating system provides randomness")
    }
}

/// A clock that advances only during sleeps, and random numbers from a seed.
#[cfg(test)]
pub(crate) struct TestRetryEnvironment {
    micros: std::sync::atomic::AtomicU64,
    random: std::sync::Mutex<crate::scheduler::Random>,
}

#[cfg(test)]
impl TestRetryEnvironment {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            micros: std::sync::atomic::AtomicU64::default(),
            random: std::sync::Mutex::new(crate::scheduler::Random::new(seed)),
        }
    }
}

#[cfg(test)]
#[async_trait]
impl RetryEnvironment for TestRetryEnvironment {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.micros.load(std::sync::atomic::Ordering::SeqCst))
    }

    async fn sleep(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).expect("a short time");
        self.micros.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }

    /// Never completes, because the tables of tests answer at once.
    async fn alarm(&self, _at: Duration) {
        std::future::pending::<()>().await;
    }

    fn random(&self) -> u64 {
        self.random
            .lock()
            .expect("no thread panics while it holds the lock")
            .next()
    }
}
