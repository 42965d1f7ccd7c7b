//! Manifests that must be accepted, and what is parsed from them: examples of the specifications, manifests of clients,
//! and every unknown member that the image specification tells parsers to accept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{Descriptor, Kind, Manifest, ManifestError, ManifestLimits, MediaType, Role};
use serde_json::{Value, json};

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "sha512:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\
                 cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

fn parse_as(content_type: &str, manifest: &Value) -> Result<Manifest, ManifestError> {
    let content_type = content_type.parse().unwrap();
    Manifest::parse(
        manifest.to_string().as_bytes(),
        Some(&content_type),
        &ManifestLimits::default(),
    )
}

fn link(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": link(MediaType::OCI_CONFIG, A, 7023),
        "layers": [link(MediaType::OCI_LAYER_GZIP, B, 32654)],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX,
        "manifests": [link(MediaType::OCI_MANIFEST, A, 7143)],
    })
}

fn with(mut manifest: Value, member: &str, value: Value) -> Value {
    manifest[member] = value;
    manifest
}

fn without(mut manifest: Value, member: &str) -> Value {
    manifest.as_object_mut().unwrap().remove(member).unwrap();
    manifest
}

/// The role, digest, size and `required` of every reference.
fn references(manifest: &Manifest) -> Vec<(Role, String, u64, bool)> {
    manifest
        .references
        .iter()
        .map(|entry| {
            let descriptor = &entry.descriptor;
            (
                entry.role,
                descriptor.digest.to_string(),
                descriptor.size,
                entry.required,
            )
        })
        .collect()
}

#[test]
fn a_minimal_image_is_accepted() {
    let parsed = parse_as(MediaType::OCI_MANIFEST, &image()).unwrap();
    assert_eq!(parsed.kind, Kind::Image);
    assert_eq!(parsed.media_type, MediaType::OCI_MANIFEST);
    assert_eq!(parsed.artifact_type.unwrap(), MediaType::OCI_CONFIG);
    assert_eq!(parsed.subject, None);
    assert!(parsed.annotations.is_empty());
}

#[test]
fn an_image_with_all_members_is_accepted() {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "artifactType": "application/vnd.example+type",
        "config": {
            "mediaType": MediaType::OCI_EMPTY, "digest": A, "size": 2, "data": "e30=",
        },
        "layers": [
            {
                "mediaType": MediaType::OCI_NONDISTRIBUTABLE_GZIP, "digest": B, "size": 123_456,
                "urls": ["https://store.example.com/blobs/1", "https://store.example.com/blobs/2"],
            },
            {
                "mediaType": "application/vnd.example.layer", "digest": C, "size": i64::MAX,
                "annotations": {"Layers": "1", "MEDIATYPE": "", "": "\u{0}"},
                "artifactType": "application/vnd.example.inner",
                "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["a"]},
                "org.example.custom": {"deep": [[[null, true, 1.5e3, "x"]]]},
            },
            link(MediaType::OCI_LAYER_GZIP, B, 0),
        ],
        "subject": link(MediaType::OCI_INDEX, C, 7682),
        "annotations": {"com.example.key": "value", "subject": "not that one", "empty": ""},
        "org.example.custom": "value",
        "blobs": "an unknown member of an image manifest",
    });
    let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
    assert_eq!(parsed.artifact_type.as_ref().unwrap(), &"application/vnd.example+type");
    assert_eq!(
        references(&parsed),
        [
            (Role::Config, A.into(), 2, true),
            (Role::Layer, B.into(), 123_456, false),
            (Role::Layer, C.into(), i64::MAX.cast_unsigned(), true),
            (Role::Layer, B.into(), 0, true),
        ]
    );
    let subject = parsed.subject.unwrap();
    assert_eq!(subject.digest.to_string(), C);
    assert_eq!(subject.media_type, MediaType::OCI_INDEX);
    assert_eq!(parsed.annotations.len(), 3);
    assert_eq!(parsed.annotations["com.example.key"], "value");
    assert_eq!(parsed.references[1].descriptor.urls.len(), 2);
    let custom = &parsed.references[2].descriptor;
    assert_eq!(custom.annotations.as_ref().unwrap()["Layers"], "1");
    assert_eq!(custom.artifact_type.as_ref().unwrap(), &"application/vnd.example.inner");
}

