//! Reading manifests (end-3): bytes, types, negotiation, caches.

use oci::MediaType;
use serde_json::json;

use crate::support::content::{bytes_of, image, padded};
use crate::support::{World, sha256, sha512};

#[tokio::test]
async fn bytes_are_returned_exactly_as_received() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let plain = image(b"{}", &[]);
    for (number, text) in [
        plain.to_string(),
        serde_json::to_string_pretty(&plain).unwrap(),
        format!("\n\t {plain} \r\n"),
        plain
            .to_string()
            .replacen('{', "{\"unknown\": 1.50e3, \"\\u00e9\": \"\\/\",", 1),
        format!("{plain:32768}"),
        format!("{plain}{}", " ".repeat(32 << 10)),
        format!("{plain}{}", "\n".repeat(1 << 20)),
    ]
    .into_iter()
    .enumerate()
    {
        for digest in [sha256(text.as_bytes()), sha512(text.as_bytes())] {
            let tag = format!("t{number}");
            let target = format!("/v2/a/manifests/{digest}?tag={tag}");
            let put = world
                .put(target)
                .header("content-type", MediaType::OCI_MANIFEST)
                .bytes(text.clone());
            let put = put.send().await.expect(201);
            assert_eq!(put.header("docker-content-digest"), digest.to_string());
            assert_eq!(put.location(), format!("/v2/a/manifests/{digest}"));
            for reference in [digest.to_string(), tag] {
                let target = format!("/v2/a/manifests/{reference}");
                let get = world.get(target.clone()).send().await.expect(200);
                assert_eq!(get.body, text);
                let head = world.head(target).send().await.expect(200);
                for answer in [get, head] {
                    assert_eq!(answer.header("content-length"), text.len().to_string());
                    assert_eq!(answer.header("content-type"), MediaType::OCI_MANIFEST);
                    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
                    assert_eq!(answer.header("etag"), format!("\"{digest}\""));
                    let cache = if reference.contains(':') {
                        "private, max-age=31536000, immutable"
                    } else {
                        "private, no-cache"
                    };
                    assert_eq!(answer.header("cache-control"), cache);
                }
            }
        }
    }
}

/// A manifest keeps the type with which it was pushed.
#[tokio::test]
async fn types() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let index = |media_type: &str| json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [] });
    let typed = |media_type: &str| {
        let mut image = image(b"{}", &[]);
        image["mediaType"] = media_type.into();
        image
    };
    for (media_type, manifest) in [
        (MediaType::OCI_MANIFEST, typed(MediaType::OCI_MANIFEST)),
        (MediaType::DOCKER_MANIFEST, typed(MediaType::DOCKER_MANIFEST)),
        (MediaType::OCI_INDEX, index(MediaType::OCI_INDEX)),
        (MediaType::DOCKER_LIST, index(MediaType::DOCKER_LIST)),
        ("application/vnd.example.thing+json", json!({ "anything": [1, 2, 3] })),
        ("application/json", json!({})),
    ] {
        let bytes = bytes_of(&manifest);
        for parameters in ["", "; charset=utf-8", " ;x=y"] {
            let put = world
                .put("/v2/a/manifests/t")
                .header("content-type", format!("{media_type}{parameters}"));
            put.bytes(bytes.clone()).send().await.expect(201);
            for method in ["GET", "HEAD"] {
                for reference in ["t".to_owned(), sha256(&bytes).to_string()] {
                    let target = format!("/v2/a/manifests/{reference}");
                    let answer = world.call(method.parse().unwrap(), target).send().await.expect(200);
                    assert_eq!(answer.header("content-type"), media_type);
                }
            }
        }
    }
}

#[tokio::test]
async fn negotiation() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const OCI: &str = MediaType::OCI_MANIFEST;
    let world = World::new().await;
    let image = world.push_image("a", "t", "app").await;
    for (lines, accepted) in [
        (vec![], true),
        (vec!["*/*".to_owned()], true),
        (vec!["application/*".to_owned()], true),
        (vec!["application/json".to_owned()], true),
        (vec![OCI.to_owned()], true),
        (vec![format!("{DOCKER}, {OCI}")], true),
        (vec![format!("{DOCKER},{OCI};q=0.5")], true),
        (vec![DOCKER.to_owned(), OCI.to_owned()], true),
        (vec![DOCKER.to_owned(), "*/*".to_owned()], true),
        (
            vec![
                format!("{DOCKER}, text/html"),
                format!("{}, {OCI}", MediaType::OCI_INDEX),
            ],
            true,
        ),
        (vec![String::new()], true),
        (vec![" , ".to_owned()], true),
        (vec![DOCKER.to_owned()], false),
        (vec![DOCKER.to_owned(), MediaType::OCI_INDEX.to_owned()], false),
        (vec!["text/html".to_owned()], false),
        (vec![format!("{OCI};q=0")], false),
        (vec![format!("{OCI}; q=0.000, {DOCKER}")], false),
    ] {
        for method in ["GET", "HEAD"] {
            for reference in ["t".to_owned(), image.digest.to_string()] {
                let mut call = world.call(method.parse().unwrap(), format!("/v2/a/manifests/{reference}"));
                for line in &lines {
                    call = call.header("accept", line);
                }
                let answer = call.send().await;
                assert_eq!(
                    answer.status,
                    if accepted { 200 } else { 404 },
                    "{method} {reference} {lines:?}"
                );
                if !accepted && method == "GET" {
                    assert_eq!(answer.code(), "MANIFEST_UNKNOWN");
                }
            }
        }
    }
}

