//! Compares the memory that parsing needs with the estimate. This test has a process of its own, because it measures
//! the memory of the process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use oci::{Manifest, ManifestLimits, MediaType};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn image(more: &str) -> String {
    let config = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1}}"#);
    format!(r#"{{"schemaVersion":2,"config":{config}{more}}}"#)
}

/// As many short annotations as the limit on values allows.
fn annotations() -> String {
    let mut members = String::new();
    for number in 0..131_000 {
        let separator = if number == 0 { "" } else { "," };
        write!(members, r#"{separator}"{number:x}":"""#).unwrap();
    }
    image(&format!(r#","annotations":{{{members}}}"#))
}

/// As many layers as the limit on references allows, each with an annotation.
fn layers() -> String {
    let layer = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1,"annotations":{{"a":"b"}}}}"#);
    image(&format!(r#","layers":[{}]"#, vec![layer; 4095].join(",")))
}

/// The resident memory of this process in bytes, if the operating system reports it.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn parsing_needs_no_more_memory_than_estimated() {
    // The parsed manifests stay in memory, so that a later measurement does not reuse memory that was freed.
    let mut kept = Vec::new();
    let limits = ManifestLimits::default();
    let content_type: MediaType = MediaType::OCI_MANIFEST.parse().unwrap();
    for (what, text, copies) in [("annotations", annotations(), 2), ("layers", layers(), 8)] {
        let estimate = Manifest::memory_to_parse(text.as_bytes(), &limits);
        let Some(before) = resident() else { return };
        let parsed: Vec<_> = (0..copies)
            .map(|_| Manifest::parse(text.as_bytes(), Some(&content_type), &limits).unwrap())
            .collect();
        let used = (resident().unwrap().saturating_sub(before)) / copies;
        assert!(
            used <= estimate,
            "{what}: {used} of {estimate} bytes for {}",
            text.len()
        );
        assert!(
            used * 4 >= estimate,
            "{what}: {used} of {estimate} bytes for {}",
            text.len()
        );
        kept.push(parsed);
    }
    drop(kept);
}

/// However many separators there are, the estimate does not exceed what the limits allow.
#[test]
fn the_estimate_is_bounded_by_the_limits() {
    let limits = ManifestLimits {
        max_values: 10,
        ..ManifestLimits::default()
    };
    let estimate = |separators: usize| Manifest::memory_to_parse(",".repeat(separators).as_bytes(), &limits);
    assert_eq!(estimate(20) - estimate(19), estimate(1) - estimate(0));
    assert_eq!(estimate(21) - estimate(20), 1, "one byte of text");
}