#[test]
fn an_index_with_all_members_is_accepted() {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX,
        "artifactType": "application/vnd.example.index",
        "manifests": [
            {
                "mediaType": MediaType::OCI_MANIFEST, "digest": A, "size": 7143,
                "platform": {"architecture": "ppc64le", "os": "linux"},
            },
            link(MediaType::OCI_INDEX, C, 7682),
            // BuildKit's cache index lists layers, and a configuration of its own type.
            link(MediaType::OCI_LAYER_ZSTD, B, 1),
            link("application/vnd.buildkit.cacheconfig.v0", B, 2),
            link(MediaType::DOCKER_FOREIGN_GZIP, B, 3),
        ],
        "subject": link(MediaType::OCI_MANIFEST, B, 9),
        "annotations": {"a": "b"},
    });
    let parsed = parse_as(MediaType::OCI_INDEX, &manifest).unwrap();
    assert_eq!(parsed.kind, Kind::Index);
    assert_eq!(parsed.artifact_type.as_ref().unwrap(), &"application/vnd.example.index");
    assert_eq!(
        references(&parsed),
        [
            (Role::Manifest, A.into(), 7143, true),
            (Role::Manifest, C.into(), 7682, true),
            (Role::Manifest, B.into(), 1, true),
            (Role::Manifest, B.into(), 2, true),
            (Role::Manifest, B.into(), 3, false),
        ]
    );
    assert_eq!(parsed.subject.unwrap().size, 9);
    assert_eq!(parsed.annotations["a"], "b");
}

#[test]
fn the_artifact_type_of_an_image_defaults_to_its_config_type() {
    let typed = |text: &str| Some(text.parse::<MediaType>().unwrap());
    let of = |content_type: &str, manifest: &Value| parse_as(content_type, manifest).unwrap().artifact_type;
    let own = "application/vnd.example";
    // An image has its own type or that of its config; an index has its own or none.
    for (member, image_type, index_type) in [
        (json!(own), typed(own), typed(own)),
        (json!(""), typed(MediaType::OCI_CONFIG), None),
        (json!(null), typed(MediaType::OCI_CONFIG), None),
    ] {
        assert_eq!(
            of(MediaType::OCI_MANIFEST, &with(image(), "artifactType", member.clone())),
            image_type
        );
        assert_eq!(
            of(MediaType::OCI_INDEX, &with(index(), "artifactType", member)),
            index_type
        );
    }
    assert_eq!(of(MediaType::OCI_MANIFEST, &image()), typed(MediaType::OCI_CONFIG));
    assert_eq!(of(MediaType::OCI_INDEX, &index()), None);
    // The type of an entry is not the type of the index.
    let mut nested = index();
    nested["manifests"][0]["artifactType"] = json!(own);
    assert_eq!(of(MediaType::OCI_INDEX, &nested), None);
    // Types that no specification defines are treated as images.
    let custom = "application/vnd.custom+json";
    let mut shaped = without(image(), "mediaType");
    assert_eq!(of(custom, &shaped), typed(MediaType::OCI_CONFIG));
    shaped = without(shaped, "config");
    assert_eq!(of(custom, &shaped), None);
}

#[test]
fn docker_images_and_lists_are_accepted() {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::DOCKER_MANIFEST,
        "config": link(MediaType::DOCKER_CONFIG, A, 7023),
        "layers": [
            {
                "mediaType": MediaType::DOCKER_FOREIGN_GZIP, "digest": B, "size": 1,
                "urls": ["https://store.example.com/1"],
            },
            link(MediaType::DOCKER_LAYER_GZIP, B, 2),
        ],
    });
    let parsed = parse_as(MediaType::DOCKER_MANIFEST, &manifest).unwrap();
    assert_eq!(parsed.kind, Kind::Image);
    assert_eq!(
        references(&parsed),
        [
            (Role::Config, A.into(), 7023, true),
            (Role::Layer, B.into(), 1, false),
            (Role::Layer, B.into(), 2, true),
        ]
    );

    let list = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::DOCKER_LIST,
        "manifests": [{
            "mediaType": MediaType::DOCKER_MANIFEST, "digest": A, "size": 7143,
            "platform": {"architecture": "amd64", "os": "linux", "features": ["sse4"]},
        }],
    });
    let parsed = parse_as(MediaType::DOCKER_LIST, &list).unwrap();
    assert_eq!(parsed.kind, Kind::Index);
    assert_eq!(references(&parsed), [(Role::Manifest, A.into(), 7143, true)]);
}

#[test]
fn non_distributable_layers_are_not_required_but_every_config_is() {
    for (media_type, required) in [
        (MediaType::OCI_NONDISTRIBUTABLE, false),
        (MediaType::OCI_NONDISTRIBUTABLE_GZIP, false),
        (MediaType::OCI_NONDISTRIBUTABLE_ZSTD, false),
        (MediaType::DOCKER_FOREIGN, false),
        (MediaType::DOCKER_FOREIGN_GZIP, false),
        (MediaType::OCI_LAYER, true),
        (MediaType::OCI_LAYER_GZIP, true),
        (MediaType::OCI_LAYER_ZSTD, true),
        (MediaType::DOCKER_LAYER_GZIP, true),
        (MediaType::OCI_EMPTY, true),
    ] {
        let manifest = with(
            with(image(), "layers", json!([link(media_type, B, 1)])),
            "config",
            link(media_type, A, 1),
        );
        let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
        assert_eq!(
            references(&parsed),
            [(Role::Config, A.into(), 1, true), (Role::Layer, B.into(), 1, required),],
            "{media_type}"
        );
    }
}

