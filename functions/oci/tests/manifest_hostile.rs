//! Limits at their bound and one above it, input designed to be slow, and arbitrary input.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{Manifest, ManifestError, ManifestLimits, MediaType};
use proptest::prelude::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CUSTOM: &str = "application/vnd.example+json";

fn parse(content_type: &str, text: &str, limits: &ManifestLimits) -> Result<Manifest, ManifestError> {
    Manifest::parse(text.as_bytes(), Some(&content_type.parse().unwrap()), limits)
}

fn links(count: usize) -> String {
    let link = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1}}"#);
    vec![link; count].join(",")
}

#[test]
fn references_are_accepted_at_the_limit_and_refused_above_it() {
    let limits = ManifestLimits::default();
    let max = limits.max_references;
    let config = links(1);
    let image = |layers: usize| {
        format!(
            r#"{{"schemaVersion":2,"config":{config},"subject":{config},"layers":[{}]}}"#,
            links(layers)
        )
    };
    let index = |count: usize| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, links(count));

    let parsed = parse(MediaType::OCI_MANIFEST, &image(max - 1), &limits).unwrap();
    assert_eq!(parsed.references.len(), max);
    let parsed = parse(MediaType::OCI_INDEX, &index(max), &limits).unwrap();
    assert_eq!(parsed.references.len(), max);

    let refused = Err(ManifestError::TooManyReferences(max));
    assert_eq!(parse(MediaType::OCI_MANIFEST, &image(max), &limits), refused);
    assert_eq!(parse(MediaType::OCI_INDEX, &index(max + 1), &limits), refused);
    let blobs = format!(r#"{{"blobs":[{}]}}"#, links(max + 1));
    assert_eq!(parse(CUSTOM, &blobs, &limits), refused);
}

