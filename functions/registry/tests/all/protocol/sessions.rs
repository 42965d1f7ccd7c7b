//! Upload sessions: status, races, repetitions, and the state after every way in which a body can fail.

use std::sync::Arc;

use bytes::Bytes;
use contract::source::noise;
use registry::store::blobs::BodyError;
use registry::store::sessions::{Claimed, Expected, SessionKey, SessionStore as _};
use registry::store::{Context, SessionId, Timestamp, Uid};
use registry::{Anonymous, Environment as _, Settings};

use crate::support::{Script, World, sha256};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

#[tokio::test]
async fn status() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    for (chunk, range) in [("", "0-0"), ("a", "0-0"), ("b", "0-1"), ("cdef", "0-5")] {
        if !chunk.is_empty() {
            world.patch(location.clone()).bytes(chunk).send().await.expect(202);
        }
        for method in ["GET", "HEAD"] {
            let status = world
                .call(method.parse().unwrap(), location.clone())
                .send()
                .await
                .expect(204);
            assert_eq!(status.header("range"), range);
            assert_eq!(status.location(), location);
            assert!(status.get("docker-upload-uuid").is_some());
            assert_eq!(status.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test]
async fn cancel() {
    let world = World::new().await;
    let fresh = world.open_upload("a").await;
    let begun = world.open_upload("a").await;
    world.patch(begun.clone()).bytes("abc").send().await.expect(202);
    assert_eq!(world.blobs.objects(), 1);
    for location in [begun, fresh] {
        world.delete(location.clone()).bytes("").send().await.expect(204);
        assert_eq!(world.blobs.objects(), 0, "its space is free at once");
        for method in ["GET", "PATCH", "DELETE"] {
            let again = world.call(method.parse().unwrap(), location.clone()).bytes("");
            again.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let put = world.put(format!("{location}?digest={}", sha256(b"abc"))).bytes("abc");
        put.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

/// Finishes an upload to `a` that has `bytes`: they are published, and read back unchanged.
async fn finish(world: &World, location: &str, bytes: &'static str) {
    let digest = sha256(bytes.as_bytes());
    world
        .put(format!("{location}?digest={digest}"))
        .send()
        .await
        .expect(201);
    assert_eq!(world.blob("a", &digest).await.unwrap(), bytes);
}

/// The response to the final PUT may be lost, so a repetition of it is 201 again. All other requests are 404.
#[tokio::test]
async fn replays_of_a_finished_upload() {
    let world = World::new().await;
    let digest = sha256(b"abc");
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("abc").send().await.expect(202);
    let put = format!("{location}?digest={digest}");
    world.put(put.clone()).send().await.expect(201);
    for _ in 0..3 {
        let again = world.put(put.clone()).bytes("").send().await.expect(201);
        assert_eq!(again.header("docker-content-digest"), digest.to_string());
        assert_eq!(again.location(), format!("/v2/a/blobs/{digest}"));
    }
    // Bytes that no request of this upload has sent are not acknowledged.
    for body in ["a", "abc", "xyz"] {
        let other = world.put(put.clone()).bytes(body).send().await;
        other.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(world.blob("a", &digest).await.unwrap(), "abc");
    let other = format!("{location}?digest={}", sha256(b"xyz"));
    world
        .put(other)
        .bytes("xyz")
        .send()
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    for method in ["GET", "PATCH", "DELETE"] {
        let again = world.call(method.parse().unwrap(), location.clone()).bytes("abc");
        again.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    // Until the token expires, and not longer.
    world.clock.pass(DAY - 1);
    world.put(put.clone()).send().await.expect(201);
    world.clock.pass(1);
    world.put(put).send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn expiry() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("abc").send().await.expect(202);
    world.clock.pass(DAY - 1);
    world.get(location.clone()).send().await.expect(204);
    world.clock.pass(1);
    for method in ["GET", "PATCH", "DELETE"] {
        let call = world.call(method.parse().unwrap(), location.clone()).bytes("d");
        call.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    let put = world.put(format!("{location}?digest={}", sha256(b"abc")));
    put.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

/// While one body streams, every other chunk is refused at once. The response has the position of the session and when
/// to retry. The first body continues.
#[tokio::test]
async fn a_busy_session() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let (inner, target) = (world.clone(), location.clone());
    let body = Script::of("cd").meanwhile(async move {
        let patch = inner.patch(target.clone()).bytes("xy").send().await;
        let empty = inner.patch(target.clone()).bytes("").send().await;
        // At the current offset, after the bytes that are being stored, and before them.
        let ranged = async |range: &'static str| {
            let call = inner.patch(target.clone()).header("content-range", range);
            call.bytes("xy").send().await
        };
        for answer in [
            patch,
            empty,
            ranged("2-3").await,
            ranged("6-7").await,
            ranged("0-1").await,
        ] {
            let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
            assert_eq!(answer.header("range"), "0-1");
            assert_eq!(answer.location(), target);
            assert_eq!(answer.header("retry-after"), "5");
        }
        // The claim of a crashed request expires. A request shortly before that gets the answer that the claim is live.
        inner.clock.pass(MINUTE - 1500);
        let late = inner.patch(target.clone()).bytes("xy").send().await.expect(416);
        assert_eq!(late.header("retry-after"), "2");
        inner.get(target).send().await.expect(204);
    });
    let answer = world
        .patch(location.clone())
        .stream(body.data("ef"))
        .send()
        .await
        .expect(202);
    assert_eq!(answer.header("range"), "0-5");
    let out_of_place = world.patch(location.clone()).header("content-range", "2-3").bytes("cd");
    let out_of_place = out_of_place.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(out_of_place.get("retry-after"), None, "no other request has a claim");
    let digest = sha256(b"abcdef");
    world
        .put(format!("{location}?digest={digest}"))
        .send()
        .await
        .expect(201);
}

/// Two concurrent chunks for the same position, on two threads, many times. One is stored, the other is refused, and
/// the stored bytes are those that were hashed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_patches() {
    let world = World::new().await;
    for seed in 0..200 {
        let location = world.open_upload("a").await;
        let bodies = [noise(2 * seed, 1000), noise(2 * seed + 1, 1000)];
        let racers = bodies.clone().map(|body| {
            let call = world.patch(location.clone()).header("content-range", "0-999");
            tokio::spawn(call.stream(Script::in_chunks(&body, 100)).send())
        });
        let mut taken = Vec::new();
        for (body, racer) in bodies.iter().zip(racers) {
            let answer = racer.await.unwrap();
            match answer.status {
                202 => taken.push(body),
                _ => {
                    answer.expect_error(416, "BLOB_UPLOAD_INVALID");
                }
            }
        }
        let [taken] = taken.as_slice() else {
            panic!("{} of two racing chunks were taken", taken.len());
        };
        let digest = sha256(taken);
        world
            .put(format!("{location}?digest={digest}"))
            .send()
            .await
            .expect(201);
        assert_eq!(world.blob("a", &digest).await.as_ref(), Some(*taken));
    }
}

/// A body stalls for longer than its claim is valid, and another request claims the session. The first stores nothing,
/// and the bytes of the other stay.
#[tokio::test]
async fn a_lost_claim() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let (inner, target) = (world.clone(), location.clone());
    let body = Script::of("xy").meanwhile(async move {
        inner.clock.pass(MINUTE);
        inner.patch(target).bytes("cd").send().await.expect(202);
    });
    // Found by the renewal at the next chunk.
    let answer = world.patch(location.clone()).stream(body.data("zz")).send().await;
    let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(answer.header("range"), "0-3", "where the other has left it");
    let status = world.get(location.clone()).send().await.expect(204);
    assert_eq!(status.header("range"), "0-3");

    // Found by the save, if no chunk follows.
    let (inner, target) = (world.clone(), location.clone());
    let body = Script::of("xy").meanwhile(async move {
        inner.clock.pass(MINUTE);
        inner.patch(target).bytes("ef").send().await.expect(202);
    });
    let answer = world.patch(location.clone()).stream(body).send().await;
    let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(answer.header("range"), "0-5");

    finish(&world, &location, "abcdef").await;
}

/// The same for a final PUT whose digest turns out to be wrong. Another request has claimed the session by then, and
/// continues with the bytes that the session had.
#[tokio::test]
async fn a_lost_claim_and_a_wrong_digest() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let (inner, target) = (world.clone(), location.clone());
    let body = Script::of("xy").meanwhile(async move {
        inner.clock.pass(MINUTE);
        inner.patch(target).bytes("cd").send().await.expect(202);
    });
    let put = world
        .put(format!("{location}?digest={}", sha256(b"wrong")))
        .stream(body);
    put.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
    finish(&world, &location, "abcd").await;
}

/// A slow body that keeps arriving keeps its claim, however long it takes.
#[tokio::test]
async fn a_slow_body_keeps_its_claim() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let mut body = Script::new();
    for _ in 0..20 {
        let (inner, target) = (world.clone(), location.clone());
        body = body.data("x").meanwhile(async move {
            inner.clock.pass(MINUTE / 2);
            let other = inner.patch(target).bytes("y").send().await;
            other.expect_error(416, "BLOB_UPLOAD_INVALID");
        });
    }
    let answer = world.patch(location).stream(body).send().await.expect(202);
    assert_eq!(answer.header("range"), "0-19");
}

/// An expired claim is still valid if no other request has claimed the session.
#[tokio::test]
async fn an_expired_claim_is_valid_until_another_is_granted() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let inner = world.clone();
    let body = Script::of("ab").meanwhile(async move { inner.clock.pass(10 * MINUTE) });
    world.patch(location).stream(body.data("cd")).send().await.expect(202);
}

/// A DELETE while a body streams ends the session: the body finds its claim lost.
#[tokio::test]
async fn a_cancellation_while_a_body_streams() {
    let world = World::new().await;
    let digest = sha256(b"abcd");
    // Found by the renewal at the next chunk, or by the save if none follows.
    for (put, rest) in [(false, "cd"), (true, "cd"), (false, ""), (true, "")] {
        let location = world.open_upload("a").await;
        let (inner, target) = (world.clone(), location.clone());
        let body = Script::of("ab").meanwhile(async move {
            inner.clock.pass(MINUTE / 2);
            inner.delete(target).send().await.expect(204);
        });
        let call = if put {
            world.put(format!("{location}?digest={digest}"))
        } else {
            world.patch(location.clone())
        };
        let answer = call.stream(body.data(rest)).send().await;
        answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(world.blobs.objects(), 0, "nothing of it is left");
    }
    assert_eq!(world.blob("a", &digest).await, None);
}

/// A failed body leaves the session unchanged, without a claim, and the next body continues from there.
#[tokio::test]
async fn a_failed_body_changes_nothing() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    for (status, code) in [
        (400, "SIZE_INVALID"),
        (408, "BLOB_UPLOAD_INVALID"),
        (416, "BLOB_UPLOAD_INVALID"),
    ] {
        for received in ["", "xyz"] {
            let error = || match status {
                400 => BodyError::Cut,
                408 => BodyError::Stalled,
                _ => BodyError::LengthMismatch,
            };
            let body = || Script::of(received).fail(error());
            let patch = world.patch(location.clone()).stream(body()).send().await;
            let put = format!("{location}?digest={}", sha256(b"abxyz"));
            let put = world.put(put).stream(body()).send().await;
            for answer in [patch, put] {
                answer.expect_error(status, code);
            }
            let status = world.get(location.clone()).send().await.expect(204);
            assert_eq!(status.header("range"), "0-1");
        }
    }
    world.patch(location.clone()).bytes("cd").send().await.expect(202);
    finish(&world, &location, "abcd").await;
}

/// Dropping a request while its body streams is a crash: its claim expires within a minute, and nothing is lost.
#[tokio::test]
async fn a_dropped_body() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let body = Script::of("xy").meanwhile(std::future::pending());
    let patch = world.patch(location.clone()).stream(body).send();
    let cut = tokio::time::timeout(std::time::Duration::from_millis(20), patch).await;
    assert!(cut.is_err());
    world.patch(location.clone()).bytes("cd").send().await.expect(416);
    world.clock.pass(MINUTE);
    world.patch(location.clone()).bytes("cd").send().await.expect(202);
    let digest = sha256(b"abcd");
    world
        .put(format!("{location}?digest={digest}"))
        .send()
        .await
        .expect(201);
}

