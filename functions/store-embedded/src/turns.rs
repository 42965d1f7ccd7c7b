//! Shares the threads that may block between clients.

use registry::budget::{Budget, ClientKey, Grant};
use registry::store::StoreError;
use tokio::task::JoinHandle;

/// The maximum number of threads that calls of one kind occupy at a time.
const MAX_RUNNING: usize = 64;

/// The number of kinds: reads of blobs, writes of blobs, reads of metadata.
const KINDS: usize = 3;

/// The maximum number of blocking threads that all calls of these stores occupy. If the runtime has more threads than
/// this, the others stay available for other work, such as password checks, even when a disk does not answer.
pub const MAX_THREADS: usize = KINDS * MAX_RUNNING;

/// The maximum number of waiting calls. It is above the maximum number of requests, because each waiting call belongs
/// to a request in progress. The rest of an answer that has begun must not be refused.
const MAX_WAITING: usize = 1 << 20;

/// The right to occupy threads that may block. The runtime runs calls in the order of their arrival, for all clients
/// alike. So one client with many calls would delay all others. Turns alternate between clients.
///
/// A turn belongs to a running thread and never to a waiting task. So calls never wait for each other in a circle,
/// neither within one kind nor between kinds.
#[derive(Debug)]
pub(crate) struct Turns(Budget);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(Budget::new(MAX_RUNNING as u64, MAX_WAITING))
    }

    /// Waits for a turn. The turn belongs to the thread: a blocked thread keeps it until its call returns.
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

    /// Takes a turn, if one is free and no waiting client is ahead of this one.
    pub(crate) fn try_take(&self, client: ClientKey) -> Option<Grant> {
        self.0.try_take(client, 1)
    }
}

/// Runs `work` on a thread that may block. The thread keeps the turn until `work` ends.
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

    /// Another client's read starts at once, even when one client has very many reads.
    #[tokio::test]
    async fn one_client_never_takes_all_turns() {
        let turns = Turns::new();
        let client = |number| ClientKey::of([10, 0, 0, number].into());
        let mut blocked: Vec<_> = (0..1000).map(|_| Box::pin(turns.take(client(1)))).collect();
        let running: Vec<_> = blocked
            .iter_mut()
            .filter_map(futures_util::FutureExt::now_or_never)
            .collect();
        assert_eq!(running.len(), 48);
        assert!(turns.try_take(client(1)).is_none());
        assert!(turns.take(client(2)).now_or_never().unwrap().is_ok());
        assert!(turns.try_take(client(3)).is_some());
    }
}
