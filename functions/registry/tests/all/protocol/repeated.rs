//! Repeated requests: unchanged, with other headers, and with other bytes; and documents with false statements about
//! others. Each row is a decision. Where the specification defines nothing, the registry does what distribution v3
//! does, unless a comment says why it differs.

use bytes::Bytes;
use http::Method;
use oci::{Digest, MediaType};
use registry::Endpoint;
use registry::api_endpoint::ApiOperation;
use registry::store::memory::RecordCounts;
use serde_json::{Value, json};

use crate::support::client::TestRequest;
use crate::support::content::{Image, artifact, bytes_of, descriptor, image, index};
use crate::support::{World, sha256, sha512};

/// A registry with content of every kind.
struct Scene {
    world: World,
    image: Image,
    /// An upload with the bytes `ab`.
    upload: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let image = world.push_image("a", "t", "app").await;
        world.push_blob("a", "loose").await;
        world.push_blob("b", "elsewhere").await;
        let upload = world.open_upload("a").await;
        world.patch(upload.clone()).bytes("ab").send().await.expect(202);
        Self { world, image, upload }
    }

    fn manifest(&self, reference: &str) -> TestRequest {
        let call = self.world.put(format!("/v2/a/manifests/{reference}"));
        let bytes = self.image.manifest.clone();
        call.header("content-type", MediaType::OCI_MANIFEST).bytes(bytes)
    }
}

/// A request, and its status at the first and the second time.
struct RepeatedRequest {
    what: &'static str,
    call: fn(&Scene) -> TestRequest,
    first: u16,
    again: u16,
}

const fn row(what: &'static str, call: fn(&Scene) -> TestRequest, first: u16, again: u16) -> RepeatedRequest {
    RepeatedRequest {
        what,
        call,
        first,
        again,
    }
}

fn get(scene: &Scene, target: &str) -> TestRequest {
    scene.world.get(target)
}

