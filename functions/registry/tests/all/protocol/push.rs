//! Pushing manifests (end-7): validation, tags, bounds.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use oci::MediaType;
use registry::store::blobs::BodyError;
use registry::store::wrapped::StoreMethod;
use serde_json::json;

use crate::support::content::{artifact, bytes_of, descriptor, image, index, padded};
use crate::support::{Script, World, sha256, sha512};

const OCI: &str = MediaType::OCI_MANIFEST;

#[tokio::test]
async fn refused_documents() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let good = image(b"{}", &[]);
    let but = |key: &str, value: serde_json::Value| {
        let mut document = good.clone();
        document[key] = value;
        document.to_string()
    };
    let config = descriptor(MediaType::OCI_CONFIG, b"{}");
    let deep = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let both = json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] }).to_string();
    let twice = good.to_string().replacen('{', "{\"layers\":[],", 1);
    let twice_within = good.to_string().replace("\"size\":2", "\"size\":2,\"size\":2");
    let negative = good.to_string().replace("\"size\":2", "\"size\":-2");
    for (content_type, body) in [
        (Some(OCI), String::new()),
        (Some(OCI), "no json".to_owned()),
        (Some(OCI), "[]".to_owned()),
        (Some(OCI), "\"text\"".to_owned()),
        (Some(OCI), format!("{good}{good}")),
        (Some(OCI), format!("{good}x")),
        (Some(OCI), good.to_string()[1..].to_owned()),
        (Some(OCI), format!("\u{feff}{good}")),
        (Some(OCI), "{}".to_owned()),
        (Some(OCI), but("schemaVersion", json!(1))),
        (Some(OCI), but("schemaVersion", json!("2"))),
        (Some(OCI), but("config", json!(null))),
        (Some(OCI), but("config", json!("text"))),
        (Some(OCI), but("layers", json!({}))),
        (Some(OCI), but("layers", json!([{}]))),
        (
            Some(OCI),
            but(
                "config",
                json!({ "mediaType": "a/b", "digest": "sha256:12", "size": 1 }),
            ),
        ),
        (
            Some(OCI),
            but(
                "config",
                json!({ "mediaType": "a/b", "digest": sha256(b""), "size": 1.5 }),
            ),
        ),
        (
            Some(OCI),
            but("config", json!({ "mediaType": "a/b", "digest": sha256(b"") })),
        ),
        (Some(OCI), but("subject", json!({ "digest": sha256(b"") }))),
        (Some(OCI), but("annotations", json!({ "a": 1 }))),
        (Some(OCI), but("artifactType", json!("no type"))),
        // S8: a document with two meanings.
        (Some(OCI), but("manifests", json!([]))),
        (Some(OCI), but("Layers", json!([]))),
        (Some(OCI), both.clone()),
        (Some(MediaType::OCI_INDEX), both),
        (Some(MediaType::OCI_INDEX), good.to_string()),
        (Some(MediaType::DOCKER_MANIFEST), good.to_string()),
        (Some("application/json"), good.to_string()),
        (Some(OCI), twice),
        (Some(OCI), twice_within),
        (Some(OCI), negative),
        (Some(OCI), deep(64)),
        (Some(OCI), deep(1_000_000)),
        // Types that a browser would run.
        (Some("text/html"), good.to_string()),
        (Some("text/html"), "{}".to_owned()),
        (Some("image/svg+xml"), "{}".to_owned()),
        (Some("nonsense"), good.to_string()),
        (Some(""), good.to_string()),
        (None, "{}".to_owned()),
        (
            Some(MediaType::DOCKER_SCHEMA1_SIGNED),
            json!({ "schemaVersion": 1, "fsLayers": [] }).to_string(),
        ),
        (
            Some("application/json"),
            json!({ "schemaVersion": 1, "fsLayers": [] }).to_string(),
        ),
    ] {
        let mut call = world.put("/v2/a/manifests/t").bytes(body.clone());
        if let Some(content_type) = content_type {
            call = call.header("content-type", content_type);
        }
        let answer = call.send().await;
        let start: String = body.chars().take(100).collect();
        assert_eq!(answer.status, 400, "{content_type:?} {start}");
        assert_eq!(answer.code(), "MANIFEST_INVALID", "{content_type:?} {start}");
    }
    let invalid = Bytes::from_static(b"{\"schemaVersion\":2,\"x\":\"\xff\"}");
    let call = world
        .put("/v2/a/manifests/t")
        .header("content-type", "application/json")
        .bytes(invalid);
    call.send().await.expect_error(400, "MANIFEST_INVALID");
    world.get("/v2/a/manifests/t").send().await.expect(404);
}

