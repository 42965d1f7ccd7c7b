//! What parsing takes of memory, measured against what it is said to take. Alone in its process, which is measured.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it stands")]

use std::fmt::Write as _;

use oci::{Limits, Manifest, MediaType};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn image(more: &str) -> String {
    let config = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1}}"#);
    format!(r#"{{"schemaVersion":2,"config":{config}{more}}}"#)
}

/// As many annotations as there may be values, of few bytes each.
fn annotations() -> String {
    let mut members = String::new();
    for number in 0..131_000 {
        let separator = if number == 0 { "" } else { "," };
        write!(members, r#"{separator}"{number:x}":"""#).unwrap();
    }
    image(&format!(r#","annotations":{{{members}}}"#))
}

/// As many layers as there may be, each with an annotation of its own.
fn layers() -> String {
    let layer = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1,"annotations":{{"a":"b"}}}}"#);
    image(&format!(r#","layers":[{}]"#, vec![layer; 4095].join(",")))
}

/// Bytes of this process in memory, where the system tells.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn parsing_takes_no_more_memory_than_it_is_said_to() {
    // Kept, so that nothing is measured that was there before.
    let mut kept = Vec::new();
    let limits = Limits::default();
    let content_type: MediaType = MediaType::OCI_MANIFEST.parse().unwrap();
    for (what, text, copies) in [("annotations", annotations(), 2), ("layers", layers(), 8)] {
        let said = Manifest::memory_to_parse(text.as_bytes(), &limits);
        let Some(before) = resident() else { return };
        let parsed: Vec<_> = (0..copies)
            .map(|_| Manifest::parse(text.as_bytes(), Some(&content_type), &limits).unwrap())
            .collect();
        let taken = (resident().unwrap().saturating_sub(before)) / copies;
        assert!(taken <= said, "{what}: {taken} of {said} bytes for {}", text.len());
        assert!(taken * 4 >= said, "{what}: {taken} of {said} bytes for {}", text.len());
        kept.push(parsed);
    }
    drop(kept);
}

/// However many separators there are, no more is asked for than the limits let through.
#[test]
fn what_is_said_is_bounded_by_the_limits() {
    let limits = Limits {
        max_values: 10,
        ..Limits::default()
    };
    let said = |separators: usize| Manifest::memory_to_parse(",".repeat(separators).as_bytes(), &limits);
    assert_eq!(said(20) - said(19), said(1) - said(0));
    assert_eq!(said(21) - said(20), 1, "a byte of text");
}
