//! All ways to push a blob (end-4 to end-6), and what is refused.

use std::sync::Arc;

use bytes::Bytes;
use contract::source::noise;
use oci::Digest;
use registry::store::blobs::BodyError;
use registry::store::wrapped::StoreMethod;
use registry::{Limits, Settings};

use crate::support::client::TestRequest;
use crate::support::{Answer, Script, Setup, Users, World, sha256, sha512};

/// A way to push a blob.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// POST, then PUT with the whole body.
    Put { streamed: bool },
    /// One POST.
    Post { streamed: bool },
    /// POST, chunks of this size, and a PUT; the PUT takes the last chunk if `last_in_put`.
    Patch {
        size: usize,
        streamed: bool,
        ranged: bool,
        last_in_put: bool,
    },
}

const WAYS: [Way; 12] = {
    const fn patch(size: usize, streamed: bool, ranged: bool, last_in_put: bool) -> Way {
        Way::Patch {
            size,
            streamed,
            ranged,
            last_in_put,
        }
    }
    [
        Way::Put { streamed: false },
        Way::Put { streamed: true },
        Way::Post { streamed: false },
        Way::Post { streamed: true },
        // docker: one PATCH of unknown length
        patch(usize::MAX, true, false, false),
        // crane, skopeo
        patch(usize::MAX, false, false, false),
        // oci-client
        patch(1000, false, true, false),
        patch(1000, true, true, true),
        patch(1000, false, false, true),
        patch(777, true, false, false),
        patch(64, false, true, true),
        patch(usize::MAX, false, true, true),
    ]
};

/// The response that ends the push: to its last request, or to the first that was refused.
async fn push(world: &World, way: Way, query: &str, digest: &Digest, content: &Bytes) -> Answer {
    let body = |call: TestRequest, bytes: Bytes, streamed| {
        if streamed {
            call.stream(Script::in_chunks(&bytes, 100))
        } else {
            call.bytes(bytes)
        }
    };
    let uploads = "/v2/team/app/blobs/uploads/";
    match way {
        Way::Post { streamed } => {
            let call = world.post(format!("{uploads}?digest={digest}"));
            body(call, content.clone(), streamed).send().await
        }
        Way::Put { streamed } => {
            let opened = world.post(format!("{uploads}{query}")).send().await.expect(202);
            let call = world.put(format!("{}?digest={digest}", opened.location()));
            body(call, content.clone(), streamed).send().await
        }
        Way::Patch {
            size,
            streamed,
            ranged,
            last_in_put,
        } => {
            let opened = world.post(format!("{uploads}{query}")).send().await.expect(202);
            let mut location = opened.location();
            let size = size.min(content.len().max(1));
            let mut at = 0;
            loop {
                let chunk = content.slice(at..content.len().min(at + size));
                let range = format!("{at}-{}", (at + chunk.len()).saturating_sub(1));
                let ranged = ranged && !chunk.is_empty();
                at += chunk.len();
                let last = at == content.len();
                let call = if last && last_in_put {
                    world.put(format!("{location}?digest={digest}"))
                } else {
                    world.patch(location.clone())
                };
                let call = if ranged {
                    call.header("content-range", range)
                } else {
                    call
                };
                let answer = body(call, chunk, streamed).send().await;
                if last && last_in_put {
                    return answer;
                }
                if answer.status != 202 {
                    return answer;
                }
                assert_eq!(answer.header("range"), format!("0-{}", at.saturating_sub(1)));
                location = answer.location();
                if last {
                    return world.put(format!("{location}?digest={digest}")).bytes("").send().await;
                }
            }
        }
    }
}

async fn every_way(query: &str, hash: fn(&[u8]) -> Digest) {
    let world = World::new().await;
    let sizes = [0, 1, 2, 63, 64, 65, 999, 1000, 1001, 2000, 10_007];
    for (seed, (way, size)) in (1..).zip(WAYS.iter().flat_map(|way| sizes.map(|size| (*way, size)))) {
        let content = noise(seed, size);
        let digest = hash(&content);
        let answer = push(&world, way, query, &digest, &content).await;
        assert_eq!(answer.status, 201, "{way:?}, {size} bytes: {:?}", answer.body);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        let location = answer.location();
        assert_eq!(location, format!("/v2/team/app/blobs/{digest}"));
        let read = world.get(location).send().await.expect(200);
        assert_eq!(read.body, content, "{way:?}, {size} bytes");
    }
}

