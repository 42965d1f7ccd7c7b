//! Authentication and authorization: [`Identity`] and [`Permit`].
//!
//! An [`Authenticator`] turns [`Credentials`] into an [`Identity`]: a [`Principal`], and the [`Scope`] of what it may
//! do. Only an identity makes a [`Permit`], or a [`TagPermit`] for a push of tags. An operation takes the names of its
//! repository, principal and tags from a permit alone. So an operation without authorization, or on another repository,
//! does not compile.

use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderValue;
use http::request::Parts;
use oci::{RepositoryName, Tag};

use crate::budget::ClientKey;
use crate::store::Cause;

mod account_name;
mod challenge;
mod credential_id;
mod credentials;
mod pattern;
mod principal;
mod scope;

pub use self::account_name::{AccountName, AccountNameError, GroupName, GroupNameError};
pub use self::challenge::{ChallengeActions, ChallengeScope};
pub use self::credential_id::{CredentialId, CredentialIdError};
pub use self::credentials::Credentials;
pub use self::pattern::{PatternError, RepositoryPattern};
pub use self::principal::{Principal, PrincipalError, PrincipalKind};
pub use self::scope::{ActionKind, Actions, ActionsError, RepositoryGrant, Scope, TooManyGrants};

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

/// Why an identity may not perform an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The policy allows the action, but the token of the request does not contain it. The response is 401, with
    /// [`TokenError::InsufficientScope`].
    Scope,
    /// The policy forbids the action. The response is 403; for an anonymous client, whom credentials may help, it is
    /// 401.
    Policy {
        /// The name of the rule that forbids it. `None`: no rule allows it.
        rule: Option<Arc<str>>,
    },
}

/// The principal has no account, so it has no keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("only users and robots have keys")]
pub struct NoAccount;

/// A principal, and what it may do: the policy allows it, and the token of the request contains it. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    principal: Principal,
    /// What the policy allows.
    scope: Scope,
    /// What the token contains; everything if the identity was not proved by a token.
    token_scope: Scope,
    credential: Option<CredentialId>,
}

impl Identity {
    /// An identity that an [`Authenticator`] has found. `scope` is what the policy allows it.
    #[must_use]
    pub fn new(principal: Principal, scope: Scope) -> Self {
        Self {
            principal,
            scope,
            token_scope: Scope::EVERYTHING,
            credential: None,
        }
    }

    /// The same identity, proved by a token that contains `scope`.
    #[must_use]
    pub fn with_token_scope(self, scope: Scope) -> Self {
        Self {
            token_scope: scope,
            ..self
        }
    }

