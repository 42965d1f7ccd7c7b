//! Patterns for the names of repositories, as policies, grants and pull rules have them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci::RepositoryName;
use serde::{Deserialize, Serialize};

use crate::glob;

/// A set of repository names, written as a pattern. Cloning is cheap.
///
/// | pattern | repositories |
/// |---|---|
/// | `team/app` | this one |
/// | `team/app-*` | `*` matches any text within one component, also none |
/// | `team/**` | `**` at the end matches one or more components: `team/a` and `team/a/b`, not `team` |
/// | `**` | all |
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPattern(Arc<str>);

/// The text is not a pattern for repositories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not a pattern for repositories such as team/app, team/* or team/** (`**` stands at the end), at most {} bytes long",
    RepositoryPattern::MAX_LEN
)]
pub struct PatternError;

const EVERYTHING: &str = "**";

impl RepositoryPattern {
    /// The longest pattern, in bytes: as long as the longest name.
    pub const MAX_LEN: usize = RepositoryName::MAX_LEN;

    /// The pattern `**`.
    #[must_use]
    pub fn everything() -> Self {
        Self(EVERYTHING.into())
    }

    /// A pattern in which the name of a principal has taken the place of a word. So it may be longer than the one that was
    /// written, and it still matches what it says: a rule that denies must not end with the length of a name.
    pub(crate) fn of_any_length(text: &str) -> Result<Self, PatternError> {
        let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
        let (mut components, _) = parts(text);
        let fine = |component: &str| {
            !component.is_empty() && !component.contains(EVERYTHING) && component.bytes().all(is_legal)
        };
        if components.all(fine) {
            Ok(Self(text.into()))
        } else {
            Err(PatternError)
        }
    }

    /// Whether the set contains the repository.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        // The scope of most tokens. No name contains a `*`.
        if *self.0 == *repository.as_str() {
            return true;
        }
        let mut names = repository.as_str().split('/');
        let (components, deep) = parts(&self.0);
        for component in components {
            match names.next() {
                Some(name) if glob::matches(component.as_bytes(), name.as_bytes()) => {}
                _ => return false,
            }
        }
        names.next().is_some() == deep
    }

    /// Whether the set contains every repository, because the pattern is `**`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        &*self.0 == EVERYTHING
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text before the first `*`: every name in the set begins with it. All of the pattern if it matches one name only.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// Whether the set has one name at most, because the pattern has no `*`.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }
}

/// The components before a `**` at the end, and whether there is one.
fn parts(pattern: &str) -> (impl Iterator<Item = &str>, bool) {
    let (components, deep) = match pattern.strip_suffix(EVERYTHING) {
        Some("") => (None, true),
        Some(above) => (above.strip_suffix('/').or(Some(pattern)), above.ends_with('/')),
        None => (Some(pattern), false),
    };
    (components.into_iter().flat_map(|text| text.split('/')), deep)
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > Self::MAX_LEN {
            return Err(PatternError);
        }
        Self::of_any_length(text)
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<RepositoryPattern> for String {
    fn from(pattern: RepositoryPattern) -> Self {
        pattern.to_string()
    }
}

impl From<&RepositoryName> for RepositoryPattern {
    /// The pattern that matches this repository alone: no name contains a `*`.
    fn from(repository: &RepositoryName) -> Self {
        Self(repository.as_str().into())
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryPattern({self})")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, repository, expected) in [
            ("team/app", "team/app", true),
            ("team/app", "team/app/x", false),
            ("team/app", "team", false),
            ("team/app", "team/app2", false),
            ("team/*", "team/app", true),
            ("team/*", "team", false),
            ("team/*", "team/app/x", false),
            ("team/**", "team/app/x", true),
            ("team/**", "team/app", true),
            ("team/**", "team", false),
            ("team/**", "teams/app", false),
            ("**", "one", true),
            ("**", "anything/at/all", true),
            ("*", "one", true),
            ("*", "one/two", false),
            ("*/**", "one", false),
            ("*/**", "one/two/three", true),
            ("prod/payments-*", "prod/payments-api", true),
            ("prod/payments-*", "prod/payments", false),
            ("*/app-*-x", "team/app-1-x-2-x", true),
            ("*/app-*-x", "team/app-1-y", false),
            ("a.b", "a-b", false),
        ] {
            let pattern: RepositoryPattern = pattern.parse().unwrap();
            assert_eq!(
                pattern.matches(&repository.parse().unwrap()),
                expected,
                "{pattern} {repository}"
            );
            assert_eq!(pattern.is_everything(), pattern.to_string() == "**");
            assert!(!expected || repository.starts_with(pattern.literal_prefix()));
        }
    }

    #[test]
    fn the_text_before_the_first_star_is_literal() {
        for (pattern, prefix, is_literal) in [
            ("team/app", "team/app", true),
            ("team/app-*", "team/app-", false),
            ("team/**", "team/", false),
            ("a*/b*", "a", false),
            ("*/b", "", false),
            ("**", "", false),
        ] {
            let pattern: RepositoryPattern = pattern.parse().unwrap();
            assert_eq!((pattern.literal_prefix(), pattern.is_literal()), (prefix, is_literal));
        }
    }

    #[test]
    fn a_name_is_a_pattern_for_itself() {
        let name: RepositoryName = "a/b__c".parse().unwrap();
        let pattern = RepositoryPattern::from(&name);
        assert!(pattern.matches(&name) && !pattern.matches(&"a/b".parse().unwrap()));
        assert_eq!("a/b__c".parse(), Ok(pattern));
    }

    #[test]
    fn a_pattern_is_as_long_as_the_longest_name() {
        for (length, expected) in [(255, true), (256, false)] {
            for text in ["a".repeat(length), format!("{}/**", "a".repeat(length - 3))] {
                assert_eq!(text.parse::<RepositoryPattern>().is_ok(), expected, "{length}");
                let json = serde_json::to_string(&text).unwrap();
                assert_eq!(serde_json::from_str::<RepositoryPattern>(&json).is_ok(), expected);
            }
        }
    }

    #[test]
    fn other_texts_are_not_patterns() {
        for wrong in [
            "", "/", "A", "a//b", "/a", "a/", "**/b", "a**", "***", "a/***", "//**", "/**", "**/**", "{name}", "a b",
            "a?",
        ] {
            assert_eq!(wrong.parse::<RepositoryPattern>(), Err(PatternError), "{wrong:?}");
        }
    }
}
