//! The rules of a policy that concern every principal: immutable tags, and the settings of repositories.

use std::sync::Arc;

use oci::{RepositoryName, Tag};

use super::tag_pattern::{TagPattern, is_fallback};
use crate::auth::RepositoryPattern;
use crate::timestamp::Timestamp;

/// A rule that freezes tags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImmutableRule {
    /// Its name.
    pub name: Arc<str>,
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// The tags.
    pub tags: Vec<TagPattern>,
    /// Tags that it does not freeze, although they match.
    pub except: Vec<TagPattern>,
    /// For how long a tag may still change after it was created or moved, in milliseconds.
    pub grace_ms: u64,
    /// Whether a frozen tag may be deleted.
    pub delete: bool,
}

impl ImmutableRule {
    /// The first letters of the tags that stand for what belongs to another manifest.
    const FALLBACK: &'static str = "sha";

    /// Whether the rule freezes the tag once it has stood for the grace.
    fn concerns(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        // A signature that is added later changes such a tag, so a rule has to say that it means them.
        let is_meant = !is_fallback(tag)
            || self
                .tags
                .iter()
                .any(|pattern| pattern.as_str().starts_with(Self::FALLBACK));
        is_meant
            && self.repositories.iter().any(|pattern| pattern.matches(repository))
            && self.tags.iter().any(|pattern| pattern.matches(tag))
            && !self.except.iter().any(|pattern| pattern.matches(tag))
    }
}

/// How a repository comes to exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Creation {
    /// By the first push.
    #[default]
    OnPush,
    /// By an administrator. A push to a repository that does not exist is refused.
    Listed,
}

/// The settings of a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepositorySettings {
    /// How it comes to exist.
    pub create: Creation,
    /// The largest blob in bytes, if it is less than the registry's own limit.
    pub max_blob: Option<u64>,
    /// Whether manifests may refer to layers that are stored elsewhere.
    pub foreign_layers: bool,
}

impl Default for RepositorySettings {
    fn default() -> Self {
        Self {
            create: Creation::OnPush,
            max_blob: None,
            foreign_layers: true,
        }
    }
}

/// Settings for some repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryRule {
    /// The repositories.
    pub repositories: Vec<RepositoryPattern>,
    /// Their settings.
    pub settings: RepositorySettings,
}

/// The rules that concern every principal. All decisions are made from the arguments alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SharedRules {
    immutable: Vec<ImmutableRule>,
    repositories: Vec<RepositoryRule>,
}

impl SharedRules {
    /// These rules. Of the settings, the first rule that matches a repository counts.
    #[must_use]
    pub fn new(immutable: Vec<ImmutableRule>, repositories: Vec<RepositoryRule>) -> Self {
        Self {
            immutable,
            repositories,
        }
    }

    /// Whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.immutable.is_empty() && self.repositories.is_empty()
    }

    /// Whether no tag is ever frozen.
    #[must_use]
    pub fn freeze_nothing(&self) -> bool {
        self.immutable.is_empty()
    }

    /// The first rule by which a tag is frozen at `now`. The tag has named the same manifest since `stood_since`.
    ///
    /// A frozen tag names this manifest for ever: it is not moved, and the manifest is not deleted.
    #[must_use]
    pub fn frozen(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        stood_since: Timestamp,
        now: Timestamp,
    ) -> Option<&ImmutableRule> {
        self.freezing(repository, tag, stood_since, now).next()
    }

    /// The first rule that forbids the deletion of a tag at `now`: it freezes the tag, and does not let it be deleted.
    #[must_use]
    pub fn kept(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        stood_since: Timestamp,
        now: Timestamp,
    ) -> Option<&ImmutableRule> {
        self.freezing(repository, tag, stood_since, now)
            .find(|rule| !rule.delete)
    }

    fn freezing(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        stood_since: Timestamp,
        now: Timestamp,
    ) -> impl Iterator<Item = &ImmutableRule> {
        let age = now.millis_since(stood_since);
        self.immutable
            .iter()
            .filter(move |rule| age >= rule.grace_ms && rule.concerns(repository, tag))
    }

    /// The settings of a repository.
    #[must_use]
    pub fn settings(&self, repository: &RepositoryName) -> RepositorySettings {
        let matches = |rule: &&RepositoryRule| rule.repositories.iter().any(|pattern| pattern.matches(repository));
        let rule = self.repositories.iter().find(matches);
        rule.map_or_else(RepositorySettings::default, |rule| rule.settings)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn rule(name: &str, repositories: &[&str], tags: &[&str], except: &[&str]) -> ImmutableRule {
        ImmutableRule {
            name: name.into(),
            repositories: repositories.iter().map(|text| text.parse().unwrap()).collect(),
            tags: tags.iter().map(|text| text.parse().unwrap()).collect(),
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
            grace_ms: 0,
            delete: false,
        }
    }

    #[test]
    fn tags_freeze() {
        let signature = format!("sha256-{}.sig", "0".repeat(64));
        let rules = SharedRules::new(
            vec![
                ImmutableRule {
                    grace_ms: 600,
                    ..rule("releases", &["**"], &["semver", "release-*"], &["*-snapshot"])
                },
                ImmutableRule {
                    delete: true,
                    ..rule("all", &["prod/**"], &["*"], &["latest"])
                },
                rule("signatures", &["signed/**"], &["sha256-*"], &[]),
            ],
            Vec::new(),
        );
        // The rules that freeze the tag, and that forbid its deletion.
        for (repository, tag, age, frozen, kept) in [
            ("a", "1.0.0", 599, None, None),
            ("a", "1.0.0", 600, Some("releases"), Some("releases")),
            ("a", "release-1", 600, Some("releases"), Some("releases")),
            ("a", "1.0.0-snapshot", 600, None, None),
            ("a", "latest", 600, None, None),
            ("prod/a", "x", 0, Some("all"), None),
            ("prod/a", "latest", 600, None, None),
            ("prod/a", "1.0.0", 0, Some("all"), None),
            // Every rule that freezes it has to allow the deletion.
            ("prod/a", "1.0.0", 600, Some("releases"), Some("releases")),
            // What belongs to another manifest is frozen only by rules that say so.
            ("prod/a", &signature, 0, None, None),
            ("signed/a", &signature, 0, Some("signatures"), Some("signatures")),
        ] {
            let (name, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
            let (since, now) = (Timestamp(1000), Timestamp(1000 + age));
            let found = |rule: Option<&ImmutableRule>| rule.map(|rule| rule.name.to_string());
            let decided = (
                found(rules.frozen(&name, &tag, since, now)),
                found(rules.kept(&name, &tag, since, now)),
            );
            let expected = (frozen.map(str::to_owned), kept.map(str::to_owned));
            assert_eq!(decided, expected, "{repository} {tag} {age}");
        }
        assert!(!rules.freeze_nothing() && SharedRules::default().freeze_nothing());
    }

    #[test]
    fn the_first_settings_that_match_count() {
        let settings = |create, max_blob, foreign_layers| RepositorySettings {
            create,
            max_blob,
            foreign_layers,
        };
        let listed = settings(Creation::Listed, None, false);
        let small = settings(Creation::OnPush, Some(1), true);
        let rule = |pattern: &str, settings| RepositoryRule {
            repositories: vec![pattern.parse().unwrap()],
            settings,
        };
        let rules = SharedRules::new(
            Vec::new(),
            vec![rule("prod/**", listed), rule("prod/a", small), rule("b", small)],
        );
        for (name, expected) in [("prod/a", listed), ("b", small), ("c", RepositorySettings::default())] {
            assert_eq!(rules.settings(&name.parse().unwrap()), expected);
        }
    }
}