/// The rows of an endpoint. An endpoint without rows does not compile.
#[expect(clippy::too_many_lines, reason = "a table, which is read by rows")]
fn rows(endpoint: Endpoint) -> Vec<RepeatedRequest> {
    match endpoint {
        Endpoint::Home => vec![row("page", |scene| get(scene, "/"), 200, 200)],
        Endpoint::Base => vec![row("base", |scene| get(scene, "/v2/"), 200, 200)],
        Endpoint::GetBlob => vec![
            row(
                "blob",
                |scene| get(scene, &format!("/v2/a/blobs/{}", scene.image.layer)),
                200,
                200,
            ),
            row(
                "absent",
                |scene| get(scene, &format!("/v2/a/blobs/{}", sha256(b"x"))),
                404,
                404,
            ),
        ],
        Endpoint::GetManifest => vec![
            row("by tag", |scene| get(scene, "/v2/a/manifests/t"), 200, 200),
            row("absent", |scene| get(scene, "/v2/a/manifests/x"), 404, 404),
        ],
        Endpoint::ListTags => vec![row("tags", |scene| get(scene, "/v2/a/tags/list"), 200, 200)],
        Endpoint::ListReferrers => vec![row(
            "referrers",
            |scene| get(scene, &format!("/v2/a/referrers/{}", scene.image.digest)),
            200,
            200,
        )],
        Endpoint::IssueToken => vec![row("token", |scene| get(scene, "/token"), 200, 200)],
        Endpoint::GetKeySet => vec![row("key set", |scene| get(scene, "/.well-known/jwks.json"), 200, 200)],
        // The registry is open to everyone, and nobody is an administrator.
        Endpoint::Api(ApiOperation::GetApiDocument) => {
            vec![row("document", |scene| get(scene, "/api/v1/openapi.json"), 200, 200)]
        }
        Endpoint::Api(ApiOperation::GetIdentity) => {
            vec![row("identity", |scene| get(scene, "/api/v1/whoami"), 403, 403)]
        }
        // What these do is decided by the implementation of the API, and tested there.
        Endpoint::Api(_) => Vec::new(),
        Endpoint::ListRepositories => vec![row("catalog", |scene| get(scene, "/v2/_catalog"), 200, 200)],
        Endpoint::OpenUpload => vec![
            // A new session each time.
            row("session", |scene| scene.world.post("/v2/a/blobs/uploads/"), 202, 202),
            row(
                "whole blob",
                |scene| {
                    scene
                        .world
                        .post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"new")))
                        .bytes("new")
                },
                201,
                201,
            ),
            row(
                "wrong blob",
                |scene| {
                    scene
                        .world
                        .post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"new")))
                        .bytes("old")
                },
                400,
                400,
            ),
            row(
                "mount",
                |scene| {
                    let elsewhere = sha256(b"elsewhere");
                    scene
                        .world
                        .post(format!("/v2/a/blobs/uploads/?mount={elsewhere}&from=b"))
                },
                201,
                201,
            ),
            row(
                "mount of nothing",
                |scene| {
                    scene
                        .world
                        .post(format!("/v2/a/blobs/uploads/?mount={}&from=b", sha256(b"x")))
                },
                202,
                202,
            ),
        ],
        Endpoint::PatchUpload => vec![
            // A chunk without a range is the next chunk. The client must know whether it was stored.
            row(
                "chunk",
                |scene| scene.world.patch(scene.upload.clone()).bytes("cd"),
                202,
                202,
            ),
            // The first one was stored, and the response contains the position of the upload.
            row(
                "chunk with a range",
                |scene| {
                    scene
                        .world
                        .patch(scene.upload.clone())
                        .header("content-range", "2-3")
                        .bytes("cd")
                },
                202,
                416,
            ),
            row(
                "empty chunk",
                |scene| scene.world.patch(scene.upload.clone()).bytes(""),
                202,
                202,
            ),
            row(
                "chunk out of place",
                |scene| {
                    scene
                        .world
                        .patch(scene.upload.clone())
                        .header("content-range", "9-9")
                        .bytes("c")
                },
                416,
                416,
            ),
        ],
        Endpoint::FinishUpload => vec![
            // distribution v3 answers 404; but the response to the first PUT may have been lost.
            row(
                "end with the last bytes",
                |scene| {
                    scene
                        .world
                        .put(format!("{}?digest={}", scene.upload, sha256(b"abcd")))
                        .bytes("cd")
                },
                201,
                201,
            ),
            row(
                "end",
                |scene| scene.world.put(format!("{}?digest={}", scene.upload, sha256(b"ab"))),
                201,
                201,
            ),
            row(
                "end by another algorithm",
                |scene| {
                    scene
                        .world
                        .put(format!("{}?digest={}", scene.upload, sha512(b"abcd")))
                        .bytes("cd")
                },
                201,
                201,
            ),
            // The upload cannot become right any more, as in distribution v3.
            row(
                "wrong digest",
                |scene| scene.world.put(format!("{}?digest={}", scene.upload, sha256(b"x"))),
                400,
                404,
            ),
            row(
                "no digest",
                |scene| scene.world.put(scene.upload.clone()).bytes("cd"),
                400,
                400,
            ),
            row(
                "end out of place",
                |scene| {
                    let put = scene.world.put(format!("{}?digest={}", scene.upload, sha256(b"abcd")));
                    put.header("content-range", "9-9").bytes("c")
                },
                416,
                416,
            ),
        ],
        Endpoint::GetUpload => vec![row("status", |scene| get(scene, &scene.upload), 204, 204)],
        Endpoint::CancelUpload => vec![row(
            "cancel",
            |scene| scene.world.delete(scene.upload.clone()),
            204,
            404,
        )],
        Endpoint::PutManifest => vec![
            row("by tag", |scene| scene.manifest("new"), 201, 201),
            row(
                "by digest",
                |scene| scene.manifest(&scene.image.digest.to_string()),
                201,
                201,
            ),
            row("with tags", |scene| scene.manifest("new?tag=one&tag=two"), 201, 201),
            row(
                "by another digest",
                |scene| scene.manifest(&sha256(b"x").to_string()),
                400,
                400,
            ),
        ],
        Endpoint::DeleteManifest => vec![
            row("tag", |scene| scene.world.delete("/v2/a/manifests/t"), 202, 404),
            row(
                "manifest",
                |scene| scene.world.delete(format!("/v2/a/manifests/{}", scene.image.digest)),
                202,
                404,
            ),
        ],
        Endpoint::DeleteBlob => vec![
            row(
                "blob",
                |scene| scene.world.delete(format!("/v2/a/blobs/{}", sha256(b"loose"))),
                202,
                404,
            ),
            row(
                "blob in use",
                |scene| scene.world.delete(format!("/v2/a/blobs/{}", scene.image.layer)),
                405,
                405,
            ),
        ],
    }
}

