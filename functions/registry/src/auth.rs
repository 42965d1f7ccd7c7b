//! Authentication and authorization: [`Identity`] and [`Permit`].
//!
//! An [`Authenticator`] turns [`Credentials`] into an [`Identity`]: a [`Principal`], and the [`Scope`] of what it may
//! do. Only [`Identity::permit`] makes a [`Permit`]. An operation takes the names of its repository and principal from
//! a permit alone. So an operation without authorization, or on another repository, does not compile.

use std::marker::PhantomData;

use async_trait::async_trait;
use http::HeaderValue;
use oci::RepositoryName;

use crate::budget::ClientKey;
use crate::store::Cause;

mod credential_id;
mod credentials;
mod pattern;
mod principal;
mod scope;

pub use self::credential_id::{CredentialId, CredentialIdError};
pub use self::credentials::Credentials;
pub use self::pattern::{PatternError, RepositoryPattern};
pub use self::principal::{Principal, PrincipalError, PrincipalKind};
pub use self::scope::{ActionKind, Actions, RepositoryGrant, Scope, TooManyGrants};

/// Read the content and the lists of one repository.
#[derive(Clone, Copy, Debug)]
pub enum Pull {}
/// Upload blobs, and publish manifests.
#[derive(Clone, Copy, Debug)]
pub enum Push {}
/// Make an existing tag name another manifest.
#[derive(Clone, Copy, Debug)]
pub enum Move {}
/// Delete tags, manifests and links to blobs.
#[derive(Clone, Copy, Debug)]
pub enum Delete {}
/// See in the catalog that a repository exists.
#[derive(Clone, Copy, Debug)]
pub enum List {}

mod sealed {
    pub trait Sealed {}
}

/// An action: [`Pull`], [`Push`], [`Move`], [`Delete`] or [`List`]. No other type can implement it.
pub trait Action: sealed::Sealed {
    /// The permission that the action requires.
    const KIND: ActionKind;
}

macro_rules! actions {
    ($($action:ident => $kind:ident),*) => {$(
        impl sealed::Sealed for $action {}
        impl Action for $action {
            const KIND: ActionKind = ActionKind::$kind;
        }
    )*};
}
actions!(Pull => Read, Push => Write, Move => Move, Delete => Delete, List => Read);

/// The principal may not perform the action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied;

/// A principal, and its scope: the most that it may do. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    principal: Principal,
    scope: Scope,
    credential: Option<CredentialId>,
}

impl Identity {
    /// An identity that an [`Authenticator`] has found.
    #[must_use]
    pub fn new(principal: Principal, scope: Scope) -> Self {
        Self {
            principal,
            scope,
            credential: None,
        }
    }

    /// The same identity, proved by this key.
    #[must_use]
    pub fn with_credential(self, credential: CredentialId) -> Self {
        Self {
            credential: Some(credential),
            ..self
        }
    }

    /// The principal.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The key that proved the identity. `None` if it was something else, for instance a password.
    #[must_use]
    pub fn credential(&self) -> Option<CredentialId> {
        self.credential
    }

    /// Whether it may perform every action in every repository.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.scope.is_everything()
    }

    /// Whether it may perform `A` in `repository`.
    #[must_use]
    pub fn may<A: Action>(&self, repository: &RepositoryName) -> bool {
        self.scope.covers(A::KIND, repository)
    }

    /// The permit for `A` in `repository`, if the scope allows it.
    pub fn permit<A: Action>(&self, repository: &RepositoryName) -> Result<Permit<A>, Denied> {
        if self.may::<A>(repository) {
            Ok(Permit {
                identity: self.clone(),
                repository: repository.clone(),
                action: PhantomData,
            })
        } else {
            Err(Denied)
        }
    }
}

/// The right of an identity to perform `A` in one repository. An operation gets the names of its repository and
/// principal from it, and from nothing else.
#[derive(Debug)]
pub struct Permit<A: Action> {
    identity: Identity,
    repository: RepositoryName,
    action: PhantomData<A>,
}

impl<A: Action> Permit<A> {
    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The principal that may perform the action.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.identity.principal()
    }

    /// The key that proved the identity, if it was a key.
    #[must_use]
    pub fn credential(&self) -> Option<CredentialId> {
        self.identity.credential()
    }

    /// Whether the same identity may also perform `B` in the same repository.
    #[must_use]
    pub fn also<B: Action>(&self) -> bool {
        self.identity.may::<B>(&self.repository)
    }

    /// A permit of the same identity for another repository. For instance, a mount also reads another repository.
    pub fn another<B: Action>(&self, repository: &RepositoryName) -> Result<Permit<B>, Denied> {
        self.identity.permit(repository)
    }
}

