//! Pushed content in a browser: nothing that a client has pushed is served as a page, or as something that runs in one.

use std::sync::Arc;

use http::Method;
use oci::MediaType;
use registry::store::memory::MemoryBlobs;
use serde_json::json;

use crate::support::content::{bytes_of, index};
use crate::support::{Setup, Users, World, sha256};

const PAGE: &str = "<!DOCTYPE html><script>alert(document.domain)</script>";
/// What a browser accepts.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn private(blobs: MemoryBlobs) -> World {
    World::with(Setup {
        blobs,
        ..Setup::private(&Arc::new(Users::private()))
    })
    .await
}

/// Pushes [`PAGE`] as a page, and returns its path.
async fn push_page(world: &World) -> String {
    let digest = sha256(PAGE.as_bytes());
    let push = world.post(format!("/v2/a/b/blobs/uploads/?digest={digest}"));
    let push = push.user("alice").header("content-type", "text/html").bytes(PAGE);
    push.send().await.expect(201);
    format!("/v2/a/b/blobs/{digest}")
}

#[tokio::test]
async fn s19_a_pushed_page_is_not_served_as_one() {
    let world = private(MemoryBlobs::new()).await;
    let blob = push_page(&world).await;
    for (method, range, status, content_type) in [
        (Method::GET, None, 200, "application/octet-stream"),
        (Method::HEAD, None, 200, "application/octet-stream"),
        (Method::GET, Some("bytes=0-14"), 206, "application/octet-stream"),
        (
            Method::GET,
            Some("bytes=0-3,8-9"),
            206,
            "multipart/byteranges; boundary=",
        ),
    ] {
        let mut call = world.call(method, blob.as_str()).user("alice");
        call = call.header("accept", BROWSER);
        if let Some(range) = range {
            call = call.header("range", range);
        }
        let answer = call.send().await.expect(status);
        assert!(answer.header("content-type").starts_with(content_type), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    // The object store sends it with the type that the redirect demands.
    let redirecting = private(MemoryBlobs::redirecting("https://objects.example/bucket")).await;
    let blob = push_page(&redirecting).await;
    let redirect = redirecting.get(blob).user("alice").header("accept", BROWSER);
    let redirect = redirect.send().await.expect(307);
    assert!(
        redirect
            .header("location")
            .ends_with("?response-content-type=application%2Foctet-stream"),
        "{redirect:?}"
    );
}

#[tokio::test]
async fn s19_manifests_lists_and_answers_of_the_api_are_json() {
    let world = private(MemoryBlobs::new()).await;
    let mut manifest = index(&[]);
    manifest["annotations"] = json!({ "title": PAGE });
    let put = |content_type: &str| {
        let put = world.put("/v2/a/b/manifests/latest").user("alice");
        put.header("content-type", content_type).bytes(bytes_of(&manifest))
    };
    for content_type in ["text/html", "application/xhtml+xml", "image/svg+xml", "text/javascript"] {
        let refused = put(content_type).send().await;
        assert!((400..500).contains(&refused.status), "{content_type}: {refused:?}");
    }
    put(MediaType::OCI_INDEX).send().await.expect(201);
    let referrers = format!("/v2/a/b/referrers/{}", sha256(PAGE.as_bytes()));
    for (target, content_type) in [
        ("/v2/a/b/manifests/latest", MediaType::OCI_INDEX),
        (referrers.as_str(), MediaType::OCI_INDEX),
        ("/v2/a/b/tags/list", "application/json"),
        ("/v2/_catalog", "application/json"),
        ("/token?scope=%3Cscript%3E", "application/json"),
        ("/.well-known/jwks.json", "application/json"),
        ("/api/v1/whoami", "application/json"),
        ("/api/v1/tags?repository=a/b", "application/json"),
        ("/api/v1/openapi.json", "application/json"),
        // Errors, which may repeat what was asked for.
        ("/v2/%3Cscript%3E/tags/list", "application/json"),
        ("/v2/a/b/manifests/%3Cscript%3E", "application/json"),
        ("/api/v1/%3Cscript%3E", "application/json"),
    ] {
        let answer = world.get(target).user("alice").header("accept", BROWSER).send().await;
        assert_eq!(answer.header("content-type"), content_type, "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}
