//! Repository names, tags, references and media types: tables of texts that parse and that do not, and the
//! specification's grammar as a second implementation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{
    DigestError, MediaType, MediaTypeError, NameError, Reference, ReferenceError, RepositoryName, Tag, TagError,
};
use proptest::prelude::*;

#[test]
fn legal_repository_names_parse_and_others_are_malformed() {
    for name in [
        "a",
        "0",
        "a/b/c",
        "library/ubuntu",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a--b",
        "a-----b",
        "a.b_c__d-e/f.0",
        "blobs",
        "manifests",
        "tags",
        "uploads",
        "referrers",
        "v2",
        "a/blobs/uploads",
        "a/manifests/latest",
        "a/tags/list",
        "a/referrers/b",
        "xn--nxasmq6b/b",
    ] {
        let parsed: RepositoryName = name.parse().unwrap();
        assert_eq!(parsed.as_str(), name);
        assert_eq!(parsed.to_string(), name);
        assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{name}\""));
        assert_eq!(
            serde_json::from_str::<RepositoryName>(&format!("\"{name}\"")).unwrap(),
            parsed
        );
    }
    for name in [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "aB",
        ".",
        "..",
        "a/..",
        "a/../b",
        "../a",
        "a/./b",
        ".a",
        "a.",
        "_a",
        "a_",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        "a.-b",
        "a-.b",
        "a_-b",
        "a/-b",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\0",
        "a:b",
        "a@b",
        "a%2fb",
        "a%2e%2e",
        "a\\b",
        "é",
        "ａ",
        "a\u{301}",
        "localhost:5000/a",
    ] {
        assert_eq!(name.parse::<RepositoryName>(), Err(NameError::Malformed), "{name:?}");
    }
}

#[test]
fn a_repository_name_above_the_maximum_length_is_refused() {
    let longest = "a".repeat(RepositoryName::MAX_LEN);
    assert!(longest.parse::<RepositoryName>().is_ok());
    assert_eq!(format!("{longest}a").parse::<RepositoryName>(), Err(NameError::TooLong));
    assert_eq!("A".repeat(300).parse::<RepositoryName>(), Err(NameError::TooLong));
}

/// The specification's regular expression as an automaton that reads one character at a time.
fn grammar_accepts(name: &str) -> bool {
    #[derive(Clone, Copy)]
    enum Position {
        ComponentStart,
        Word,
        Joined,
        Underscore,
        Dash,
    }
    let mut position = Position::ComponentStart;
    for character in name.chars() {
        position = match (position, character) {
            (_, 'a'..='z' | '0'..='9') => Position::Word,
            (Position::Word, '/') => Position::ComponentStart,
            (Position::Word, '.') | (Position::Underscore, '_') => Position::Joined,
            (Position::Word, '_') => Position::Underscore,
            (Position::Word | Position::Dash, '-') => Position::Dash,
            _ => return false,
        };
    }
    matches!(position, Position::Word)
}

/// Checks every text of up to seven characters from an alphabet with one character of each class of the grammar.
#[test]
fn the_parser_accepts_exactly_the_names_of_the_grammar() {
    const ALPHABET: [char; 7] = ['a', '0', '.', '_', '-', '/', 'A'];
    let mut texts = vec![String::new()];
    let mut accepted = 0;
    for _ in 0..=6 {
        let mut longer = Vec::with_capacity(texts.len() * ALPHABET.len());
        for text in &texts {
            let legal = text.parse::<RepositoryName>().is_ok();
            assert_eq!(legal, grammar_accepts(text), "{text:?}");
            accepted += usize::from(legal);
            longer.extend(ALPHABET.iter().map(|next| format!("{text}{next}")));
        }
        texts = longer;
    }
    assert!(accepted > 1000, "the alphabet makes legal names too");
}

#[test]
fn legal_tags_parse_and_others_are_refused() {
    let longest = "a".repeat(Tag::MAX_LEN);
    for tag in [
        "latest", "1.2.3", "v1", "_", "_a", "A", "0", "a.-_", "a..b", "a--", &longest,
    ] {
        let parsed: Tag = tag.parse().unwrap();
        assert_eq!(parsed.as_str(), tag);
        assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{tag}\""));
    }
    let too_long = "a".repeat(Tag::MAX_LEN + 1);
    for tag in [
        "", ".", "..", "-", ".a", "-a", "a b", "a/b", "a:b", "a+b", "a@b", "a\n", "\0", "é", "a%", &too_long,
    ] {
        assert_eq!(tag.parse::<Tag>(), Err(TagError), "{tag:?}");
    }
}

#[test]
fn a_reference_with_a_colon_is_a_digest_and_otherwise_a_tag() {
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(digest.parse(), Ok(Reference::Digest(digest.parse().unwrap())));
    assert_eq!("latest".parse(), Ok(Reference::Tag("latest".parse().unwrap())));
    assert_eq!("sha256".parse(), Ok(Reference::Tag("sha256".parse().unwrap())));
    assert_eq!(
        "sha256:x".parse::<Reference>(),
        Err(ReferenceError::Digest(DigestError::Malformed))
    );
    assert_eq!(
        "md5:x".parse::<Reference>(),
        Err(ReferenceError::Digest(DigestError::UnsupportedAlgorithm))
    );
    assert_eq!(".x".parse::<Reference>(), Err(ReferenceError::Tag(TagError)));
    assert_eq!("".parse::<Reference>(), Err(ReferenceError::Tag(TagError)));
}

