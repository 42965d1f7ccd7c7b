//! Authentication and authorization: [`Identity`] and [`Permit`].
//!
//! An [`Authenticator`] turns [`Credentials`] into an [`Identity`]: a [`Principal`], the [`Rules`] of the policy that
//! concern it, and the [`Scope`] of its token. Only an identity makes a [`Permit`], or a [`TagPermit`] for a push of
//! tags. An operation takes the names of its repository, principal and tags from a permit alone. So an operation without
//! authorization, or on another repository, does not compile.

use std::marker::PhantomData;
use std::sync::Arc;

use oci::{RepositoryName, Tag};

use crate::timestamp::Timestamp;

mod account_name;
mod authenticator;
mod challenge;
mod challenge_scope;
mod credential_id;
mod credentials;
mod name_ranges;
mod origin;
mod pattern;
mod principal;
mod public_url;
mod rules;
mod scope;
mod shared_rules;
mod subject;
mod tag_pattern;
#[cfg(test)]
mod tests;

pub use self::account_name::{AccountName, AccountNameError, GroupName, GroupNameError};
pub use self::authenticator::{Anonymous, AuthenticationError, Authenticator, TokenError};
pub use self::challenge::{Challenge, ChallengeSchemes};
pub use self::challenge_scope::{ChallengeActions, ChallengeScope};
pub use self::credential_id::{CredentialId, CredentialIdError};
pub use self::credentials::Credentials;
pub use self::name_ranges::{NameRange, NameRanges};
pub use self::origin::{CertifiedHost, Forwarded, ForwardedHost, Origin};
pub use self::pattern::{PatternError, RepositoryPattern};
pub use self::principal::{Principal, PrincipalError, PrincipalKind};
pub use self::public_url::{PublicUrl, PublicUrlError, UrlScheme};
pub use self::rules::{AccessRule, Decision, Rules};
pub use self::scope::{ActionKind, Actions, ActionsError, RepositoryGrant, Scope, TooManyGrants};
pub use self::shared_rules::{Creation, ImmutableRule, RepositoryRule, RepositorySettings, SharedRules};
pub use self::subject::Subject;
pub use self::tag_pattern::{TagPattern, TagPatternError};

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

    /// Whether the scope of a token contains the action in a repository.
    fn is_in(scope: &Scope, repository: &RepositoryName) -> bool;
}

macro_rules! actions {
    ($($action:ident => $kind:ident, $is_in:path;)*) => {$(
        impl sealed::Sealed for $action {}
        impl Action for $action {
            const KIND: ActionKind = ActionKind::$kind;

            fn is_in(scope: &Scope, repository: &RepositoryName) -> bool {
                $is_in(scope, ActionKind::$kind, repository)
            }
        }
    )*};
}
actions! {
    Pull => Read, Scope::covers;
    Push => Write, Scope::covers;
    Move => Move, Scope::covers;
    Delete => Delete, Scope::covers;
    List => Read, Scope::lists;
}

/// Why an identity may not perform an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The policy allows the action, but the token of the request does not contain it. The response is 401, with
    /// [`TokenError::InsufficientScope`].
    Scope,
    /// The policy allows the action, but the scope of the key does not contain it, so no token does. The response is 403.
    Key {
        /// The action.
        action: ActionKind,
        /// The repository.
        repository: RepositoryName,
    },
    /// The policy forbids the action. The response is 403; for an anonymous client, whom credentials may help, it is
    /// 401.
    Policy {
        /// The action.
        action: ActionKind,
        /// The repository.
        repository: RepositoryName,
        /// The name of the rule that forbids it. `None`: no rule allows it.
        rule: Option<Arc<str>>,
    },
    /// What the request continues was begun by another principal. The response is that of
    /// [`Denied::Policy`], without a reason.
    OtherPrincipal,
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
    rules: Rules,
    /// What the token contains; everything if the identity was not proved by a token.
    token_scope: Scope,
    credential: Option<CredentialId>,
    /// When the oldest of what decided about it was read. Later than every time if nothing was kept.
    state_read: Timestamp,
}

impl Identity {
    /// An identity that an [`Authenticator`] has found. `rules` are those of the policy that concern it, and those that
    /// concern every principal.
    #[must_use]
    pub fn new(principal: Principal, rules: Rules) -> Self {
        Self {
            principal,
            rules,
            token_scope: Scope::EVERYTHING,
            credential: None,
            state_read: Timestamp(u64::MAX),
        }
    }

