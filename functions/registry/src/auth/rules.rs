//! What a policy allows one principal.

use std::sync::Arc;

use oci::RepositoryName;

use super::name_ranges::NameRanges;
use super::{ActionKind, Actions, RepositoryPattern, SharedRules};

/// A rule that allows or denies some actions in some repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRule {
    /// Its name.
    pub name: Arc<str>,
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// The actions.
    pub actions: Actions,
}

impl AccessRule {
    fn concerns(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.actions.contains(action) && self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    fn is_everywhere(&self) -> bool {
        self.repositories.iter().any(RepositoryPattern::is_everything)
    }
}

/// What the rules say of an action in a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is allowed.
    Allowed {
        /// The first rule that allows it. `None`: no policy is in force, and everyone may do it.
        rule: Option<Arc<str>>,
    },
    /// It is not allowed.
    Denied {
        /// The first rule that denies it. `None`: no rule allows it.
        rule: Option<Arc<str>>,
    },
}

impl Decision {
    /// Whether the action is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// The rules of a policy that concern one principal, and those that concern every principal. Cloning is cheap.
///
/// Allow rules add actions, deny rules take them away, and the order of the rules means nothing: an action is allowed if an
/// allow rule contains it and no deny rule does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// What is allowed in every repository: allow rules for `**` contain it, and no deny rule does. So most requests compare
    /// no names.
    everywhere: Actions,
    /// All rules. `None`: there are none. A thin pointer, because every request moves its rules several times.
    lists: Option<Arc<Lists>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Lists {
    allow: Vec<AccessRule>,
    deny: Vec<AccessRule>,
    /// The rules that concern every principal.
    shared: Option<Arc<SharedRules>>,
}

impl Rules {
    /// The rules of a principal.
    #[must_use]
    pub fn new(allow: Vec<AccessRule>, deny: Vec<AccessRule>) -> Self {
        let all = |rules: &[AccessRule], counts: fn(&AccessRule) -> bool| {
            let rules = rules.iter().filter(|rule| counts(rule));
            rules.fold(Actions::NONE, |actions, rule| actions.union(rule.actions))
        };
        let everywhere = all(&allow, AccessRule::is_everywhere).without(all(&deny, |_| true));
        let has_rules = !allow.is_empty() || !deny.is_empty();
        Self {
            everywhere,
            lists: has_rules.then(|| {
                Arc::new(Lists {
                    allow,
                    deny,
                    shared: None,
                })
            }),
        }
    }

    /// The same rules, and these ones that concern every principal.
    #[must_use]
    pub fn with_shared(self, shared: Arc<SharedRules>) -> Self {
        if shared.is_empty() {
            return self;
        }
        let lists = self.lists.map(Arc::unwrap_or_clone).unwrap_or_default();
        Self {
            lists: Some(Arc::new(Lists {
                shared: Some(shared),
                ..lists
            })),
            ..self
        }
    }

    /// The rules that concern every principal, if there are any.
    #[must_use]
    pub fn shared(&self) -> Option<&Arc<SharedRules>> {
        self.lists.as_ref()?.shared.as_ref()
    }

    /// Every action in every repository.
    #[must_use]
    pub const fn everything() -> Self {
        Self::everywhere(Actions::ALL)
    }

    /// Pull from every repository.
    #[must_use]
    pub const fn pull_only() -> Self {
        Self::everywhere(Actions::PULL)
    }

    /// No action in any repository.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::everywhere(Actions::NONE)
    }

    const fn everywhere(actions: Actions) -> Self {
        Self {
            everywhere: actions,
            lists: None,
        }
    }

