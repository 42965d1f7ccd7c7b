//! Numbers in texts for people.

/// A number of things, in the singular or the plural: `1 object`, `2 objects`.
#[must_use]
pub fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