/// The origin of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The client that shares the budget of password checks. A check takes time, and the guesses of one client must not
    /// use all of it.
    pub client: ClientKey,
}

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
    Unavailable(Cause),
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
    /// The identity that the credentials of a request prove.
    async fn authenticate(&self, origin: Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError>;

    /// The current identity of a principal that was authenticated earlier. An upload token is valid for longer than the
    /// request that opened the upload, and a blob must not be published after the permission was revoked.
    /// [`AuthenticationError::Unauthenticated`] if the principal is not known any more.
    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError>;

    /// The value of `WWW-Authenticate` in a 401 (RFC 9110, 11.6.1). `None` if no credentials would help. A challenge for
    /// tokens contains `error`, which says why the token of the request was refused.
    fn challenge(&self, error: Option<TokenError>) -> Option<HeaderValue>;
}

/// An authenticator that accepts every request as anonymous, always with the same scope.
#[derive(Clone, Debug)]
pub struct Anonymous {
    scope: Scope,
}

impl Anonymous {
    /// Every client may perform every action.
    #[must_use]
    pub fn all() -> Self {
        Self {
            scope: Scope::EVERYTHING,
        }
    }

    /// Every client may pull, and no client may push.
    #[must_use]
    pub fn pull() -> Self {
        Self {
            scope: Scope::PULL_ONLY,
        }
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _: Origin, _: &Credentials) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(Principal::ANONYMOUS, self.scope.clone()))
    }

    async fn reauthorize(&self, _: &Principal) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(Principal::ANONYMOUS, self.scope.clone()))
    }

    fn challenge(&self, _: Option<TokenError>) -> Option<HeaderValue> {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let only: RepositoryName = "a/b".parse().unwrap();
        for (scope, repository, expected) in [
            (Scope::EVERYTHING, "a/b", [true; 5]),
            (Scope::PULL_ONLY, "a/b", [true, false, false, false, true]),
            (Scope::upload(&only), "a/b", [false, true, false, false, false]),
            (Scope::upload(&only), "a/b/c", [false; 5]),
            (Scope::upload(&only), "a", [false; 5]),
        ] {
            let identity = Identity::new(Principal::ANONYMOUS, scope.clone());
            let repository = repository.parse().unwrap();
            let granted = [
                identity.permit::<Pull>(&repository).is_ok(),
                identity.permit::<Push>(&repository).is_ok(),
                identity.permit::<Move>(&repository).is_ok(),
                identity.permit::<Delete>(&repository).is_ok(),
                identity.permit::<List>(&repository).is_ok(),
            ];
            assert_eq!(granted, expected, "{scope:?} {repository}");
            assert_eq!(identity.is_unrestricted(), expected == [true; 5]);
        }
        let identity = Identity::new(Principal::ANONYMOUS, Scope::EVERYTHING);
        let name: RepositoryName = "x".parse().unwrap();
        assert_eq!(identity.permit::<Pull>(&name).unwrap().repository(), &name);
    }

    #[test]
    fn a_permit_gives_further_permits_of_the_same_identity_only() {
        let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let alice = Principal::user("alice").unwrap();
        let key: CredentialId = "3f9aK2dQ".parse().unwrap();
        let reader = Identity::new(alice.clone(), Scope::PULL_ONLY).with_credential(key);
        let permit = reader.permit::<Pull>(&here).unwrap();
        assert_eq!((permit.principal(), permit.repository()), (&alice, &here));
        assert_eq!(permit.credential(), Some(key));
        assert!(permit.also::<List>() && !permit.also::<Push>() && !permit.also::<Delete>());
        let another = permit.another::<Pull>(&there).unwrap();
        assert_eq!((another.principal(), another.repository()), (&alice, &there));
        assert_eq!(another.credential(), Some(key));
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), Denied);
        let uploader = Identity::new(Principal::ANONYMOUS, Scope::upload(&here));
        let permit = uploader.permit::<Push>(&here).unwrap();
        assert!(permit.principal().is_anonymous() && permit.credential().is_none() && !permit.also::<Pull>());
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), Denied);
    }
}
