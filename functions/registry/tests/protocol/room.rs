//! Memory that a request holds whole: asked for, bounded in time, given back.

use std::sync::atomic::Ordering;

use oci::MediaType;
use registry::RequestBody;
use registry::store::blobs::BodyError;

use crate::support::content::{artifact, bytes_of, image};
use crate::support::{Script, World, sha256};

const OCI: &str = MediaType::OCI_MANIFEST;

/// What a manifest needs of memory is asked for once, when its body has begun, and given back; nothing more is read
/// before it is granted.
#[tokio::test]
async fn room_for_a_manifest() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let body = || Script::in_chunks(&manifest, 10);
    let put = || world.put("/v2/a/manifests/t").header("content-type", OCI);
    for (declared, room) in [(true, manifest.len()), (false, 4 << 20)] {
        let watched = world.clone();
        let body = body().meanwhile(async move { assert_eq!(watched.clock.held(), room) });
        let mut call = put();
        if declared {
            call = call.header("content-length", manifest.len().to_string());
        }
        call.stream(body).send().await.expect(201);
        assert_eq!(world.clock.rooms(), [room]);
        assert_eq!(world.clock.held(), 0);
    }
    // Not for what says that it is too large, nor for what never comes.
    put()
        .header("content-length", "4194305")
        .stream(body())
        .send()
        .await
        .expect(413);
    put()
        .stream(Script::new().fail(BodyError::Cut))
        .send()
        .await
        .expect(400);
    assert_eq!(world.clock.rooms(), [0; 0]);

    world.clock.fill(true);
    let body = body();
    let given = body.given();
    put().stream(body).send().await.expect_error(503, "TOOMANYREQUESTS");
    assert_eq!(given.load(Ordering::SeqCst), 10);
    world.clock.fill(false);
    put().bytes(manifest.clone()).send().await.expect(201);
}

/// A page of referrers is held until it is sent, or nobody wants it any more; an empty one needs nothing.
#[tokio::test]
async fn room_for_referrers() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let signature = bytes_of(&artifact("a/signature", b"subject"));
    world
        .put("/v2/a/manifests/signature")
        .header("content-type", OCI)
        .bytes(signature)
        .send()
        .await
        .expect(201);
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    let request = http::Request::get(target.as_str()).header("host", "localhost");
    let request = request.body(Box::pin(Script::new()) as RequestBody);
    let answer = world.registry.handle(request.unwrap()).await;
    assert_eq!(world.clock.held(), 4 << 20);
    drop(answer);
    assert_eq!(world.clock.held(), 0);

    world.clock.fill(true);
    world.get(target).send().await.expect_error(503, "TOOMANYREQUESTS");
    let nothing = format!("/v2/a/referrers/{}", sha256(b"x"));
    world.get(nothing).send().await.expect(200);
}

/// A manifest that trickles in does not hold its room for ever.
#[tokio::test]
async fn a_slow_manifest() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let (first, rest) = (manifest.slice(..10), manifest.slice(10..));
    for (millis, status) in [(30_000, 201), (30_001, 408)] {
        let inner = world.clone();
        let body = Script::of(first.clone()).meanwhile(async move { inner.clock.pass(millis) });
        let call = world.put("/v2/a/manifests/t").header("content-type", OCI);
        call.stream(body.data(rest.clone())).send().await.expect(status);
        assert_eq!(world.clock.held(), 0);
    }
}