#[tokio::test]
async fn every_way_with_sha256() {
    every_way("", sha256).await;
}

#[tokio::test]
async fn every_way_with_sha512_declared() {
    every_way("?digest-algorithm=sha512", sha512).await;
}

/// The algorithm becomes known with the final PUT: the bytes are hashed again.
#[tokio::test]
async fn every_way_with_sha512_undeclared() {
    every_way("", sha512).await;
}

/// Declared with one algorithm, finished with the other.
#[tokio::test]
async fn every_way_with_another_algorithm_than_declared() {
    every_way("?digest-algorithm=sha512", sha256).await;
}

#[tokio::test]
async fn chunks_of_one_byte() {
    let world = World::new().await;
    let content = noise(1, 300);
    let way = Way::Patch {
        size: 1,
        streamed: false,
        ranged: true,
        last_in_put: false,
    };
    push(&world, way, "", &sha256(&content), &content).await.expect(201);
    assert_eq!(world.blob("team/app", &sha256(&content)).await, Some(content));
}

#[tokio::test]
async fn what_a_post_answers() {
    let world = World::new().await;
    for target in [
        "/v2/a/blobs/uploads/",
        // Some clients omit the slash.
        "/v2/a/blobs/uploads",
        "/v2/a/blobs/uploads/?digest-algorithm=sha256",
        "/v2/a/blobs/uploads/?digest-algorithm=sha512",
    ] {
        let opened = world.post(target).bytes("").send().await.expect(202);
        assert!(opened.location().starts_with("/v2/a/blobs/uploads/"));
        assert!(
            !opened.location().contains('?'),
            "some clients drop the query of a Location"
        );
        assert_eq!(opened.header("range"), "0-0");
        assert_eq!(opened.header("oci-chunk-min-length"), (5 << 20).to_string());
        let uuid = opened.header("docker-upload-uuid");
        assert_eq!(
            uuid.split('-').map(str::len).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12],
            "{uuid}"
        );
    }
    assert_eq!(world.sessions.sessions(), 0, "opening an upload writes nothing");
    assert_eq!(world.counts.writes(), 0);
}

/// Some clients send the digest of the blob when they only open a session. A POST without bytes that cannot be the blob
/// opens a session, which hashes with that digest's algorithm.
#[tokio::test]
async fn a_post_with_a_digest_and_no_bytes_opens_a_session() {
    type Empty = fn(TestRequest) -> TestRequest;
    let empty: [(&str, Empty); 4] = [
        ("no body", |call| call),
        ("a length of 0", |call| call.bytes("")),
        ("chunked, and nothing in it", |call| call.stream(Script::of(""))),
        ("trailers alone", |call| call.stream(Script::new().trailers())),
    ];
    for (what, send) in empty {
        for hash in [sha256, sha512] {
            let world = World::new().await;
            let digest = hash(b"abc");
            let post = world.post(format!("/v2/a/blobs/uploads/?digest={digest}"));
            let opened = send(post).send().await.expect(202);
            assert_eq!(opened.header("range"), "0-0", "{what}");
            assert!(opened.get("oci-chunk-min-length").is_some() && opened.get("docker-upload-uuid").is_some());
            assert_eq!(opened.get("docker-content-digest"), None);
            let location = opened.location();
            world.patch(location.clone()).bytes("ab").send().await.expect(202);
            let _ = world.counts.take();
            let put = world.put(format!("{location}?digest={digest}")).bytes("c");
            put.send().await.expect(201);
            assert_eq!(world.counts.of(StoreMethod::Read), 0, "it was hashed on the way");
            assert_eq!(world.blob("a", &digest).await.unwrap(), "abc");
            // The empty blob is complete.
            let nothing = hash(b"");
            let post = world.post(format!("/v2/a/blobs/uploads/?digest={nothing}"));
            let stored = send(post).send().await.expect(201);
            assert_eq!(stored.header("docker-content-digest"), nothing.to_string());
            assert_eq!(world.blob("a", &nothing).await.unwrap(), "");
        }
    }
    // With bytes it is the blob, or is refused.
    let world = World::new().await;
    for body in [Script::of("abd"), Script::new().data("a").data("b")] {
        let post = world.post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"abc")));
        post.stream(body).send().await.expect_error(400, "DIGEST_INVALID");
    }
    let post = world.post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"abc")));
    let post = post.header("content-length", "0").stream(Script::of("abc"));
    post.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
    for body in ["a", ""] {
        let post = world.post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"abc")));
        let cut = post.stream(Script::of(body).fail(BodyError::Cut)).send().await;
        cut.expect_error(400, "SIZE_INVALID");
    }
    assert_eq!(world.blobs.objects(), 0);
}

