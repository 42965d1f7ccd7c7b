//! Time and randomness. The core takes both from its shell.

use async_trait::async_trait;

use crate::budget::ClientKey;
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

/// The deadline of a request: an extension of the request, for shells whose host ends requests at a certain time. The
/// core's calls of stores end at this time, unless their own timeout comes first (see
/// [`Context::deadline`](crate::store::Context)). A shell sets it early enough to send the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline(pub Timestamp);

/// 8 random bytes, as a number.
pub fn random_u64(environment: &dyn Environment) -> u64 {
    let mut bytes = [0; 8];
    environment.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The context of a store call that begins now, on behalf of `client`, with a timeout of `budget_ms` milliseconds. Its uid is
/// random.
pub fn context(environment: &dyn Environment, client: ClientKey, budget_ms: u64) -> Context {
    Context {
        client,
        ..Context::internal(environment.now(), budget_ms, Uid(random_u64(environment)))
    }
}
