//! JSON that must be refused whatever its meaning: it is malformed, or two parsers could understand it differently.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{ManifestError, MediaType};

mod support;

use support::{A, image, link, parse_as, refusal_of_image, refusal_of_layer};

#[test]
fn malformed_json_is_refused() {
    let image = image("");
    for bytes in [
        &b""[..],
        b" ",
        b"{",
        b"}",
        b"nonsense",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{'a':1}",
        b"{a:1}",
        b"{\"a\":1 \"b\":2}",
        b"{\"a\":[1,]}",
        b"{\"a\":01}",
        b"{\"a\":.5}",
        b"{\"a\":+1}",
        b"{\"a\":NaN}",
        b"{\"a\":1e999}",
        b"{\"a\":nul}",
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\\x\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xff\"}",
        b"{\"\xff\":1}",
        b"{\"a\":[\"\xc3\x28\"]}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"{\"a\":1}\x00",
        b"{\"a\":1}{}",
        b"{\"a\":1} x",
        b"{\"a\":1}]",
        b"// comment\n{}",
        b"{}/**/",
        "\u{feff}{}".as_bytes(),
        &image.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
        format!("{image}{image}").as_bytes(),
        format!("\u{feff}{image}").as_bytes(),
    ] {
        assert!(
            matches!(parse_as(MediaType::OCI_MANIFEST, bytes), Err(ManifestError::NotJson(_))),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn a_document_that_is_not_an_object_is_refused() {
    for text in ["null", "true", "1", "-1", "1.5", "\"text\"", "[]", "[{}]"] {
        for content_type in [MediaType::OCI_MANIFEST, "application/vnd.example+json"] {
            assert_eq!(parse_as(content_type, text), Err(ManifestError::NotAnObject), "{text}");
        }
    }
}

#[test]
fn a_duplicate_key_at_any_depth_is_refused() {
    let annotated = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1,"annotations":{{"x":"1","x":"1"}}}}"#);
    let resized = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1,"size":2}}"#);
    for (more, key) in [
        (r#","layers":[],"layers":[]"#.to_owned(), "layers"),
        (r#","schemaVersion":2"#.to_owned(), "schemaVersion"),
        (format!(r#","config":{}"#, link()), "config"),
        (r#","x":1,"y":2,"x":1"#.to_owned(), "x"),
        (r#","x":1,"\u0078":1"#.to_owned(), "x"),
        (r#","x":{"a":1,"a":1}"#.to_owned(), "a"),
        (r#","x":[[{"y":{"":1,"":1}}]]"#.to_owned(), ""),
        (r#","annotations":{"k":"1","k":"2"}"#.to_owned(), "k"),
        (r#","blobs":{"k":"1","k":"2"}"#.to_owned(), "k"),
        (r#","fsLayers":{"k":"1","k":"2"}"#.to_owned(), "k"),
        (format!(r#","layers":[{annotated}]"#), "x"),
        (format!(r#","layers":[{resized}]"#), "size"),
        (format!(r#","subject":{resized}"#), "size"),
    ] {
        assert_eq!(
            refusal_of_image(&more),
            ManifestError::DuplicateKey(key.to_owned()),
            "{more}"
        );
    }
    let twice = r#"{"schemaVersion":{"a":1,"a":2}}"#;
    assert_eq!(
        parse_as("application/vnd.example+json", twice),
        Err(ManifestError::DuplicateKey("a".to_owned()))
    );
    let long = "k".repeat(100_000);
    let ManifestError::DuplicateKey(shown) = refusal_of_image(&format!(r#","{long}":1,"{long}":2"#)) else {
        panic!("expected a duplicate key");
    };
    assert_eq!(shown.len(), 64, "an error must quote only a short piece of the input");
}

#[test]
fn keys_that_differ_from_known_keys_only_by_case_are_refused() {
    for (more, found, known) in [
        (r#","Layers":[]"#, "Layers", "layers"),
        (r#","LAYERS":[]"#, "LAYERS", "layers"),
        (r#","layerſ":[]"#, "layerſ", "layers"),
        (r#","Manifests":[]"#, "Manifests", "manifests"),
        (r#","CONFIG":{}"#, "CONFIG", "config"),
        (r#","mediatype":"a/b""#, "mediatype", "mediaType"),
        (r#","artifacttype":"a/b""#, "artifacttype", "artifactType"),
        (r#","SchemaVersion":1"#, "SchemaVersion", "schemaVersion"),
        (r#","Subject":null"#, "Subject", "subject"),
        (r#","Annotations":{}"#, "Annotations", "annotations"),
        (r#","Blob\u0073":[]"#, "Blobs", "blobs"),
    ] {
        assert_eq!(
            refusal_of_image(more),
            ManifestError::AmbiguousKey {
                found: found.to_owned(),
                known
            }
        );
    }
    for (found, known) in [
        ("MediaType", "mediaType"),
        ("DIGEST", "digest"),
        ("diGest", "digest"),
        ("Size", "size"),
        ("\u{17f}ize", "size"),
        ("URLs", "urls"),
        ("ANNOTATIONS", "annotations"),
        ("Data", "data"),
        ("ArtifactType", "artifactType"),
        ("Platform", "platform"),
    ] {
        let layer = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":1,"{found}":null}}"#);
        assert_eq!(
            refusal_of_layer(&layer),
            ManifestError::AmbiguousKey {
                found: found.to_owned(),
                known
            }
        );
    }
    // Other objects may have any key: annotations, and members without a meaning here.
    for more in [
        r#","annotations":{"Layers":"","layers":"","mediatype":""}"#,
        r#","x":{"Layers":[],"layers":[]}"#,
        r#","history":[],"Signatures":[],"layer":1,"layerss":1,"digest":1,"Size":2,"URLs":3"#,
    ] {
        assert!(parse_as(MediaType::OCI_MANIFEST, image(more)).is_ok(), "{more}");
    }
}