/// Go writes null for an unset list or map, and an empty string for an unset string.
#[test]
fn null_and_empty_members_count_as_absent() {
    for member in ["layers", "subject", "annotations", "artifactType", "manifests"] {
        let parsed = parse_as(MediaType::OCI_MANIFEST, &with(image(), member, Value::Null)).unwrap();
        let expected = match member {
            "layers" => 1,
            _ => 2,
        };
        assert_eq!(parsed.references.len(), expected, "{member}");
        assert_eq!(parsed.subject, None);
    }
    for member in [
        "manifests",
        "subject",
        "annotations",
        "artifactType",
        "config",
        "layers",
    ] {
        let parsed = parse_as(MediaType::OCI_INDEX, &with(index(), member, Value::Null)).unwrap();
        let expected = usize::from(member != "manifests");
        assert_eq!(parsed.references.len(), expected, "{member}");
    }
    let parsed = parse_as(MediaType::OCI_MANIFEST, &with(image(), "mediaType", json!(""))).unwrap();
    assert_eq!(parsed.media_type, MediaType::OCI_MANIFEST);

    let mut manifest = image();
    for (member, value) in [
        ("urls", Value::Null),
        ("annotations", Value::Null),
        ("data", Value::Null),
        ("platform", Value::Null),
        ("artifactType", json!("")),
    ] {
        manifest["layers"][0][member] = value;
    }
    let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
    let layer = &parsed.references[1].descriptor;
    assert_eq!(layer.annotations, None);
    assert_eq!(layer.artifact_type, None);
    assert!(layer.urls.is_empty());
}

#[test]
fn an_image_without_layers_and_an_index_with_empty_manifests_are_accepted() {
    for manifest in [with(image(), "layers", json!([])), without(image(), "layers")] {
        let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
        assert_eq!(references(&parsed), [(Role::Config, A.into(), 7023, true)]);
    }
    let parsed = parse_as(MediaType::OCI_INDEX, &with(index(), "manifests", json!([]))).unwrap();
    assert_eq!(parsed.kind, Kind::Index);
    assert!(parsed.references.is_empty());
}

#[test]
fn the_media_type_comes_from_content_type_or_from_the_document() {
    let parse = |content_type: Option<&str>, manifest: &Value| {
        let content_type = content_type.map(|text| MediaType::parse(text).unwrap());
        Manifest::parse(
            manifest.to_string().as_bytes(),
            content_type.as_ref(),
            &ManifestLimits::default(),
        )
        .map(|manifest| manifest.media_type.to_string())
    };
    let bare = without(image(), "mediaType");
    let oci = Ok(MediaType::OCI_MANIFEST.to_owned());
    assert_eq!(parse(Some(MediaType::OCI_MANIFEST), &bare), oci);
    assert_eq!(parse(None, &image()), oci);
    let with_parameters = format!("{}; charset=utf-8", MediaType::OCI_MANIFEST);
    assert_eq!(parse(Some(&with_parameters), &image()), oci);
    assert_eq!(
        parse(Some(MediaType::DOCKER_MANIFEST), &bare),
        Ok(MediaType::DOCKER_MANIFEST.to_owned())
    );
    assert_eq!(parse(None, &bare), Err(ManifestError::MissingMediaType));
    assert_eq!(
        parse(None, &with(bare, "mediaType", json!(""))),
        Err(ManifestError::MissingMediaType)
    );
}

/// Without Content-Type the type is known only at the end; the result must be the same.
#[test]
fn a_document_means_the_same_with_and_without_content_type() {
    let blobs = json!([link("a/b", B, 1)]);
    for (content_type, manifest) in [
        (MediaType::OCI_MANIFEST, image()),
        (MediaType::OCI_MANIFEST, with(image(), "blobs", blobs.clone())),
        (MediaType::OCI_INDEX, index()),
        (MediaType::OCI_INDEX, with(index(), "blobs", blobs.clone())),
        (
            "application/vnd.oci.artifact.manifest.v1+json",
            json!({
                "mediaType": "application/vnd.oci.artifact.manifest.v1+json",
                "blobs": blobs,
            }),
        ),
    ] {
        let given = parse_as(content_type, &manifest);
        let read = Manifest::parse(manifest.to_string().as_bytes(), None, &ManifestLimits::default());
        assert!(given.is_ok(), "{manifest}");
        assert_eq!(given, read, "{manifest}");
    }
}

