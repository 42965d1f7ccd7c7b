//! The contract of the token endpoint: `/token`, and the keys at `/.well-known/jwks.json`.
//!
//! The core knows the routes, the limits and the form of the answers. What a request asks for, who may have it and how
//! tokens are signed is known to the implementation alone.

use std::borrow::Cow;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::auth::{AuthenticationError, CredentialId, Credentials, Origin, Principal};
use crate::cause::Cause;
use crate::store::StoreError;

/// The fields of a request for a token, as `application/x-www-form-urlencoded` text that is not decoded yet. It may contain
/// a password, so its `Debug` text does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum EncodedTokenRequest<'a> {
    /// The query of a GET: the distribution specification's token request. Empty if there is none.
    Query(&'a str),
    /// The body of a POST: an `OAuth2` token request (RFC 6749). At most [`Limits::token_form_bytes`](crate::Limits).
    Body(&'a str),
}

impl<'a> EncodedTokenRequest<'a> {
    /// The text.
    #[must_use]
    pub fn text(self) -> &'a str {
        match self {
            Self::Query(text) | Self::Body(text) => text,
        }
    }
}

impl fmt::Debug for EncodedTokenRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Query(_) => "Query",
            Self::Body(_) => "Body",
        })
    }
}

/// A granted token. Its `Debug` text does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenResponse {
    /// The principal of the token: for the log and the metrics.
    pub principal: Principal,
    /// The key for which it was granted, if that was a key: for the log.
    pub credential: Option<CredentialId>,
    /// The access token.
    pub token: String,
    /// For how many seconds a client may use it.
    pub expires_in: u64,
    /// What the token allows, as scopes that are separated by spaces; empty if that is nothing.
    pub scope: String,
    /// A token that can be exchanged for access tokens, if one is granted.
    pub refresh_token: Option<String>,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("principal", &self.principal)
            .field("credential", &self.credential)
            .field("expires_in", &self.expires_in)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Why no token is granted. Texts are for the client: they contain no secret, and nothing that distinguishes an unknown
/// user from a wrong password.
#[derive(Debug)]
pub enum TokenRefusal {
    /// The credentials are not good (401, `invalid_grant`).
    InvalidGrant(Cow<'static, str>),
    /// The request is malformed, or asks for too much (400, `invalid_request`).
    InvalidRequest(Cow<'static, str>),
    /// The grant type is unknown (400, `unsupported_grant_type`).
    UnsupportedGrantType,
    /// The client has sent too many wrong passwords, and the password was not checked (429).
    TooManyAttempts {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    /// Too many other credentials wait for their check (503).
    TooManyRequests,
    /// The request cannot be decided now (503).
    Unavailable(Cause),
}

impl TokenRefusal {
    /// The text for an unknown user, a wrong password, and every other secret that is not good.
    pub const WRONG_CREDENTIALS: &str = "the user name or the secret is wrong";
}

impl From<AuthenticationError> for TokenRefusal {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::Unauthenticated | AuthenticationError::Token(_) => {
                Self::InvalidGrant(Self::WRONG_CREDENTIALS.into())
            }
            AuthenticationError::TooManyAttempts { retry_after } => Self::TooManyAttempts { retry_after },
            AuthenticationError::TooManyRequests => Self::TooManyRequests,
            AuthenticationError::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

/// Grants tokens, and publishes the keys that verify them.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Decides about a request for a token. `credentials` are those of the `Authorization` header; those of the form are
    /// in `request`. A request without any credentials may get a token for what anonymous clients may do.
    async fn token(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        request: EncodedTokenRequest<'_>,
    ) -> Result<TokenResponse, TokenRefusal>;

    /// The public keys that verify tokens, as a JWK set (RFC 7517, 5).
    async fn key_set(&self) -> Result<Bytes, StoreError>;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn s18_secrets_are_not_printed() {
        for request in [
            EncodedTokenRequest::Query("password=secret"),
            EncodedTokenRequest::Body("password=secret"),
        ] {
            assert!(!format!("{request:?}").contains("secret"));
            assert_eq!(request.text(), "password=secret");
        }
        let response = TokenResponse {
            principal: Principal::user("alice").unwrap(),
            credential: None,
            token: "secret".into(),
            expires_in: 600,
            scope: "repository:a:pull".into(),
            refresh_token: Some("secret".into()),
        };
        let shown = format!("{response:?}");
        assert!(shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }

    /// A login at the token endpoint fails for the same reasons as everywhere.
    #[test]
    fn refusals_of_an_authenticator() {
        use crate::auth::TokenError;

        for error in [
            AuthenticationError::Unauthenticated,
            AuthenticationError::Token(TokenError::Invalid),
        ] {
            let refusal = TokenRefusal::from(error);
            assert!(matches!(refusal, TokenRefusal::InvalidGrant(text) if text == TokenRefusal::WRONG_CREDENTIALS));
        }
        let refusal = AuthenticationError::TooManyAttempts { retry_after: 9 }.into();
        assert!(matches!(refusal, TokenRefusal::TooManyAttempts { retry_after: 9 }));
        let refusal = AuthenticationError::TooManyRequests.into();
        assert!(matches!(refusal, TokenRefusal::TooManyRequests));
        let refusal = AuthenticationError::Unavailable("planned".into()).into();
        assert!(matches!(refusal, TokenRefusal::Unavailable(_)));
    }
}
