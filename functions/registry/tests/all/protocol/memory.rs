//! Memory permits of requests: they are taken, bounded in time, and released.

use std::sync::atomic::Ordering;

use http_body::Body as _;
use oci::MediaType;
use registry::RequestBody;
use registry::memory::Purpose;
use registry::store::blobs::BodyError;

use crate::support::content::{artifact, bytes_of, image, index, padded};
use crate::support::{Script, World, sha256};

const OCI: &str = MediaType::OCI_MANIFEST;

/// Memory for a manifest is taken as its bytes arrive, and before it is parsed, and is released.
#[tokio::test]
async fn memory_for_a_manifest() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let body = || Script::in_chunks(&manifest, 10);
    let put = || world.put("/v2/a/manifests/t").header("content-type", OCI);
    let parsing = oci::Manifest::memory_to_parse(&manifest, &oci::ManifestLimits::default());
    for (declared, granted) in [(true, manifest.len()), (false, 8 << 10)] {
        let watched = world.clone();
        let body = body().meanwhile(async move { assert_eq!(watched.clock.held(), granted) });
        let mut call = put();
        if declared {
            call = call.header("content-length", manifest.len().to_string());
        }
        call.stream(body).send().await.expect(201);
        assert_eq!(
            world.clock.granted(),
            [(Purpose::FirstBytes, granted), (Purpose::Work, parsing)]
        );
        assert_eq!(world.clock.held(), 0);
    }
    // No memory for a body that declares too large a size, or for one that never arrives.
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
    assert_eq!(world.clock.granted(), []);

    world.clock.set_full(true);
    let body = body();
    let given = body.given();
    put().stream(body).send().await.expect_error(503, "UNAVAILABLE");
    assert_eq!(
        given.load(Ordering::SeqCst),
        10,
        "nothing more is read before there is memory"
    );
    world.clock.set_full(false);
    put().bytes(manifest.clone()).send().await.expect(201);
}

/// A declared length takes no memory. Memory follows the bytes that have arrived, until a body is a large one. Then all
/// the rest is taken at once, so that bodies do not wait for each other's rest.
#[tokio::test]
async fn memory_follows_the_bytes() {
    const SIZE: usize = 300_000;
    let world = World::new().await;
    let put = || {
        let put = world.put("/v2/a/manifests/t").header("content-type", OCI);
        put.header("content-length", SIZE.to_string())
    };
    let space = bytes::Bytes::from(vec![b' '; SIZE]);
    for (arrived, held) in [
        (1, 8 << 10),
        (8 << 10, 8 << 10),
        ((8 << 10) + 1, 16 << 10),
        (64 << 10, 64 << 10),
        ((64 << 10) + 1, SIZE),
        (SIZE - 1, SIZE),
    ] {
        let watched = world.clone();
        let body = Script::in_chunks(&space.slice(..arrived), 4 << 10);
        let body = body.meanwhile(async move { assert_eq!(watched.clock.held(), held, "of {arrived}") });
        put().stream(body.fail(BodyError::Cut)).send().await.expect(400);
        assert_eq!(world.clock.held(), 0);
    }
    world.clock.granted();
    let body = Script::in_chunks(&space, 10_000);
    put().stream(body).send().await.expect_error(400, "MANIFEST_INVALID");
    let taken: Vec<_> = world.clock.granted().into_iter().map(|(purpose, _)| purpose).collect();
    assert_eq!(taken, [Purpose::FirstBytes, Purpose::Body, Purpose::Work]);
}

/// A manifest that arrives too slowly while others wait for memory is refused, and its client is asked to retry.
#[tokio::test]
async fn a_slow_manifest_releases_its_memory_for_others() {
    let world = World::new().await;
    let manifest = bytes_of(&image(b"{}", &[]));
    world.clock.slow_arrivals();
    let put = || world.put("/v2/a/manifests/t").header("content-type", OCI);
    let stalls = Script::of(manifest.slice(..10)).meanwhile(std::future::pending());
    let answer = put().stream(stalls).send().await;
    answer.expect(503);
    assert_eq!(world.clock.held(), 0);
    // A manifest that has arrived completely is accepted all the same.
    world.push_blob("a", "{}").await;
    put().stream(Script::in_chunks(&manifest, 10)).send().await.expect(201);
}

/// A page of referrers starts with a small amount of memory (16 rows of 36 KiB, and 128 KiB), which is taken before the
/// first row is read. The memory of the finished page is kept until the page is sent, or the response is dropped.
#[tokio::test]
async fn memory_for_referrers() {
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
    world.clock.granted();
    let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
    let answer = handle(&world, &target).await;
    let length = answer.body().size_hint().exact().expect("a length");
    let length = usize::try_from(length).expect("a small page");
    assert_eq!(
        world.clock.granted(),
        [(Purpose::Page, 704 << 10), (Purpose::SmallAnswer, length)]
    );
    assert_eq!(world.clock.held(), length);
    // A shell that copies the bytes elsewhere keeps the permit for longer than the body.
    let (_, mut body) = answer.into_parts();
    let memory = body.take_memory().expect("granted memory");
    drop(body);
    assert_eq!(world.clock.held(), length);
    drop(memory);
    assert_eq!(world.clock.held(), 0);

    world.clock.set_full(true);
    world.get(target).send().await.expect_error(503, "UNAVAILABLE");
    let nothing = format!("/v2/a/referrers/{}", sha256(b"x"));
    world.get(nothing).send().await.expect(503);
}

