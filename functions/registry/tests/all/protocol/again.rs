//! The last request of an upload is repeated: while the first is still in progress, after it was answered, and after
//! the blob was deleted. containerd since 2.3.2 repeats it after 30 seconds without a response, with its body.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use registry::store::blobs::BodyError;
use registry::store::memory::MemoryBlobs;
use registry::store::wrapped::StoreMethod;
use registry::{Deadline, Environment as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::client::TestRequest;
use crate::support::{Answer, Script, Setup, World, sha256, sha512};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// Sends a request on a task of its own.
fn begin(call: TestRequest) -> JoinHandle<Answer> {
    tokio::spawn(call.send())
}

/// Lets all tasks run as far as they can without a change of the clock.
async fn run_ready_tasks() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Advances the clock by a number of seconds, one by one.
async fn pass(world: &World, seconds: u64) {
    for _ in 0..seconds {
        run_ready_tasks().await;
        world.clock.pass(SECOND);
    }
    run_ready_tasks().await;
}

/// A final PUT to `location` whose bytes have arrived. Its end arrives when the test notifies it.
fn held(world: &World, location: &str, bytes: &'static str) -> (JoinHandle<Answer>, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let body = Script::of(bytes).meanwhile(async move { gone.notified().await });
    let put = world.put(format!("{location}?digest={}", sha256(bytes.as_bytes())));
    (begin(put.stream(body)), go)
}

/// A request with a deadline is answered by then: the client is asked to retry.
#[tokio::test]
async fn a_repeated_put_waits_no_longer_than_its_deadline() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let (first, go) = held(&world, &location, "abc");
    run_ready_tasks().await;
    let target = format!("{location}?digest={}", sha256(b"abc"));
    let at = world.clock.now().plus_millis(3 * SECOND);
    let again = begin(world.put(&target).bytes("abc").deadline(Deadline::hard(at)));
    pass(&world, 2).await;
    assert!(!again.is_finished());
    pass(&world, 1).await;
    again.await.unwrap().expect_error(429, "BLOB_UPLOAD_INVALID");
    go.notify_one();
    first.await.unwrap().expect(201);
}

/// A repeated PUT waits for the first, reads nothing of its body meanwhile, and gets the same response.
#[tokio::test]
async fn a_repeated_put_waits_for_the_first() {
    for (repeated, status) in [("abc", 201), ("", 201), ("abd", 404), ("ab", 404), ("abcd", 404)] {
        let world = World::new().await;
        let location = world.open_upload("a").await;
        let (first, go) = held(&world, &location, "abc");
        run_ready_tasks().await;
        let body = Script::of(repeated);
        let given = body.given();
        let target = format!("{location}?digest={}", sha256(b"abc"));
        let again = begin(world.put(target).stream(body));
        pass(&world, 40).await;
        assert!(!again.is_finished() && !first.is_finished());
        assert_eq!(
            given.load(Ordering::SeqCst),
            0,
            "nothing is read before it is known what for"
        );
        go.notify_one();
        run_ready_tasks().await;
        first.await.unwrap().expect(201);
        pass(&world, 2).await;
        let again = again.await.unwrap().expect(status);
        if status == 201 {
            assert_eq!(again.header("docker-content-digest"), sha256(b"abc").to_string());
            assert_eq!(again.location(), format!("/v2/a/blobs/{}", sha256(b"abc")));
        } else {
            assert_eq!(again.code(), "BLOB_UPLOAD_UNKNOWN");
        }
        assert_eq!(world.blob("a", &sha256(b"abc")).await.unwrap(), "abc");
    }
}

/// When the first PUT fails, the repeated one takes its place.
#[tokio::test]
async fn a_repeated_put_replaces_one_that_fails() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let body = Script::of("ab").meanwhile(async move { gone.notified().await });
    let target = format!("{location}?digest={}", sha256(b"abc"));
    let first = begin(world.put(target.clone()).stream(body.fail(BodyError::Cut)));
    run_ready_tasks().await;
    let again = begin(world.put(target).bytes("abc"));
    pass(&world, 3).await;
    go.notify_one();
    run_ready_tasks().await;
    first.await.unwrap().expect_error(400, "SIZE_INVALID");
    pass(&world, 2).await;
    again.await.unwrap().expect(201);
    assert_eq!(world.blob("a", &sha256(b"abc")).await.unwrap(), "abc");
}

/// The PUT waits for a chunk. After it, the upload has bytes that the PUT does not know of.
#[tokio::test]
async fn a_put_after_a_chunk_gets_the_position_of_the_upload() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let body = Script::of("cd").meanwhile(async move { gone.notified().await });
    let chunk = begin(world.patch(location.clone()).stream(body));
    run_ready_tasks().await;
    let put = begin(world.put(format!("{location}?digest={}", sha256(b"ab"))));
    pass(&world, 2).await;
    go.notify_one();
    run_ready_tasks().await;
    chunk.await.unwrap().expect(202);
    pass(&world, 2).await;
    let refused = put.await.unwrap().expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(refused.header("range"), "0-3");
    assert_eq!(refused.location(), location);
    world
        .put(format!("{location}?digest={}", sha256(b"abcd")))
        .send()
        .await
        .expect(201);
}