#[tokio::test]
async fn refused_parameters() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let hex = "0".repeat(64);
    for (method, target, code) in [
        (
            "POST",
            "/v2/a/blobs/uploads/?digest=sha256:123".to_owned(),
            "DIGEST_INVALID",
        ),
        ("POST", "/v2/a/blobs/uploads/?digest=".to_owned(), "DIGEST_INVALID"),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest=sha384:{hex}"),
            "DIGEST_INVALID",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest=SHA256:{hex}"),
            "DIGEST_INVALID",
        ),
        (
            "POST",
            format!("/v2/a/blobs/uploads/?digest=sha256:{}", "A".repeat(64)),
            "DIGEST_INVALID",
        ),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(),
            "DIGEST_INVALID",
        ),
        (
            "POST",
            "/v2/a/blobs/uploads/?digest-algorithm=".to_owned(),
            "DIGEST_INVALID",
        ),
        (
            "POST",
            "/v2/a/blobs/uploads/?mount=nonsense".to_owned(),
            "DIGEST_INVALID",
        ),
        ("PUT", location.clone(), "DIGEST_INVALID"),
        ("PUT", format!("{location}?digest=nonsense"), "DIGEST_INVALID"),
        (
            "PUT",
            format!("{location}?digest=sha256:{}", "g".repeat(64)),
            "DIGEST_INVALID",
        ),
        ("POST", "/v2/A/blobs/uploads/".to_owned(), "NAME_INVALID"),
    ] {
        let call = world.call(method.parse().unwrap(), target);
        call.bytes("x").send().await.expect_error(400, code);
    }
    // None of them has ended the session.
    let digest = sha256(b"x");
    world
        .put(format!("{location}?digest={digest}"))
        .bytes("x")
        .send()
        .await
        .expect(201);
}

#[tokio::test]
async fn an_empty_patch_changes_nothing() {
    let world = World::new().await;
    let mut location = world.open_upload("a").await;
    for body in [Script::new(), Script::new().trailers(), Script::of("")] {
        let answer = world.patch(location).stream(body).send().await.expect(202);
        assert_eq!(answer.header("range"), "0-0", "never an empty interval");
        location = answer.location();
    }
    location = world.patch(location).bytes("ab").send().await.expect(202).location();
    for _ in 0..2 {
        let answer = world.patch(location).stream(Script::new()).send().await.expect(202);
        assert_eq!(answer.header("range"), "0-1");
        location = answer.location();
    }
    let digest = sha256(b"ab");
    world
        .put(format!("{location}?digest={digest}"))
        .send()
        .await
        .expect(201);
    assert_eq!(world.blob("a", &digest).await.unwrap(), "ab");
}

