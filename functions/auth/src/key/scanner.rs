//! The expression by which scanners find keys, written by hand: there is no library for expressions here.

/// What [`Key::PATTERN`](super::Key::PATTERN) matches at the start of a text.
pub(crate) fn found_at_start(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("rsk_")?;
    let class = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let run = rest.bytes().take(65).take_while(|byte| class(*byte)).count();
    (1..=run.min(64)).rev().find_map(|length| {
        let body = rest[length..].strip_prefix('.')?.get(..57)?;
        body.bytes()
            .all(|byte| byte.is_ascii_alphanumeric())
            .then(|| &text[..4 + length + 1 + 57])
    })
}

/// What the pattern matches first, anywhere in a text.
pub(crate) fn found_in(text: &str) -> Option<&str> {
    text.match_indices("rsk_")
        .find_map(|(at, _)| found_at_start(&text[at..]))
}
