//! Time and chance, injected so that tests have their own.

use std::time::{Duration, Instant};

use async_trait::async_trait;

/// Time and chance for the retries; never for what is recorded.
#[async_trait]
pub(crate) trait RetryEnvironment: Send + Sync + 'static {
    /// The time since some moment, never going back.
    fn elapsed(&self) -> Duration;

    /// Lets time pass.
    async fn sleep(&self, time: Duration);

    /// Completes at that moment of [`RetryEnvironment::elapsed`], if it comes while nothing else happens.
    async fn alarm(&self, at: Duration);

    /// 64 random bits.
    fn random(&self) -> u64;

    /// A text that was never made before, of at most 36 characters.
    fn token(&self) -> String {
        format!("{:016x}{:016x}", self.random(), self.random())
    }
}

/// The time and chance of this machine.
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
        // Without it no token is unique, and nothing may be written.
        getrandom::u64().expect("the operating system provides randomness")
    }
}

/// Time that passes only while somebody sleeps, and chance from a seed.
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

    /// The tables of tests answer at once.
    async fn alarm(&self, _at: Duration) {
        std::future::pending::<()>().await;
    }

    fn random(&self) -> u64 {
        self.random.lock().expect("nobody panics with it").next()
    }
}