    /// Whether every action is allowed in every repository.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everywhere == Actions::ALL
    }

    /// Whether an action is allowed in every repository, without exception.
    #[must_use]
    pub fn allow_everywhere(&self, action: ActionKind) -> bool {
        self.everywhere.contains(action)
    }

    /// Whether an action is allowed in a repository.
    #[must_use]
    pub fn allow(&self, action: ActionKind, repository: &RepositoryName) -> bool {
        self.everywhere.contains(action) || self.decide(action, repository).is_allowed()
    }

    /// What the rules say of an action in a repository, and which of them says so.
    #[must_use]
    pub fn decide(&self, action: ActionKind, repository: &RepositoryName) -> Decision {
        let find = |rules: &[AccessRule]| {
            let rule = rules.iter().find(|rule| rule.concerns(action, repository));
            rule.map(|rule| rule.name.clone())
        };
        let (allowing, denying) = match &self.lists {
            Some(lists) => (find(&lists.allow), find(&lists.deny)),
            None => (None, None),
        };
        // Without a rule that allows it, no rule needs to deny it: the reason is that none allows it.
        match (allowing, denying) {
            (Some(rule), None) => Decision::Allowed { rule: Some(rule) },
            (Some(_), rule @ Some(_)) => Decision::Denied { rule },
            (None, _) if self.everywhere.contains(action) => Decision::Allowed { rule: None },
            (None, _) => Decision::Denied { rule: None },
        }
    }

    /// The ranges of names that a list of what may be pulled has to read: those of the literal prefixes of the patterns. Names
    /// in them may still be denied.
    #[must_use]
    pub fn pull_ranges(&self) -> NameRanges {
        if self.everywhere.contains(ActionKind::Read) {
            return NameRanges::everything();
        }
        let rules = self.lists.iter().flat_map(|lists| &lists.allow);
        let pulls = rules.filter(|rule| rule.actions.contains(ActionKind::Read));
        NameRanges::of(pulls.flat_map(|rule| &rule.repositories))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::{RepositoryRule, RepositorySettings};
    use super::*;

    fn rule(name: &str, repositories: &[&str], actions: Actions) -> AccessRule {
        AccessRule {
            name: name.into(),
            repositories: repositories.iter().map(|text| text.parse().unwrap()).collect(),
            actions,
        }
    }

    #[test]
    fn deny_rules_take_away_what_allow_rules_add() {
        use ActionKind::{Delete, Move, Read, Write};

        let allowed = |rule: &str| Decision::Allowed {
            rule: Some(rule.into()),
        };
        let denied = |rule: Option<&str>| Decision::Denied {
            rule: rule.map(Into::into),
        };
        let rules = Rules::new(
            vec![
                rule("read", &["**"], Actions::PULL),
                rule("team", &["team/**", "prod/team-*"], Actions::ALL),
            ],
            vec![
                rule("kept", &["prod/**"], Actions::of(&[Delete])),
                rule("secret", &["team/secret"], Actions::ALL),
            ],
        );
        for (action, repository, expected) in [
            (Read, "a", allowed("read")),
            (Read, "team/x", allowed("read")),
            (Read, "team/secret", denied(Some("secret"))),
            (Write, "team/x", allowed("team")),
            (Move, "prod/team-x", allowed("team")),
            (Delete, "prod/team-x", denied(Some("kept"))),
            // No rule allows it, so the deny rule is not the reason.
            (Delete, "prod/x", denied(None)),
            (Write, "a", denied(None)),
        ] {
            let repository = repository.parse().unwrap();
            assert_eq!(rules.decide(action, &repository), expected, "{action:?} {repository}");
            assert_eq!(rules.allow(action, &repository), expected.is_allowed());
        }
        assert!(!rules.is_everything());
    }

    #[test]
    fn what_is_allowed_everywhere_needs_no_comparison() {
        let name: RepositoryName = "a/b".parse().unwrap();
        for (rules, allowed, is_everything) in [
            (Rules::everything(), Actions::ALL, true),
            (Rules::pull_only(), Actions::PULL, false),
            (Rules::nothing(), Actions::NONE, false),
            (Rules::new(Vec::new(), Vec::new()), Actions::NONE, false),
            (
                Rules::new(
                    vec![rule("a", &["a", "**"], Actions::PULL), rule("b", &["**"], Actions::ALL)],
                    Vec::new(),
                ),
                Actions::ALL,
                true,
            ),
            (
                Rules::new(
                    vec![rule("b", &["**"], Actions::ALL)],
                    vec![rule("c", &["z"], Actions::PULL)],
                ),
                Actions::ALL,
                false,
            ),
        ] {
            assert_eq!(rules.is_everything(), is_everything);
            for action in ActionKind::ALL {
                assert_eq!(rules.allow(action, &name), allowed.contains(action), "{rules:?}");
                assert_eq!(rules.decide(action, &name).is_allowed(), allowed.contains(action));
            }
        }
    }

    #[test]
    fn rules_that_concern_every_principal_allow_and_deny_nothing() {
        let settings = RepositoryRule {
            repositories: vec![RepositoryPattern::everything()],
            settings: RepositorySettings::default(),
        };
        let shared = Arc::new(SharedRules::new(Vec::new(), vec![settings]));
        let listed = Rules::new(
            vec![rule("a", &["a", "b"], Actions::PUSH)],
            vec![rule("d", &["b"], Actions::ALL)],
        );
        for rules in [
            Rules::everything(),
            Rules::pull_only(),
            Rules::nothing(),
            listed.clone(),
        ] {
            assert_eq!(rules.shared(), None);
            assert_eq!(rules.clone().with_shared(Arc::default()), rules);
            let with = rules.clone().with_shared(shared.clone());
            assert!(with.shared().is_some_and(|found| Arc::ptr_eq(found, &shared)));
            for name in ["a", "b", "c"].map(|name| name.parse().unwrap()) {
                for action in ActionKind::ALL {
                    assert_eq!(
                        with.decide(action, &name),
                        rules.decide(action, &name),
                        "{action:?} {name}"
                    );
                }
            }
            assert_eq!(with.pull_ranges(), rules.pull_ranges());
        }
        // The rules of other identities stay as they are.
        let kept = listed.clone();
        assert!(listed.with_shared(shared).shared().is_some() && kept.shared().is_none());
    }

    #[test]
    fn lists_read_the_ranges_of_what_may_be_pulled() {
        let rules = Rules::new(
            vec![
                rule("a", &["team/**", "a"], Actions::PULL),
                rule("b", &["other/**"], Actions::CREATE),
            ],
            vec![rule("c", &["team/x"], Actions::PULL)],
        );
        let ranges = rules.pull_ranges();
        for (name, expected) in [
            ("a", true),
            ("team/x", true),
            ("team/y", true),
            ("other/x", false),
            ("b", false),
        ] {
            assert_eq!(ranges.contains(&name.parse().unwrap()), expected, "{name}");
        }
        assert!(Rules::nothing().pull_ranges().is_empty());
        assert_eq!(Rules::pull_only().pull_ranges(), NameRanges::everything());
    }
}
