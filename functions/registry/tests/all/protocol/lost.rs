//! Objects that are lost behind the registry's back: what reads of them are told, and pushes that meet a collection.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use oci::Digest;
use registry::store::blobs::BlobStore;
use registry::store::memory::MemoryBlobs;
use registry::store::metadata::{Defect, MetadataStore};
use registry::store::wrapped::{Hook, Wrapped};
use registry::store::{Context, Location, StoreError, Timestamp, Uid};

use crate::support::content::{image, padded};
use crate::support::{World, sha256};

const CX: Context = Context {
    now: Timestamp(1_900_000_000_000),
    deadline: Timestamp(1_900_000_060_000),
    uid: Uid(4711),
    client: registry::budget::ClientKey::INTERNAL,
};

impl World {
    /// Where the bytes of a blob or of a large manifest in `a` lie.
    async fn location(&self, digest: &Digest) -> Location {
        let object = self.stores.records.place(CX, digest).await;
        object.unwrap().unwrap().location
    }
}

/// A HEAD is asked in order to push: nothing that its conditions say makes a lost object stored. Those who have the content
/// may keep it.
#[tokio::test]
async fn conditions_on_what_is_lost() {
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

/// What a record says to lie in a store that this instance does not have is out of reach: a fault of ours with an id, and
/// not an absence. The record stays as it is, and an instance with that store serves it.
#[tokio::test]
async fn what_lies_in_an_unknown_store_is_a_fault_and_no_loss() {
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

/// HEAD by tag says of a large manifest what GET does, once its object is recorded as lost; before, it asks for the tag
/// alone.
#[tokio::test]
async fn a_large_manifest_that_is_lost_is_not_there_by_its_tag() {
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

/// An object that ends too early is found before an answer of several ranges begins, in whatever order these are.
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

/// Loses the only object when it is about to take the place of another.
struct CollectedBefore(Arc<MemoryBlobs>);

impl Hook for CollectedBefore {
    fn before(&self, _: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    fn gate(&self, method: &'static str) -> BoxFuture<'static, ()> {
        let blobs = self.0.clone();
        async move {
            if method == "replace_location" {
                let objects = BlobStore::objects(&*blobs, CX, None, 10).await.unwrap().items;
                for object in objects {
                    blobs.lose(&object.location);
                }
            }
        }
        .boxed()
    }
}

/// The bytes that are pushed lie elsewhere already, so that the new object is scheduled for deletion; then the old one
/// is found lost. A collection in between may have deleted the new one: that is not acknowledged.
#[tokio::test]
async fn an_object_that_is_collected_before_it_takes_the_place_of_a_lost_one() {
    for large in [false, true] {
        let world = World::new().await;
        let manifest = padded(&image(b"{}", &[]), 40_000);
        let (digest, path) = if large {
            // The other repository does not have it: whoever has it finds it lost before.
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
        // What was recorded lets the next push take the place at once.
        put().await.expect(201);
        world.get(path).send().await.expect(200);
    }
}
