//! Time and randomness. The core takes both from its shell.

use async_trait::async_trait;

use crate::budget::ClientKey;
use crate::deadline::{self, Deadline};
use crate::store::{Context, Timestamp, Uid};

/// The clock and the random source of a shell.
#[async_trait]
pub trait Environment: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with random bytes that are good enough for keys and ids.
    fn random(&self, bytes: &mut [u8]);

    /// Completes after `millis` milliseconds. The core sleeps in two cases only: it renews the claim of an upload
    /// during work that reports no progress, and it polls whether another request has finished an upload.
    async fn sleep(&self, millis: u64);
}

/// 8 random bytes, as a number.
pub fn random_u64(environment: &dyn Environment) -> u64 {
    let mut bytes = [0; 8];
    environment.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The context of a store call that begins now, on behalf of `client`, with a timeout of `budget_ms` milliseconds, or until the
/// deadline of the request that makes the call, if that is earlier. Its uid is random.
pub fn context(environment: &dyn Environment, client: ClientKey, budget_ms: u64) -> Context {
    context_until(deadline::in_force(), environment, client, budget_ms)
}

/// The same for a request with this deadline, for calls that it makes after its operation has returned.
pub(crate) fn context_until(
    deadline: Option<Deadline>,
    environment: &dyn Environment,
    client: ClientKey,
    budget_ms: u64,
) -> Context {
    let cx = Context::internal(environment.now(), budget_ms, Uid(random_u64(environment)));
    let end = deadline.map_or(cx.deadline, |deadline| deadline.at().min(cx.deadline));
    Context {
        client,
        deadline: end,
        ..cx
    }
}