/// The repeated PUT waits for a bounded time, and its answer then says when to retry. The first one is not disturbed.
#[tokio::test]
async fn a_repeated_put_waits_no_longer_than_its_limit() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("a").send().await.expect(202);
    let target = format!("{location}?digest={}", sha256(b"abc"));
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let body = Script::of("b").meanwhile(async move { gone.notified().await });
    let first = begin(world.put(target.clone()).stream(body.data("c")));
    run_ready_tasks().await;
    let again = begin(world.put(target.clone()).bytes("bc"));
    pass(&world, 49).await;
    assert!(!again.is_finished());
    pass(&world, 1).await;
    let again = again.await.unwrap().expect_error(429, "BLOB_UPLOAD_INVALID");
    assert_eq!(again.header("range"), "0-0");
    assert_eq!(again.location(), location);
    assert_eq!(again.header("retry-after"), "5");
    go.notify_one();
    run_ready_tasks().await;
    first.await.unwrap().expect(201);
    world.put(target).bytes("bc").send().await.expect(201);
}

/// The request with the claim has crashed: the next one that waits gets the session when the claim has expired.
#[tokio::test]
async fn a_put_waits_until_the_claim_of_a_crashed_request_expires() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let (dead, _go) = held(&world, &location, "abc");
    run_ready_tasks().await;
    dead.abort();
    pass(&world, 20).await;
    let again = begin(world.put(format!("{location}?digest={}", sha256(b"abc"))).bytes("abc"));
    pass(&world, 39).await;
    assert!(!again.is_finished());
    pass(&world, 3).await;
    again.await.unwrap().expect(201);
}

/// A cancellation of the upload ends all requests that wait.
#[tokio::test]
async fn a_cancellation_ends_a_waiting_put() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let (first, go) = held(&world, &location, "abc");
    run_ready_tasks().await;
    let again = begin(world.put(format!("{location}?digest={}", sha256(b"abc"))).bytes("abc"));
    pass(&world, 2).await;
    world.delete(location).send().await.expect(204);
    pass(&world, 2).await;
    again.await.unwrap().expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    go.notify_one();
    first.await.unwrap().expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(world.blob("a", &sha256(b"abc")).await, None);
}

/// A seal that takes minutes keeps the claim of its request: no other request starts the same work, or claims the
/// session.
#[tokio::test]
async fn a_seal_of_minutes_keeps_its_claim() {
    for as_long in [2, 10] {
        let seal = Arc::new(Notify::new());
        let world = World::with(Setup {
            seal: Some(seal.clone()),
            ..Setup::default()
        })
        .await;
        let location = world.open_upload("a").await;
        world.patch(location.clone()).bytes("ab").send().await.expect(202);
        let target = format!("{location}?digest={}", sha256(b"abcd"));
        let first = begin(world.put(target.clone()).bytes("cd"));
        run_ready_tasks().await;
        let _ = world.counts.take();
        let mut refused = 0;
        for _ in 0..as_long {
            let again = begin(world.put(target.clone()).bytes("cd"));
            let chunk = world.patch(location.clone()).bytes("x").send().await;
            chunk.expect_error(416, "BLOB_UPLOAD_INVALID");
            pass(&world, MINUTE / SECOND).await;
            assert!(!first.is_finished());
            again.await.unwrap().expect_error(429, "BLOB_UPLOAD_INVALID");
            refused += 1;
        }
        assert_eq!(refused, as_long);
        assert_eq!(
            world.counts.of(StoreMethod::Seal),
            0,
            "no other request has begun to seal"
        );
        let again = begin(world.put(target.clone()).bytes("cd"));
        run_ready_tasks().await;
        seal.notify_one();
        run_ready_tasks().await;
        first.await.unwrap().expect(201);
        pass(&world, 2).await;
        again.await.unwrap().expect(201);
        world.put(target).bytes("cd").send().await.expect(201);
        assert_eq!(world.blob("a", &sha256(b"abcd")).await.unwrap(), "abcd");
    }
}

/// After the response: 201 while the blob exists and the bytes are the same, else 404, whatever the body.
#[tokio::test]
async fn a_repeated_put_after_its_blob_was_deleted() {
    for (chunk, blobs) in [
        ("", MemoryBlobs::new()),
        ("ab", MemoryBlobs::new()),
        ("", MemoryBlobs::littering()),
        ("ab", MemoryBlobs::littering()),
    ] {
        let world = World::with(Setup {
            blobs,
            ..Setup::default()
        })
        .await;
        let location = world.open_upload("a").await;
        if !chunk.is_empty() {
            world.patch(location.clone()).bytes(chunk).send().await.expect(202);
        }
        let rest = if chunk.is_empty() { "abc" } else { "c" };
        let digest = sha256(b"abc");
        let target = format!("{location}?digest={digest}");
        world.put(target.clone()).bytes(rest).send().await.expect(201);
        world.put(target.clone()).bytes(rest).send().await.expect(201);
        world.delete(format!("/v2/a/blobs/{digest}")).send().await.expect(202);
        for body in [rest, "", "x"] {
            let again = world.put(target.clone()).bytes(body).send().await;
            again.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        assert_eq!(
            world.blob("a", &digest).await,
            None,
            "nothing was acknowledged, and nothing is there"
        );
        // A new push makes the blob exist again; then the old PUT is 201 as before.
        world.push_blob("a", "abc").await;
        world.put(target).bytes(rest).send().await.expect(201);
    }
}

/// The digest's algorithm was not declared when the upload was opened: the repeated bytes are compared with the object.
#[tokio::test]
async fn a_repeated_put_of_another_algorithm() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("ab").send().await.expect(202);
    let target = format!("{location}?digest={}", sha512(b"abcd"));
    world.put(target.clone()).bytes("cd").send().await.expect(201);
    for (body, status) in [("cd", 201), ("", 201), ("ce", 404), ("c", 404), ("cde", 404)] {
        world.put(target.clone()).bytes(body).send().await.expect(status);
    }
}
