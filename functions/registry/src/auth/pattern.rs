//! Patterns for the names of repositories, as policies, grants and pull rules have them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci::RepositoryName;
use serde::{Deserialize, Serialize};

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
#[error("not a pattern for repositories such as team/app, team/* or team/** (`**` stands at the end)")]
pub struct PatternError;

const EVERYTHING: &str = "**";

impl RepositoryPattern {
    /// Whether the set contains the repository.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        let mut names = repository.as_str().split('/');
        let (components, deep) = parts(&self.0);
        for component in components {
            match names.next() {
                Some(name) if matches_component(component.as_bytes(), name.as_bytes()) => {}
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

/// Whether the pattern matches the name; `*` matches any text. If the text after a star does not match, the search
/// continues at the last star. This is fast enough, because names and patterns are short.
fn matches_component(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while at < name.len() {
        match pattern.get(from) {
            Some(b'*') => {
                star = Some((from, at));
                from += 1;
            }
            Some(byte) if *byte == name[at] => {
                from += 1;
                at += 1;
            }
            _ => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                from = behind + 1;
                at = taken + 1;
            }
        }
    }
    pattern[from..].iter().all(|byte| *byte == b'*')
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
    fn other_texts_are_not_patterns() {
        for wrong in [
            "", "/", "A", "a//b", "/a", "a/", "**/b", "a**", "***", "a/***", "//**", "/**", "**/**", "{name}", "a b",
            "a?",
        ] {
            assert_eq!(wrong.parse::<RepositoryPattern>(), Err(PatternError), "{wrong:?}");
        }
    }
}
