//! What a shell adds to the check of passwords: users that have no account, and the threads that hash.

use async_trait::async_trait;
use registry::auth::AuthenticationError;
use registry::budget::ClientKey;

/// Users with passwords that are not accounts, such as those of a htpasswd file. An account of the same name hides a user.
#[async_trait]
pub trait PasswordUsers: Send + Sync + 'static {
    /// A number that changes with the user's password, so that it can stand for it in a token: the first 8 bytes of SHA-256
    /// of the stored hash, as a big-endian number. `None`: there is no such user.
    async fn generation(&self, user: &str) -> Option<u64>;

    /// What is known of a password without hashing it: that it is right, or that the same client has sent it just before
    /// and it was wrong. `None`: it must be hashed.
    async fn known(&self, client: ClientKey, user: &str, password: &str) -> Option<bool>;

    /// Hashes a password and compares it. A password of an unknown user costs as much as that of a known one. The error says
    /// that it could not be checked now.
    async fn verify(&self, client: ClientKey, user: &str, password: &str) -> Result<bool, AuthenticationError>;

    /// Notes that an account hides this user, for a warning to the operator.
    fn hidden_by_account(&self, user: &str);
}

/// Work that hashes a password and says whether it is right.
pub type HashWork = Box<dyn FnOnce() -> bool + Send>;

/// Runs the hashing of passwords, which takes a core for a part of a second.
#[async_trait]
pub trait PasswordThreads: Send + Sync + 'static {
    /// Runs `work` for a password of `user` that `client` has sent, and returns its result. The error says that too much other
    /// work waits.
    async fn run(&self, user: &str, client: ClientKey, work: HashWork) -> Result<bool, AuthenticationError>;

    /// Notes that `user` had the right password from `client`, so that later work for them comes before guesses.
    fn was_right(&self, user: &str, client: ClientKey);
}

/// Hashes in the thread that asks: for functions, which serve one request at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SameThread;

#[async_trait]
impl PasswordThreads for SameThread {
    async fn run(&self, _: &str, _: ClientKey, work: HashWork) -> Result<bool, AuthenticationError> {
        Ok(work())
    }

    fn was_right(&self, _: &str, _: ClientKey) {}
}
