//! The line of a policy in TOML that names the version from which it was made.
//!
//! `policy show` prints it and `policy set` reads it, so that a policy that was set meanwhile is not lost. It is
//! never stored. It is the last line, so that all others have the numbers that explanations and refusals name.

/// What stands before the number.
const BEGINNING: &str = "# roadstead policy version ";
/// The maximum length of the line with its end, and with one before it, in bytes.
pub(super) const MAX_BYTES: usize = 64;

/// A policy with the line at its end. Version 0 is the default policy.
pub(super) fn add(source: &str, version: u64) -> String {
    let end = if source.is_empty() || source.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{source}{end}{BEGINNING}{version}\n")
}

/// Takes the line out of a text, and returns the rest with the version. If rules were added after the line, an empty one stays
/// in its place, so that all others keep their numbers. Of several lines, the last one counts: a text that was stored with a
/// line, by another program, is shown with one more.
pub(super) fn take(text: &str) -> (String, Option<u64>) {
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    let version = lines.iter().rev().find_map(|line| version_of(line));
    while lines.last().is_some_and(|line| version_of(line).is_some()) {
        lines.pop();
    }
    let lines = lines
        .into_iter()
        .map(|line| if version_of(line).is_some() { "\n" } else { line });
    (lines.collect(), version)
}

fn version_of(line: &str) -> Option<u64> {
    line.trim_end().strip_prefix(BEGINNING)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_added_is_taken_out_again() {
        for source in ["syntax = 1\n", "syntax = 1\n\n# an end\n\n", "syntax = 1\r\n"] {
            let shown = add(source, u64::MAX);
            assert!(
                shown.starts_with(source) && shown.len() <= source.len() + MAX_BYTES,
                "{shown}"
            );
            assert_eq!(take(&shown), (source.to_owned(), Some(u64::MAX)));
        }
        assert_eq!(add("syntax = 1", 7), "syntax = 1\n# roadstead policy version 7\n");
    }

    #[test]
    fn other_lines_stay_where_they_are() {
        for (text, source, version) in [
            ("", "", None),
            ("a\nb", "a\nb", None),
            ("# version 7\na\n", "# version 7\na\n", None),
            ("a\n# roadstead policy version 7", "a\n", Some(7)),
            ("a\n# roadstead policy version 7\r\n", "a\n", Some(7)),
            ("a\n# roadstead policy version 7\nb\n", "a\n\nb\n", Some(7)),
            ("# roadstead policy version 0\na\n", "\na\n", Some(0)),
            (
                "a\n# roadstead policy version 7\n# roadstead policy version 8\n",
                "a\n",
                Some(8),
            ),
            (
                "a\n# roadstead policy version seven\n",
                "a\n# roadstead policy version seven\n",
                None,
            ),
        ] {
            assert_eq!(take(text), (source.to_owned(), version), "{text:?}");
        }
    }
}
