//! The header fields of a request that the core reads.
//!
//! A client may send many kilobytes of other fields. A shell that queues requests may drop those fields: the response
//! is the same.

use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, FORWARDED, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, ORIGIN, RANGE, VIA,
};
use http::{HeaderMap, HeaderName};

use crate::forwarded::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::hosts::FETCH_SITE;

/// Every header field that the core reads.
pub const READ: [HeaderName; 19] = [
    ACCEPT,
    AUTHORIZATION,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    FETCH_SITE,
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    ORIGIN,
    RANGE,
    VIA,
];

/// The declared length of a body. `None`: the header is absent or invalid.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
            .collect()
    }

    /// A field that is read but not listed would be missing in large heads only.
    #[test]
    fn every_field_that_is_read_is_listed() {
        let listed = include_str!("heads.rs");
        let mut found = 0;
        for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
            let text = std::fs::read_to_string(&path).unwrap();
            // Skips the headers of responses, which tests read.
            for line in text.lines().filter(|line| !line.contains("response.")) {
                for method in [".get(", ".get_all(", ".contains_key("] {
                    let Some((_, rest)) = line.split_once(method) else {
                        continue;
                    };
                    let name = rest.split(')').next().unwrap_or_default();
                    if name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
                        found += 1;
                        let is_listed = listed.contains(&format!("    {name},\n"));
                        assert!(is_listed, "{}: {name}", path.display());
                    }
                }
            }
        }
        assert!(found > 10, "{found}");
    }
}
