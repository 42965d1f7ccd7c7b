//! Checks of objects: missing, of another size, damaged, and orphans.

use bytes::Bytes;
use contract::source::Body;
use registry::check::{CheckOptions, Finding};
use registry::store::blobs::{BlobStore as _, ObjectToDelete, Upload};
use registry::store::records::Record;
use registry::store::{Attempt, Location, SessionId};
use serde_json::json;

use super::check::{CX, options};
use crate::support::{World, sha256};

impl World {
    /// Stores an object that no session names.
    async fn seal(&self, attempt: Attempt, bytes: &'static str) -> Location {
        let mut body = Body::of(&Bytes::from_static(bytes.as_bytes()), 5);
        let appended = self.blobs.append(CX, attempt, &[], &mut body).await.unwrap();
        let upload = Upload {
            session: attempt.session,
            state: appended.state,
            parts: appended.part.into_iter().collect(),
            size: bytes.len() as u64,
        };
        self.blobs.seal(CX, &upload).await.unwrap()
    }
}

#[tokio::test]
async fn a_missing_object_is_found() {
    let (world, image) = World::furnished().await;
    let location = world.location_of("a", &image.layer).await;
    let to_delete = ObjectToDelete {
        location: location.clone(),
        unfinished: false,
    };
    world.blobs.delete(CX, &[to_delete]).await.unwrap();
    let digest = image.layer;
    assert_eq!(world.check().await, [Finding::ObjectMissing { digest, location }]);
}

#[tokio::test]
async fn an_object_of_another_size_is_found() {
    let (world, image) = World::furnished().await;
    let location = world.location_of("a", &image.layer).await;
    world
        .plant(Record::Blob {
            digest: image.layer,
            location: location.clone(),
            size: 7,
            at: CX.now,
        })
        .await;
    let size = "layer of one".len() as u64;
    let object = Finding::ObjectResized {
        digest: image.layer,
        location,
        recorded: 7,
        found: size,
    };
    let link = |repository: &str| Finding::LinkResized {
        repository: repository.parse().unwrap(),
        digest: image.layer,
        recorded: size,
        found: 7,
    };
    assert_eq!(world.check().await, [object, link("a"), link("b")]);
}

/// Damaged bytes are found only by a check that reads them.
#[tokio::test]
async fn damaged_bytes_are_found() {
    let (world, image) = World::furnished().await;
    let location = world.location_of("a", &image.layer).await;
    let attempt = location.key.split_once('.').unwrap();
    let attempt = Attempt {
        session: SessionId(u128::from_str_radix(attempt.0, 16).unwrap()),
        number: attempt.1.parse().unwrap(),
    };
    let to_delete = ObjectToDelete {
        location: location.clone(),
        unfinished: false,
    };
    world.blobs.delete(CX, &[to_delete]).await.unwrap();
    assert_eq!(world.seal(attempt, "rotten bytes").await, location);
    let finding = Finding::Corrupt {
        repository: None,
        digest: image.layer,
        location: Some(location),
        computed: sha256(b"rotten bytes"),
    };
    assert_eq!(world.check().await, [finding]);
    let options = CheckOptions {
        hash: false,
        ..options()
    };
    assert_eq!(world.check_as(&options).await.1, []);
}

/// Orphans: an object of a session that never existed, of an attempt that its session never counted, and beside the
/// object of a done session. An object of a session or a pending deletion is not an orphan.
#[tokio::test]
async fn an_orphan_is_found() {
    let (world, one) = World::furnished().await;
    let done = world.location_of("a", &one.layer).await;
    let session = SessionId(u128::from_str_radix(done.key.split_once('.').unwrap().0, 16).unwrap());
    let orphans = [
        Attempt {
            session: SessionId(5),
            number: 1,
        },
        Attempt { session, number: 2 },
    ];
    let mut expected = Vec::new();
    for attempt in orphans {
        let location = world.seal(attempt, "bytes").await;
        expected.push(Finding::Orphan { location, size: 5 });
    }
    let mut found = world.check().await;
    found.sort_by_key(|finding| format!("{finding:?}"));
    expected.sort_by_key(|finding| format!("{finding:?}"));
    assert_eq!(found, expected);
    assert_eq!(
        serde_json::to_value(&found[0]).unwrap(),
        json!({ "finding": "orphan", "location": { "store": "main", "key": format!("{:032x}.1", 5) }, "size": 5 })
    );
}