#[test]
fn legal_media_types_parse_and_others_are_refused() {
    let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    for text in [
        MediaType::OCI_MANIFEST,
        MediaType::OCI_EMPTY,
        "text/plain",
        "TEXT/Plain",
        "application/vnd.example!#$&-^_.+x",
        "1/2",
        &longest,
    ] {
        assert_eq!(text.parse::<MediaType>().unwrap().as_str(), text);
        assert_eq!(MediaType::parse(text).unwrap(), text);
        assert_eq!(
            MediaType::parse(&format!(" \t{text} ; charset=utf-8; a=\"b;c\"")).unwrap(),
            text
        );
    }
    for text in [
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a /b",
        "a/ b",
        "a/b c",
        "*/*",
        "a/*",
        "a/.b",
        "a/+b",
        "+a/b",
        "a/b\n",
        "a/b\0",
        "a/bé",
        "a/b(c)",
        "a/b\"",
        "a,b/c",
        "\u{a0}a/b",
        &format!("{longest}b"),
        &format!("a{longest}"),
    ] {
        assert_eq!(text.parse::<MediaType>(), Err(MediaTypeError), "{text:?}");
        assert_eq!(MediaType::parse(text), Err(MediaTypeError), "{text:?}");
    }
    assert_eq!(" a/b".parse::<MediaType>(), Err(MediaTypeError));
}

/// A header is reduced to the type; a type in a manifest keeps its parameters.
#[test]
fn parameters_are_removed_from_headers_and_kept_in_manifests() {
    let longest = format!("a/b;{}", "c".repeat(MediaType::MAX_PARAMETERS));
    for text in [
        "a/b;c=d",
        "a/b; c=\"d; e\"",
        "a/b;",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        &longest,
    ] {
        assert_eq!(text.parse::<MediaType>().unwrap().as_str(), text);
        assert_eq!(MediaType::parse(text).unwrap(), text.split(';').next().unwrap());
    }
    for text in [
        "a;b/c",
        ";a/b",
        "a/b ;c=d",
        "a/b;\n",
        "a/b;\0",
        "a/b;\t",
        "a/b;\u{7f}",
        "a/b;é",
        &format!("{longest}c"),
    ] {
        assert_eq!(text.parse::<MediaType>(), Err(MediaTypeError), "{text:?}");
    }
    let disguised = format!("{};a=b", MediaType::OCI_MANIFEST).parse::<MediaType>().unwrap();
    assert!(!disguised.is_manifest() && !disguised.is_json());
}

#[test]
fn each_media_type_is_classified() {
    let of = |text: &str| {
        let media_type: MediaType = text.parse().unwrap();
        (
            media_type.is_manifest(),
            media_type.is_index(),
            media_type.is_schema1(),
            media_type.is_non_distributable(),
            media_type.is_json(),
        )
    };
    for (text, expected) in [
        (MediaType::OCI_MANIFEST, (true, false, false, false, true)),
        (MediaType::DOCKER_MANIFEST, (true, false, false, false, true)),
        (MediaType::OCI_INDEX, (false, true, false, false, true)),
        (MediaType::DOCKER_LIST, (false, true, false, false, true)),
        (MediaType::DOCKER_SCHEMA1, (false, false, true, false, true)),
        (MediaType::DOCKER_SCHEMA1_SIGNED, (false, false, true, false, false)),
        (MediaType::OCI_NONDISTRIBUTABLE, (false, false, false, true, false)),
        (MediaType::OCI_NONDISTRIBUTABLE_GZIP, (false, false, false, true, false)),
        (MediaType::OCI_NONDISTRIBUTABLE_ZSTD, (false, false, false, true, false)),
        (MediaType::DOCKER_FOREIGN, (false, false, false, true, false)),
        (MediaType::DOCKER_FOREIGN_GZIP, (false, false, false, true, false)),
        (MediaType::OCI_LAYER_GZIP, (false, false, false, false, false)),
        (
            "application/vnd.oci.image.MANIFEST.v1+json",
            (false, false, false, false, true),
        ),
        ("application/json", (false, false, false, false, true)),
        ("Application/JSON", (false, false, false, false, true)),
        ("application/vnd.example+json", (false, false, false, false, true)),
        ("text/json", (false, false, false, false, false)),
        ("text/html", (false, false, false, false, false)),
        ("image/svg+xml", (false, false, false, false, false)),
        ("application/notjson", (false, false, false, false, false)),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn names_made_by_the_grammar_parse(
        name in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}){0,3}",
    ) {
        prop_assert!(name.len() > RepositoryName::MAX_LEN || name.parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn tags_made_by_the_grammar_parse(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
        let parsed = tag.parse::<Tag>().unwrap();
        prop_assert_eq!(parsed.as_str(), tag);
    }

    #[test]
    fn no_text_makes_a_parser_panic_and_parsed_text_is_unchanged(text in "\\PC*|[a-zA-Z0-9:/._+;= -]*") {
        if let Ok(name) = text.parse::<RepositoryName>() {
            prop_assert!(grammar_accepts(&text));
            prop_assert_eq!(name.as_str(), &text);
        }
        if let Ok(tag) = text.parse::<Tag>() {
            prop_assert_eq!(tag.as_str(), &text);
        }
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string(), text.clone());
        }
        if let Ok(media_type) = text.parse::<MediaType>() {
            prop_assert_eq!(media_type.as_str(), &text);
        }
        if let Ok(media_type) = MediaType::parse(&text) {
            prop_assert!(text.contains(media_type.as_str()));
        }
    }
}
