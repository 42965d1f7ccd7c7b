//! The form that several kinds of names have.

/// Whether the text is one run of lower-case letters and digits, or several with one of the separators between each two.
pub(crate) fn is_runs(text: &str, separators: &[char]) -> bool {
    text.split(separators).all(|run| {
        !run.is_empty()
            && run
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}