    /// The same identity, proved by this key of its account, or by a token that was issued for the key.
    pub fn with_credential(self, credential: CredentialId) -> Result<Self, NoAccount> {
        match self.principal.kind() {
            PrincipalKind::User | PrincipalKind::Robot => Ok(Self {
                credential: Some(credential),
                ..self
            }),
            PrincipalKind::Anonymous | PrincipalKind::Workload => Err(NoAccount),
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
        self.scope.is_everything() && self.token_scope.is_everything()
    }

    /// Whether it may perform `A` in `repository`.
    #[must_use]
    pub fn may<A: Action>(&self, repository: &RepositoryName) -> bool {
        self.check(A::KIND, repository).is_ok()
    }

    fn check(&self, action: ActionKind, repository: &RepositoryName) -> Result<(), Denied> {
        if !self.scope.covers(action, repository) {
            Err(Denied::Policy { rule: None })
        } else if !self.token_scope.covers(action, repository) {
            Err(Denied::Scope)
        } else {
            Ok(())
        }
    }

    /// The permit for `A` in `repository`.
    pub fn permit<A: Action>(&self, repository: &RepositoryName) -> Result<Permit<A>, Denied> {
        self.check(A::KIND, repository)?;
        Ok(Permit {
            identity: self.clone(),
            repository: repository.clone(),
            action: PhantomData,
        })
    }

    /// The permit to publish a manifest in `repository` with these tags, or without a tag. It is not known yet whether
    /// the tags exist, so a tag requires [`Move`] as well as [`Push`].
    pub fn permit_tags(&self, repository: &RepositoryName, tags: Vec<Tag>) -> Result<TagPermit, Denied> {
        if !tags.is_empty() {
            self.check(Move::KIND, repository)?;
        }
        Ok(TagPermit {
            push: self.permit(repository)?,
            tags,
        })
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

/// The right of an identity to publish manifests in one repository with certain tags. A push gets the tags that it
/// publishes from it, and from nothing else.
#[derive(Debug)]
pub struct TagPermit {
    push: Permit<Push>,
    tags: Vec<Tag>,
}

impl TagPermit {
    /// The right to push, without the tags.
    #[must_use]
    pub fn push(&self) -> &Permit<Push> {
        &self.push
    }

    /// The tags; none for a manifest that is pushed by its digest only.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
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

    /// The current identity of `principal`, which was authenticated earlier. An upload token is valid for longer than the
    /// request that opened the upload, and a blob must not be published after the permission was revoked.
    /// [`AuthenticationError::Unauthenticated`] if the principal is not known any more.
    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError>;

    /// The value of `WWW-Authenticate` in a 401 (RFC 9110, 11.6.1). `None` if no credentials would help.
    ///
    /// A challenge for tokens contains three things. The URL of the token endpoint may depend on `head`, the head of the
    /// request: on its host, and on what a trusted proxy says about the host. `scope` is what the request needs; `None`
    /// for `/v2/`, which needs an identity only. `error` says why the token of the request was refused; `None` if there
    /// was no token.
    fn challenge(&self, head: &Parts, scope: Option<&ChallengeScope>, error: Option<TokenError>)
    -> Option<HeaderValue>;
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

    /// Every principal may do what an anonymous one may. An upload may have been opened by a user, when the registry
    /// still had users.
    async fn reauthorize(&self, principal: &Principal) -> Result<Identity, AuthenticationError> {
        Ok(Identity::new(principal.clone(), self.scope.clone()))
    }

    fn challenge(&self, _: &Parts, _: Option<&ChallengeScope>, _: Option<TokenError>) -> Option<HeaderValue> {
        None
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const FORBIDDEN: Denied = Denied::Policy { rule: None };

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
        let reader = Identity::new(alice.clone(), Scope::PULL_ONLY)
            .with_credential(key)
            .unwrap();
        let permit = reader.permit::<Pull>(&here).unwrap();
        assert_eq!((permit.principal(), permit.repository()), (&alice, &here));
        assert_eq!(permit.credential(), Some(key));
        assert!(permit.also::<List>() && !permit.also::<Push>() && !permit.also::<Delete>());
        let another = permit.another::<Pull>(&there).unwrap();
        assert_eq!((another.principal(), another.repository()), (&alice, &there));
        assert_eq!(another.credential(), Some(key));
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), FORBIDDEN);
        let uploader = Identity::new(Principal::ANONYMOUS, Scope::upload(&here));
        let permit = uploader.permit::<Push>(&here).unwrap();
        assert!(permit.principal().is_anonymous() && permit.credential().is_none() && !permit.also::<Pull>());
        assert_eq!(permit.another::<Push>(&there).unwrap_err(), FORBIDDEN);
    }

    #[test]
    fn a_token_allows_what_both_its_scope_and_the_policy_allow() {
        let (here, there): (RepositoryName, RepositoryName) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let alice = Identity::new(Principal::user("alice").unwrap(), Scope::PULL_ONLY);
        let identity = alice.clone().with_token_scope(Scope::upload(&here));
        // The policy decides first: a token with a wider scope would not help.
        assert_eq!(identity.permit::<Push>(&here).unwrap_err(), FORBIDDEN);
        assert_eq!(identity.permit::<Pull>(&here).unwrap_err(), Denied::Scope);
        assert_eq!(identity.permit::<Pull>(&there).unwrap_err(), Denied::Scope);
        assert!(alice.may::<Pull>(&there) && !identity.may::<Pull>(&there));
        let identity = alice.with_token_scope(Scope::PULL_ONLY);
        assert!(identity.permit::<Pull>(&there).is_ok());
        let alice = Identity::new(Principal::user("alice").unwrap(), Scope::EVERYTHING);
        assert!(alice.is_unrestricted() && !alice.with_token_scope(Scope::PULL_ONLY).is_unrestricted());
    }

    #[test]
    fn only_accounts_have_keys() {
        let key: CredentialId = "3f9aK2dQ".parse().unwrap();
        for (principal, expected) in [
            (Principal::user("alice").unwrap(), Ok(Some(key))),
            (Principal::robot("ci").unwrap(), Ok(Some(key))),
            (Principal::workload("main", "acme/app").unwrap(), Err(NoAccount)),
            (Principal::ANONYMOUS, Err(NoAccount)),
        ] {
            let identity = Identity::new(principal, Scope::EVERYTHING).with_credential(key);
            assert_eq!(identity.map(|identity| identity.credential()), expected);
        }
    }

    /// A push of tags requires the permission to move them, since they may exist.
    #[test]
    fn tags_need_their_own_permission() {
        let repository: RepositoryName = "a/b".parse().unwrap();
        let tags: Vec<Tag> = vec!["t".parse().unwrap(), "u".parse().unwrap()];
        let may = |actions| {
            let grant = RepositoryGrant {
                repositories: (&repository).into(),
                actions,
            };
            Identity::new(Principal::ANONYMOUS, Scope::new(vec![grant]).unwrap())
        };
        let creator = may(Actions::CREATE);
        assert!(creator.permit_tags(&repository, Vec::new()).unwrap().tags().is_empty());
        assert_eq!(creator.permit_tags(&repository, tags.clone()).unwrap_err(), FORBIDDEN);
        let mover = may(Actions::of(&[ActionKind::Move]));
        assert_eq!(mover.permit_tags(&repository, tags.clone()).unwrap_err(), FORBIDDEN);
        let permit = may(Actions::PUSH).permit_tags(&repository, tags.clone()).unwrap();
        assert_eq!((permit.tags(), permit.push().repository()), (&*tags, &repository));
        let narrowed = may(Actions::PUSH).with_token_scope(Scope::upload(&repository));
        assert_eq!(narrowed.permit_tags(&repository, tags).unwrap_err(), Denied::Scope);
    }
}
