//! What a challenge asks for.

use std::fmt;

use oci::RepositoryName;

/// The resource that a request needs, and the actions on it: the `scope` of a challenge for tokens.
///
/// It depends on the method and the URL of the request alone, and not on what exists. So a program in front of the registry
/// can compute it, and a challenge reveals nothing. Displayed as in the header:
///
/// ```
/// use registry::auth::{ChallengeActions, ChallengeScope};
///
/// let scope = ChallengeScope::Repository {
///     repository: "a/b".parse().unwrap(),
///     actions: ChallengeActions::PullAndPush,
/// };
/// assert_eq!(scope.to_string(), "repository:a/b:pull,push");
/// assert_eq!(ChallengeScope::Catalog.to_string(), "registry:catalog:*");
/// let scope = ChallengeScope::Mount {
///     repository: "a/b".parse().unwrap(),
///     source: "c".parse().unwrap(),
/// };
/// assert_eq!(scope.to_string(), "repository:a/b:pull,push repository:c:pull");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChallengeScope {
    /// Some actions in one repository.
    Repository {
        /// The repository.
        repository: RepositoryName,
        /// The actions.
        actions: ChallengeActions,
    },
    /// Push to a repository, and pull the blob from another one that the request names.
    Mount {
        /// The repository that gets the blob.
        repository: RepositoryName,
        /// The repository that has the blob.
        source: RepositoryName,
    },
    /// The list of repositories.
    Catalog,
    /// The administration of the registry.
    Api,
}

impl fmt::Display for ChallengeScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { repository, actions } => {
                write!(f, "repository:{repository}:{}", actions.as_str())
            }
            Self::Mount { repository, source } => {
                let (push, pull) = (ChallengeActions::PullAndPush, ChallengeActions::Pull);
                write!(
                    f,
                    "repository:{repository}:{} repository:{source}:{}",
                    push.as_str(),
                    pull.as_str()
                )
            }
            Self::Catalog => f.write_str("registry:catalog:*"),
            Self::Api => f.write_str("registry:api:*"),
        }
    }
}

/// The actions in a repository that a challenge asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChallengeActions {
    /// Pull.
    Pull,
    /// Push. A client that pushes also looks for what is there already, so its token allows it to pull.
    PullAndPush,
    /// Delete.
    Delete,
}

impl ChallengeActions {
    /// Their names, separated by commas.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::PullAndPush => "pull,push",
            Self::Delete => "delete",
        }
    }
}