/// A page that needs more than its first memory takes the memory of the largest page, and keeps as much as its length.
/// So does a page for which a manifest must be read, because its annotations are too large for a row. Parsing the
/// manifest takes memory of its own.
#[tokio::test]
async fn memory_for_large_pages_of_referrers() {
    const LARGE: (Purpose, usize) = (Purpose::Answer, (4 << 20) + 16 * (36 << 10));
    for (count, note) in [(3, 10_000), (6, 30_000), (1, 40_000)] {
        let world = World::new().await;
        world.push_blob("a", "{}").await;
        for number in 0..count {
            let mut manifest = artifact("a/note", b"subject");
            manifest["annotations"] = serde_json::json!({ "note": "x".repeat(note), "number": number.to_string() });
            world.put_manifest("a", "t", bytes_of(&manifest)).await.expect(201);
        }
        world.clock.granted();
        let target = format!("/v2/a/referrers/{}", sha256(b"subject"));
        let answer = handle(&world, &target).await;
        let length = usize::try_from(answer.body().size_hint().exact().expect("a length")).expect("a page");
        let grants = world.clock.granted();
        assert_eq!(grants[0], (Purpose::Page, 704 << 10));
        match note {
            10_000 => assert_eq!(grants[1..], [(Purpose::SmallAnswer, length)]),
            30_000 => assert_eq!(grants[1..], [LARGE]),
            _ => {
                assert_eq!(grants[1], LARGE);
                assert!(matches!(grants[2..], [(Purpose::Work, parsing)] if parsing > note));
            }
        }
        assert_eq!(world.clock.held(), length);
        drop(answer);
        assert_eq!(world.clock.held(), 0);
        let answer = world.get(target).send().await.expect(200);
        assert_eq!(answer.json()["manifests"].as_array().map(Vec::len), Some(count));
    }
}

/// Small responses, up to 64 KiB, have a memory purpose of their own.
#[tokio::test]
async fn small_answers_have_memory_of_their_own() {
    let world = World::new().await;
    let mut settings = registry::Settings::default();
    settings.limits.inline_manifest_bytes = 1 << 20;
    let world = world
        .another(std::sync::Arc::new(registry::Anonymous::all()), settings)
        .await;
    let small = (Purpose::SmallAnswer, 64 << 10);
    for (length, grants) in [
        (64 << 10, vec![small]),
        ((64 << 10) + 1, vec![small, (Purpose::Answer, (64 << 10) + 1)]),
    ] {
        let manifest = padded(&index(&[]), length);
        world.put_manifest("a", "t", manifest).await.expect(201);
        world.clock.granted();
        let answer = handle(&world, "/v2/a/manifests/t").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(world.clock.granted(), grants);
        assert_eq!(world.clock.held(), length);
    }
}

/// Every response with a body has memory until it is sent. A response that is read while it is sent takes its memory
/// before the object is opened.
#[tokio::test]
async fn memory_for_answers() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let large = world.push_blob("a", bytes::Bytes::from(vec![7; 100_000])).await;
    let manifest = bytes_of(&image(b"{}", &[]));
    let put = world.put("/v2/a/manifests/t").header("content-type", OCI);
    put.bytes(manifest.clone()).send().await.expect(201);
    let small = sha256(b"{}");
    let tags = "/v2/a/tags/list?n=10".to_owned();
    let catalog = "/v2/_catalog?n=10".to_owned();
    // The memory for making a list is not kept while the list is sent.
    let (tags_length, catalog_length) = (r#"{"name":"a","tags":["t"]}"#.len(), r#"{"repositories":["a"]}"#.len());
    for (target, grants, bytes) in [
        (
            format!("/v2/a/blobs/{large}"),
            vec![(Purpose::Stream, 64 << 10)],
            64 << 10,
        ),
        (format!("/v2/a/blobs/{small}"), vec![(Purpose::Stream, 2)], 2),
        // The maximum size of a manifest in its row, taken before the row is read.
        (
            "/v2/a/manifests/t".to_owned(),
            vec![(Purpose::SmallAnswer, 32 << 10)],
            manifest.len(),
        ),
        (
            tags,
            vec![(Purpose::Page, 3_200), (Purpose::SmallAnswer, tags_length)],
            tags_length,
        ),
        (
            catalog,
            vec![(Purpose::Page, 6_400), (Purpose::SmallAnswer, catalog_length)],
            catalog_length,
        ),
    ] {
        world.clock.granted();
        let answer = handle(&world, &target).await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(world.clock.granted(), grants, "{target}");
        assert_eq!(world.clock.held(), bytes, "{target}");
        drop(answer);
        assert_eq!(world.clock.held(), 0, "{target}");
        world.clock.set_full(true);
        world.get(target).send().await.expect(503);
        world.clock.set_full(false);
    }
}

async fn handle(world: &World, target: &str) -> http::Response<registry::ResponseBody> {
    let request = http::Request::get(target).header("host", "localhost");
    let request = request.body(RequestBody::stream(Script::new()));
    world.registry.handle(request.expect("a request")).await
}

/// A manifest that arrives slowly does not keep its memory for ever. Only the time spent waiting for its client counts.
#[tokio::test]
async fn a_slow_manifest_has_a_timeout() {
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
