//! S13: a policy that forbids manifests to say that content is stored elsewhere.

use std::sync::Arc;

use oci::MediaType;
use registry::auth::Rules;
use registry::policy::Policy;
use serde_json::{Value, json};

use crate::support::content::{artifact, bytes_of, descriptor, image, index};
use crate::support::{Answer, Setup, Users, World, sha256};

const POLICY: &str = r#"{"syntax": 1, "repository": [{"match": ["prod/**"], "foreign-layers": false}]}"#;

/// The content to which the descriptors refer.
const BYTES: &[u8] = b"layer";

/// A descriptor of [`BYTES`] with a member `urls`.
fn at(urls: Value) -> Value {
    let mut descriptor = descriptor(MediaType::OCI_LAYER, BYTES);
    descriptor["urls"] = urls;
    descriptor
}

/// A manifest, with one member replaced.
fn with(mut manifest: Value, member: &str, value: Value) -> Value {
    manifest[member] = value;
    manifest
}

/// Manifests that say of [`BYTES`] that they are stored elsewhere.
fn foreign() -> Vec<Value> {
    let elsewhere = || at(json!(["https://elsewhere.example/layer"]));
    let image = || image(b"{}", &[b"own"]);
    let own = || descriptor(MediaType::OCI_LAYER, b"own");
    let other_type = json!({ "mediaType": "application/vnd.example+json", "blobs": [own(), elsewhere()] });
    let mut manifests = vec![
        with(image(), "layers", json!([elsewhere()])),
        with(image(), "layers", json!([own(), own(), elsewhere()])),
        with(image(), "layers", json!([at(json!([""]))])),
        with(image(), "config", elsewhere()),
        with(image(), "subject", elsewhere()),
        with(index(&[]), "manifests", json!([elsewhere()])),
        with(index(&[]), "subject", elsewhere()),
        with(artifact("a/b", b"subject"), "layers", json!([elsewhere()])),
        other_type,
    ];
    for media_type in [
        MediaType::OCI_NONDISTRIBUTABLE,
        MediaType::OCI_NONDISTRIBUTABLE_GZIP,
        MediaType::OCI_NONDISTRIBUTABLE_ZSTD,
        MediaType::DOCKER_FOREIGN,
        MediaType::DOCKER_FOREIGN_GZIP,
    ] {
        manifests.push(with(image(), "layers", json!([own(), descriptor(media_type, BYTES)])));
    }
    manifests
}

/// Manifests that say nothing of the kind.
fn own() -> Vec<Value> {
    let mut annotated = image(b"{}", &[b"own"]);
    annotated["annotations"] = json!({ "urls": "https://elsewhere.example/layer" });
    vec![
        annotated,
        with(image(b"{}", &[]), "layers", json!([at(json!([]))])),
        index(&[]),
    ]
}

async fn put(world: &World, repository: &str, reference: &str, manifest: &Value) -> Answer {
    world.put_manifest(repository, reference, bytes_of(manifest)).await
}

#[tokio::test]
async fn s13_foreign_layers_are_refused_by_the_policy() {
    let users = Arc::new(Users::new(Some(Rules::everything())));
    let world = World::with(Setup::private(&users)).await;
    for repository in ["prod/app", "other"] {
        for blob in [b"{}" as &'static [u8], b"own", BYTES] {
            world.push_blob(repository, blob).await;
        }
    }
    let old = with(image(b"{}", &[]), "layers", json!([at(json!(["https://old.example"]))]));
    put(&world, "prod/app", "old", &old).await.expect(201);
    users.share(Policy::from_json(POLICY).unwrap().shared());
    for manifest in foreign() {
        let before = world.metadata.counts();
        let digest = sha256(&bytes_of(&manifest));
        for reference in ["t", &digest.to_string(), &format!("{digest}?tag=t")] {
            let refused = put(&world, "prod/app", reference, &manifest).await;
            let refused = refused.expect_error(400, "MANIFEST_INVALID");
            let error = &refused.json()["errors"][0];
            let message = error["message"].as_str().unwrap();
            assert!(
                message.contains("stored elsewhere") && message.contains("policy"),
                "{message}"
            );
            assert_eq!(error["detail"]["digest"], sha256(BYTES).to_string(), "{manifest}");
        }
        assert_eq!(world.metadata.counts(), before, "{manifest}");
        put(&world, "other", "t", &manifest).await.expect(201);
    }
    for manifest in own() {
        put(&world, "prod/app", "t", &manifest).await.expect(201);
    }
    // What was pushed earlier stays, and is not pushed again.
    world.get("/v2/prod/app/manifests/old").send().await.expect(200);
    let again = put(&world, "prod/app", "again", &old).await;
    again.expect_error(400, "MANIFEST_INVALID");
}