/// Depth and number of references, at the limit and one past it.
#[tokio::test]
async fn bounds_of_documents() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let deep = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    for (levels, status) in [(64, 201), (65, 400)] {
        let call = world
            .put("/v2/a/manifests/t")
            .header("content-type", "application/json");
        call.bytes(deep(levels)).send().await.expect(status);
    }
    for (layers, status) in [(4095, 201), (4096, 400)] {
        let layers = vec![b"{}".as_slice(); layers];
        let manifest = bytes_of(&image(b"{}", &layers));
        world.put_manifest("a", "t", manifest).await.expect(status);
    }
}

#[tokio::test]
async fn the_content_type_may_be_left_out() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let call = world.put("/v2/a/manifests/t").bytes(image(b"{}", &[]).to_string());
    let answer = call.send().await.expect(201);
    let warning = answer.header("warning");
    assert!(warning.starts_with("299 - \"") && warning.ends_with('"'), "{warning}");
    assert!(warning.len() <= 4096);
    let get = world.get("/v2/a/manifests/t").send().await.expect(200);
    assert_eq!(get.header("content-type"), OCI);
    let put = world
        .put_manifest("a", "t", bytes_of(&image(b"{}", &[])))
        .await
        .expect(201);
    assert_eq!(put.get("warning"), None);
}

/// 4 MiB, and one byte more. That body is not read to its end, whether its length is declared or not (S7).
#[tokio::test]
async fn size_limit() {
    const LIMIT: usize = 4 << 20;
    const CHUNK: usize = 64 << 10;
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = padded(&image(b"{}", &[]), LIMIT);
    for streamed in [false, true] {
        let call = world.put("/v2/a/manifests/t").header("content-type", OCI);
        let call = if streamed {
            call.stream(Script::in_chunks(&manifest, CHUNK))
        } else {
            call.bytes(manifest.clone())
        };
        call.send().await.expect(201);
        let get = world.get("/v2/a/manifests/t").send().await.expect(200);
        assert!(get.body == manifest);
    }
    let one_more = padded(&image(b"{}", &[]), LIMIT + 1);
    let much_more = Bytes::from(vec![b' '; 16 * LIMIT]);
    for (body, declared, at_most) in [
        (&one_more, true, 0),
        (&much_more, true, 0),
        (&one_more, false, LIMIT + 1),
        (&much_more, false, LIMIT + CHUNK),
    ] {
        let script = Script::in_chunks(body, CHUNK);
        let given = script.given();
        let mut call = world.put("/v2/a/manifests/u").header("content-type", OCI);
        if declared {
            call = call.header("content-length", body.len().to_string());
        }
        call.stream(script).send().await.expect_error(413, "MANIFEST_INVALID");
        let given = given.load(Ordering::SeqCst);
        assert!(given <= at_most, "read {given} bytes");
    }
    world.get("/v2/a/manifests/u").send().await.expect(404);
}

#[tokio::test]
async fn bodies_that_do_not_arrive() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let half = manifest.slice(..manifest.len() / 2);
    for (body, length, status) in [
        (Script::of(half.clone()).fail(BodyError::Cut), Some(manifest.len()), 400),
        (Script::of(half.clone()).fail(BodyError::Stalled), None, 408),
        (Script::of(half), Some(manifest.len()), 400),
        (Script::of(manifest.clone()), Some(manifest.len() + 1), 400),
    ] {
        let mut call = world.put("/v2/a/manifests/t").header("content-type", OCI).stream(body);
        if let Some(length) = length {
            call = call.header("content-length", length.to_string());
        }
        call.send().await.expect(status);
        world.get("/v2/a/manifests/t").send().await.expect(404);
    }
}

