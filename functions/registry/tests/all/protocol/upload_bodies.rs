//! How many bodies an upload may have.

use std::sync::atomic::Ordering;

use registry::{Limits, Settings};

use crate::support::{Script, Setup, World, sha256};

async fn limited_to(upload_bodies: u32) -> World {
    let limits = Limits {
        upload_bodies,
        ..Limits::default()
    };
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    World::with(Setup {
        settings,
        ..Setup::default()
    })
    .await
}

/// The maximum number of bodies of an upload, including failed ones, and one more. That one is not read and not
/// counted, and its response says what to do. The upload can still be finished without it, or cancelled.
#[tokio::test]
async fn bodies_of_an_upload_are_counted() {
    let world = limited_to(3).await;
    let digest = sha256(b"ab");
    for finished in [true, false] {
        let location = world.open_upload("a").await;
        world.patch(&location).bytes("a").send().await.expect(202);
        let cut = world.patch(&location).header("content-length", "2").bytes("x");
        cut.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
        world.patch(&location).bytes("b").send().await.expect(202);
        let stored = world.blobs.objects();

        for round in 0..3 {
            let body = Script::of("c");
            let given = body.given();
            let call = match round {
                0 => world.patch(&location),
                1 => world.put(format!("{location}?digest={digest}")),
                _ => world.patch(&location).header("content-range", "2-2"),
            };
            let refused = call.stream(body).send().await;
            let refused = refused.expect_error(400, "BLOB_UPLOAD_INVALID");
            let text = String::from_utf8(refused.body.to_vec()).unwrap();
            assert!(
                text.contains("has taken 3 bodies") && text.contains("larger chunks"),
                "{text}"
            );
            assert_eq!(given.load(Ordering::SeqCst), 0, "it was not read");
        }
        let ranged = world.put(format!("{location}?digest={digest}"));
        let ranged = ranged.header("content-length", "0").header("content-range", "0-0");
        ranged.send().await.expect_error(400, "BLOB_UPLOAD_INVALID");
        assert_eq!(world.blobs.objects(), stored);
        let answer = world.get(&location).send().await.expect(204);
        assert_eq!(answer.header("range"), "0-1");
        if finished {
            let last = world.put(format!("{location}?digest={digest}"));
            last.header("content-length", "0").send().await.expect(201);
            assert_eq!(world.blob("a", &digest).await.unwrap(), "ab");
        } else {
            world.delete(&location).send().await.expect(204);
            world.patch(&location).bytes("c").send().await.expect(404);
        }
    }
}

/// A chunk that is declared empty is not counted. The response contains the position of the upload.
#[tokio::test]
async fn empty_chunks_are_not_counted() {
    let world = limited_to(2).await;
    let location = world.open_upload("a").await;
    for stored in ["", "a", "ab"] {
        if !stored.is_empty() {
            world
                .patch(&location)
                .bytes(&stored[stored.len() - 1..])
                .send()
                .await
                .expect(202);
        }
        let range = format!("0-{}", stored.len().saturating_sub(1));
        let _ = world.counts.take();
        for _ in 0..5 {
            let empty = world.patch(&location).header("content-length", "0");
            assert_eq!(empty.send().await.expect(202).header("range"), range);
            let empty = world.patch(&location);
            assert_eq!(empty.send().await.expect(202).header("range"), range);
        }
        assert_eq!(world.counts.writes(), 0);
        let misplaced = world.patch(&location).header("content-length", "0");
        let misplaced = misplaced.header("content-range", format!("{0}-{0}", stored.len()));
        let refused = misplaced.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(refused.header("range"), range);
    }
    let digest = sha256(b"ab");
    let last = world.put(format!("{location}?digest={digest}"));
    last.send().await.expect(201);
    let ended = world.patch(&location).header("content-length", "0");
    ended.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}