/// POST→A, PATCH→B, PUT→C.
#[tokio::test]
async fn three_instances() {
    let a = World::new().await;
    let (b, c) = (a.twin().await, a.twin().await);
    let instances = [&a, &b, &c];
    for turn in 0..6 {
        let at = |step: usize| instances[(turn + step) % 3];
        let content = noise(turn as u64, 900);
        let mut location = at(0).open_upload("a").await;
        for (step, chunk) in content.chunks(300).enumerate() {
            let call = at(step + 1).patch(location).bytes(Bytes::copy_from_slice(chunk));
            location = call.send().await.expect(202).location();
        }
        let status = at(2).get(location.clone()).send().await.expect(204);
        assert_eq!(status.header("range"), "0-899");
        let digest = sha256(&content);
        at(1)
            .put(format!("{location}?digest={digest}"))
            .send()
            .await
            .expect(201);
        assert_eq!(at(0).blob("a", &digest).await, Some(content));
    }
}

/// A token of another region is refused.
#[tokio::test]
async fn tokens_are_of_one_region() {
    let here = World::new().await;
    let region = Settings {
        region: "elsewhere".parse().unwrap(),
        ..Settings::default()
    };
    let there = here.another(Arc::new(Anonymous::all()), region).await;
    let location = here.open_upload("a").await;
    there
        .patch(location.clone())
        .bytes("ab")
        .send()
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    here.patch(location).bytes("ab").send().await.expect(202);
}