/// `Content-Range`, compared with the stored bytes (2) and the arriving ones. Every range that does not fit is 416. The
/// response contains the position of the upload, and nothing is stored.
#[tokio::test]
async fn content_range_must_fit() {
    let world = World::new().await;
    let mut location = world.open_upload("a").await;
    location = world.patch(location).bytes("ab").send().await.expect(202).location();
    for (range, body, length) in [
        ("0-2", "cde", Some(3)),
        ("1-3", "cde", Some(3)),
        ("3-5", "cde", Some(3)),
        ("2-3", "cde", Some(3)),
        ("2-5", "cde", Some(3)),
        ("2-3", "cde", None),
        ("2-5", "cde", None),
        ("2-2", "", Some(0)),
        ("2-2", "", None),
        ("2-1", "cde", Some(3)),
        ("4-2", "cde", Some(3)),
        ("2", "cde", Some(3)),
        ("2-", "cde", Some(3)),
        ("-3", "cde", Some(3)),
        ("", "cde", Some(3)),
        ("x-y", "cde", Some(3)),
        ("+2-4", "cde", Some(3)),
        ("bytes=2-4", "cde", Some(3)),
        ("bytes 2-4", "cde", Some(3)),
        ("bytes 2-4/4", "cde", Some(3)),
        ("items 2-4/*", "cde", Some(3)),
        ("2-18446744073709551616", "cde", Some(3)),
        ("2-18446744073709551615", "cde", Some(3)),
    ] {
        let with = |mut call: TestRequest| {
            call = call.header("content-range", range).stream(Script::of(body));
            match length {
                Some(length) => call.header("content-length", format!("{length}")),
                None => call,
            }
        };
        let patch = with(world.patch(location.clone())).send().await;
        let put = with(world.put(format!("{location}?digest={}", sha256(b"abcde"))))
            .send()
            .await;
        for answer in [patch, put] {
            let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
            assert_eq!(answer.header("range"), "0-1", "{range}");
            assert_eq!(answer.location(), location, "{range}");
            assert!(answer.get("docker-upload-uuid").is_some());
        }
    }
    // Both forms of a range that fits, and a range without a known total size.
    for (range, chunk) in [("2-3", "cd"), ("bytes 4-5/*", "ef"), ("bytes 6-7/100", "gh")] {
        let call = world.patch(location).header("content-range", range).bytes(chunk);
        location = call.send().await.expect(202).location();
    }
    let digest = sha256(b"abcdefgh");
    world
        .put(format!("{location}?digest={digest}"))
        .send()
        .await
        .expect(201);
    assert_eq!(world.blob("a", &digest).await.unwrap(), "abcdefgh");
}

/// The body is shorter or longer than declared.
#[tokio::test]
async fn content_length_must_fit() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    for length in ["0", "2", "4", "1000000"] {
        let call = world.patch(location.clone()).header("content-length", length);
        let answer = call.stream(Script::of("abc")).send().await;
        let answer = answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), "0-0");
    }
    let digest = sha256(b"abc");
    let call = world.put(format!("{location}?digest={digest}")).bytes("abc");
    call.send().await.expect(201);
}

#[tokio::test]
async fn the_first_chunk_begins_at_zero() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let call = world
        .patch(location.clone())
        .header("content-range", "1-3")
        .bytes("bcd");
    let answer = call.send().await.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(answer.header("range"), "0-0");
    let call = world.patch(location).header("content-range", "0-2").bytes("abc");
    call.send().await.expect(202);
}

fn blobs_up_to(bytes: u64) -> Settings {
    let limits = Limits {
        blob_bytes: bytes,
        ..Limits::default()
    };
    Settings {
        limits,
        ..Settings::default()
    }
}

/// At the limit and one past it, by every way, declared and not.
#[tokio::test]
async fn size_limit() {
    let world = World::with(Setup {
        settings: blobs_up_to(1500),
        ..Setup::default()
    })
    .await;
    for way in WAYS {
        let (fits, exceeds) = (noise(1, 1500), noise(2, 1501));
        let answer = push(&world, way, "", &sha256(&fits), &fits).await;
        assert_eq!(answer.status, 201, "{way:?}");
        let refused = push(&world, way, "", &sha256(&exceeds), &exceeds).await;
        assert_eq!(refused.status, 413, "{way:?}");
        refused.expect_error(413, "DENIED");
    }
    assert_eq!(world.blob("team/app", &sha256(&noise(2, 1501))).await, None);
}

