//! Pulls through the core: which are redirected, and which requests the others send to the store.

use contract::source::noise;
use oci::{Algorithm, Digest};
use registry::{Delivery, Settings};
use std::sync::Arc;

use crate::session::MIB;
use crate::test_registry::{RequestContent, TestRegistry};
use hyper::Method;

/// A registry that redirects, with one blob.
async fn redirecting() -> (TestRegistry, bytes::Bytes, Digest) {
    let registry =
        TestRegistry::new(|_, settings: &mut Settings| settings.delivery = Arc::new(Delivery::Redirect)).await;
    let whole = noise(1, MIB);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let target = format!("{}?digest={digest}", registry.open().await);
    let (status, _) = registry
        .call(Method::PUT, &target, None, RequestContent::Whole(&whole))
        .await;
    assert_eq!(status, 201);
    registry.fake.seen();
    (registry, whole, digest)
}

/// The core reads several ranges with one request each, of no more than its bytes. Before them it reads the last byte,
/// since it is too late to report a truncated object once the response has begun. It also does so if only one range
/// lies within the blob, since an object store may answer such a request differently.
#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_are_read_with_one_request_each() {
    let (registry, whole, digest) = redirecting().await;
    for (range, read) in [
        (
            "bytes=0-9,1000-1999,-5",
            &[
                "bytes=1048575-1048575",
                "bytes=0-9",
                "bytes=1000-1999",
                "bytes=1048571-1048575",
            ][..],
        ),
        ("bytes=5-5,9999999-", &["bytes=5-5"]),
    ] {
        let (status, _, body) = registry.get(&digest, range).await;
        assert_eq!(status, 206, "{range}");
        let asked: Vec<_> = registry
            .fake
            .seen()
            .iter()
            .map(|seen| seen.headers["range"].clone())
            .collect();
        assert_eq!(asked, read, "{range}");
        let first = &whole[5..6];
        assert!(if read.len() == 1 {
            body == *first
        } else {
            body.windows(1000).any(|part| part == &whole[1000..2000])
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_blobs_and_single_ranges_are_redirected_without_a_store_request() {
    let (registry, _, digest) = redirecting().await;
    for range in ["", "bytes=0-9", "bytes=1000-"] {
        let (status, headers, _) = registry.get(&digest, range).await;
        assert_eq!(status, 307, "{range}");
        assert!(
            headers["location"]
                .to_str()
                .unwrap()
                .starts_with(&registry.fake.endpoint())
        );
    }
    assert!(registry.fake.seen().is_empty());
}

/// A registry that decides for each client does not redirect a client of unknown address to a store on its own machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_unknown_address_is_not_redirected_to_a_local_store() {
    let registry = TestRegistry::new(|_, settings: &mut Settings| settings.delivery = Arc::new(Delivery::Auto)).await;
    let digest = Digest::of(Algorithm::Sha256, b"a layer");
    let target = format!("{}?digest={digest}", registry.open().await);
    registry
        .call(Method::PUT, &target, None, RequestContent::Whole(b"a layer"))
        .await;
    let (status, _, body) = registry.get(&digest, "").await;
    assert_eq!((status, &*body), (200, &b"a layer"[..]));
    let public = TestRegistry::new(|options, settings: &mut Settings| {
        options.public_endpoint = Some("https://objects.example".to_owned());
        settings.delivery = Arc::new(Delivery::Auto);
    });
    let public = public.await;
    let target = format!("{}?digest={digest}", public.open().await);
    public
        .call(Method::PUT, &target, None, RequestContent::Whole(b"a layer"))
        .await;
    assert_eq!(public.get(&digest, "").await.0, 307);
}