/// A session whose hash state is of another version of the program cannot continue, and every request of it gets that
/// answer.
#[tokio::test]
async fn a_hash_of_an_unknown_version() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);

    let now = world.clock.now();
    let cx = Context::internal(now, MINUTE, Uid(1));
    let every = world.sessions.expired(cx, Timestamp(u64::MAX), None, 10).await.unwrap();
    let [(key, _)] = every.as_slice() else {
        panic!("one session");
    };
    let claimed = world.sessions.claim(cx, *key, Expected::New, now, u32::MAX).await;
    let Claimed::Granted(claim) = claimed.unwrap() else {
        panic!("no other request has claimed it");
    };
    let mut progress = claim.progress.clone();
    progress.hash[0] = 99;
    assert!(world.sessions.save(cx, &claim, progress, None).await.unwrap());

    for _ in 0..2 {
        // Twice: the first refusal leaves no claim.
        let patch = world.patch(location.clone()).bytes("cd").send().await;
        let put = world.put(format!("{location}?digest={}", sha256(b"ab"))).send().await;
        let get = world.get(location.clone()).send().await;
        for answer in [patch, put, get] {
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    world.delete(location).send().await.expect(204);
}

/// The content of the session's row before the first byte is stored.
#[tokio::test]
async fn the_row_is_written_before_the_first_byte() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    assert_eq!(world.sessions.sessions(), 0);
    let inner = world.clone();
    let body = Script::new().meanwhile(async move {
        assert_eq!(inner.sessions.sessions(), 1);
        assert_eq!(inner.blobs.objects(), 0);
    });
    world.patch(location).stream(body.data("ab")).send().await.expect(202);
    let unknown = SessionKey {
        expires: Timestamp(0),
        id: SessionId(0),
    };
    let now = world.clock.now();
    let cx = Context::internal(now, 0, Uid(1));
    assert!(world.sessions.get(cx, unknown).await.unwrap().is_none());
}