/// A repeated read has the same result. A repeated write is acknowledged again or is a 404, and nothing is doubled.
#[tokio::test]
async fn every_request_again() {
    for &endpoint in Endpoint::ALL {
        for RepeatedRequest {
            what,
            call,
            first,
            again,
        } in rows(endpoint)
        {
            let scene = Scene::new().await;
            let one = call(&scene).send().await;
            assert_eq!(one.status, first, "{endpoint:?}, {what}");
            // An incomplete request line has no endpoint.
            let named = one.record.endpoint;
            assert!(named == Some(endpoint) || (first == 400 && named.is_none()), "{what}");
            let before = scene.world.metadata.counts();
            let two = call(&scene).send().await;
            assert_eq!(two.status, again, "{endpoint:?}, {what}, again");
            if first == again && first < 400 {
                assert_eq!(one.body, two.body, "{endpoint:?}, {what}");
                for name in ["docker-content-digest", "etag", "oci-subject", "link"] {
                    assert_eq!(one.get(name), two.get(name), "{endpoint:?}, {what}");
                }
            }
            let after = scene.world.metadata.counts();
            if again != 202 || first != 202 {
                let counts = |counts: RecordCounts| (counts.links, counts.manifests, counts.tags, counts.blobs);
                assert_eq!(
                    counts(before),
                    counts(after),
                    "{endpoint:?}, {what}: nothing is doubled"
                );
            }
        }
    }
}

/// Headers that change nothing, and headers that change the result.
#[tokio::test]
async fn the_same_request_with_other_headers() {
    type Make = fn(&Scene) -> TestRequest;
    let patch: Make = |scene| scene.world.patch(scene.upload.clone()).bytes("cd");
    let end: Make = |scene| {
        scene
            .world
            .put(format!("{}?digest={}", scene.upload, sha256(b"abcd")))
            .bytes("cd")
    };
    let manifest: Make = |scene| {
        let call = scene.world.put("/v2/a/manifests/new");
        call.bytes(scene.image.manifest.clone())
    };
    let pull: Make = |scene| get(scene, "/v2/a/manifests/t");
    let blob: Make = |scene| get(scene, &format!("/v2/a/blobs/{}", scene.image.layer));
    for (make, name, value, status) in [
        // distribution v3 refuses every other type of a chunk. Here the type of a chunk is ignored.
        (patch, "content-type", "application/octet-stream", 202),
        (patch, "content-type", "text/plain", 202),
        (patch, "content-range", "2-3", 202),
        (patch, "content-range", "bytes 2-3/*", 202),
        (patch, "content-range", "0-1", 416),
        (patch, "content-range", "nonsense", 416),
        (end, "content-type", "text/plain", 201),
        (end, "content-range", "2-3", 201),
        (end, "content-range", "0-1", 416),
        (end, "if-none-match", "*", 201),
        // The type is read from the document, and the response has a warning.
        (manifest, "x-nothing", "", 201),
        (manifest, "content-type", MediaType::OCI_MANIFEST, 201),
        (
            manifest,
            "content-type",
            "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            201,
        ),
        (manifest, "content-type", MediaType::DOCKER_MANIFEST, 400),
        (manifest, "content-type", MediaType::OCI_INDEX, 400),
        (manifest, "content-type", "nonsense", 400),
        // Conditions on a write are ignored, as in distribution v3: the last push of a tag counts.
        (manifest, "if-match", "\"other\"", 201),
        (manifest, "if-none-match", "*", 201),
        (manifest, "range", "bytes=0-1", 201),
        (pull, "accept", MediaType::OCI_MANIFEST, 200),
        (pull, "accept", "*/*", 200),
        // Clients know 404 from other registries, and then try what they can.
        (pull, "accept", MediaType::DOCKER_MANIFEST, 404),
        // Manifests have no ranges.
        (pull, "range", "bytes=0-1", 200),
        (pull, "if-range", "\"x\"", 200),
        (blob, "accept", MediaType::OCI_MANIFEST, 200),
        (blob, "accept-encoding", "gzip", 200),
        (blob, "content-type", "text/html", 200),
    ] {
        let scene = Scene::new().await;
        let answer = make(&scene).header(name, value).send().await;
        assert_eq!(answer.status, status, "{} with {name}: {value}", answer.request);
        if status == 200 {
            assert_eq!(answer.get("content-encoding"), None, "bytes as they were pushed");
        }
    }
}

