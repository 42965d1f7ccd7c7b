//! The scope of a token: some actions in some repositories.

use std::str::FromStr;
use std::sync::Arc;

use oci::RepositoryName;
use serde::{Deserialize, Serialize};

use super::{NameRanges, RepositoryPattern};

/// A permission as a value. The types of actions, such as [`Push`](super::Push), each require one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// Read the content and the lists of a repository, and see it in the catalog.
    Read,
    /// Upload blobs, and publish manifests and tags that do not exist yet.
    Write,
    /// Make an existing tag name another manifest.
    Move,
    /// Delete tags, manifests and links to blobs.
    Delete,
}

impl ActionKind {
    /// All permissions.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Move, Self::Delete];

    /// The word for the permission alone.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "pull",
            Self::Write => "create",
            Self::Move => "move",
            Self::Delete => "delete",
        }
    }
}

/// A set of permissions. As JSON it is a list of words, as policies, grants and scopes have them: `pull` reads, `create`
/// writes, `move` moves tags, `push` is `create` and `move`, and `delete` deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Actions(u8);

/// The text is not the word of an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an action: expected `pull`, `create`, `move`, `push` or `delete`")]
pub struct ActionsError;

impl Actions {
    /// No permission.
    pub const NONE: Self = Self::of(&[]);

    /// `pull`
    pub const PULL: Self = Self::of(&[ActionKind::Read]);

    /// `create`: a push that moves no tag.
    pub const CREATE: Self = Self::of(&[ActionKind::Write]);

    /// `push`
    pub const PUSH: Self = Self::of(&[ActionKind::Write, ActionKind::Move]);

    /// Every permission.
    pub const ALL: Self = Self::of(&[
        ActionKind::Read,
        ActionKind::Write,
        ActionKind::Move,
        ActionKind::Delete,
    ]);

    /// The set of these permissions.
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

    /// The permissions that are in one of the two sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set contains the permission.
    #[must_use]
    pub const fn contains(self, kind: ActionKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    /// The permissions of the set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The permissions that are in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set contains no permission.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as words, each permission once: `pull`, then `push`, `create` or `move`, then `delete`.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let push = if self.intersection(Self::PUSH) == Self::PUSH {
            Some("push")
        } else if self.contains(ActionKind::Write) {
            Some("create")
        } else {
            self.contains(ActionKind::Move).then_some("move")
        };
        let pull = self.contains(ActionKind::Read).then_some("pull");
        let delete = self.contains(ActionKind::Delete).then_some("delete");
        [pull, push, delete].into_iter().flatten().collect()
    }

    const fn bit(kind: ActionKind) -> u8 {
        match kind {
            ActionKind::Read => 1,
            ActionKind::Write => 2,
            ActionKind::Move => 4,
            ActionKind::Delete => 8,
        }
    }
}

impl FromStr for Actions {
    type Err = ActionsError;

    /// Reads one word.
    fn from_str(word: &str) -> Result<Self, ActionsError> {
        match word {
            "pull" => Ok(Self::PULL),
            "create" => Ok(Self::CREATE),
            "move" => Ok(Self::of(&[ActionKind::Move])),
            "push" => Ok(Self::PUSH),
            "delete" => Ok(Self::of(&[ActionKind::Delete])),
            _ => Err(ActionsError),
        }
    }
}

impl TryFrom<Vec<String>> for Actions {
    type Error = ActionsError;

    fn try_from(words: Vec<String>) -> Result<Self, ActionsError> {
        words
            .iter()
            .try_fold(Self::NONE, |actions, word| Ok(actions.union(word.parse()?)))
    }
}

impl From<Actions> for Vec<String> {
    fn from(actions: Actions) -> Self {
        actions.words().into_iter().map(str::to_owned).collect()
    }
}

/// These actions in these repositories: a grant of a robot, or a part of the scope of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryGrant {
    /// The repositories, including repositories that do not exist yet.
    pub repositories: RepositoryPattern,
    /// The actions.
    pub actions: Actions,
}

/// The most that a token or a key is good for: a list of grants. An action is in the scope if one of them contains it.
/// A scope only narrows what the policy allows. Cloning is cheap.
///
/// A scope is not stored: an upload token contains its repository and principal, and [`Scope::upload`] makes the scope
/// again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    /// What the grants for `**` allow together.
    everywhere: Actions,
    /// Whether the list of repositories shows all that policy and key let be pulled, and not only what the grants do.
    whole_catalog: bool,
    others: OtherTokens,
    /// The other grants; `None` instead of an empty list, so that a scope can be a constant. A thin pointer, because every
    /// request moves its scope several times.
    grants: Option<Arc<Vec<RepositoryGrant>>>,
}

