//! Hashes the passwords of accounts, in the same turns as those of the file.

use std::sync::Arc;

use async_trait::async_trait;
use auth::accounts::{HashWork, PasswordThreads};
use registry::auth::AuthenticationError;
use registry::budget::ClientKey;

use super::turns::PasswordTurns;

/// Threads beside those that serve requests, at most one for each core.
pub(crate) struct HashingThreads {
    turns: Arc<PasswordTurns>,
}

impl HashingThreads {
    /// Threads that work in these turns.
    pub(crate) fn new(turns: Arc<PasswordTurns>) -> Self {
        Self { turns }
    }
}

#[async_trait]
impl PasswordThreads for HashingThreads {
    async fn run(&self, user: &str, client: ClientKey, work: HashWork) -> Result<bool, AuthenticationError> {
        let turn = self.turns.wait(user, client).await?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            // The turn ends here and not in the waiting task. If that task is dropped, the work still runs, and no further
            // one may begin.
            drop(turn);
            result
        });
        done.await
            .map_err(|error| AuthenticationError::Unavailable(error.into()))
    }

    fn was_right(&self, user: &str, client: ClientKey) {
        self.turns.was_right(user, client);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    const CORES: usize = 3;

    fn client(number: u8) -> ClientKey {
        ClientKey::of(Ipv4Addr::new(192, 0, 2, number).into())
    }

    /// The largest number of hashes at the same time, of many requests for this user from as many clients.
    async fn at_once(threads: &HashingThreads, user: &str) -> usize {
        let (running, largest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let hashes = (0..40_u8).map(|number| {
            let (running, largest) = (running.clone(), largest.clone());
            let work: HashWork = Box::new(move || {
                largest.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Long enough that all of them would meet, if nothing kept them apart.
                std::thread::sleep(Duration::from_millis(10));
                running.fetch_sub(1, Ordering::SeqCst);
                number.is_multiple_of(2)
            });
            async move { (number, threads.run(user, client(number), work).await) }
        });
        for (number, result) in join_all(hashes).await {
            assert!(
                matches!(result, Ok(is_right) if is_right == number.is_multiple_of(2)),
                "{number}: {result:?}"
            );
        }
        largest.load(Ordering::SeqCst)
    }

    /// As many as there are cores; and of clients that were never right, one less.
    #[tokio::test]
    async fn s31_hashes_of_accounts_take_turns() {
        let turns = Arc::new(PasswordTurns::of(CORES));
        let threads = HashingThreads::new(turns.clone());
        let guesses = at_once(&threads, "mallory").await;
        assert!((1..CORES).contains(&guesses), "{guesses}");
        for number in 0..40 {
            threads.was_right("alice", client(number));
        }
        let known = at_once(&threads, "alice").await;
        assert!((1..=CORES).contains(&known), "{known}");
        assert_eq!(turns.free(), CORES as u64);
    }

    /// A client that hangs up does not make place for another hash while its own one runs.
    #[tokio::test]
    async fn s31_a_hash_keeps_its_turn_when_nobody_waits_for_it() {
        let turns = Arc::new(PasswordTurns::of(1));
        let threads = HashingThreads::new(turns.clone());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let work: HashWork = Box::new(move || receiver.recv().is_ok());
        let mut run = threads.run("mallory", client(1), work);
        assert!(run.as_mut().now_or_never().is_none());
        drop(run);
        assert_eq!(turns.free(), 0);
        drop(sender);
        let next = threads.run("mallory", client(1), Box::new(|| true)).await;
        assert!(matches!(next, Ok(true)), "{next:?}");
    }
}
