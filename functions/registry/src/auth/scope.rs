//! The scope of an identity: some actions in some repositories.

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

    /// The set of these actions.
    #[must_use]
    pub const fn of(kinds: &[ActionKind]) -> Self {
        let mut bits = 0;
        let mut next = 0;
        // A constant function cannot use `for`.
        while next < kinds.len() {
            bits |= Self::bit(kinds[next]);
            next += 1;
        }
        Self(bits)
    }

    /// Whether the set contains the action.
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
    /// Every repository, including repositories that do not exist yet.
    All,
    /// One repository.
    One(RepositoryName),
}

impl Repositories {
    /// Whether the set contains the repository.
    #[must_use]
    pub fn contains(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == repository,
        }
    }
}

/// The most that an identity may do: each of these actions in each of these repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    repositories: Repositories,
    actions: Actions,
}

impl Scope {
    /// Every action in every repository.
    pub const EVERYTHING: Self = Self::new(Repositories::All, Actions::ALL);

    /// Pull from every repository, and list it in the catalog.
    pub const PULL_ONLY: Self = Self::new(Repositories::All, Actions::of(&[ActionKind::Pull, ActionKind::List]));

    /// These actions in these repositories.
    #[must_use]
    pub const fn new(repositories: Repositories, actions: Actions) -> Self {
        Self { repositories, actions }
    }

    /// Pushes to one repository: the scope of a signed upload token.
    #[must_use]
    pub fn upload(repository: RepositoryName) -> Self {
        Self::new(Repositories::One(repository), Actions::of(&[ActionKind::Push]))
    }

    /// Whether the scope allows an action in a repository.
    #[must_use]
    pub fn covers(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.actions.contains(action) && self.repositories.contains(repository)
    }

    /// Whether the scope allows every action in every repository.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::EVERYTHING
    }
}
