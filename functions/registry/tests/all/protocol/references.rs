//! References: digests that a push requires (policies), and deletions that are refused (end-9, end-10).

use bytes::Bytes;
use oci::{Digest, MediaType};
use registry::{Settings, Sparse};
use serde_json::{Value, json};

use crate::support::content::{artifact, bytes_of, descriptor, image, index, padded};
use crate::support::{Setup, World, sha256};

async fn world_of(sparse: Sparse) -> World {
    let settings = Settings {
        sparse,
        ..Settings::default()
    };
    World::with(Setup {
        settings,
        ..Setup::default()
    })
    .await
}

/// The digests in the response to a refused push.
fn named(answer: &crate::support::Answer) -> Vec<String> {
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap().iter();
    errors
        .map(|error| error["detail"]["digest"].as_str().unwrap().to_owned())
        .collect()
}

/// Only the blobs `{}` and `layer`, and a manifest that refers to them, are present.
#[tokio::test]
async fn policies() {
    let here = bytes_of(&image(b"{}", &[b"layer"]));
    let with_layer = |media_type: &str, bytes: &[u8]| {
        let mut image = image(b"{}", &[]);
        image["layers"] = json!([descriptor(media_type, bytes)]);
        image
    };
    let listing = |media_type: &str, bytes: &[u8]| {
        let mut index = index(&[]);
        index["manifests"] = json!([descriptor(media_type, bytes)]);
        index
    };
    let artifact_of = |key: &str| {
        let mut document = json!({ "mediaType": "application/vnd.example+json" });
        document[key] = json!([descriptor("a/b", b"missing")]);
        document
    };
    let absent = b"missing";
    let mut twice = with_layer(MediaType::OCI_NONDISTRIBUTABLE, absent);
    twice["layers"]
        .as_array_mut()
        .unwrap()
        .push(descriptor(MediaType::OCI_LAYER, absent));
    // A push, and its status under each policy: refuse, indexes, allow.
    let table: Vec<(&str, Value, [u16; 3])> = vec![
        ("all present", image(b"{}", &[b"layer"]), [201, 201, 201]),
        (
            "the same layer twice",
            image(b"{}", &[b"layer", b"layer"]),
            [201, 201, 201],
        ),
        ("layer missing", image(b"{}", &[absent]), [400, 400, 201]),
        ("config missing", image(absent, &[]), [400, 400, 201]),
        ("an index of a manifest", index(&[&here]), [201, 201, 201]),
        ("an index of a missing manifest", index(&[absent]), [400, 201, 201]),
        (
            "an index of a blob",
            listing(MediaType::OCI_LAYER, b"layer"),
            [201, 201, 201],
        ),
        (
            "an index of a missing blob",
            listing(MediaType::OCI_LAYER, absent),
            [400, 201, 201],
        ),
        ("a manifest as a layer", image(b"{}", &[&here]), [201, 201, 201]),
        (
            "a layer not to be distributed",
            with_layer(MediaType::OCI_NONDISTRIBUTABLE_GZIP, absent),
            [201, 201, 201],
        ),
        (
            "a foreign layer",
            with_layer(MediaType::DOCKER_FOREIGN_GZIP, absent),
            [201, 201, 201],
        ),
        ("required by another entry", twice, [400, 400, 201]),
        ("a missing subject", artifact("a/b", absent), [201, 201, 201]),
        ("layers of an unknown type", artifact_of("layers"), [400, 400, 201]),
        ("blobs of an unknown type", artifact_of("blobs"), [400, 400, 201]),
        (
            "manifests of an unknown type",
            artifact_of("manifests"),
            [400, 201, 201],
        ),
    ];
    for (place, sparse) in [Sparse::Refuse, Sparse::Indexes, Sparse::Allow].into_iter().enumerate() {
        let world = world_of(sparse).await;
        for blob in ["{}", "layer"] {
            world.push_blob("a", blob).await;
        }
        world.put_manifest("a", "here", here.clone()).await.expect(201);
        for (what, manifest, statuses) in &table {
            for length in [None, Some(50_000)] {
                let bytes = length.map_or_else(|| bytes_of(manifest), |length| padded(manifest, length));
                let answer = world.put_manifest("a", "t", bytes).await;
                assert_eq!(answer.status, statuses[place], "{sparse:?}: {what}");
                if answer.status == 400 {
                    assert_eq!(answer.code(), "MANIFEST_BLOB_UNKNOWN");
                    assert_eq!(named(&answer), [sha256(absent).to_string()], "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_missing_digest_is_in_the_response() {
    let world = World::new().await;
    world.push_blob("a", "one").await;
    let answer = world
        .put_manifest("a", "t", bytes_of(&image(b"zero", &[b"one", b"two", b"three"])))
        .await;
    let mut expected: Vec<_> = [b"zero".as_slice(), b"two", b"three"]
        .map(|bytes| sha256(bytes).to_string())
        .into();
    expected.sort();
    let answer = answer.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let mut found = named(&answer);
    found.sort();
    assert_eq!(found, expected);
}

async fn delete(world: &World, kind: &str, reference: impl ToString) -> crate::support::Answer {
    world
        .delete(format!("/v2/a/{kind}/{}", reference.to_string()))
        .send()
        .await
}

async fn refused(world: &World, kind: &str, digest: Digest, referrer: Digest) {
    let answer = delete(world, kind, digest).await.expect_error(405, "DENIED");
    assert_eq!(answer.json()["errors"][0]["detail"]["referrer"], referrer.to_string());
    world.head(format!("/v2/a/{kind}/{digest}")).send().await.expect(200);
}

/// Everything can be deleted from the top down, and in no other order.
#[tokio::test]
async fn a_referenced_target_cannot_be_deleted() {
    let world = World::new().await;
    let image = world.push_image("a", "image", "app").await;
    let list = bytes_of(&index(&[&image.manifest]));
    let list_digest = sha256(&list);
    world.put_manifest("a", "list", list).await.expect(201);

    refused(&world, "blobs", image.config, image.digest).await;
    refused(&world, "blobs", image.layer, image.digest).await;
    refused(&world, "manifests", image.digest, list_digest).await;
    // A tag does not protect a manifest from deletion, and is deleted with it.
    delete(&world, "manifests", list_digest).await.expect(202);
    world.head("/v2/a/manifests/list").send().await.expect(404);
    refused(&world, "blobs", image.layer, image.digest).await;
    delete(&world, "manifests", image.digest).await.expect(202);
    delete(&world, "blobs", image.layer).await.expect(202);
    delete(&world, "blobs", image.config).await.expect(202);
    let counts = world.metadata.counts();
    assert_eq!(
        (counts.links, counts.manifests, counts.edges, counts.tags, counts.tagged),
        (0, 0, 0, 0, 0)
    );
    assert_eq!(counts.back_links, 0);
}

/// References apply to one repository; another repository has its own.
#[tokio::test]
async fn references_are_of_one_repository() {
    let world = World::new().await;
    let image = world.push_image("b", "image", "app").await;
    world.push_image("a", "image", "app").await;
    delete(&world, "manifests", image.digest).await.expect(202);
    delete(&world, "blobs", image.layer).await.expect(202);
    world
        .head(format!("/v2/b/blobs/{}", image.layer))
        .send()
        .await
        .expect(200);
    world.head("/v2/b/manifests/image").send().await.expect(200);
}

/// A reference to a target that was allowed to be absent protects the target once it is pushed.
#[tokio::test]
async fn sparse_references_protect_targets_that_are_pushed_later() {
    let world = world_of(Sparse::Allow).await;
    let manifest = bytes_of(&image(b"{}", &[b"late"]));
    world.put_manifest("a", "t", manifest.clone()).await.expect(201);
    delete(&world, "blobs", sha256(b"late"))
        .await
        .expect_error(404, "BLOB_UNKNOWN");
    let late = world.push_blob("a", "late").await;
    refused(&world, "blobs", late, sha256(&manifest)).await;
    delete(&world, "manifests", sha256(&manifest)).await.expect(202);
    delete(&world, "blobs", late).await.expect(202);
}

/// A subject may be deleted, and its referrers stay.
#[tokio::test]
async fn a_subject_is_no_reference() {
    let world = World::new().await;
    let image = world.push_image("a", "image", "app").await;
    world.push_blob("a", "{}").await;
    let signature = bytes_of(&artifact("a/signature", &image.manifest));
    world
        .put_manifest("a", "signature", signature.clone())
        .await
        .expect(201);
    delete(&world, "manifests", image.digest).await.expect(202);
    let referrers = world
        .get(format!("/v2/a/referrers/{}", image.digest))
        .send()
        .await
        .expect(200);
    assert_eq!(
        referrers.json()["manifests"][0]["digest"],
        sha256(&signature).to_string()
    );
    delete(&world, "manifests", sha256(&signature)).await.expect(202);
    let referrers = world
        .get(format!("/v2/a/referrers/{}", image.digest))
        .send()
        .await
        .expect(200);
    assert_eq!(referrers.json()["manifests"], json!([]));
}

#[tokio::test]
async fn tags() {
    let world = World::new().await;
    let image = world.push_image("a", "one", "app").await;
    world.push_image("a", "two", "app").await;
    delete(&world, "manifests", "one").await.expect(202);
    delete(&world, "manifests", "one")
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
    for reference in ["two".to_owned(), image.digest.to_string()] {
        let get = world
            .get(format!("/v2/a/manifests/{reference}"))
            .send()
            .await
            .expect(200);
        assert_eq!(get.body, image.manifest);
    }
    // The last tag of a manifest may be deleted too: deployments use digests.
    delete(&world, "manifests", "two").await.expect(202);
    world
        .head(format!("/v2/a/manifests/{}", image.digest))
        .send()
        .await
        .expect(200);
    let list = world.get("/v2/a/tags/list").send().await.expect(200);
    assert_eq!(list.json(), json!({ "name": "a", "tags": [] }));
    // And again.
    world.push_image("a", "one", "app").await;
    world.head("/v2/a/manifests/one").send().await.expect(200);
}

#[tokio::test]
async fn a_manifest_with_very_many_tags() {
    let world = World::new().await;
    let image = world.push_image("a", "t", "app").await;
    for number in 0..60 {
        world
            .put_manifest("a", format!("t{number}"), image.manifest.clone())
            .await
            .expect(201);
    }
    delete(&world, "manifests", image.digest).await.expect(202);
    assert_eq!(world.metadata.counts().tags, 0);
    delete(&world, "manifests", image.digest)
        .await
        .expect_error(404, "MANIFEST_UNKNOWN");
}

/// A manifest with a reference that has a wrong size, or with two references to the same digest in different roles.
#[tokio::test]
async fn odd_references() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let config_is_layer = image(b"{}", &[b"{}", b"{}"]);
    let bytes: Bytes = bytes_of(&config_is_layer);
    world.put_manifest("a", "t", bytes.clone()).await.expect(201);
    refused(&world, "blobs", sha256(b"{}"), sha256(&bytes)).await;
    delete(&world, "manifests", sha256(&bytes)).await.expect(202);
    delete(&world, "blobs", sha256(b"{}")).await.expect(202);
}
