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