#[test]
fn values_are_accepted_at_the_limit_and_refused_above_it() {
    let limits = ManifestLimits {
        max_values: 10,
        ..ManifestLimits::default()
    };
    // The document, its array, and the values in the array.
    let document = |values: usize| format!(r#"{{"x":[{}]}}"#, vec!["0"; values - 2].join(","));
    assert!(parse(CUSTOM, &document(10), &limits).is_ok());
    assert_eq!(
        parse(CUSTOM, &document(11), &limits),
        Err(ManifestError::TooManyValues(10))
    );
    let annotations = r#"{"annotations":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":""}}"#;
    assert_eq!(
        parse(CUSTOM, annotations, &limits),
        Err(ManifestError::TooManyValues(10))
    );
}

/// Nesting in every position, in members that are kept or ignored, with arrays and objects.
#[test]
fn depth_is_accepted_at_the_limit_and_refused_above_it() {
    let nested = |levels: usize, open: &str, close: &str| format!("{}0{}", open.repeat(levels), close.repeat(levels));
    for (prefix, suffix, outer) in [
        (r#"{"x":"#, "}", 1),
        (r#"{"schemaVersion":"#, "}", 1),
        (r#"{"fsLayers":"#, "}", 1),
        (r#"{"layers":[{"data":"#, "}]}", 3),
        (r#"{"layers":[{"platform":"#, "}]}", 3),
    ] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"":"#, "}]")] {
            let per = open.matches(['[', '{']).count();
            for max_depth in [5, 11, 64, 126] {
                let limits = ManifestLimits {
                    max_depth,
                    ..ManifestLimits::default()
                };
                let refused = Err(ManifestError::TooDeep(max_depth));
                let at = |levels| {
                    let text = format!("{prefix}{}{suffix}", nested(levels, open, close));
                    parse(CUSTOM, &text, &limits)
                };
                let fits = (max_depth - outer) / per;
                assert_ne!(at(fits), refused, "{prefix} {open} {fits}");
                assert_eq!(at(fits + 1), refused, "{prefix} {open} {fits}");
            }
        }
    }
    let beyond = ManifestLimits {
        max_depth: usize::MAX,
        ..ManifestLimits::default()
    };
    let text = format!(r#"{{"x":{}}}"#, nested(1_000_000, "[", "]"));
    assert_eq!(parse(CUSTOM, &text, &beyond), Err(ManifestError::TooDeep(126)));
    // The input does not close its brackets: the parser checks the depth when it enters a value.
    assert_eq!(
        parse(CUSTOM, &"{\"a\":[".repeat(1_000_000), &ManifestLimits::default()),
        Err(ManifestError::TooDeep(64))
    );
}

/// Inputs of 4 MiB in which something grows with the length: keys, their common prefixes, entries, escapes, depth. A
/// quadratic algorithm would take minutes.
#[test]
fn four_mebibytes_of_hostile_input_parse_in_linear_time() {
    const LENGTH: usize = 4 << 20;
    let unlimited = ManifestLimits {
        max_values: usize::MAX,
        max_references: usize::MAX,
        ..ManifestLimits::default()
    };
    let fill = |prefix: &str, suffix: &str, piece: &dyn Fn(usize) -> String| {
        let mut text = prefix.to_owned();
        let mut number = 0;
        while text.len() < LENGTH {
            if number > 0 {
                text.push(',');
            }
            text.push_str(&piece(number));
            number += 1;
        }
        text + suffix
    };
    let shared = "k".repeat(2000);
    let inputs = [
        ("keys", fill("{", "}", &|n| format!("\"{n}\":0"))),
        (
            "keys backwards",
            fill("{", "}", &|n| format!("\"{:07}\":0", 9_999_999 - n)),
        ),
        (
            "keys with a long common prefix",
            fill("{", "}", &|n| format!("\"{shared}{n}\":0")),
        ),
        ("keys with escapes", fill("{", "}", &|n| format!("\"\\u0041{n}\":0"))),
        (
            "annotations",
            fill("{\"annotations\":{", "}}", &|n| format!("\"{n}\":\"\"")),
        ),
        ("objects", fill("{\"x\":[", "]}", &|_| "{\"a\":{}}".to_owned())),
        ("arrays", fill("{\"x\":[", "]}", &|_| "[]".to_owned())),
        ("numbers", fill("{\"x\":[", "]}", &|_| "1".to_owned())),
        ("descriptors", fill("{\"layers\":[", "]}", &|_| links(1))),
        (
            "urls",
            fill(
                &format!("{{\"subject\":{{\"mediaType\":\"a/b\",\"digest\":\"{A}\",\"size\":1,\"urls\":["),
                "]}}",
                &|_| "\"\"".to_owned(),
            ),
        ),
        ("escapes", format!("{{\"x\":\"{}\"}}", "\\u00e9".repeat(LENGTH / 6))),
        ("one number", format!("{{\"x\":0.{}}}", "1".repeat(LENGTH))),
        ("white space", format!("{{{}}}", " ".repeat(LENGTH))),
        ("one key", format!("{{\"{}\":0}}", "k".repeat(LENGTH))),
        (
            "one media type",
            format!("{{\"mediaType\":\"a/{}\"}}", "k".repeat(LENGTH)),
        ),
        ("open arrays", "[".repeat(LENGTH)),
        ("open objects", "{\"\":".repeat(LENGTH / 4)),
        ("quotes", "\"".repeat(LENGTH)),
    ];
    for (name, text) in inputs {
        // The test measures no time: if parsing is not linear, four million bytes keep the test from ever ending.
        for (limits, bounded) in [(&unlimited, "unlimited"), (&ManifestLimits::default(), "limited")] {
            println!("{name}, {bounded}: {}", parse(CUSTOM, &text, limits).is_ok());
        }
    }
}

/// Any JSON that contains terms of the specification.
fn values() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "schemaVersion",
        "mediaType",
        "layers",
        "digest",
        "size",
        "Layers",
        "x",
    ]);
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "2", "-1", "1e3", "\"\"", "\"a/b\""]).prop_map(str::to_owned),
        Just(format!("\"{A}\"")),
        Just(links(1)),
        "[0-9.eE+-]{1,5}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<_> = members
                    .into_iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Documents with any of the specification's members, in any order, each mostly well formed.