/// The bytes of a manifest are in the table up to 32 KiB, and in an object beyond.
#[tokio::test]
async fn inline_limit() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    world.push_blob("b", "{}").await;
    let before = world.blobs.sealed();
    let pending_deletions = world.metadata.counts().deletion_queue;
    for (length, objects) in [(32_767, 0), (32_768, 0), (32_769, 1)] {
        let manifest = padded(&image(b"{}", &[]), length);
        world.put_manifest("a", "t", manifest.clone()).await.expect(201);
        assert_eq!(world.blobs.sealed() - before, objects, "{length}");
        let _ = world.counts.take();
        assert_eq!(world.get("/v2/a/manifests/t").send().await.expect(200).body, manifest);
        assert_eq!(world.counts.of(StoreMethod::Read), objects as u64);
        world.head("/v2/a/manifests/t").send().await.expect(200);
        world
            .head(format!("/v2/a/manifests/{}", sha256(&manifest)))
            .send()
            .await
            .expect(200);
        assert_eq!(
            world.counts.of(StoreMethod::Read),
            objects as u64,
            "HEAD needs no object"
        );
    }
    // Again, with another tag, and by digest: no other object.
    let large = padded(&image(b"{}", &[]), 32_769);
    for reference in ["t".to_owned(), "u".to_owned(), sha256(&large).to_string()] {
        world.put_manifest("a", reference, large.clone()).await.expect(201);
    }
    assert_eq!(world.blobs.sealed() - before, 1);
    assert_eq!(world.metadata.counts().deletion_queue, pending_deletions);
    // In another repository: the same object, and the other copy is scheduled for deletion.
    world.put_manifest("b", "t", large.clone()).await.expect(201);
    assert_eq!(world.metadata.counts().deletion_queue, pending_deletions + 1);
    assert_eq!(world.get("/v2/b/manifests/t").send().await.expect(200).body, large);
    world
        .delete(format!("/v2/a/manifests/{}", sha256(&large)))
        .send()
        .await
        .expect(202);
    assert_eq!(world.get("/v2/b/manifests/t").send().await.expect(200).body, large);
    // Under its sha512 digest it is another object.
    world.put_manifest("b", sha512(&large), large.clone()).await.expect(201);
    assert_eq!(
        world
            .get(format!("/v2/b/manifests/{}", sha512(&large)))
            .send()
            .await
            .expect(200)
            .body,
        large
    );
}

/// The object of a refused large manifest is deleted by the sweep of its session, and does not disturb other pushes.
#[tokio::test]
async fn a_large_manifest_that_is_refused() {
    let world = World::new().await;
    let manifest = padded(&image(b"missing", &[]), 100_000);
    let refused = world.put_manifest("a", "t", manifest.clone()).await;
    refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(world.blobs.objects(), world.sessions.sessions(), "a row names it");
    assert_eq!(
        world.metadata.counts(),
        registry::store::memory::RecordCounts::default()
    );
    assert_eq!(world.blob("a", &sha256(&manifest)).await, None);
    world.push_blob("a", "missing").await;
    world.put_manifest("a", "t", manifest.clone()).await.expect(201);
    let get = world.get("/v2/a/manifests/t").send().await.expect(200);
    assert_eq!(get.body, manifest);
}

#[tokio::test]
async fn digests() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for wrong in [sha256(b"x"), sha512(b"x")] {
        let answer = world.put_manifest("a", wrong, manifest.clone()).await;
        answer.expect_error(400, "DIGEST_INVALID");
    }
    for malformed in ["sha256:1", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", ":", "a:b"] {
        let answer = world.put_manifest("a", malformed, manifest.clone()).await;
        answer.expect_error(400, "DIGEST_INVALID");
    }
    for right in [sha256(&manifest), sha512(&manifest)] {
        let answer = world.put_manifest("a", right, manifest.clone()).await.expect(201);
        assert_eq!(answer.header("docker-content-digest"), right.to_string());
        assert_eq!(answer.get("oci-tag"), None);
        assert_eq!(answer.get("oci-subject"), None);
    }
}

#[tokio::test]
async fn tags_in_the_path() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let longest = "t".repeat(128);
    for tag in ["latest", "1", "_", "A.b-c_D", &longest] {
        let answer = world.put_manifest("a", tag, manifest.clone()).await.expect(201);
        assert_eq!(answer.location(), format!("/v2/a/manifests/{}", sha256(&manifest)));
        world.get(format!("/v2/a/manifests/{tag}")).send().await.expect(200);
    }
    for tag in [".", "-a", "a%20b", "a%252fb", "%C3%A9", "", &"t".repeat(129)] {
        let answer = world.put_manifest("a", tag, manifest.clone()).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    let slash = world.put_manifest("a", "a%2fb", manifest).await;
    slash.expect_error(404, "UNSUPPORTED");
}