/// Other bytes at the same position: the bytes that are acknowledged are those that are read back.
#[tokio::test]
async fn the_same_request_with_other_bytes() {
    let scene = Scene::new().await;
    let Scene {
        world, image: first, ..
    } = &scene;
    // A tag moves, and the manifest that it referred to stays.
    let second = world.push_image("a", "t", "second").await;
    assert_eq!(
        world.get("/v2/a/manifests/t").send().await.expect(200).body,
        second.manifest
    );
    let stays = world.get(format!("/v2/a/manifests/{}", first.digest)).send().await;
    assert_eq!(stays.expect(200).body, first.manifest);
    // A digest does not move.
    let by_digest = world.put(format!("/v2/a/manifests/{}", first.digest));
    let by_digest = by_digest.header("content-type", MediaType::OCI_MANIFEST);
    let refused = by_digest.bytes(second.manifest.clone()).send().await;
    refused.expect_error(400, "DIGEST_INVALID");
    // White space makes another manifest.
    let spaced = Bytes::from([&first.manifest[..], b"\n"].concat());
    world.put_manifest("a", "t", spaced.clone()).await.expect(201);
    assert_eq!(world.get("/v2/a/manifests/t").send().await.expect(200).body, spaced);
    assert_ne!(sha256(&spaced), first.digest);
    // A chunk with other bytes for a stored position is refused, and the first bytes stay.
    let upload = world.open_upload("a").await;
    for (bytes, status) in [("ab", 202), ("xy", 416)] {
        let call = world.patch(upload.clone()).header("content-range", "0-1");
        call.bytes(bytes).send().await.expect(status);
    }
    let put = |digest: Digest| world.put(format!("{upload}?digest={digest}"));
    put(sha256(b"ab")).send().await.expect(201);
    // So is the end of an upload. See `again` for other repetitions of it.
    put(sha256(b"ab"))
        .bytes("b")
        .send()
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(world.blob("a", &sha256(b"ab")).await.unwrap(), "ab");
}

/// Descriptors with false statements about a blob or a manifest. As in distribution v3, a manifest is accepted if its
/// targets are present. It is read back as it was sent, and a client that relies on it finds the error itself. What the
/// registry itself reports is true.
#[tokio::test]
async fn descriptors_with_false_statements() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change, u16); 9] = [
        (
            "a layer is larger",
            |manifest| manifest["layers"][0]["size"] = json!(1_000_000),
            201,
        ),
        (
            "a layer is empty",
            |manifest| manifest["layers"][0]["size"] = json!(0),
            201,
        ),
        (
            "the configuration is larger",
            |manifest| manifest["config"]["size"] = json!(99),
            201,
        ),
        (
            "a layer has another type",
            |manifest| manifest["layers"][0]["mediaType"] = json!("text/plain"),
            201,
        ),
        (
            "a layer is said to be a manifest",
            |manifest| manifest["layers"][0]["mediaType"] = json!(MediaType::OCI_MANIFEST),
            201,
        ),
        (
            "the subject has another size",
            |manifest| manifest["subject"]["size"] = json!(1),
            201,
        ),
        // These are no descriptors.
        (
            "a size below nothing",
            |manifest| manifest["layers"][0]["size"] = json!(-1),
            400,
        ),
        (
            "a size that is a text",
            |manifest| manifest["layers"][0]["size"] = json!("5"),
            400,
        ),
        (
            "no size",
            |manifest| manifest["layers"][0] = json!({ "mediaType": "a/b", "digest": sha256(b"x") }),
            400,
        ),
    ];
    for (what, change, status) in changes {
        let scene = Scene::new().await;
        let Scene { world, image: of, .. } = &scene;
        let mut manifest = image(b"{\"config\":\"app\"}", &[b"layer of app"]);
        manifest["subject"] = descriptor(MediaType::OCI_MANIFEST, &of.manifest);
        change(&mut manifest);
        let bytes = bytes_of(&manifest);
        let answer = world.put_manifest("a", "other", bytes.clone()).await;
        assert_eq!(answer.status, status, "{what}");
        if status != 201 {
            answer.expect_error(status, "MANIFEST_INVALID");
            continue;
        }
        assert_eq!(
            world.get("/v2/a/manifests/other").send().await.expect(200).body,
            bytes,
            "{what}"
        );
        let referrers = world
            .get(format!("/v2/a/referrers/{}", of.digest))
            .send()
            .await
            .expect(200);
        let shown = &referrers.json()["manifests"][0];
        assert_eq!(
            (&shown["size"], &shown["mediaType"]),
            (&json!(bytes.len()), &manifest["mediaType"])
        );
        let blob = world.head(format!("/v2/a/blobs/{}", of.layer)).send().await.expect(200);
        assert_eq!(blob.header("content-length"), "12");
    }
}

