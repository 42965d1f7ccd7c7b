//! Threads that may block, shared between clients.

use registry::budget::{Budget, ClientKey, Grant};
use registry::store::StoreError;
use tokio::task::JoinHandle;

/// How many calls of one kind occupy threads at a time.
const MAX_RUNNING: usize = 64;

/// How many kinds there are: reads of blobs, writes of blobs, reads of metadata.
const KINDS: usize = 3;

/// How many threads that may block all calls of these stores occupy at most. A runtime that has some more has them for
/// everything else, passwords for instance, also when a disk does not answer.
pub const MAX_THREADS: usize = KINDS * MAX_RUNNING;

/// How many calls wait at once. Each of them belongs to a request in progress, of which there are fewer; an answer that has
/// begun must not be refused the rest.
const MAX_WAITING: usize = 1 << 20;

/// The right to occupy threads that may block. The runtime runs what comes first, whoever sent it, so a client with many
/// calls would keep all others waiting; here clients take turns.
///
/// A turn belongs to a thread and never to a task that waits: so calls of one kind never wait for each other in a circle,
/// nor for those of another kind.
#[derive(Debug)]
pub(crate) struct Turns(Budget);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(Budget::new(MAX_RUNNING as u64, MAX_WAITING))
    }

    /// Waits for a turn. It belongs to the thread: one that is stuck counts until it comes back.
    pub(crate) async fn take(&self, client: ClientKey) -> Result<Grant, StoreError> {
        self.0.take(client, 1).await.map_err(StoreError::unavailable)
    }

    /// Runs `work` in a turn of `client`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        client: ClientKey,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.take(client).await?;
        run_in(turn, work).await.map_err(StoreError::failed)
    }

    /// A turn, if one is free and no client that waits comes before this one.
    pub(crate) fn try_take(&self, client: ClientKey) -> Option<Grant> {
        self.0.try_take(client, 1)
    }
}

/// Runs `work` on a thread that may block, which has the turn to its end.
pub(crate) fn run_in<T: Send + 'static>(turn: Grant, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures_util::FutureExt as _;

    use super::*;

    /// However many reads a client has, another one begins at once.
    #[tokio::test]
    async fn one_client_never_has_all_turns() {
        let turns = Turns::new();
        let client = |number| ClientKey::of([10, 0, 0, number].into());
        let mut stuck: Vec<_> = (0..1000).map(|_| Box::pin(turns.take(client(1)))).collect();
        let running: Vec<_> = stuck
            .iter_mut()
            .filter_map(futures_util::FutureExt::now_or_never)
            .collect();
        assert_eq!(running.len(), 48);
        assert!(turns.try_take(client(1)).is_none());
        assert!(turns.take(client(2)).now_or_never().unwrap().is_ok());
        assert!(turns.try_take(client(3)).is_some());
    }
}
