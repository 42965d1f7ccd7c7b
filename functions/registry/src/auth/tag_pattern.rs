//! Patterns for tags, as immutable rules have them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci::Tag;

use crate::glob;

/// A set of tags, written as a pattern. Cloning is cheap.
///
/// | pattern | tags |
/// |---|---|
/// | `latest` | this one |
/// | `release-*` | `*` matches any text, also none |
/// | `semver` | versions: `v?MAJOR.MINOR.PATCH(-PRE)?`, as semver.org has them without build metadata, which tags cannot have |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TagPattern(Arc<str>);

/// The text is not a pattern for tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a pattern for tags such as latest, release-* or the word semver")]
pub struct TagPatternError;

const SEMVER: &str = "semver";

impl TagPattern {
    /// The longest pattern, in bytes: as long as the longest tag.
    const MAX_LEN: usize = 128;

    /// Whether the set contains the tag.
    #[must_use]
    pub fn matches(&self, tag: &Tag) -> bool {
        if &*self.0 == SEMVER {
            is_version(tag.as_str())
        } else {
            glob::matches(self.0.as_bytes(), tag.as_str().as_bytes())
        }
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<Self, TagPatternError> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(is_legal) {
            Ok(Self(text.into()))
        } else {
            Err(TagPatternError)
        }
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `v?MAJOR.MINOR.PATCH(-PRE)?`
fn is_version(tag: &str) -> bool {
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let (numbers, pre) = match tag.split_once('-') {
        Some((numbers, pre)) => (numbers, Some(pre)),
        None => (tag, None),
    };
    let is_number = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    let is_identifier =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_identifier))
}

/// Whether a tag stands for what belongs to another manifest: `sha256-<64 hex>` or `sha512-<128 hex>`, alone or with a suffix
/// that begins with a dot. Clients without the referrers API list referrers under such a tag, and cosign its signatures.
pub(super) fn is_fallback(tag: &Tag) -> bool {
    [("sha256-", 64), ("sha512-", 128)].into_iter().any(|(prefix, digits)| {
        let Some((hex, suffix)) = tag
            .as_str()
            .strip_prefix(prefix)
            .and_then(|rest| rest.split_at_checked(digits))
        else {
            return false;
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        hex.bytes().all(is_hex) && (suffix.is_empty() || suffix.starts_with('.'))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_tags() {
        for (pattern, tags, others) in [
            ("latest", &["latest"] as &[&str], &["latest2", "Latest", "a"] as &[&str]),
            ("release-*", &["release-", "release-1.0"], &["release", "a-release-1"]),
            ("*-snapshot", &["1-snapshot"], &["snapshot", "1-snapshot2"]),
            ("*", &["a", "1.0.0"], &[]),
            (
                "semver",
                &[
                    "1.0.0",
                    "v1.0.0",
                    "0.0.0",
                    "10.20.30",
                    "1.0.0-rc.1",
                    "v1.2.3-a-b.0",
                    "1.2.3--",
                ],
                &[
                    "semver",
                    "1.0",
                    "1",
                    "1.0.0.0",
                    "v",
                    "V1.0.0",
                    "vv1.0.0",
                    "01.0.0",
                    "1.00.0",
                    "1.0.0-",
                    "1.0.0-a..b",
                    "1.0.0-a_b",
                    "1.0.x",
                    "1.0.0_1",
                    "1..0",
                ],
            ),
        ] {
            let pattern: TagPattern = pattern.parse().unwrap();
            for tag in tags {
                assert!(pattern.matches(&tag.parse().unwrap()), "{pattern} {tag}");
            }
            for tag in others {
                assert!(!pattern.matches(&tag.parse().unwrap()), "{pattern} {tag}");
            }
        }
        for wrong in ["", "a b", "a/b", "{name}", "a?", "\u{e9}", &"a".repeat(129)] {
            assert_eq!(wrong.parse::<TagPattern>(), Err(TagPatternError), "{wrong:?}");
        }
    }

    #[test]
    fn tags_of_referrers() {
        let (short, long) = ("0a".repeat(32), "f9".repeat(64));
        for (tag, expected) in [
            (format!("sha256-{short}"), true),
            (format!("sha256-{short}.sig"), true),
            (format!("sha256-{short}."), true),
            (format!("sha512-{long}"), false),
            (format!("sha256-{short}-x"), false),
            (format!("sha256-{short}0"), false),
            (format!("sha256-{}", short.to_uppercase()), false),
            (format!("sha512-{short}"), false),
            ("sha256-".to_owned(), false),
            ("latest".to_owned(), false),
        ] {
            // A tag has at most 128 characters, so none has all digits of sha512.
            if let Ok(tag) = tag.parse::<Tag>() {
                assert_eq!(is_fallback(&tag), expected, "{tag}");
            }
        }
    }
}
