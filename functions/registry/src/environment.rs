//! Time and randomness, which the core takes from its shell: it holds no clock and no random source of its own.

use async_trait::async_trait;

use crate::budget::ClientKey;
use crate::store::{Context, Incarnation, StoreError, Timestamp};

/// Memory that a request may use until it drops this.
pub type Memory = Box<dyn Send + Sync>;

/// What a shell provides beside its stores.
#[async_trait]
pub trait Environment: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with randomness fit for keys and ids.
    fn random(&self, bytes: &mut [u8]);

    /// Waits until `bytes` more may be held in memory for `client`, so that what all requests hold together is bounded. Asked for
    /// once a request, for what the core itself must hold whole: manifests and pages of referrers. A shell that serves
    /// one request at a time grants everything. [`StoreError::Unavailable`] when nothing becomes free in time.
    async fn memory(&self, client: ClientKey, bytes: usize) -> Result<Memory, StoreError>;

    /// Completes when `millis` milliseconds have passed. The core waits for time alone in two cases: it keeps an upload's
    /// claim alive through work that tells nothing of its progress, and it looks again whether another request has
    /// finished an upload.
    async fn sleep(&self, millis: u64);
}

/// 8 random bytes as a number.
pub(crate) fn random_u64(environment: &dyn Environment) -> u64 {
    let mut bytes = [0; 8];
    environment.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The context of a store call that may take `budget_ms` milliseconds.
pub(crate) fn context(environment: &dyn Environment, client: ClientKey, budget_ms: u64) -> Context {
    let now = environment.now();
    Context {
        now,
        deadline: now.plus_millis(budget_ms),
        incarnation: Incarnation(random_u64(environment)),
        client,
    }
}
