//! Text with `*`, as patterns have it.

/// Whether the pattern matches the whole text; `*` matches any text, also none. If the text after a star does not match, the
/// search continues at the last star. This is fast enough, because texts and patterns are short.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while at < text.len() {
        match pattern.get(from) {
            Some(b'*') => {
                star = Some((from, at));
                from += 1;
            }
            Some(byte) if *byte == text[at] => {
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
