//! Manifests that must be refused, each for one reason: their members contradict the specification or each other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{DescriptorFault, DigestError, Manifest, ManifestError, ManifestLimits, MediaType, MediaTypeError};

mod support;

use support::{A, image, link, parse_as, refusal_of_image, refusal_of_layer};

#[test]
fn a_manifest_that_is_both_image_and_index_is_refused() {
    let both = Err(ManifestError::BothImageAndIndex);
    let list = format!("[{}]", link());
    for manifests in ["[]", &list] {
        let text = image(&format!(r#","manifests":{manifests}"#));
        assert_eq!(parse_as(MediaType::OCI_MANIFEST, &text), both);
        assert_eq!(parse_as(MediaType::DOCKER_MANIFEST, &text), both);
        assert_eq!(parse_as("application/vnd.example+json", &text), both);
        for more in [
            r#""layers":[]"#.to_owned(),
            format!(r#""layers":{list}"#),
            format!(r#""config":{}"#, link()),
        ] {
            let text = format!(r#"{{"schemaVersion":2,"manifests":{manifests},{more}}}"#);
            assert_eq!(parse_as(MediaType::OCI_INDEX, &text), both, "{text}");
            assert_eq!(parse_as(MediaType::DOCKER_LIST, &text), both, "{text}");
            assert_eq!(parse_as("application/json", &text), both, "{text}");
        }
        let text = format!(r#"{{"manifests":{manifests},"blobs":[]}}"#);
        assert_eq!(parse_as("application/json", &text), both);
    }
}

#[test]
fn contradicting_media_types_are_refused() {
    for (content_type, member) in [
        (MediaType::OCI_MANIFEST, MediaType::OCI_INDEX),
        (MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST),
        (MediaType::OCI_INDEX, MediaType::OCI_MANIFEST),
        ("application/json", MediaType::OCI_MANIFEST),
        ("application/vnd.oci.image.manifest.V1+json", MediaType::OCI_MANIFEST),
    ] {
        let text = image(&format!(r#","mediaType":"{member}""#));
        assert_eq!(
            parse_as(content_type, text),
            Err(ManifestError::MediaTypeMismatch {
                content_type: content_type.parse().unwrap(),
                media_type: member.parse().unwrap(),
            })
        );
    }
}

/// The registry never serves a manifest under a type with parameters, whether the type is from the header or the
/// document.
#[test]
fn a_media_type_member_with_parameters_is_refused() {
    let member = format!("{}; charset=utf-8", MediaType::OCI_MANIFEST);
    let text = image(&format!(r#","mediaType":"{member}""#));
    assert_eq!(
        parse_as(MediaType::OCI_MANIFEST, &text),
        Err(ManifestError::MediaTypeMismatch {
            content_type: MediaType::OCI_MANIFEST.parse().unwrap(),
            media_type: member.parse().unwrap(),
        })
    );
    assert_eq!(
        Manifest::parse(text.as_bytes(), None, &ManifestLimits::default()),
        Err(ManifestError::UnsupportedMediaType(member.parse().unwrap()))
    );
}

#[test]
fn media_types_other_than_json_are_refused() {
    for text in [
        "text/html",
        "text/plain",
        "image/svg+xml",
        "application/xhtml+xml",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/json",
    ] {
        let expected = Err(ManifestError::UnsupportedMediaType(text.parse().unwrap()));
        assert_eq!(parse_as(text, image("")), expected);
        // The same type in the document is refused too.
        let labelled = image(&format!(r#","mediaType":"{text}""#));
        assert_eq!(
            Manifest::parse(labelled.as_bytes(), None, &ManifestLimits::default()),
            expected
        );
    }
}

#[test]
fn docker_schema_1_is_refused() {
    let schema1 =
        r#"{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[{"blobSum":"x"}],"history":[],"signatures":[]}"#;
    for content_type in [
        MediaType::DOCKER_SCHEMA1,
        MediaType::DOCKER_SCHEMA1_SIGNED,
        "application/json",
    ] {
        assert_eq!(parse_as(content_type, schema1), Err(ManifestError::Schema1));
    }
    assert_eq!(
        Manifest::parse(schema1.as_bytes(), None, &ManifestLimits::default()),
        Err(ManifestError::Schema1)
    );
    let labelled = format!(r#"{{"mediaType":"{}"}}"#, MediaType::DOCKER_SCHEMA1);
    assert_eq!(
        Manifest::parse(labelled.as_bytes(), None, &ManifestLimits::default()),
        Err(ManifestError::Schema1)
    );
}

#[test]
fn the_schema_version_must_be_the_integer_2() {
    for (version, expected) in [
        ("2", None),
        ("1", Some(ManifestError::SchemaVersion)),
        ("3", Some(ManifestError::SchemaVersion)),
        ("0", Some(ManifestError::SchemaVersion)),
        ("-2", Some(ManifestError::SchemaVersion)),
        ("2.0", Some(ManifestError::SchemaVersion)),
        ("2e0", Some(ManifestError::SchemaVersion)),
        ("\"2\"", Some(ManifestError::SchemaVersion)),
        ("[2]", Some(ManifestError::SchemaVersion)),
        ("{}", Some(ManifestError::SchemaVersion)),
        ("true", Some(ManifestError::SchemaVersion)),
        ("null", Some(ManifestError::SchemaVersion)),
        ("18446744073709551618", Some(ManifestError::SchemaVersion)),
    ] {
        let text = format!(r#"{{"schemaVersion":{version},"config":{}}}"#, link());
        assert_eq!(parse_as(MediaType::OCI_MANIFEST, text).err(), expected, "{version}");
    }
    let absent = format!(r#"{{"config":{}}}"#, link());
    for content_type in [MediaType::OCI_MANIFEST, MediaType::DOCKER_MANIFEST] {
        assert_eq!(
            parse_as(content_type, &absent),
            Err(ManifestError::MissingField("schemaVersion"))
        );
    }
}

#[test]
fn missing_required_members_are_refused() {
    for (content_type, text, field) in [
        (MediaType::OCI_MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#, "config"),
        (
            MediaType::DOCKER_MANIFEST,
            r#"{"schemaVersion":2,"layers":[],"config":null}"#,
            "config",
        ),
        (MediaType::OCI_INDEX, r#"{"schemaVersion":2}"#, "manifests"),
        (MediaType::DOCKER_LIST, r#"{"schemaVersion":2}"#, "manifests"),
    ] {
        assert_eq!(parse_as(content_type, text), Err(ManifestError::MissingField(field)));
    }
}

#[test]
fn members_of_the_wrong_json_type_are_refused() {
    for (more, field) in [
        (r#","layers":{}"#, "layers"),
        (r#","layers":"x""#, "layers"),
        (r#","layers":[1]"#, "layers[0]"),
        (r#","layers":[null]"#, "layers[0]"),
        (r#","layers":[[]]"#, "layers[0]"),
        (r#","manifests":1"#, "manifests"),
        (r#","subject":[]"#, "subject"),
        (r#","subject":"x""#, "subject"),
        (r#","annotations":[]"#, "annotations"),
        (r#","annotations":"x""#, "annotations"),
        (r#","annotations":{"a":1}"#, "annotations"),
        (r#","annotations":{"a":null}"#, "annotations"),
        (r#","annotations":{"a":{}}"#, "annotations"),
        (r#","mediaType":1"#, "mediaType"),
        (r#","artifactType":{}"#, "artifactType"),
    ] {
        let error = refusal_of_image(more);
        assert!(
            matches!(&error, ManifestError::WrongType { field: found, .. } if found == field),
            "{more}: {error:?}"
        );
    }
    for (member, field) in [
        (r#""mediaType":1,"digest":"D","size":1"#, "mediaType"),
        (r#""mediaType":"a/b","digest":1,"size":1"#, "digest"),
        (r#""mediaType":"a/b","digest":null,"size":1"#, "digest"),
        (r#""mediaType":"a/b","digest":"D","size":"1""#, "size"),
        (r#""mediaType":"a/b","digest":"D","size":null"#, "size"),
        (r#""mediaType":"a/b","digest":"D","size":[]"#, "size"),
        (r#""mediaType":"a/b","digest":"D","size":1,"urls":"x""#, "urls"),
        (r#""mediaType":"a/b","digest":"D","size":1,"urls":[1]"#, "urls"),
        (
            r#""mediaType":"a/b","digest":"D","size":1,"annotations":{"a":[]}"#,
            "annotations",
        ),
        (
            r#""mediaType":"a/b","digest":"D","size":1,"artifactType":1"#,
            "artifactType",
        ),
    ] {
        let layer = format!("{{{}}}", member.replace("\"D\"", &format!("\"{A}\"")));
        let error = refusal_of_layer(&layer);
        let expected = format!("layers[1].{field}");
        assert!(
            matches!(&error, ManifestError::WrongType { field: found, .. } if *found == expected),
            "{layer}: {error:?}"
        );
    }
}

#[test]
fn descriptors_with_a_malformed_member_are_refused() {
    let fault = |descriptor: String| match refusal_of_layer(&descriptor) {
        ManifestError::BadDescriptor { field, reason } => {
            assert!(field.starts_with("layers[1]."), "{field}");
            (field["layers[1].".len()..].to_owned(), reason)
        }
        other => panic!("{descriptor}: {other:?}"),
    };
    let malformed = DescriptorFault::Digest(DigestError::Malformed);
    for (digest, expected) in [
        ("", malformed),
        ("sha256:../../x", malformed),
        ("sha256:", malformed),
        (&A.to_uppercase()[..], malformed),
        (&A[..A.len() - 1], malformed),
        ("md5:00", DescriptorFault::Digest(DigestError::UnsupportedAlgorithm)),
    ] {
        assert_eq!(
            fault(format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1}}"#)),
            ("digest".to_owned(), expected),
            "{digest}"
        );
    }
    for size in [
        "1.0",
        "0.5",
        "1e3",
        "1E3",
        "-1.5",
        "-0",
        "-0.0",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "100000000000000000000000000000",
    ] {
        assert_eq!(
            fault(format!(r#"{{"mediaType":"a/b","digest":"{A}","size":{size}}}"#)),
            ("size".to_owned(), DescriptorFault::Size),
            "{size}"
        );
    }
    for media_type in ["x", "a/", "/b", "a/b/c", "a b/c", "*/*", "<script>"] {
        assert_eq!(
            fault(format!(r#"{{"mediaType":"{media_type}","digest":"{A}","size":1}}"#)),
            ("mediaType".to_owned(), DescriptorFault::MediaType(MediaTypeError)),
            "{media_type}"
        );
    }
    assert_eq!(
        fault(format!(
            r#"{{"mediaType":"a/b","digest":"{A}","size":1,"artifactType":"x"}}"#
        )),
        ("artifactType".to_owned(), DescriptorFault::MediaType(MediaTypeError))
    );
    for (descriptor, missing) in [
        ("{}".to_owned(), "mediaType"),
        (format!(r#"{{"mediaType":"","digest":"{A}","size":1}}"#), "mediaType"),
        (r#"{"mediaType":"a/b","size":1}"#.to_owned(), "digest"),
        (format!(r#"{{"mediaType":"a/b","digest":"{A}"}}"#), "size"),
    ] {
        assert_eq!(fault(descriptor), (missing.to_owned(), DescriptorFault::Missing));
    }
}

#[test]
fn negative_sizes_are_refused() {
    for size in ["-1", "-9223372036854775808"] {
        let layer = format!(r#"{{"mediaType":"a/b","digest":"{A}","size":{size}}}"#);
        assert_eq!(
            refusal_of_layer(&layer),
            ManifestError::NegativeSize {
                field: "layers[1].size".to_owned()
            }
        );
        let manifests = format!(r#"{{"schemaVersion":2,"manifests":[{layer}]}}"#);
        assert_eq!(
            parse_as(MediaType::OCI_INDEX, manifests),
            Err(ManifestError::NegativeSize {
                field: "manifests[0].size".to_owned()
            })
        );
        assert_eq!(
            refusal_of_image(&format!(r#","subject":{layer}"#)),
            ManifestError::NegativeSize {
                field: "subject.size".to_owned()
            }
        );
    }
}

#[test]
fn malformed_media_types_in_the_document_are_refused() {
    for field in ["mediaType", "artifactType"] {
        for value in ["x", "a/b;\\n", "a/b/c", " a/b", "<b>/x"] {
            assert_eq!(
                refusal_of_image(&format!(r#","{field}":"{value}""#)),
                ManifestError::BadMediaType {
                    field: field.to_owned(),
                    reason: MediaTypeError
                }
            );
        }
    }
}

#[test]
fn error_texts_say_what_to_correct() {
    let of = |content_type: &str, text: &str| parse_as(content_type, text).unwrap_err().to_string();
    assert_eq!(
        refusal_of_layer(r#"{"mediaType":"a/b","digest":"sha256:0","size":1}"#).to_string(),
        "layers[1].digest: malformed digest: expected <algorithm>:<lower-case hexadecimal hash of full length>"
    );
    assert_eq!(
        of(MediaType::OCI_INDEX, r#"{"schemaVersion":2}"#),
        "manifest has no manifests, which its media type requires"
    );
    assert_eq!(
        of(MediaType::OCI_MANIFEST, &image(r#","Layers":[]"#)),
        r#"manifest has the key "Layers": spell it "layers", or choose a different key"#
    );
    assert_eq!(
        of(MediaType::OCI_MANIFEST, "{}x"),
        "manifest is not valid JSON: trailing characters at line 1 column 3"
    );
}
