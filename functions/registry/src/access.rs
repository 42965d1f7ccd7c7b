//! Permits for one request, or the error for a client without the permission.

use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;
use oci::{RepositoryName, Tag};

use crate::auth::{
    Action, AuthenticationError, Authenticator, ChallengeScope, Denied, Identity, Permit, TagPermit, TokenError,
};
use crate::error::Error;
use crate::overload::Overload;
use crate::store::{Reason, StoreError};

/// The result of the authentication of a request.
pub(crate) type Caller = Result<Identity, AuthenticationError>;

/// The access that one request asks for.
pub(crate) struct Access<'a> {
    authenticator: &'a Arc<dyn Authenticator>,
    head: &'a Parts,
}

impl<'a> Access<'a> {
    /// The access of the request with this head.
    pub(crate) fn new(authenticator: &'a Arc<dyn Authenticator>, head: &'a Parts) -> Self {
        Self { authenticator, head }
    }

    fn challenge(&self, error: Option<TokenError>) -> Option<HeaderValue> {
        let scope = ChallengeScope::of(self.head);
        self.authenticator.challenge(self.head, scope.as_ref(), error)
    }

    /// The identity of the caller.
    pub(crate) fn identify(&self, caller: Caller) -> Result<Identity, Error> {
        caller.map_err(|error| match error {
            AuthenticationError::Unauthenticated => Error::Unauthenticated(self.challenge(None)),
            AuthenticationError::Token(error) => Error::Unauthenticated(self.challenge(Some(error))),
            AuthenticationError::TooManyAttempts { retry_after } => Error::TooManyAttempts { retry_after },
            AuthenticationError::TooManyRequests => Error::TooManyRequests(Overload::Passwords),
            AuthenticationError::Unavailable(cause) => Error::Store(StoreError::because(Reason::Credentials, cause)),
        })
    }

    /// The caller's permit for an action in `repository`.
    pub(crate) fn permit<A: Action>(&self, caller: Caller, repository: &RepositoryName) -> Result<Permit<A>, Error> {
        let identity = self.identify(caller)?;
        let permit = identity.permit(repository);
        permit.map_err(|denied| self.refusal(&identity, denied))
    }

    /// The caller's permit to publish a manifest in `repository` with these tags.
    pub(crate) fn permit_tags(
        &self,
        caller: Caller,
        repository: &RepositoryName,
        tags: Vec<Tag>,
    ) -> Result<TagPermit, Error> {
        let identity = self.identify(caller)?;
        let permit = identity.permit_tags(repository, tags);
        permit.map_err(|denied| self.refusal(&identity, denied))
    }

    /// Checks that the caller may use `/v2/`. `docker login` checks credentials there, so the registry asks an anonymous
    /// client for credentials if they would change what it may do.
    pub(crate) fn check_base(&self, caller: Caller) -> Result<(), Error> {
        let identity = self.identify(caller)?;
        if identity.principal().is_anonymous()
            && !identity.is_unrestricted()
            && let Some(challenge) = self.challenge(None)
        {
            return Err(Error::Unauthenticated(Some(challenge)));
        }
        Ok(())
    }

    /// The error for an identity that lacks a permission. An anonymous client is asked for credentials if credentials
    /// can help, and a client with a token for another token if that can help.
    pub(crate) fn refusal(&self, identity: &Identity, denied: Denied) -> Error {
        let error = match denied {
            Denied::Scope => Some(TokenError::InsufficientScope),
            Denied::Policy { .. } if identity.principal().is_anonymous() => None,
            Denied::Policy { rule } => return Error::Denied { rule },
        };
        match self.challenge(error) {
            Some(challenge) => Error::Unauthenticated(Some(challenge)),
            // The names of rules are only for clients that are logged in.
            None => Error::Denied { rule: None },
        }
    }
}