/// What is known about other tokens of the same client, as far as the policy allows what they are asked to contain.
#[derive(Clone, PartialEq, Eq, Debug)]
enum OtherTokens {
    /// Nothing.
    Unknown,
    /// They contain whatever they are asked to: nothing else narrows them.
    Everything,
    /// They contain no more than the scope of its key.
    WithinKey(Arc<KeyScope>),
}

/// The scope of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct KeyScope {
    scope: Scope,
    /// The repositories for which `scope` is all that the key has. `None`: for every repository.
    repositories: Option<Vec<RepositoryName>>,
}

impl KeyScope {
    /// Whether the key has the action in the repository. `None`: it is not known.
    fn covers(&self, action: ActionKind, repository: &RepositoryName) -> Option<bool> {
        let is_known = self
            .repositories
            .as_ref()
            .is_none_or(|known| known.contains(repository));
        is_known.then(|| self.scope.covers(action, repository))
    }
}

/// A scope was to have more than [`Scope::MAX_GRANTS`] grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {} grants in a scope", Scope::MAX_GRANTS)]
pub struct TooManyGrants;

impl Scope {
    /// The maximum number of grants: as many as a client may request in one token.
    pub const MAX_GRANTS: usize = 100;

    /// Every action in every repository.
    pub const EVERYTHING: Self = Self::everywhere(Actions::ALL);

    /// Pull from every repository, and list it in the catalog.
    pub const PULL_ONLY: Self = Self::everywhere(Actions::PULL);

    /// The scope of these grants. An empty list allows nothing.
    pub fn new(grants: Vec<RepositoryGrant>) -> Result<Self, TooManyGrants> {
        if grants.len() > Self::MAX_GRANTS {
            return Err(TooManyGrants);
        }
        let (everywhere, others): (Vec<_>, Vec<_>) =
            grants.into_iter().partition(|grant| grant.repositories.is_everything());
        let everywhere = everywhere
            .into_iter()
            .fold(Actions::NONE, |actions, grant| actions.union(grant.actions));
        Ok(Self {
            everywhere,
            whole_catalog: false,
            others: OtherTokens::Unknown,
            grants: (!others.is_empty()).then(|| Arc::new(others)),
        })
    }

    const fn everywhere(actions: Actions) -> Self {
        Self {
            everywhere: actions,
            whole_catalog: false,
            others: OtherTokens::Unknown,
            grants: None,
        }
    }

    /// Uploads to one repository: the scope of a signed upload token.
    #[must_use]
    pub fn upload(repository: &RepositoryName) -> Self {
        Self::of_one(repository, Actions::CREATE)
    }

    /// What two scopes both allow in one repository, and nothing elsewhere.
    pub(super) fn common(one: &Self, other: &Self, repository: &RepositoryName) -> Self {
        let covered = |kind: &ActionKind| one.covers(*kind, repository) && other.covers(*kind, repository);
        let kinds: Vec<_> = ActionKind::ALL.into_iter().filter(covered).collect();
        Self::of_one(repository, Actions::of(&kinds))
    }

    /// These actions in one repository.
    fn of_one(repository: &RepositoryName, actions: Actions) -> Self {
        let grant = RepositoryGrant {
            repositories: repository.into(),
            actions,
        };
        Self {
            everywhere: Actions::NONE,
            whole_catalog: false,
            others: OtherTokens::Unknown,
            grants: Some(Arc::new(vec![grant])),
        }
    }

    /// The same scope, and the list of repositories: that of a token for `registry:catalog:*`. The list shows what policy and key
    /// let the principal pull.
    #[must_use]
    pub fn with_catalog(self) -> Self {
        Self {
            whole_catalog: true,
            ..self
        }
    }

    /// The same scope, as that of a token which contains what its client has asked for. If the client asks for more, it gets
    /// whatever the policy allows, because nothing else narrows the token: neither the scope of a key, nor an upload.
    #[must_use]
    pub fn extensible(self) -> Self {
        Self {
            others: OtherTokens::Everything,
            ..self
        }
    }

    /// The same scope, as that of a key by which the client has logged in. It may list what it may pull.
    #[must_use]
    pub fn of_key(self) -> Self {
        self.clone().within_key(self).with_catalog()
    }

    /// The same scope, as that of a token for a key with the scope `key`. Another token contains what `key` contains, and not
    /// more.
    #[must_use]
    pub fn within_key(self, key: Self) -> Self {
        self.within(KeyScope {
            scope: key,
            repositories: None,
        })
    }

    /// The same scope, as that of a token for a key of whose scope only a part is known, which is all for these repositories.
    #[must_use]
    pub fn within_part_of_key(self, part: Self, repositories: Vec<RepositoryName>) -> Self {
        self.within(KeyScope {
            scope: part,
            repositories: Some(repositories),
        })
    }

