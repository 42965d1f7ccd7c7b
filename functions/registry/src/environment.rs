//! Time and randomness, which the core takes from its shell: it holds no clock and no random source of its own.

use crate::store::{Context, Incarnation, Timestamp};

/// What a shell provides beside its stores.
pub trait Environment: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with randomness fit for keys and ids.
    fn random(&self, bytes: &mut [u8]);
}

/// 8 random bytes as a number.
pub(crate) fn random_u64(environment: &dyn Environment) -> u64 {
    let mut bytes = [0; 8];
    environment.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The context of a store call that may take `budget_ms` milliseconds.
pub(crate) fn context(environment: &dyn Environment, budget_ms: u64) -> Context {
    let now = environment.now();
    Context {
        now,
        deadline: now.plus_millis(budget_ms),
        incarnation: Incarnation(random_u64(environment)),
    }
}