fn manifests() -> impl Strategy<Value = String> {
    let text = |text: &str| format!("\"{text}\"");
    let list = |count| format!("[{}]", links(count));
    let members = [
        ("schemaVersion", vec!["2".to_owned()]),
        (
            "mediaType",
            vec![
                text(MediaType::OCI_MANIFEST),
                text(MediaType::OCI_INDEX),
                text(CUSTOM),
                text(""),
            ],
        ),
        ("artifactType", vec![text("a/b"), text("")]),
        ("config", vec![links(1)]),
        ("layers", vec![list(0), list(3), "null".to_owned()]),
        ("manifests", vec![list(0), list(2), "null".to_owned()]),
        ("blobs", vec![list(1)]),
        ("subject", vec![links(1), "null".to_owned()]),
        ("annotations", vec!["{}".to_owned(), r#"{"a":"b"}"#.to_owned()]),
        ("org.example", vec!["[{}]".to_owned()]),
    ];
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, sound)| {
            let value = prop_oneof![30 => prop::sample::select(sound), 1 => values()];
            prop::option::of(value).prop_map(move |value| value.map(|value| format!("\"{name}\":{value}")))
        })
        .collect();
    members.prop_shuffle().prop_map(|members| {
        let members: Vec<_> = members.into_iter().flatten().collect();
        format!("{{{}}}", members.join(","))
    })
}

fn content_types() -> impl Strategy<Value = Option<MediaType>> {
    prop_oneof![
        Just(None),
        Just(Some(MediaType::OCI_MANIFEST)),
        Just(Some(MediaType::OCI_INDEX)),
        Just(Some(CUSTOM)),
    ]
    .prop_map(|text| text.map(|text| text.parse().unwrap()))
}

/// Checks what must hold for every accepted manifest.
fn check(bytes: &[u8], content_type: Option<&MediaType>, manifest: &Manifest) {
    let tree: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let object = tree.as_object().unwrap();
    assert!(content_type.is_none_or(|content_type| *content_type == manifest.media_type));
    let count = |member: &str| match object.get(member) {
        Some(serde_json::Value::Array(entries)) => entries.len(),
        Some(serde_json::Value::Object(_)) => 1,
        _ => 0,
    };
    let known = manifest.media_type.is_manifest() || manifest.media_type.is_index();
    let mut members = vec!["config", "layers", "manifests"];
    if !known {
        members.push("blobs");
    }
    let expected: usize = members.into_iter().map(count).sum();
    assert_eq!(manifest.references.len(), expected, "every link is kept");
    assert_eq!(manifest.subject.is_some(), count("subject") == 1);
    assert!(
        manifest
            .references
            .iter()
            .all(|entry| entry.descriptor.size <= i64::MAX.cast_unsigned())
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, content_type in content_types()) {
        let _ = Manifest::parse(&bytes, content_type.as_ref(), &ManifestLimits::default());
    }

    #[test]
    fn json_like_text_never_panics(text in "[\\[\\]{}\",:0-9a-f\\\\ntrue.+-]{0,80}", content_type in content_types()) {
        let _ = Manifest::parse(text.as_bytes(), content_type.as_ref(), &ManifestLimits::default());
    }

    #[test]
    fn an_accepted_manifest_matches_a_plain_json_parser(text in manifests(), content_type in content_types()) {
        if let Ok(manifest) = Manifest::parse(text.as_bytes(), content_type.as_ref(), &ManifestLimits::default()) {
            check(text.as_bytes(), content_type.as_ref(), &manifest);
        }
    }

    /// A valid manifest with one piece removed, doubled or overwritten.
    #[test]
    fn a_damaged_manifest_never_panics(from: prop::sample::Index, length in 0usize..40, with in "\\PC{0,8}", doubled: bool) {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}],"subject":{},"annotations":{{"a":"b","c":"d"}}}}"#,
            MediaType::OCI_MANIFEST, links(1), links(2), links(1),
        );
        let from = from.index(text.len());
        let to = (from + length).min(text.len());
        let piece = if doubled { &text[from..to] } else { "" };
        let damaged = format!("{}{with}{piece}{piece}{}", &text[..from], &text[to..]);
        let content_type: MediaType = MediaType::OCI_MANIFEST.parse().unwrap();
        if let Ok(manifest) = Manifest::parse(damaged.as_bytes(), Some(&content_type), &ManifestLimits::default()) {
            check(damaged.as_bytes(), Some(&content_type), &manifest);
        }
    }
}