/// `?tag=`: all of them or none, and the response lists each.
#[tokio::test]
async fn tags_in_the_query() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let digest = sha256(&manifest);
    let put = |reference: String, tags: Vec<String>| {
        let query: Vec<_> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let target = format!("/v2/a/manifests/{reference}?{}", query.join("&"));
        world
            .put(target)
            .header("content-type", OCI)
            .bytes(manifest.clone())
            .send()
    };
    let names = |count: usize| (0..count).map(|number| format!("t{number}")).collect::<Vec<_>>();
    let present = || async {
        let list = world.get("/v2/a/tags/list").send().await;
        match list.status {
            200 => list.json()["tags"].as_array().unwrap().len(),
            _ => 0,
        }
    };
    // More than the limit.
    put(digest.to_string(), names(21))
        .await
        .expect_error(414, "MANIFEST_INVALID");
    put("tag".to_owned(), names(20))
        .await
        .expect_error(414, "MANIFEST_INVALID");
    put(digest.to_string(), vec!["same".to_owned(); 21])
        .await
        .expect_error(414, "MANIFEST_INVALID");
    // One of them is invalid.
    for wrong in ["", "-x", "a%20b", &"t".repeat(129)] {
        let tags = vec!["good".to_owned(), wrong.to_owned()];
        put(digest.to_string(), tags)
            .await
            .expect_error(400, "MANIFEST_INVALID");
    }
    assert_eq!(present().await, 0);
    world.get(format!("/v2/a/manifests/{digest}")).send().await.expect(404);

    for count in [1, 2, 10, 19, 20] {
        let answer = put(digest.to_string(), names(count)).await.expect(201);
        assert_eq!(answer.lines("oci-tag"), names(count));
        assert_eq!(present().await, count);
        for tag in names(count) {
            let head = world.head(format!("/v2/a/manifests/{tag}")).send().await.expect(200);
            assert_eq!(head.header("docker-content-digest"), digest.to_string());
        }
    }
    // With a tag in the path, which counts too. The same tag twice counts once.
    let answer = put("path".to_owned(), names(19)).await.expect(201);
    assert_eq!(answer.lines("oci-tag"), names(19));
    world.head("/v2/a/manifests/path").send().await.expect(200);
    let answer = put("t0".to_owned(), names(20)).await.expect(201);
    assert_eq!(answer.lines("oci-tag"), names(20));
    let answer = put(digest.to_string(), vec!["x".to_owned(), "x".to_owned()])
        .await
        .expect(201);
    assert_eq!(answer.lines("oci-tag"), ["x"]);
}

/// If a reference is missing, neither the manifest nor any tag appears, and existing tags stay.
#[tokio::test]
async fn tags_appear_together_with_their_manifest_or_not_at_all() {
    let world = World::new().await;
    let before = world.push_image("a", "kept", "before").await;
    let manifest = bytes_of(&image(b"{}", &[b"missing"]));
    let digest = sha256(&manifest);
    let target = format!("/v2/a/manifests/{digest}?tag=kept&tag=new");
    let put = || {
        world
            .put(target.clone())
            .header("content-type", OCI)
            .bytes(manifest.clone())
            .send()
    };
    world.push_blob("a", "{}").await;
    put().await.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    let kept = world.head("/v2/a/manifests/kept").send().await.expect(200);
    assert_eq!(kept.header("docker-content-digest"), before.digest.to_string());
    world.head("/v2/a/manifests/new").send().await.expect(404);
    world.head(format!("/v2/a/manifests/{digest}")).send().await.expect(404);
    world.push_blob("a", "missing").await;
    put().await.expect(201);
    for tag in ["kept", "new"] {
        let head = world.head(format!("/v2/a/manifests/{tag}")).send().await.expect(200);
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
    }
    // The manifest that lost its tag still exists.
    world
        .head(format!("/v2/a/manifests/{}", before.digest))
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn subjects() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let subject = bytes_of(&image(b"{}", &[]));
    // Before its subject, and after it.
    let early = world
        .put_manifest("a", "early", bytes_of(&artifact("a/early", &subject)))
        .await
        .expect(201);
    world.put_manifest("a", "subject", subject.clone()).await.expect(201);
    let late = world
        .put_manifest("a", "late", bytes_of(&artifact("a/late", &subject)))
        .await
        .expect(201);
    for answer in [early, late] {
        assert_eq!(answer.header("oci-subject"), sha256(&subject).to_string());
    }
    let mut of_an_index = index(&[]);
    of_an_index["subject"] = descriptor(OCI, &subject);
    let answer = world
        .put_manifest("a", "index", bytes_of(&of_an_index))
        .await
        .expect(201);
    assert_eq!(answer.header("oci-subject"), sha256(&subject).to_string());
}