/// An index with false statements about its manifests, and artifacts whose subject is something else.
#[tokio::test]
async fn indexes_with_false_statements() {
    let scene = Scene::new().await;
    let Scene { world, image: of, .. } = &scene;
    for (what, change) in [
        ("another type", json!({ "mediaType": MediaType::OCI_INDEX })),
        ("another size", json!({ "size": 1 })),
        (
            "another platform",
            json!({ "platform": { "os": "plan9", "architecture": "mips" } }),
        ),
    ] {
        let mut list = index(&[&of.manifest]);
        let entry = list["manifests"][0].as_object_mut().unwrap();
        entry.extend(change.as_object().unwrap().clone());
        let bytes = bytes_of(&list);
        world.put_manifest("a", "list", bytes.clone()).await.expect(201);
        assert_eq!(
            world.get("/v2/a/manifests/list").send().await.expect(200).body,
            bytes,
            "{what}"
        );
        let child = world
            .get(format!("/v2/a/manifests/{}", of.digest))
            .send()
            .await
            .expect(200);
        assert_eq!(child.header("content-type"), MediaType::OCI_MANIFEST, "{what}");
    }
    // A subject may be absent, or a blob.
    for subject in [&b"absent"[..], b"loose"] {
        world.push_blob("a", "{}").await;
        let bytes = bytes_of(&artifact("a/b", subject));
        let answer = world.put_manifest("a", sha256(&bytes), bytes).await.expect(201);
        assert_eq!(answer.header("oci-subject"), sha256(subject).to_string());
    }
    // The type of a document without a type of its own is that of its push, for ever. The same bytes cannot be pushed
    // with another type, because they would be read back with the first one.
    let mut untyped = image(b"{\"config\":\"app\"}", &[]);
    untyped.as_object_mut().unwrap().remove("mediaType");
    let push = |tag: &str, media_type: Option<&str>| {
        let mut call = world.put(format!("/v2/a/manifests/{tag}")).bytes(bytes_of(&untyped));
        if let Some(media_type) = media_type {
            call = call.header("content-type", media_type);
        }
        call.send()
    };
    push("one", Some(MediaType::OCI_MANIFEST)).await.expect(201);
    push("two", Some(MediaType::OCI_MANIFEST)).await.expect(201);
    push("three", Some(MediaType::DOCKER_MANIFEST))
        .await
        .expect_error(400, "MANIFEST_INVALID");
    for (method, reference, status) in [
        (Method::GET, "two", 200),
        (Method::GET, "three", 404),
        (Method::HEAD, "one", 200),
    ] {
        let answer = world
            .call(method, format!("/v2/a/manifests/{reference}"))
            .send()
            .await
            .expect(status);
        if status == 200 {
            assert_eq!(answer.header("content-type"), MediaType::OCI_MANIFEST);
        }
    }
}
