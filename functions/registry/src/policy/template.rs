//! Patterns for repositories with `{name}`, which stands for the name of the principal.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::auth::{PatternError, RepositoryPattern};

const NAME: &str = "{name}";

/// A pattern for repositories, in which `{name}` may stand for the name of the principal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepositoryTemplate {
    /// A pattern that is the same for every principal.
    Pattern(RepositoryPattern),
    /// A pattern with `{name}`.
    Named(Arc<str>),
}

impl RepositoryTemplate {
    /// The pattern for a principal with this name: a legal repository name, or a component of one. `None`: the pattern needs a
    /// name, and the principal has none.
    #[must_use]
    pub fn resolve(&self, name: Option<&str>) -> Option<RepositoryPattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern.clone()),
            // Only a name that is no pattern: `*` must not come from a principal.
            Self::Named(text) => {
                let name = name.filter(|name| !name.contains('*'))?;
                RepositoryPattern::of_any_length(&text.replace(NAME, name)).ok()
            }
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pattern(pattern) => pattern.as_str(),
            Self::Named(text) => text,
        }
    }
}

impl FromStr for RepositoryTemplate {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.contains(NAME) {
            // What is legal with one name is so with every name.
            text.replace(NAME, "a").parse::<RepositoryPattern>()?;
            if text.len() > RepositoryPattern::MAX_LEN {
                return Err(PatternError);
            }
            Ok(Self::Named(text.into()))
        } else {
            text.parse().map(Self::Pattern)
        }
    }
}

impl fmt::Display for RepositoryTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RepositoryTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_place_of_their_word() {
        for (template, name, expected) in [
            ("home/{name}/**", Some("alice"), Some("home/alice/**")),
            ("{name}", Some("acme/app"), Some("acme/app")),
            ("{name}-x/{name}", Some("a"), Some("a-x/a")),
            ("home/{name}/**", None, None),
            ("home/{name}/**", Some("*"), None),
            ("home/{name}/**", Some("A b"), None),
            ("home/*", None, Some("home/*")),
        ] {
            let template: RepositoryTemplate = template.parse().unwrap();
            let resolved = template.resolve(name).map(|pattern| pattern.to_string());
            assert_eq!(resolved.as_deref(), expected, "{template}");
        }
        for (length, expected) in [(255, true), (256, false)] {
            let text = format!("{}/{{name}}", "a".repeat(length - "/{name}".len()));
            let template = text.parse::<RepositoryTemplate>();
            assert_eq!(template.is_ok(), expected, "{length}");
            if let Ok(template) = template {
                let resolved = template.resolve(Some(&"b".repeat(64))).unwrap();
                assert_eq!(
                    resolved.as_str().len(),
                    length - NAME.len() + 64,
                    "a long name leaves it what it is"
                );
            }
        }
        for wrong in ["", "{name}**", "{name", "{user}/**", "{name}/**/a", "A/{name}"] {
            assert_eq!(wrong.parse::<RepositoryTemplate>(), Err(PatternError), "{wrong}");
        }
    }
}