    fn within(self, key: KeyScope) -> Self {
        Self {
            others: OtherTokens::WithinKey(Arc::new(key)),
            ..self
        }
    }

    fn key(&self) -> Option<&KeyScope> {
        match &self.others {
            OtherTokens::Unknown | OtherTokens::Everything => None,
            OtherTokens::WithinKey(key) => Some(key),
        }
    }

    /// Whether it is the scope of a key, or that of a token for a key that has a scope.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        self.key().is_some()
    }

    /// Whether it is known that another token may contain an action in a repository.
    pub(super) fn may_be_wider(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        match &self.others {
            OtherTokens::Unknown => false,
            OtherTokens::Everything => true,
            OtherTokens::WithinKey(key) => key.covers(action, repository) == Some(true),
        }
    }

    /// Whether no token for the same key contains an action in a repository.
    pub(super) fn is_withheld_by_key(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.key().and_then(|key| key.covers(action, repository)) == Some(false)
    }

    /// The scope that bounds the list of repositories, if the scope contains the list and something bounds it.
    fn list_bound(&self) -> Option<&Self> {
        self.key().filter(|_| self.whole_catalog).map(|key| &key.scope)
    }

    /// Whether the list of repositories may show a repository, which may be pulled by `action`.
    pub(super) fn lists(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        match self.list_bound() {
            Some(key) => key.covers(action, repository),
            None => self.whole_catalog || self.covers(action, repository),
        }
    }

    /// Whether the list of repositories may show every repository.
    pub(super) fn lists_everything(&self) -> bool {
        match self.list_bound() {
            Some(key) => key.lists_everything(),
            None => self.whole_catalog || self.everywhere.contains(ActionKind::Read),
        }
    }

    /// The ranges of the names that the list of repositories may show.
    pub(super) fn list_ranges(&self) -> NameRanges {
        if self.lists_everything() {
            return NameRanges::everything();
        }
        let scope = self.list_bound().unwrap_or(self);
        let grants = scope.grants.iter().flat_map(|grants| grants.iter());
        let pulls = grants.filter(|grant| grant.actions.contains(ActionKind::Read));
        NameRanges::of(pulls.map(|grant| &grant.repositories))
    }

    /// Whether it contains the list of repositories: as such, or because a repository may be pulled.
    pub(super) fn contains_list(&self) -> bool {
        self.whole_catalog || !self.list_ranges().is_empty()
    }

    /// Whether the scope allows an action in a repository.
    #[must_use]
    pub fn covers(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.everywhere.contains(action)
            || self
                .grants
                .iter()
                .flat_map(|grants| grants.iter())
                .any(|grant| grant.actions.contains(action) && grant.repositories.matches(repository))
    }

    /// Whether the scope allows every action in every repository.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everywhere == Actions::ALL
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;

    fn grant(repositories: &str, actions: Actions) -> RepositoryGrant {
        RepositoryGrant {
            repositories: repositories.parse().unwrap(),
            actions,
        }
    }

    #[test]
    fn a_scope_is_what_its_grants_allow_together() {
        use ActionKind::{Delete, Move, Read, Write};

        let none = Scope::new(Vec::new()).unwrap();
        let some = Scope::new(vec![
            grant("**", Actions::PULL),
            grant("team/**", Actions::CREATE),
            grant("team/app", Actions::of(&[Delete])),
            grant("team/tools-*", Actions::PUSH),
        ])
        .unwrap();
        for (scope, repository, expected) in [
            (&none, "a", vec![]),
            (&some, "a", vec![Read]),
            (&some, "team", vec![Read]),
            (&some, "team/x", vec![Read, Write]),
            (&some, "team/app", vec![Read, Write, Delete]),
            (&some, "team/tools-x", vec![Read, Write, Move]),
            (&some, "team/app/x", vec![Read, Write]),
        ] {
            let repository = repository.parse().unwrap();
            let allowed: Vec<_> = [Read, Write, Move, Delete]
                .into_iter()
                .filter(|kind| scope.covers(*kind, &repository))
                .collect();
            assert_eq!(allowed, expected, "{repository}");
            assert!(!scope.is_everything());
        }
    }

    #[test]
    fn actions_are_words() {
        for (actions, words) in [
            (Actions::NONE, &[] as &[&str]),
            (Actions::PULL, &["pull"]),
            (Actions::CREATE, &["create"]),
            (Actions::PUSH, &["push"]),
            (Actions::of(&[ActionKind::Move, ActionKind::Read]), &["pull", "move"]),
            (Actions::ALL, &["pull", "push", "delete"]),
        ] {
            assert_eq!(actions.words(), words);
            let json = serde_json::to_string(&actions).unwrap();
            assert_eq!(json, serde_json::to_string(words).unwrap());
            assert_eq!(serde_json::from_str::<Actions>(&json).unwrap(), actions);
            assert_eq!(Actions::ALL.without(actions).union(actions), Actions::ALL);
            assert_eq!(Actions::ALL.without(actions).intersection(actions), Actions::NONE);
            assert_eq!(actions.is_empty(), words.is_empty());
        }
        assert!(serde_json::from_str::<Actions>(r#"["read"]"#).is_err());
    }

    #[test]
    fn grants_for_all_repositories_are_one_set() {
        let pieces = [ActionKind::Read, ActionKind::Delete].map(|kind| grant("**", Actions::of(&[kind])));
        let mut grants = pieces.to_vec();
        assert!(!Scope::new(grants.clone()).unwrap().is_everything());
        grants.push(grant("**", Actions::PUSH));
        assert_eq!(Scope::new(grants), Ok(Scope::EVERYTHING));
    }

    #[test]
    fn the_number_of_grants_is_bounded() {
        let mut grants: Vec<_> = (1..=Scope::MAX_GRANTS)
            .map(|number| grant(&format!("r{number}"), Actions::ALL))
            .collect();
        let scope = Scope::new(grants.clone()).unwrap();
        let last = format!("r{}", Scope::MAX_GRANTS).parse().unwrap();
        assert!(scope.covers(ActionKind::Read, &last) && !scope.is_everything());
        grants.push(grant("**", Actions::ALL));
        assert_eq!(Scope::new(grants), Err(TooManyGrants));
    }

    fn grants() -> impl Strategy<Value = Vec<RepositoryGrant>> {
        let words = subsequence(vec!["pull", "create", "move", "push", "delete"], 0..=5);
        let one = ("\\*\\*|[ab*]{1,2}(/[ab]{1,2}){0,2}(/\\*\\*)?", words);
        vec(one, 0..6).prop_map(|all| {
            let grants = all.into_iter().filter_map(|(pattern, words)| {
                let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                Some(RepositoryGrant {
                    repositories: pattern.parse().ok()?,
                    actions: words.try_into().unwrap(),
                })
            });
            grants.collect::<Vec<_>>()
        })
    }

    proptest! {
        /// A scope allows what one of its grants allows, so fewer grants, or fewer actions in them, never allow more.
        #[test]
        fn a_narrower_scope_allows_no_more(
            grants in grants(),
            kept in 0..6_usize,
            actions in subsequence(ActionKind::ALL.to_vec(), 0..=4),
            repository in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let repository: RepositoryName = repository.parse().unwrap();
            let scope = Scope::new(grants.clone()).unwrap();
            let narrower: Vec<_> = grants
                .iter()
                .take(kept)
                .map(|grant| RepositoryGrant {
                    repositories: grant.repositories.clone(),
                    actions: grant.actions.intersection(Actions::of(&actions)),
                })
                .collect();
            let narrower = Scope::new(narrower).unwrap();
            for kind in ActionKind::ALL {
                let allows = |grant: &RepositoryGrant| grant.actions.contains(kind) && grant.repositories.matches(&repository);
                prop_assert_eq!(scope.covers(kind, &repository), grants.iter().any(allows));
                prop_assert!(!narrower.covers(kind, &repository) || scope.covers(kind, &repository));
            }
            let upload = Scope::upload(&repository);
            let other = Scope::everywhere(Actions::of(&actions));
            let common = Scope::common(&scope, &other, &repository);
            let elsewhere: RepositoryName = "elsewhere".parse().unwrap();
            for kind in ActionKind::ALL {
                prop_assert_eq!(upload.covers(kind, &repository), kind == ActionKind::Write);
                let both = scope.covers(kind, &repository) && actions.contains(&kind);
                prop_assert_eq!(common.covers(kind, &repository), both);
                prop_assert!(!common.covers(kind, &elsewhere));
            }
        }

        /// Grants are read back from their JSON, which has each permission once.
        #[test]
        fn grants_are_read_back(grants in grants()) {
            let json = serde_json::to_string(&grants).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<RepositoryGrant>>(&json).unwrap(), grants);
        }

        /// No text makes a reader panic, and a text that is read is the text that is written.
        #[test]
        fn any_text(pattern in "[a-z*/{}._-]{0,20}|\\PC{0,20}", word in "pull|create|move|push|delete|[a-z*]{0,6}|\\PC{0,8}") {
            if let Ok(read) = pattern.parse::<RepositoryPattern>() {
                prop_assert_eq!(read.to_string(), &*pattern);
            }
            if let Ok(actions) = word.parse::<Actions>() {
                prop_assert_eq!(actions.words(), [&*word]);
            }
            let json = serde_json::json!({ "repositories": pattern, "actions": [word] });
            let _ = serde_json::from_value::<RepositoryGrant>(json);
        }
    }
}
