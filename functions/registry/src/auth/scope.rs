//! What an identity may do at most: some actions in some repositories.

use oci::RepositoryName;

/// An action as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// [`Pull`](super::Pull)
    Pull,
    /// [`Push`](super::Push)
    Push,
    /// [`Delete`](super::Delete)
    Delete,
    /// [`List`](super::List)
    List,
}

/// A set of actions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actions(u8);

impl Actions {
    /// Every action.
    pub const ALL: Self = Self::of(&[ActionKind::Pull, ActionKind::Push, ActionKind::Delete, ActionKind::List]);

    /// These actions.
    #[must_use]
    pub const fn of(kinds: &[ActionKind]) -> Self {
        let mut bits = 0;
        let mut next = 0;
        // A `for` cannot run in a constant.
        while next < kinds.len() {
            bits |= Self::bit(kinds[next]);
            next += 1;
        }
        Self(bits)
    }

    /// Whether the action is one of these.
    #[must_use]
    pub const fn contains(self, kind: ActionKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    const fn bit(kind: ActionKind) -> u8 {
        match kind {
            ActionKind::Pull => 1,
            ActionKind::Push => 2,
            ActionKind::Delete => 4,
            ActionKind::List => 8,
        }
    }
}

/// A set of repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repositories {
    /// Every repository, also one that does not exist yet.
    All,
    /// This one.
    One(RepositoryName),
}

impl Repositories {
    /// Whether the repository is one of these.
    #[must_use]
    pub fn contains(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == repository,
        }
    }
}

/// The most that an identity may do: each of some actions in each of some repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    repositories: Repositories,
    actions: Actions,
}

impl Scope {
    /// Every action in every repository.
    pub const EVERYTHING: Self = Self::new(Repositories::All, Actions::ALL);

    /// Pulls and lists of every repository.
    pub const PULL_ONLY: Self = Self::new(Repositories::All, Actions::of(&[ActionKind::Pull, ActionKind::List]));

    /// These actions in these repositories.
    #[must_use]
    pub const fn new(repositories: Repositories, actions: Actions) -> Self {
        Self { repositories, actions }
    }

    /// Pushes to one repository: what a signed upload token grants to its holder.
    #[must_use]
    pub fn upload(repository: RepositoryName) -> Self {
        Self::new(Repositories::One(repository), Actions::of(&[ActionKind::Push]))
    }

    /// Whether it covers an action in a repository.
    #[must_use]
    pub fn covers(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.actions.contains(action) && self.repositories.contains(repository)
    }

    /// Whether it covers everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::EVERYTHING
    }
}
