//! Pulls through the core: what is redirected, and what is asked of the store for the rest.

use contract::source::noise;
use oci::{Algorithm, Digest};
use registry::{Delivery, Settings};
use std::sync::Arc;

use crate::session::MIB;
use crate::world::{Sent, World};
use hyper::Method;

/// A registry that redirects, and a blob in it.
async fn redirecting() -> (World, bytes::Bytes, Digest) {
    let world = World::new(|_, settings: &mut Settings| settings.delivery = Arc::new(Delivery::Redirect)).await;
    let whole = noise(1, MIB);
    let digest = Digest::of(Algorithm::Sha256, &whole);
    let target = format!("{}?digest={digest}", world.open().await);
    let (status, _) = world.call(Method::PUT, &target, None, Sent::Whole(&whole)).await;
    assert_eq!(status, 201);
    world.fake.seen();
    (world, whole, digest)
}

/// Several ranges are as many reads of one range, each of no more than its bytes, and before them a look at the last byte,
/// since it is too late to say that the object is too short once the answer has begun; also when only one of them lies within
/// the blob, since an object store may answer such a request otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_are_bounded_reads_of_one() {
    let (world, whole, digest) = redirecting().await;
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
        let (status, _, body) = world.get(&digest, range).await;
        assert_eq!(status, 206, "{range}");
        let asked: Vec<_> = world
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
async fn the_whole_and_one_range_are_redirected_for_nothing() {
    let (world, _, digest) = redirecting().await;
    for range in ["", "bytes=0-9", "bytes=1000-"] {
        let (status, headers, _) = world.get(&digest, range).await;
        assert_eq!(status, 307, "{range}");
        assert!(
            headers["location"]
                .to_str()
                .unwrap()
                .starts_with(&world.fake.endpoint())
        );
    }
    assert!(world.fake.seen().is_empty());
}

/// A registry that decides for each client does not send one of whom it knows nothing to a store on its own machine.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_client_is_not_sent_to_a_store_nearby() {
    let world = World::new(|_, settings: &mut Settings| settings.delivery = Arc::new(Delivery::Auto)).await;
    let digest = Digest::of(Algorithm::Sha256, b"a layer");
    let target = format!("{}?digest={digest}", world.open().await);
    world.call(Method::PUT, &target, None, Sent::Whole(b"a layer")).await;
    let (status, _, body) = world.get(&digest, "").await;
    assert_eq!((status, &*body), (200, &b"a layer"[..]));
    let public = World::new(|options, settings: &mut Settings| {
        options.public_endpoint = Some("https://objects.example".to_owned());
        settings.delivery = Arc::new(Delivery::Auto);
    });
    let public = public.await;
    let target = format!("{}?digest={digest}", public.open().await);
    public.call(Method::PUT, &target, None, Sent::Whole(b"a layer")).await;
    assert_eq!(public.get(&digest, "").await.0, 307);
}
