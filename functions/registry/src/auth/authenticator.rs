//! Who finds the identity of a request.

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;

use super::{CredentialId, Credentials, Identity, Origin, Principal, Rules, SharedRules};

/// Why a request has no identity.
#[derive(Debug)]
pub enum AuthenticationError {
    /// The credentials are missing or wrong. The response is 401, with a challenge.
    Unauthenticated,
    /// The request has a token that does not allow it. The response is 401, with a challenge that says why.
    Token(TokenError),
    /// The client has sent too many wrong passwords, and the password was not checked. The response is 429. Like
    /// [`AuthenticationError::TooManyRequests`], it is not logged by the core.
    TooManyAttempts {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    /// The credentials could not be checked now (503).
    Unavailable(Box<dyn Error + Send + Sync>),
    /// Too many other credentials wait for their check (503). A client that guesses passwords can cause this as often
    /// as it wants, so the core does not log it. The authenticator logs it, at a rate that it chooses.
    TooManyRequests,
}

/// Why a token does not allow a request: the `error` of a challenge (RFC 6750, 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// The token is malformed, expired, withdrawn or not signed by the registry.
    Invalid,
    /// The token is valid, but does not contain the action. A token that does might be granted.
    InsufficientScope,
}

impl TokenError {
    /// The value of `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// Finds the identity of a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity that the credentials of a request prove. If something decides about it that was read before and kept, the
    /// identity says when that was ([`Identity::with_state_read`]), also in [`Authenticator::reauthorize`].
    async fn authenticate(&self, origin: &Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError>;

    /// The current identity of `principal`, which was authenticated earlier, by the key `credential` if it was a key. An
    /// upload token is valid for longer than the request that opened the upload, and a blob must not be published after the
    /// permission was revoked. So the identity has the present scope of the key.
    /// [`AuthenticationError::Unauthenticated`] if the principal is not known any more, or the key is not good any more.
    async fn reauthorize(
        &self,
        principal: &Principal,
        credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError>;

    /// The rules that concern every principal, as far as they are known without a read; no credentials are needed to know
    /// them. `None`: there are none, or they are not known now.
    fn shared_rules(&self) -> Option<Arc<SharedRules>>;

    /// Whether credentials can change what a client may do. Then the answer to an anonymous client that lacks a permission
    /// is 401, with a challenge ([`Challenge`](super::Challenge)); else it is 403.
    fn takes_credentials(&self) -> bool;
}

/// An authenticator that accepts every request as anonymous, always with the same rules.
#[derive(Clone, Debug)]
pub struct Anonymous {
    rules: Rules,
}

impl Anonymous {
    /// Every client may perform every action.
    #[must_use]
    pub fn all() -> Self {
        Self {
            rules: Rules::everything(),
        }
    }

    /// Every client may pull, and no client may push.
    #[must_use]
    pub fn pull() -> Self {
        Self {
            rules: Rules::pull_only(),
        }
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: &Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(Principal::ANONYMOUS, self.rules.clone()))
    }

    /// Every principal may do what an anonymous one may. An upload may have been opened by a user, when the registry
    /// still had users.
    async fn reauthorize(
        &self,
        principal: &Principal,
        _: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(principal.clone(), self.rules.clone()))
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        self.rules.shared().cloned()
    }

    fn takes_credentials(&self) -> bool {
        false
    }
}
