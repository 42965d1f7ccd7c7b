//! Objects that are lost: the responses to reads, and pushes during a collection.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use oci::Digest;
use registry::store::blobs::BlobStore;
use registry::store::memory::MemoryBlobs;
use registry::store::metadata::{Defect, MetadataStore};
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::store::{Context, Location, StoreError, Timestamp, Uid};

use crate::support::content::{image, padded};
use crate::support::{World, sha256};

const CX: Context = Context::internal(Timestamp(1_900_000_000_000), 60_000, Uid(4711));

impl World {
    /// The location of a blob or of a large manifest in `a`.
    async fn location(&self, digest: &Digest) -> Location {
        let object = self.stores.records.recorded_object(CX, digest).await;
        object.unwrap().unwrap().location
    }
}

/// A HEAD decides whether a client pushes. No condition makes a HEAD report a lost object as stored. A client that has
/// the content may keep it.
#[tokio::test]
async fn conditions_on_lost_content() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let blob = world.push_blob("a", "lost").await;
    let manifest = padded(&image(b"{}", &[]), 40_000);
    world.put_manifest("a", "large", manifest.clone()).await.expect(201);
    let large = sha256(&manifest);
    for defect in [Defect::Missing, Defect::Damaged] {
        for (kind, digest) in [("blobs", blob), ("manifests", large)] {
            let location = world.location(&digest).await;
            world.blobs.lose(&location);
            let recorded = world.metadata.record_defect(CX, None, &digest, &location, defect).await;
            assert_eq!(recorded.unwrap(), None);
            let (own, other) = (format!("\"{digest}\""), "\"other\"".to_owned());
            for (method, header, status) in [
                ("HEAD", None, 404),
                ("HEAD", Some(("if-none-match", &own)), 404),
                ("HEAD", Some(("if-none-match", &other)), 404),
                ("HEAD", Some(("if-match", &own)), 404),
                ("HEAD", Some(("if-match", &other)), 404),
                ("GET", None, 404),
                ("GET", Some(("if-none-match", &own)), 304),
                ("GET", Some(("if-none-match", &other)), 404),
                ("GET", Some(("if-match", &own)), 404),
                ("GET", Some(("if-match", &other)), 412),
            ] {
                let mut call = world.call(method.parse().unwrap(), format!("/v2/a/{kind}/{digest}"));
                if let Some((name, value)) = header {
                    call = call.header(name, value);
                }
                let answer = call.send().await;
                assert_eq!(answer.status, status, "{kind}, {defect:?}: {method} {header:?}");
            }
        }
    }
}

/// An object in a store that this instance does not have is a server fault with an id, and not absent. The record stays
/// unchanged, and an instance with that store serves the object.
#[tokio::test]
async fn an_object_in_an_unknown_store_is_a_fault_and_not_absent() {
    let world = World::new().await;
    let digest = sha256(b"archived");
    let elsewhere = Location::new("archive", "0123abcd.1").unwrap();
    let repository = "a".parse().unwrap();
    let recorded = world
        .metadata
        .commit_blob(CX, &repository, &digest, &elsewhere, 8)
        .await;
    assert_eq!(recorded.unwrap(), elsewhere);
    let target = format!("/v2/a/blobs/{digest}");
    for _ in 0..2 {
        let refused = world.get(&target).send().await.expect_error(500, "UNKNOWN");
        assert!(!refused.header("x-request-id").is_empty());
        assert!(!String::from_utf8_lossy(&refused.body).contains("archive"));
        world.head(&target).send().await.expect(200);
    }
    assert_eq!(world.location(&digest).await, elsewhere);
}

/// HEAD by tag gets 404 for a large manifest, as GET does, once its object is recorded as lost. Before that, HEAD reads
/// the tag only.
#[tokio::test]
async fn a_lost_large_manifest_is_absent_by_its_tag() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = padded(&image(b"{}", &[]), 40_000);
    world.put_manifest("a", "large", manifest.clone()).await.expect(201);
    let digest = sha256(&manifest);
    let location = world.location(&digest).await;
    world.blobs.lose(&location);
    let head = |reference: String| world.head(format!("/v2/a/manifests/{reference}")).send();
    head("large".to_owned()).await.expect(200);
    world.get("/v2/a/manifests/large").send().await.expect(404);
    head("large".to_owned()).await.expect(404);
    head(digest.to_string()).await.expect(404);
    world.put_manifest("a", "large", manifest).await.expect(201);
    head("large".to_owned()).await.expect(200);
}

/// A truncated object is found before a response with several ranges begins, whatever the order of the ranges.
#[tokio::test]
async fn several_ranges_of_a_truncated_object() {
    for ranges in ["0-0,8-8", "8-8,0-0", "0-0,2-2,8-8,4-4", "0-1,-1"] {
        let world = World::new().await;
        let blob = world.push_blob("a", "0123456789").await;
        let location = world.location(&blob).await;
        let object = world.blobs.lose(&location).unwrap();
        world.blobs.restore(&location, object.slice(..5));
        let get = || {
            let call = world.get(format!("/v2/a/blobs/{blob}"));
            call.header("range", format!("bytes={ranges}")).send()
        };
        get().await.expect_error(404, "BLOB_UNKNOWN");
        world.head(format!("/v2/a/blobs/{blob}")).send().await.expect(404);
        world.push_blob("a", "0123456789").await;
        get().await.expect(206);
    }
}

/// Removes the only object when it is about to replace another one.
struct CollectedBefore(Arc<MemoryBlobs>);

impl Hook for CollectedBefore {
    fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn gate(&self, method: StoreMethod) -> BoxFuture<'static, ()> {
        let blobs = self.0.clone();
        async move {
            if method == StoreMethod::ReplaceLocation {
                let objects = BlobStore::objects(&*blobs, CX, None, 10).await.unwrap().items;
                for object in objects {
                    blobs.lose(&object.location);
                }
            }
        }
        .boxed()
    }
}

/// The pushed blob already has another object, so the new object is scheduled for deletion. Then the old object is
/// found lost. A collection in between may have deleted the new one: the push is then not acknowledged.
#[tokio::test]
async fn a_push_whose_object_was_collected_is_not_acknowledged() {
    for large in [false, true] {
        let world = World::new().await;
        let manifest = padded(&image(b"{}", &[]), 40_000);
        let (digest, path) = if large {
            // The other repository does not have the blob, so the push does not find the loss earlier.
            world.push_blob("a", "{}").await;
            world.push_blob("b", "{}").await;
            world.put_manifest("a", "large", manifest.clone()).await.expect(201);
            let digest = sha256(&manifest);
            (digest, format!("/v2/a/manifests/{digest}"))
        } else {
            let digest = world.push_blob("a", "abc").await;
            (digest, format!("/v2/a/blobs/{digest}"))
        };
        world.blobs.lose(&world.location(&digest).await).unwrap();

        let mut hasty = world.clone();
        let hook = CollectedBefore(world.blobs.clone());
        hasty.stores.metadata = Arc::new(Wrapped::new(world.metadata.clone() as Arc<dyn MetadataStore>, hook));
        let hasty = hasty.twin().await;
        let put = || async {
            if large {
                hasty.put_manifest("b", "large", manifest.clone()).await
            } else {
                let target = format!("/v2/a/blobs/uploads/?digest={digest}");
                hasty.post(target).bytes("abc").send().await
            }
        };
        put().await.expect_error(503, "UNAVAILABLE");
        world.head(path.clone()).send().await.expect(404);
        // The defect is recorded now, so the next push replaces the object at once.
        put().await.expect(201);
        world.get(path).send().await.expect(200);
    }
}