    /// The rules that concern every principal, if there are any.
    #[must_use]
    pub fn shared_rules(&self) -> Option<&Arc<SharedRules>> {
        self.rules.shared()
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

    /// The same identity, which was decided by something that was read at `read` and kept since. The earliest counts.
    #[must_use]
    pub fn with_state_read(self, read: Timestamp) -> Self {
        Self {
            state_read: self.state_read.min(read),
            ..self
        }
    }

    /// When the oldest of what decided about it was read. Later than every time if nothing was kept: then its age is that of
    /// the request.
    pub(crate) fn state_read(&self) -> Timestamp {
        self.state_read
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
        self.rules.is_everything() && self.token_scope.is_everything()
    }

    /// Whether it may perform `A` in `repository`.
    #[must_use]
    pub fn may<A: Action>(&self, repository: &RepositoryName) -> bool {
        self.rules.allow(A::KIND, repository) && A::is_in(&self.token_scope, repository)
    }

    /// The policy decides first: another token would not help a principal that the policy forbids the action.
    fn check<A: Action>(&self, repository: &RepositoryName) -> Result<(), Denied> {
        if !self.rules.allow(A::KIND, repository) {
            let rule = match self.rules.decide(A::KIND, repository) {
                Decision::Denied { rule } => rule,
                Decision::Allowed { .. } => None,
            };
            Err(Denied::Policy {
                action: A::KIND,
                repository: repository.clone(),
                rule,
            })
        } else if A::is_in(&self.token_scope, repository) {
            Ok(())
        } else if self.token_scope.is_withheld_by_key(A::KIND, repository) {
            Err(Denied::Key {
                action: A::KIND,
                repository: repository.clone(),
            })
        } else {
            Err(Denied::Scope)
        }
    }

    /// Whether the policy lets it perform `A` in `repository`, and its token does not, but it may get a token that does.
    #[must_use]
    pub fn needs_token_for<A: Action>(&self, repository: &RepositoryName) -> bool {
        self.token_scope.may_be_wider(A::KIND, repository)
            && !A::is_in(&self.token_scope, repository)
            && self.rules.allow(A::KIND, repository)
    }

    /// The permit for `A` in `repository`.
    pub fn permit<A: Action>(&self, repository: &RepositoryName) -> Result<Permit<A>, Denied> {
        self.check::<A>(repository)?;
        Ok(Permit {
            identity: self.clone(),
            repository: repository.clone(),
            action: PhantomData,
        })
    }

    /// The permit to publish a manifest in `repository` with these tags, or without a tag. It is not known yet whether
    /// the tags exist. So the guard of the tags decides, inside the write, which of them may be moved.
    pub fn permit_tags(&self, repository: &RepositoryName, tags: Vec<Tag>) -> Result<TagPermit, Denied> {
        Ok(TagPermit {
            push: self.permit(repository)?,
            tags,
        })
    }

    /// Whether it may list every repository, so that no name needs to be compared.
    #[must_use]
    pub fn may_list_everything(&self) -> bool {
        self.rules.allow_everywhere(ActionKind::Read) && self.token_scope.lists_everything()
    }

    /// The ranges of names in which the repositories are that it may list. Whether it may list a repository in them, is
    /// [`Identity::may`] with [`List`].
    #[must_use]
    pub fn list_ranges(&self) -> NameRanges {
        self.rules.pull_ranges().intersection(&self.token_scope.list_ranges())
    }

    /// [`Identity::list_ranges`], of the names that begin with a text. A name that it may list is in them exactly if it begins
    /// with the text.
    #[must_use]
    pub fn list_ranges_within(&self, prefix: &str) -> NameRanges {
        self.list_ranges().intersection(&NameRanges::of_prefix(prefix))
    }

    /// Whether the policy lets it list some repository, but its token does not.
    #[must_use]
    pub fn needs_token_to_list(&self) -> bool {
        !self.rules.pull_ranges().is_empty() && !self.token_scope.contains_list()
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

    /// When the oldest of what decided about the permit was read; see [`Identity::state_read`].
    pub(crate) fn state_read(&self) -> Timestamp {
        self.identity.state_read()
    }

    /// The rules of the policy that concern every principal, if there are any.
    #[must_use]
    pub fn shared_rules(&self) -> Option<&Arc<SharedRules>> {
        self.identity.shared_rules()
    }

    /// The settings that the policy has for the repository.
    #[must_use]
    pub fn settings(&self) -> RepositorySettings {
        let shared = self.shared_rules();
        shared.map_or_else(RepositorySettings::default, |shared| shared.settings(&self.repository))
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

    /// The same permit under the present rules of its principal. `identity` is what the principal is now: it, or the key that
    /// proved it, may have lost permissions since. The token of the request narrows the new permit like this one.
    pub(crate) fn renewed(&self, identity: &Identity) -> Result<Self, Denied> {
        if identity.principal() != self.principal() {
            return Err(Denied::OtherPrincipal);
        }
        identity.check::<A>(&self.repository)?;
        let narrowed = Identity {
            token_scope: Scope::common(&self.identity.token_scope, &identity.token_scope, &self.repository),
            credential: self.identity.credential,
            ..identity.clone()
        };
        narrowed.permit(&self.repository)
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

    /// The same tags with this permit, which is the renewed one of the same push.
    pub(crate) fn with_push(self, push: Permit<Push>) -> Self {
        Self { push, ..self }
    }
}