/// The largest blob that the policy allows in a repository: at the bound and one past it, by every way, declared and not.
/// It never raises the limit of the registry.
#[tokio::test]
async fn size_limit_of_the_policy() {
    for (max_blob, bound) in [("1500B", 1500), ("1TiB", 2000)] {
        let policy = format!(
            r#"{{"syntax": 1, "repository": [
                {{"match": ["team/**"], "max-blob": "{max_blob}"}}, {{"match": ["**"], "max-blob": "1B"}}]}}"#
        );
        let world = World::with(Setup {
            settings: blobs_up_to(2000),
            ..Setup::private(&Arc::new(Users::open_under(&policy)))
        })
        .await;
        let (fits, exceeds) = (noise(1, bound), noise(2, bound + 1));
        for way in WAYS {
            let answer = push(&world, way, "", &sha256(&fits), &fits).await;
            assert_eq!(answer.status, 201, "{max_blob} {way:?}");
            let refused = push(&world, way, "", &sha256(&exceeds), &exceeds).await;
            assert_eq!(refused.status, 413, "{max_blob} {way:?}");
            let refused = refused.expect_error(413, "DENIED");
            let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.contains(&bound.to_string()), "{message}");
        }
        assert_eq!(world.blob("team/app", &sha256(&exceeds)).await, None);
    }
}

/// A declared length that is too large is refused before the body is read.
#[tokio::test]
async fn size_limit_is_seen_in_the_declaration() {
    let world = World::new().await;
    let location = world.open_upload("a").await;
    let body = Script::of("abc");
    let given = body.given();
    let call = world
        .patch(location.clone())
        .header("content-length", (500_u64 << 30 | 1).to_string());
    call.stream(body).send().await.expect_error(413, "DENIED");
    assert_eq!(given.load(std::sync::atomic::Ordering::SeqCst), 0);
    // The session continues.
    world.patch(location).bytes("abc").send().await.expect(202);
}

#[tokio::test]
async fn a_wrong_digest_ends_the_session() {
    let world = World::new().await;
    for (query, wrong) in [
        ("", sha256(b"other")),
        // Found when the object is hashed again.
        ("", sha512(b"other")),
        ("?digest-algorithm=sha512", sha512(b"other")),
    ] {
        for in_put in [true, false] {
            let opened = world
                .post(format!("/v2/a/blobs/uploads/{query}"))
                .send()
                .await
                .expect(202);
            let mut location = opened.location();
            let body = if in_put {
                Bytes::from("abc")
            } else {
                location = world.patch(location).bytes("abc").send().await.expect(202).location();
                Bytes::new()
            };
            let call = world.put(format!("{location}?digest={wrong}")).bytes(body);
            let answer = call.send().await.expect_error(400, "DIGEST_INVALID");
            let computed = answer.json()["errors"][0]["detail"]["computed"].clone();
            assert!(computed == sha256(b"abc").to_string() || computed == sha512(b"abc").to_string());
            for method in ["GET", "PATCH", "DELETE", "PUT"] {
                let target = format!("{location}?digest={}", sha256(b"abc"));
                let again = world.call(method.parse().unwrap(), target).bytes("");
                again.send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
            assert_eq!(world.blob("a", &wrong).await, None);
            assert_eq!(world.blobs.objects(), 0, "its bytes are gone at once");
        }
    }
    let call = world
        .post(format!("/v2/a/blobs/uploads/?digest={}", sha256(b"abc")))
        .bytes("abd");
    call.send().await.expect_error(400, "DIGEST_INVALID");
    assert_eq!(world.blobs.objects(), 0);
}

/// The same bytes again become one object, whichever user pushes them to whichever repository.
#[tokio::test]
async fn the_same_blob_again() {
    let world = World::new().await;
    let content = noise(1, 500);
    for repository in ["a", "a", "b", "a/b"] {
        let digest = world.push_blob(repository, content.clone()).await;
        assert_eq!(world.blob(repository, &digest).await.as_ref(), Some(&content));
    }
    assert_eq!(world.metadata.counts().blobs, 1);
    assert_eq!(world.metadata.counts().links, 3);
    assert_eq!(
        world.metadata.counts().deletion_queue,
        3,
        "what was not needed is named for the collection"
    );
}
