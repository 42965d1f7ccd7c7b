//! Why requests are denied, as names for logs and metrics.

use std::fmt;

/// Why a request was denied, whatever the response is. There are few reasons, and no client chooses their names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DenialReason {
    /// The request has no credentials, or a token for a client without credentials, and needs some.
    NoCredentials,
    /// The user name or the secret is not good, or the credentials cannot be read.
    InvalidCredentials,
    /// The bearer token or key is not good.
    InvalidToken,
    /// The token does not contain what the policy allows.
    InsufficientScope,
    /// The scope of the client's key does not contain what the policy allows.
    KeyScope,
    /// The policy forbids it, or the API to everyone but administrators, or it would continue the upload of another principal,
    /// or read or change the account of another principal, which is answered with 404.
    Policy,
    /// It would change a tag that is immutable, also a deleted one.
    FrozenTag,
    /// It would move a tag, and the principal may only create tags.
    CreateOnly,
    /// The client has sent too many wrong passwords and has to wait (429).
    TooManyAttempts,
    /// The account has changed its own keys or password too often and has to wait (429).
    TooManyChanges,
}

impl DenialReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::NoCredentials,
        Self::InvalidCredentials,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::KeyScope,
        Self::Policy,
        Self::FrozenTag,
        Self::CreateOnly,
        Self::TooManyAttempts,
        Self::TooManyChanges,
    ];

    /// A short stable name of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::KeyScope => "key_scope",
            Self::Policy => "policy",
            Self::FrozenTag => "frozen_tag",
            Self::CreateOnly => "create_only",
            Self::TooManyAttempts => "too_many_attempts",
            Self::TooManyChanges => "too_many_changes",
        }
    }

    /// Whether the client was identified, and is refused what it asks for. The log has a line for each such request. Without
    /// credentials a client is only asked for some, and logins are logged by the authenticator.
    pub(crate) const fn is_after_login(self) -> bool {
        match self {
            Self::InsufficientScope
            | Self::KeyScope
            | Self::Policy
            | Self::FrozenTag
            | Self::CreateOnly
            | Self::TooManyChanges => true,
            Self::NoCredentials | Self::InvalidCredentials | Self::InvalidToken | Self::TooManyAttempts => false,
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
