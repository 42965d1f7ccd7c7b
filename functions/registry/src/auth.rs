//! Who asks, and what for: [`Identity`] and [`Permit`].
//!
//! An [`Authenticator`] turns [`Credentials`] into an [`Identity`]: a [`Principal`] and the [`Scope`] of what it may do.
//! Only [`Identity::permit`] makes a [`Permit`], and a permit is the only thing that carries a repository's name and a
//! principal into an operation. An operation on a repository that was not asked for, or without asking, does not
//! compile.

use std::marker::PhantomData;

use async_trait::async_trait;
use http::HeaderValue;
use oci::RepositoryName;

use crate::budget::ClientKey;
use crate::store::Cause;

mod credentials;
mod principal;
mod scope;

pub use self::credentials::Credentials;
pub use self::principal::{Principal, PrincipalError, PrincipalKind};
pub use self::scope::{ActionKind, Actions, Repositories, Scope};

/// Reads content and lists of one repository.
#[derive(Clone, Copy, Debug)]
pub enum Pull {}
/// Uploads blobs, publishes manifests and tags.
#[derive(Clone, Copy, Debug)]
pub enum Push {}
/// Removes tags, manifests and links to blobs.
#[derive(Clone, Copy, Debug)]
pub enum Delete {}
/// Sees that a repository exists, in the catalog.
#[derive(Clone, Copy, Debug)]
pub enum List {}

mod sealed {
    pub trait Sealed {}
}

/// [`Pull`], [`Push`], [`Delete`] or [`List`]; nothing else can be one.
pub trait Action: sealed::Sealed {
    /// The action as a value.
    const KIND: ActionKind;
}

macro_rules! actions {
    ($($action:ident),*) => {$(
        impl sealed::Sealed for $action {}
        impl Action for $action {
            const KIND: ActionKind = ActionKind::$action;
        }
    )*};
}
actions!(Pull, Push, Delete, List);

/// The principal was refused an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied;

/// A principal, and the most that it may do. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    principal: Principal,
    scope: Scope,
}

impl Identity {
    /// An identity as an [`Authenticator`] has found it.
    #[must_use]
    pub fn new(principal: Principal, scope: Scope) -> Self {
        Self { principal, scope }
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether it may do everything in every repository.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.scope.is_everything()
    }

    /// Whether it may do `A` in `repository`.
    #[must_use]
    pub fn may<A: Action>(&self, repository: &RepositoryName) -> bool {
        self.scope.covers(A::KIND, repository)
    }

    /// The permit for `A` in `repository`, if the scope covers it.
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

/// The right of an identity to do `A` in one repository. It is the only carrier of the repository's name, and of the
/// principal, into an operation.
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

    /// Who may do it.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.identity.principal()
    }

    /// Whether the same identity may also do `B` in the same repository.
    #[must_use]
    pub fn also<B: Action>(&self) -> bool {
        self.identity.may::<B>(&self.repository)
    }

    /// Another permit for the same identity: a mount also reads another repository.
    pub fn another<B: Action>(&self, repository: &RepositoryName) -> Result<Permit<B>, Denied> {
        self.identity.permit(repository)
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The client, for what clients share: checking a password takes time, and guesses must not take all of it.
    pub client: ClientKey,
}

/// Why there is no identity.
#[derive(Debug)]
pub enum AuthenticationError {
    /// Credentials are missing or wrong; the client is told how to present them (401).
    Unauthenticated,
    /// They could not be checked now (503).
    Unavailable(Cause),
    /// Too many others wait to be checked (503). A client that guesses passwords can cause this as often as it likes, so that
    /// no line of the log comes of it here: the authenticator says it as seldom as it finds right.
    TooManyRequests,
}

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity behind the credentials of one request.
    async fn authenticate(&self, origin: Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError>;

    /// What a principal may do now that was authenticated earlier: an upload's token outlives the request that opened
    /// it, and what was revoked meanwhile must not be published. [`AuthenticationError::Unauthenticated`] if the
    /// principal is no longer known.
    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError>;

    /// The value of `WWW-Authenticate` in a 401 (RFC 9110, 11.6.1); `None` where no credentials would help.
    fn challenge(&self) -> Option<HeaderValue>;
}

/// Lets everyone in, each with the same scope.
#[derive(Clone, Debug)]
pub struct Anonymous {
    scope: Scope,
}

impl Anonymous {
    /// Everyone may do everything.
    #[must_use]
    pub fn all() -> Self {
        Self {
            scope: Scope::EVERYTHING,
        }
    }

    /// Everyone may pull, and nobody may push.
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

    fn challenge(&self) -> Option<HeaderValue> {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let only: RepositoryName = "a/b".parse().unwrap();
        for (scope, repository, expected) in [
            (Scope::EVERYTHING, "a/b", [true, true, true, true]),
            (Scope::PULL_ONLY, "a/b", [true, false, false, true]),
            (Scope::upload(only.clone()), "a/b", [false, true, false, false]),
            (Scope::upload(only.clone()), "a/b/c", [false; 4]),
            (Scope::upload(only), "a", [false; 4]),
        ] {
            let identity = Identity::new(Principal::ANONYMOUS, scope.clone());
            let repository = repository.parse().unwrap();
            let granted = [
                identity.permit::<Pull>(&repository).is_ok(),
                identity.permit::<Push>(&repository).is_ok(),
                identity.permit::<Delete>(&repository).is_ok(),
                identity.permit::<List>(&repository).is_ok(),
            ];
            assert_eq!(granted, expected, "{scope:?} {repository}");
            assert_eq!(identity.is_unrestricted(), expected == [true; 4]);
        }
        let identity = Identity::new(Principal::ANONYMOUS, Scope::EVERYTHING);
        let name: RepositoryName = "x".parse().unwrap();
        assert_eq!(identity.permit::<Pull>(&name).unwrap().repository(), &name);
    }

    #[test]
    fn a_permit_carries_who_may_do_what_and_asks_for_more_only_in_the_same_name() {
        let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let alice = Principal::user("alice").unwrap();
        let reader = Identity::new(alice.clone(), Scope::PULL_ONLY);
        let permit = reader.permit::<Pull>(&here).unwrap();
        assert_eq!((permit.principal(), permit.repository()), (&alice, &here));
        assert!(permit.also::<List>() && !permit.also::<Push>() && !permit.also::<Delete>());
        let another = permit.another::<Pull>(&there).unwrap();
        assert_eq!((another.principal(), another.repository()), (&alice, &there));
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), Denied);
        let uploader = Identity::new(Principal::ANONYMOUS, Scope::upload(here.clone()));
        let permit = uploader.permit::<Push>(&here).unwrap();
        assert!(permit.principal().is_anonymous() && !permit.also::<Pull>());
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), Denied);
    }
}
