//! Time and randomness, which the core takes from its shell: it holds no clock and no random source of its own.

use async_trait::async_trait;

use crate::budget::ClientKey;
use crate::store::{Context, Timestamp, Uid};

/// A shell's clock and its random source.
#[async_trait]
pub trait Environment: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with randomness fit for keys and ids.
    fn random(&self, bytes: &mut [u8]);

    /// Completes when `millis` milliseconds have passed. The core waits for time alone in two cases: it keeps an upload's
    /// claim alive through work that tells nothing of its progress, and it looks again whether another request has
    /// finished an upload.
    async fn sleep(&self, millis: u64);
}

/// When a request has to be answered at the latest: an extension of a request, for shells whose host ends them at a certain
/// time. The core's calls to stores then end by this time, if their own does not come first (see
/// [`Context::deadline`](crate::store::Context)). A shell leaves itself some time to send the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline(pub Timestamp);

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
        uid: Uid(random_u64(environment)),
        client,
    }
}