#[test]
fn unknown_types_are_classified_by_their_members() {
    // The artifact manifest of a draft of the image specification, which clients pushed for a while.
    let artifact = json!({
        "mediaType": "application/vnd.oci.artifact.manifest.v1+json",
        "artifactType": "application/vnd.example.sbom.v1",
        "blobs": [link("text/spdx", A, 1), link(MediaType::OCI_NONDISTRIBUTABLE, B, 2)],
        "subject": link(MediaType::OCI_MANIFEST, B, 3),
        "annotations": {"a": "b"},
    });
    let parsed = parse_as("application/vnd.oci.artifact.manifest.v1+json", &artifact).unwrap();
    assert_eq!(parsed.kind, Kind::Image);
    assert_eq!(
        references(&parsed),
        [(Role::Blob, A.into(), 1, true), (Role::Blob, B.into(), 2, false),]
    );
    assert_eq!(parsed.subject.unwrap().size, 3);

    let custom = "application/vnd.example+json";
    let parsed = parse_as(custom, &without(image(), "mediaType")).unwrap();
    assert_eq!(parsed.media_type, custom);
    assert_eq!(parsed.kind, Kind::Image);
    assert_eq!(parsed.references.len(), 2);

    let parsed = parse_as(custom, &without(index(), "mediaType")).unwrap();
    assert_eq!(parsed.kind, Kind::Index);
    assert_eq!(parsed.references.len(), 1);

    for manifest in [
        json!({}),
        json!({"schemaVersion": 3, "hello": "world"}),
        json!({"schemaVersion": {"a": [1]}}),
        json!({"schemaVersion": 1}),
    ] {
        let parsed = parse_as(custom, &manifest).unwrap();
        assert_eq!(parsed.kind, Kind::Image);
        assert!(parsed.references.is_empty());
        assert_eq!(parsed.artifact_type, None);
    }
    assert!(
        parse_as("application/json", &image())
            .is_err_and(|error| matches!(error, ManifestError::MediaTypeMismatch { .. }))
    );
    assert!(parse_as("application/json", &without(image(), "mediaType")).is_ok());
}

/// Sigstore bundles have been pushed with such types.
#[test]
fn parameters_of_the_types_in_a_manifest_are_kept() {
    let bundle = "application/vnd.dev.sigstore.bundle+json;version=0.2";
    let mut manifest = with(image(), "artifactType", json!(bundle));
    manifest["layers"][0]["mediaType"] = json!(bundle);
    let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
    assert_eq!(parsed.references[1].descriptor.media_type, bundle);
    assert_eq!(parsed.artifact_type.unwrap(), bundle);

    // A layer need not exist only if its type is exactly that of a non-distributable layer.
    manifest["layers"][0]["mediaType"] = json!(format!("{};a=b", MediaType::DOCKER_FOREIGN));
    let parsed = parse_as(MediaType::OCI_MANIFEST, &manifest).unwrap();
    assert!(parsed.references[1].required);
}

#[test]
fn white_space_order_and_escapes_do_not_matter() {
    let text = format!(
        "\n\t {{\r\n\"l\\u0061yers\" : [ ] , \"config\":{{\"size\":1,\"\\u0064igest\":\"{A}\",\"mediaType\":\
         \"application\\/vnd.oci.image.config.v1+json\"}},\"schemaVersion\":2 ,\
         \"annotations\":{{\"\\ud83d\\ude00\":\"é😀\\n\"}}}}  \n\n"
    );
    let content_type = MediaType::OCI_MANIFEST.parse().unwrap();
    let parsed = Manifest::parse(text.as_bytes(), Some(&content_type), &ManifestLimits::default()).unwrap();
    assert_eq!(references(&parsed), [(Role::Config, A.into(), 1, true)]);
    assert_eq!(parsed.annotations["😀"], "é😀\n");
}

#[test]
fn descriptors_have_the_json_of_the_specification() {
    let mut descriptor = Descriptor::new(MediaType::OCI_MANIFEST.parse().unwrap(), A.parse().unwrap(), 1234);
    assert_eq!(
        serde_json::to_value(&descriptor).unwrap(),
        link(MediaType::OCI_MANIFEST, A, 1234)
    );
    descriptor.artifact_type = Some("application/vnd.example.sbom.v1".parse().unwrap());
    descriptor.annotations = Some([("a".to_owned(), "b".to_owned())].into());
    descriptor.urls = vec!["https://example.com".to_owned()];
    let json = serde_json::to_value(&descriptor).unwrap();
    assert_eq!(
        json,
        json!({
            "mediaType": MediaType::OCI_MANIFEST, "digest": A, "size": 1234,
            "artifactType": "application/vnd.example.sbom.v1",
            "annotations": {"a": "b"},
            "urls": ["https://example.com"],
        })
    );
    assert_eq!(serde_json::from_value::<Descriptor>(json).unwrap(), descriptor);
}
