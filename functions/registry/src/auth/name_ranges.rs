//! Ranges of repository names, in which lists look for what they show.

use oci::RepositoryName;

use super::RepositoryPattern;

/// All names that begin with a text, or the one name that equals it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NameRange {
    text: String,
    /// Not part of the order of different texts; of two ranges with one text, that of all names comes first.
    is_one_name: bool,
}

impl NameRange {
    /// Where to begin to read the names of the range, in ASCII order: no name is between this text and the first name of the
    /// range, and this text is before that name. `None`: at the first name of all.
    #[must_use]
    pub fn before(&self) -> Option<String> {
        let mut text = self.text.clone().into_bytes();
        let last = text.pop()?;
        // Names that begin like the range, but have a lower byte here, come before this text, because `~` is above every
        // character of a name.
        text.extend([last.saturating_sub(1), b'~']);
        String::from_utf8(text).ok()
    }

    /// Whether the range contains a name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        if self.is_one_name {
            name == self.text
        } else {
            name.starts_with(&self.text)
        }
    }

    /// Whether every name of the range is `name` or before it, in ASCII order.
    #[must_use]
    pub fn ends_by(&self, name: &str) -> bool {
        if self.is_one_name {
            *self.text <= *name
        } else {
            *self.text < *name && !name.starts_with(&self.text)
        }
    }

    /// Whether the range has one name at most.
    #[must_use]
    pub fn is_one_name(&self) -> bool {
        self.is_one_name
    }

    /// What is in both ranges: one of them, if one begins like the other.
    fn intersection(&self, other: &Self) -> Option<Self> {
        let (outer, inner) = if self.text.len() <= other.text.len() {
            (self, other)
        } else {
            (other, self)
        };
        if outer.text == inner.text {
            return Some(outer.max(inner).clone());
        }
        outer.contains(&inner.text).then(|| inner.clone())
    }
}

/// Ranges of names: disjoint, in ASCII order. Every name that some patterns match is in one of them; other names may be, too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameRanges(Vec<NameRange>);

impl NameRanges {
    /// The ranges of the literal prefixes of these patterns.
    pub(super) fn of<'p>(patterns: impl IntoIterator<Item = &'p RepositoryPattern>) -> Self {
        let ranges = patterns.into_iter().map(|pattern| NameRange {
            text: pattern.literal_prefix().to_owned(),
            is_one_name: pattern.is_literal(),
        });
        Self::disjoint(ranges.collect())
    }

    /// The range of all names.
    #[must_use]
    pub fn everything() -> Self {
        Self::of_prefix("")
    }

    /// The range of the names that begin with a text.
    #[must_use]
    pub fn of_prefix(prefix: &str) -> Self {
        Self(vec![NameRange {
            text: prefix.to_owned(),
            is_one_name: false,
        }])
    }

    fn disjoint(mut ranges: Vec<NameRange>) -> Self {
        ranges.sort_unstable();
        // A range that contains others comes directly before them.
        ranges.dedup_by(|next, kept| kept.contains(&next.text));
        Self(ranges)
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let pairs = self
            .0
            .iter()
            .flat_map(|range| other.0.iter().filter_map(|other| range.intersection(other)));
        Self::disjoint(pairs.collect())
    }

    /// Whether no name is in the ranges.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in ASCII order.
    #[must_use]
    pub fn as_slice(&self) -> &[NameRange] {
        &self.0
    }

    /// Whether a range contains the name.
    #[must_use]
    pub fn contains(&self, name: &RepositoryName) -> bool {
        self.0.iter().any(|range| range.contains(name.as_str()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(patterns: &[&str]) -> NameRanges {
        let patterns: Vec<RepositoryPattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        NameRanges::of(&patterns)
    }

    fn texts(ranges: &NameRanges) -> Vec<String> {
        let text = |range: &NameRange| format!("{}{}", range.text, if range.is_one_name { "" } else { "*" });
        ranges.as_slice().iter().map(text).collect()
    }

    #[test]
    fn ranges_are_disjoint() {
        for (patterns, expected) in [
            (&[] as &[&str], &[] as &[&str]),
            (&["**", "a/b", "a/**"], &["*"]),
            (&["b/**", "a", "a/**", "a/b", "a"], &["a", "a/*", "b/*"]),
            (&["a/x*", "a/xy", "a/x-*", "a/*/c"], &["a/*"]),
            (&["ab", "a*"], &["a*"]),
            (&["a", "ab"], &["a", "ab"]),
        ] {
            assert_eq!(texts(&ranges(patterns)), expected, "{patterns:?}");
        }
    }

    #[test]
    fn intersections() {
        for (one, other, expected) in [
            (&["**"] as &[&str], &["a/**", "b"] as &[&str], &["a/*", "b"] as &[&str]),
            (&["a/**"], &["a/b", "a/c/**", "ab"], &["a/b", "a/c/*"]),
            (&["a"], &["a*"], &["a"]),
            (&["a"], &["ab"], &[]),
            (&["a/**"], &[], &[]),
        ] {
            assert_eq!(texts(&ranges(one).intersection(&ranges(other))), expected);
            assert_eq!(texts(&ranges(other).intersection(&ranges(one))), expected);
        }
    }

    proptest! {
        /// A list that begins to read before a range reads the first name of the range first, or a later name.
        #[test]
        fn nothing_is_between_a_range_and_the_text_before_it(
            pattern in "[ab][a-b-]{0,2}(/[ab]{1,2})?[*]?",
            name in "[ab]([-./_]?[ab]){0,5}",
        ) {
            if let (Ok(pattern), Ok(name)) = (pattern.parse::<RepositoryPattern>(), name.parse::<RepositoryName>()) {
                let ranges = NameRanges::of([&pattern]);
                let range = &ranges.as_slice()[0];
                let name = name.as_str();
                let is_after = *name > *range.before().unwrap();
                prop_assert_eq!(range.contains(name) || is_after && range.ends_by(name), is_after);
                prop_assert!(!range.contains(name) || is_after);
                prop_assert_eq!(is_after, *name >= *range.text);
            }
        }
    }
}