#[tokio::test]
async fn conditions() {
    let world = World::new().await;
    let image = world.push_image("a", "t", "app").await;
    let other = world.push_image("a", "u", "other").await;
    let both = format!("\"{}\", W/\"{}\"", other.digest, image.digest);
    for (tag, status) in [
        (format!("\"{}\"", image.digest), 304),
        ("*".to_owned(), 304),
        (both, 304),
        (format!("\"{}\"", other.digest), 200),
    ] {
        for method in ["GET", "HEAD"] {
            for reference in ["t".to_owned(), image.digest.to_string()] {
                let call = world.call(method.parse().unwrap(), format!("/v2/a/manifests/{reference}"));
                let answer = call.header("if-none-match", &tag).send().await.expect(status);
                assert_eq!(answer.header("etag"), format!("\"{}\"", image.digest));
                assert!(answer.header("cache-control").starts_with("private, "));
            }
        }
    }
}

#[tokio::test]
async fn absent() {
    let world = World::new().await;
    let image = world.push_image("a", "t", "app").await;
    for target in [
        "/v2/a/manifests/other".to_owned(),
        "/v2/b/manifests/t".to_owned(),
        format!("/v2/b/manifests/{}", image.digest),
        format!("/v2/a/manifests/{}", sha256(b"x")),
        // Blobs are not manifests.
        format!("/v2/a/manifests/{}", image.config),
        format!("/v2/a/manifests/{}", image.layer),
        // Not a valid tag.
        "/v2/a/manifests/.t".to_owned(),
        format!("/v2/a/manifests/{}", "t".repeat(129)),
    ] {
        for method in ["GET", "DELETE"] {
            let answer = world.call(method.parse().unwrap(), target.clone()).send().await;
            answer.expect_error(404, "MANIFEST_UNKNOWN");
        }
        world.head(target).send().await.expect(404);
    }
}

/// A manifest is not a blob, inline or not.
#[tokio::test]
async fn manifests_are_not_blobs() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    for length in [1000, 40_000] {
        let manifest = padded(&image(b"{}", &[]), length);
        world.put_manifest("a", "t", manifest.clone()).await.expect(201);
        assert_eq!(world.blob("a", &sha256(&manifest)).await, None);
        // It is a blob if the same bytes are pushed as one.
        world.push_blob("a", manifest.clone()).await;
        assert_eq!(world.blob("a", &sha256(&manifest)).await, Some(manifest));
    }
}

/// `OCI-Namespace` reports the namespace that was used ("Registry Proxying"). This registry uses none, so it sends no
/// such header.
#[tokio::test]
async fn no_namespace_header_is_sent() {
    let world = World::new().await;
    let image = world.push_image("a", "t", "app").await;
    for query in [
        "",
        "?ns=registry.example",
        "?ns=registry.example:5000",
        "?x=y&ns=r",
        "?ns=",
        "?ns=a%0d%0aSet-Cookie:%20x",
    ] {
        for (target, method, status) in [
            ("/v2/a/manifests/t".to_owned(), "GET", 200),
            (format!("/v2/a/manifests/{}", image.digest), "GET", 200),
            (format!("/v2/a/manifests/{}", image.digest), "HEAD", 200),
            (format!("/v2/a/blobs/{}", image.layer), "GET", 200),
            (format!("/v2/a/blobs/{}", image.layer), "HEAD", 200),
            (format!("/v2/a/referrers/{}", image.digest), "GET", 200),
            ("/v2/a/tags/list".to_owned(), "GET", 200),
            ("/v2/".to_owned(), "GET", 200),
            ("/v2/a/manifests/absent".to_owned(), "GET", 404),
            ("/v2/a/blobs/uploads/".to_owned(), "POST", 202),
        ] {
            let call = world.call(method.parse().unwrap(), format!("{target}{query}"));
            let answer = call.send().await.expect(status);
            assert_eq!(answer.get("oci-namespace"), None, "{method} {target}{query}");
            assert_eq!(answer.get("set-cookie"), None);
        }
    }
}
