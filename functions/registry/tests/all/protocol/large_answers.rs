//! Blobs of which an answer is too large for the door of the registry.

use registry::store::memory::MemoryBlobs;
use registry::store::metadata::{Defect, MetadataStore as _};
use registry::store::wrapped::StoreMethod;
use registry::store::{Context, Uid};
use registry::{Delivery, Environment as _};

use crate::support::{Answer, Setup, World, sha256};

const TEN: &str = "0123456789";
const URL: &str = "https://objects.example/bucket";

/// A registry with a blob of ten bytes in `a`. Its object store has URLs if `url` is one.
async fn world(limit: Option<u64>, url: Option<&str>, delivery: Delivery) -> World {
    let mut setup = Setup {
        blobs: url.map_or_else(MemoryBlobs::new, MemoryBlobs::redirecting),
        ..Setup::default()
    };
    setup.settings.limits.blob_answer_bytes = limit;
    setup.settings.delivery = std::sync::Arc::new(delivery);
    let world = World::with(setup).await;
    world.push_blob("a", TEN).await;
    world
}

async fn get(world: &World, headers: &[(&str, &str)]) -> Answer {
    let mut call = world.get(format!("/v2/a/blobs/{}", sha256(TEN.as_bytes())));
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.send().await
}

/// At the limit the answer is sent, and one byte past it the client is redirected to the whole blob, whatever the request says
/// of parts of it. Without a limit, nothing changes.
#[tokio::test]
async fn what_is_too_large_for_the_door_is_redirected() {
    let etag = format!("\"{}\"", sha256(TEN.as_bytes()));
    let parts = get(&world(None, None, Delivery::Auto).await, &[("range", "bytes=0-1,3-4")]).await;
    let parts = parts.expect(206).body.len() as u64;
    for (headers, length) in [
        (vec![("range", "bytes=0-1,3-4")], parts),
        (vec![("range", "bytes=0-,0-")], 10),
        (vec![("range", "bytes=0-1,10-")], 2),
        (vec![("range", "bytes=0-1"), ("range", "bytes=0-1")], 10),
        (vec![("range", "bytes=0-1"), ("if-range", etag.as_str())], 2),
        (vec![("if-match", etag.as_str())], 10),
        (vec![("if-match", etag.as_str()), ("range", "bytes=0-1")], 2),
    ] {
        for delivery in [Delivery::Auto, Delivery::Redirect] {
            for limit in [None, Some(length)] {
                let sent = get(&world(limit, Some(URL), delivery).await, &headers).await;
                assert!(sent.status < 300, "{headers:?} {limit:?}: {}", sent.status);
                assert_eq!(sent.body.len() as u64, length, "{headers:?}");
            }
            let redirected = get(&world(Some(length - 1), Some(URL), delivery).await, &headers).await;
            let redirected = redirected.expect(307);
            assert!(redirected.location().starts_with(URL), "{headers:?}");
            assert!(redirected.body.is_empty());
        }
    }
    // What is redirected anyway, and what has no content.
    for (headers, status) in [
        (vec![], 307),
        (vec![("range", "bytes=0-1")], 307),
        (vec![("if-none-match", etag.as_str())], 304),
        (vec![("if-match", "\"other\"")], 412),
        (vec![("range", "bytes=10-")], 416),
    ] {
        for limit in [None, Some(0)] {
            get(&world(limit, Some(URL), Delivery::Auto).await, &headers)
                .await
                .expect(status);
        }
    }
}

/// Then the operator has to change something, and the client learns at once that it is not its fault.
#[tokio::test]
async fn what_can_neither_be_sent_nor_redirected_is_a_fault() {
    let own = "https://registry.example/bucket";
    for (url, delivery) in [
        (None, Delivery::Auto),
        (Some(URL), Delivery::Proxy),
        (Some(own), Delivery::Redirect),
    ] {
        for (limit, headers, status) in [
            (10, vec![], 200),
            (9, vec![], 500),
            (2, vec![("range", "bytes=0-1")], 206),
            (1, vec![("range", "bytes=0-1")], 500),
        ] {
            let answer = get(&world(Some(limit), url, delivery).await, &headers).await;
            assert_eq!(answer.status, status, "{url:?} {delivery:?} {limit}");
            assert_eq!(answer.get("x-request-id").is_some(), status == 500);
        }
    }
    // An empty blob fits through every door.
    let world = world(Some(0), None, Delivery::Auto).await;
    world.push_blob("a", "").await;
    world
        .get(format!("/v2/a/blobs/{}", sha256(b"")))
        .send()
        .await
        .expect(200);
}

/// An object that was missing is looked for before a client is sent to it.
#[tokio::test]
async fn a_redirect_never_leads_to_an_object_that_is_missing() {
    let digest = sha256(TEN.as_bytes());
    let ranges = [("range", "bytes=0-1,3-4")];
    for is_back in [true, false] {
        let world = world(Some(1), Some(URL), Delivery::Auto).await;
        let cx = Context::internal(world.clock.now(), 60_000, Uid(1));
        let object = world
            .stores
            .records
            .recorded_object(cx, &digest)
            .await
            .unwrap()
            .unwrap();
        if !is_back {
            world.blobs.lose(&object.location);
        }
        let recorded = world
            .metadata
            .record_defect(cx, None, &digest, &object.location, Defect::Missing);
        assert_eq!(recorded.await.unwrap(), None);
        let _ = world.counts.take();
        let status = if is_back { 307 } else { 404 };
        get(&world, &ranges).await.expect(status);
        assert_eq!(world.counts.of(StoreMethod::Read), 1);
        let _ = world.counts.take();
        // An object that is back needs no second look.
        get(&world, &ranges).await.expect(status);
        assert_eq!(world.counts.of(StoreMethod::Read), u64::from(!is_back));
    }
}
