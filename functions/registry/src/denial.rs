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
    /// The policy forbids it, or the API to everyone but administrators, or it would continue the upload of another principal.
    Policy,
    /// It would change a tag that is immutable, also a deleted one.
    FrozenTag,
    /// It would move a tag, and the principal may only create tags.
    CreateOnly,
    /// The client has sent too many wrong passwords and has to wait (429).
    TooManyAttempts,
}

impl DenialReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::NoCredentials,
        Self::InvalidCredentials,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::Policy,
        Self::FrozenTag,
        Self::CreateOnly,
        Self::TooManyAttempts,
    ];

    /// A short stable name of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::Policy => "policy",
            Self::FrozenTag => "frozen_tag",
            Self::CreateOnly => "create_only",
            Self::TooManyAttempts => "too_many_attempts",
        }
    }

    /// Whether the client was identified, and is refused what it asks for. The log has a line for each such request. Without
    /// credentials a client is only asked for some, and logins are logged by the authenticator.
    pub(crate) const fn is_after_login(self) -> bool {
        match self {
            Self::InsufficientScope | Self::Policy | Self::FrozenTag | Self::CreateOnly => true,
            Self::NoCredentials | Self::InvalidCredentials | Self::InvalidToken | Self::TooManyAttempts => false,
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
