//! Reading and deleting blobs (end-2, end-10): ranges, conditions, redirects.

use bytes::Bytes;
use contract::source::noise;
use registry::store::memory::MemoryBlobs;

use crate::support::{Answer, Setup, World, sha256};

const TEN: &str = "0123456789";

/// The expected response to a `Range` of the ten bytes of [`TEN`].
enum Expected {
    Whole,
    /// The bytes and their `Content-Range`.
    One(&'static str, &'static str),
    /// The same for each part.
    Several(&'static [(&'static str, &'static str)]),
    Refused,
}
use Expected::{One, Refused, Several, Whole};

const RANGES: &[(&str, Expected)] = &[
    ("bytes=0-0", One("0", "bytes 0-0/10")),
    ("bytes=0-9", One(TEN, "bytes 0-9/10")),
    ("bytes=2-4", One("234", "bytes 2-4/10")),
    ("bytes=9-9", One("9", "bytes 9-9/10")),
    ("bytes=5-", One("56789", "bytes 5-9/10")),
    ("bytes=9-", One("9", "bytes 9-9/10")),
    ("bytes=-3", One("789", "bytes 7-9/10")),
    ("bytes=-10", One(TEN, "bytes 0-9/10")),
    ("bytes=-11", One(TEN, "bytes 0-9/10")),
    ("bytes=8-10", One("89", "bytes 8-9/10")),
    ("bytes=8-99999999999999999999999", One("89", "bytes 8-9/10")),
    ("bytes=-99999999999999999999999", One(TEN, "bytes 0-9/10")),
    ("Bytes=1-1", One("1", "bytes 1-1/10")),
    ("bytes= 1-1 ", One("1", "bytes 1-1/10")),
    ("bytes=,1-1,", One("1", "bytes 1-1/10")),
    // Ranges beyond the end are left out of a set.
    ("bytes=1-1,10-", One("1", "bytes 1-1/10")),
    ("bytes=10-", Refused),
    ("bytes=10-10", Refused),
    ("bytes=11-20", Refused),
    ("bytes=5-4", Refused),
    ("bytes=500-0", Refused),
    ("bytes=-0", Refused),
    ("bytes=10-,20-30", Refused),
    ("bytes=18446744073709551615-", Refused),
    ("bytes=99999999999999999999999-", Refused),
    // Invalid ranges are ignored (RFC 9110, 14.2).
    ("items=0-1", Whole),
    ("bytes 0-1", Whole),
    ("0-1", Whole),
    ("bytes=", Whole),
    ("bytes=,", Whole),
    ("bytes=-", Whole),
    ("bytes=a-b", Whole),
    ("bytes=1", Whole),
    ("bytes=0-1x", Whole),
    ("bytes=--1", Whole),
    ("bytes=1-2-3", Whole),
    ("bytes=0x1-2", Whole),
    ("bytes=+1-2", Whole),
    ("bytes=0-1,x", Whole),
    ("\u{fe}", Whole),
    (
        "bytes=0-1,3-4",
        Several(&[("01", "bytes 0-1/10"), ("34", "bytes 3-4/10")]),
    ),
    ("bytes=-1,0-0", Several(&[("9", "bytes 9-9/10"), ("0", "bytes 0-0/10")])),
    (
        "bytes=0-3,2-5",
        Several(&[("0123", "bytes 0-3/10"), ("2345", "bytes 2-5/10")]),
    ),
    (
        "bytes=0-0 , 2-2,4-4",
        Several(&[("0", "bytes 0-0/10"), ("2", "bytes 2-2/10"), ("4", "bytes 4-4/10")]),
    ),
    // Together more than the whole.
    ("bytes=0-,0-", Whole),
    ("bytes=0-5,4-9", Whole),
    ("bytes=0-,0-,0-,0-,0-,0-,0-,0-,0-,0-", Whole),
];

#[tokio::test]
async fn ranges() {
    let world = World::new().await;
    let digest = world.push_blob("a", TEN).await;
    for (range, expected) in RANGES {
        let call = world.get(format!("/v2/a/blobs/{digest}")).header("range", range);
        let answer = call.send().await;
        match expected {
            Whole => {
                let answer = answer.expect(200);
                assert_eq!(answer.body, TEN, "{range}");
                assert_eq!(answer.header("content-type"), "application/octet-stream");
                check_headers(&answer, &digest.to_string());
            }
            One(body, content_range) => {
                let answer = answer.expect(206);
                assert_eq!(answer.body, body, "{range}");
                assert_eq!(answer.header("content-range"), *content_range);
                assert_eq!(answer.header("content-type"), "application/octet-stream");
                check_headers(&answer, &digest.to_string());
            }
            Several(parts) => {
                let answer = answer.expect(206);
                assert_eq!(answer.get("content-range"), None, "it stands in the parts");
                let found = read_parts(&answer);
                let found: Vec<_> = found
                    .iter()
                    .map(|(range, body)| (body.as_str(), range.as_str()))
                    .collect();
                assert_eq!(found, *parts, "{range}");
                check_headers(&answer, &digest.to_string());
            }
            Refused => {
                let answer = answer.expect_error(416, "SIZE_INVALID");
                assert_eq!(answer.header("content-range"), "bytes */10", "{range}");
            }
        }
        // Ranges apply to GET only (RFC 9110, 14.2).
        let head = world.head(format!("/v2/a/blobs/{digest}")).header("range", range);
        let head = head.send().await.expect(200);
        assert_eq!(head.header("content-length"), "10");
        check_headers(&head, &digest.to_string());
    }
}

fn check_headers(answer: &Answer, digest: &str) {
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(answer.header("etag"), format!("\"{digest}\""));
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("cache-control"), "private, max-age=31536000, immutable");
}

/// A multipart/byteranges body (RFC 9110, 14.6), as a client reads it: `Content-Range` and bytes of each part.
fn read_parts(answer: &Answer) -> Vec<(String, String)> {
    let content_type = answer.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = std::str::from_utf8(&answer.body).unwrap();
    let mut parts = Vec::new();
    let mut rest = text.strip_prefix(&format!("\r\n--{boundary}")).unwrap();
    loop {
        if rest == "--\r\n" {
            return parts;
        }
        let (head, body) = rest.strip_prefix("\r\n").unwrap().split_once("\r\n\r\n").unwrap();
        let mut content_range = None;
        for line in head.split("\r\n") {
            match line.split_once(": ").unwrap() {
                ("Content-Type", value) => assert_eq!(value, "application/octet-stream"),
                ("Content-Range", value) => content_range = Some(value.to_owned()),
                other => panic!("{other:?}"),
            }
        }
        let (body, next) = body.split_once(&format!("\r\n--{boundary}")).unwrap();
        parts.push((content_range.unwrap(), body.to_owned()));
        rest = next;
    }
}

#[tokio::test]
async fn two_range_lines_are_no_range() {
    let world = World::new().await;
    let digest = world.push_blob("a", TEN).await;
    let call = world
        .get(format!("/v2/a/blobs/{digest}"))
        .header("range", "bytes=0-0")
        .header("range", "bytes=1-1");
    assert_eq!(call.send().await.expect(200).body, TEN);
}

#[tokio::test]
async fn the_number_of_ranges_is_bounded() {
    let world = World::new().await;
    let digest = world.push_blob("a", vec![b'x'; 1000]).await;
    let ranges = |count: usize| {
        let list: Vec<_> = (0..count).map(|at| format!("{}-{}", 2 * at, 2 * at)).collect();
        format!("bytes={}", list.join(","))
    };
    let get = |range: String| world.get(format!("/v2/a/blobs/{digest}")).header("range", range).send();
    let answer = get(ranges(100)).await.expect(206);
    let parts = read_parts(&answer);
    assert_eq!(parts.len(), 100);
    assert_eq!(parts[99], ("bytes 198-198/1000".to_owned(), "x".to_owned()));
    get(ranges(101)).await.expect_error(416, "SIZE_INVALID");
    get(ranges(5000)).await.expect_error(416, "SIZE_INVALID");
    // Each response has another boundary: the content must not be able to contain it.
    let again = get(ranges(100)).await.expect(206);
    assert_ne!(again.header("content-type"), answer.header("content-type"));
}

/// Ranges over several chunks of a large object, compared with slices of its bytes.
#[tokio::test]
async fn ranges_of_a_large_blob() {
    let world = World::new().await;
    let content = noise(7, 300_000);
    let digest = world.push_blob("a", content.clone()).await;
    for (start, end) in [
        (0, 1),
        (65_535, 65_537),
        (65_536, 131_072),
        (1, 299_999),
        (131_071, 300_000),
        (0, 300_000),
    ] {
        let call = world.get(format!("/v2/a/blobs/{digest}"));
        let answer = call
            .header("range", format!("bytes={start}-{}", end - 1))
            .send()
            .await
            .expect(206);
        assert_eq!(answer.body, content[start..end]);
    }
}

/// An empty blob has no ranges. `Range` is ignored, as in distribution v3 and Go's file server, because some clients
/// send it with every request. Conditions apply as to any content. The blob is never redirected: S3 answers 416 to any
/// range of it.
#[tokio::test]
async fn an_empty_blob() {
    let own = format!("\"{}\"", sha256(b""));
    let (own, other) = (own.as_str(), "\"other\"");
    for world in [World::new().await, redirecting().await] {
        let digest = world.push_blob("a", "").await;
        let target = format!("/v2/a/blobs/{digest}");
        for (headers, status) in [
            (&[][..], 200),
            (&[("range", "bytes=0-")], 200),
            (&[("range", "bytes=0-0")], 200),
            (&[("range", "bytes=1-")], 200),
            (&[("range", "bytes=-1")], 200),
            (&[("range", "bytes=-0")], 200),
            (&[("range", "bytes=5-4")], 200),
            (&[("range", "bytes=0-0,1-1")], 200),
            (&[("range", "bytes=0-"), ("range", "bytes=0-")], 200),
            (&[("range", "nonsense")], 200),
            (&[("if-range", own), ("range", "bytes=0-")], 200),
            (&[("if-range", other), ("range", "bytes=0-")], 200),
            (&[("if-none-match", own)], 304),
            (&[("if-none-match", "*"), ("range", "bytes=0-")], 304),
            (&[("if-none-match", other), ("range", "bytes=0-")], 200),
            (&[("if-match", own), ("range", "bytes=0-")], 200),
            (&[("if-match", "*")], 200),
            (&[("if-match", other)], 412),
            (&[("if-match", other), ("if-none-match", own)], 412),
            (&[("if-modified-since", "Wed, 21 Oct 2099 07:28:00 GMT")], 200),
            (&[("if-unmodified-since", "Wed, 21 Oct 1999 07:28:00 GMT")], 200),
        ] {
            for method in ["GET", "HEAD"] {
                let mut call = world.call(method.parse().unwrap(), target.clone());
                for (name, value) in headers {
                    call = call.header(name, value);
                }
                let answer = call.send().await;
                assert_eq!(answer.status, status, "{method} {headers:?}");
                if status == 200 {
                    assert_eq!(answer.header("content-length"), "0");
                    assert_eq!(answer.get("content-range"), None);
                }
                if status < 400 {
                    check_headers(&answer, &digest.to_string());
                }
            }
        }
    }
}

/// `If-Match` (RFC 9110, 13.1.1), and conditions on dates, which content without a date must ignore (13.1.3, 13.1.4).
/// An object store would evaluate all of them with its own tags and dates, so no such request is redirected.
#[tokio::test]
async fn other_conditions() {
    let own = format!("\"{}\"", sha256(TEN.as_bytes()));
    let weak = format!("W/{own}");
    let listed = format!("\"other\", {own}");
    for world in [World::new().await, redirecting().await] {
        let digest = world.push_blob("a", TEN).await;
        for (headers, status) in [
            (&[("if-match", own.as_str())][..], 200),
            (&[("if-match", "*")], 200),
            (&[("if-match", &listed)], 200),
            (&[("if-match", "\"other\""), ("if-match", &own)], 200),
            (&[("if-match", &weak)], 412),
            (&[("if-match", "\"other\"")], 412),
            (&[("if-match", "")], 412),
            (&[("if-match", &own), ("range", "bytes=0-1")], 206),
            (&[("if-match", "\"other\""), ("range", "bytes=0-1")], 412),
            (&[("if-match", "\"other\""), ("range", "bytes=99-")], 412),
            (&[("if-match", &own), ("if-none-match", &own)], 304),
            (&[("if-modified-since", "Wed, 21 Oct 2099 07:28:00 GMT")], 200),
            (&[("if-unmodified-since", "Wed, 21 Oct 1999 07:28:00 GMT")], 200),
            (&[("if-unmodified-since", "nonsense"), ("range", "bytes=0-1")], 206),
        ] {
            for method in ["GET", "HEAD"] {
                let mut call = world.call(method.parse().unwrap(), format!("/v2/a/blobs/{digest}"));
                for (name, value) in headers {
                    call = call.header(name, value);
                }
                let status = if method == "HEAD" && status == 206 { 200 } else { status };
                let answer = call.send().await;
                assert_eq!(answer.status, status, "{method} {headers:?}");
            }
        }
        let image = world.push_image("a", "t", "app").await;
        for (condition, status) in [
            (format!("\"{}\"", image.digest), 200),
            ("*".to_owned(), 200),
            (own.clone(), 412),
        ] {
            for reference in ["t", &image.digest.to_string()] {
                for method in ["GET", "HEAD"] {
                    let call = world.call(method.parse().unwrap(), format!("/v2/a/manifests/{reference}"));
                    let answer = call.header("if-match", &condition).send().await;
                    assert_eq!(answer.status, status, "{method} {reference} {condition}");
                }
            }
        }
    }
}

#[tokio::test]
async fn conditions() {
    let world = World::new().await;
    let digest = world.push_blob("a", TEN).await;
    let other = sha256(b"other");
    let target = format!("/v2/a/blobs/{digest}");
    for (tags, status) in [
        (vec![format!("\"{digest}\"")], 304),
        (vec![format!("W/\"{digest}\"")], 304),
        (vec!["*".to_owned()], 304),
        (vec![format!("\"{other}\", \"{digest}\"")], 304),
        (vec![format!("\"{other}\""), format!("\"{digest}\"")], 304),
        (vec![format!("\"{other}\"")], 200),
        (vec![digest.to_string()], 200),
        (vec![String::new()], 200),
    ] {
        for method in ["GET", "HEAD"] {
            let mut call = world.call(method.parse().unwrap(), target.clone());
            for tag in &tags {
                call = call.header("if-none-match", tag);
            }
            let answer = call.send().await.expect(status);
            check_headers(&answer, &digest.to_string());
        }
    }
    for (condition, status) in [
        (format!("\"{digest}\""), 206),
        (format!("W/\"{digest}\""), 200),
        (format!("\"{other}\""), 200),
        ("Wed, 21 Oct 2026 07:28:00 GMT".to_owned(), 200),
        (String::new(), 200),
    ] {
        for (range, otherwise) in [("bytes=0-1", 206), ("bytes=10-", 416)] {
            let call = world
                .get(target.clone())
                .header("range", range)
                .header("if-range", &condition);
            let status = if status == 206 { otherwise } else { status };
            let answer = call.send().await.expect(status);
            if status == 200 {
                assert_eq!(answer.body, TEN);
            }
        }
    }
    // Both at once: content that the client already has is not sent in part either (13.2.2).
    let call = world
        .get(target)
        .header("range", "bytes=0-1")
        .header("if-none-match", format!("\"{digest}\""));
    call.send().await.expect(304);
}

#[tokio::test]
async fn absent() {
    let world = World::new().await;
    world.push_blob("a", TEN).await;
    for method in ["GET", "HEAD", "DELETE"] {
        for target in [
            format!("/v2/a/blobs/{}", sha256(b"x")),
            format!("/v2/b/blobs/{}", sha256(TEN.as_bytes())),
        ] {
            let answer = world
                .call(method.parse().unwrap(), target)
                .header("range", "bytes=99-")
                .send()
                .await;
            let answer = answer.expect(404);
            if method != "HEAD" {
                assert_eq!(answer.code(), "BLOB_UNKNOWN");
            }
        }
    }
}

#[tokio::test]
async fn deletion() {
    let world = World::new().await;
    for repository in ["a", "b"] {
        world.push_blob(repository, TEN).await;
    }
    let digest = sha256(TEN.as_bytes());
    let target = format!("/v2/a/blobs/{digest}");
    world.delete(target.clone()).send().await.expect(202);
    world
        .delete(target.clone())
        .send()
        .await
        .expect_error(404, "BLOB_UNKNOWN");
    assert_eq!(world.blob("a", &digest).await, None);
    assert_eq!(world.blob("b", &digest).await.unwrap(), TEN);
    world.push_blob("a", TEN).await;
    assert_eq!(world.blob("a", &digest).await.unwrap(), TEN);
}

async fn redirecting() -> World {
    redirecting_to("https://objects.example/bucket").await
}

async fn redirecting_to(url: &str) -> World {
    let blobs = MemoryBlobs::redirecting(url);
    World::with(Setup {
        blobs,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn redirects() {
    let world = redirecting().await;
    let digest = world.push_blob("a", TEN).await;
    let etag = format!("\"{digest}\"");
    let target = format!("/v2/a/blobs/{digest}");
    for (method, headers, status) in [
        ("GET", vec![], 307),
        ("GET", vec![("range", "bytes=0-1")], 307),
        ("GET", vec![("range", "nonsense")], 307),
        // Object stores handle several ranges differently. The registry answers them itself, even if they are one range
        // or the whole.
        ("GET", vec![("range", "bytes=0-,0-")], 200),
        ("GET", vec![("range", "bytes=0-1,10-")], 206),
        ("GET", vec![("range", "bytes=10-,0-1")], 206),
        ("GET", vec![("range", "bytes=0-1"), ("range", "bytes=0-1")], 200),
        ("GET", vec![("range", "bytes=0-1,3-4"), ("if-range", "\"other\"")], 200),
        // An object store has other entity tags, so these are evaluated here.
        ("GET", vec![("range", "bytes=0-1"), ("if-range", "\"other\"")], 307),
        ("GET", vec![("range", "bytes=0-1"), ("if-range", etag.as_str())], 206),
        // Without a range the condition has no effect (RFC 9110, 13.1.5).
        ("GET", vec![("if-range", etag.as_str())], 307),
        ("GET", vec![("if-none-match", "\"other\"")], 307),
        ("GET", vec![("if-none-match", etag.as_str())], 304),
        // The object store would give other answers to these.
        ("GET", vec![("range", "bytes=10-")], 416),
        ("GET", vec![("range", "bytes=5-4")], 416),
        ("GET", vec![("range", "bytes=0-1,3-4")], 206),
        ("HEAD", vec![], 200),
        ("HEAD", vec![("range", "bytes=0-1")], 200),
        ("HEAD", vec![("if-none-match", etag.as_str())], 304),
    ] {
        let mut call = world.call(method.parse().unwrap(), target.clone());
        for (name, value) in &headers {
            call = call.header(name, value);
        }
        let answer = call.send().await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
        match status {
            307 => {
                assert!(answer.location().starts_with("https://objects.example/bucket/"));
                assert_eq!(answer.header("docker-content-digest"), digest.to_string());
                assert_eq!(answer.header("cache-control"), "private, max-age=900");
                assert_eq!(answer.body, Bytes::new());
            }
            206 if answer.get("content-range").is_some() => assert_eq!(answer.body, TEN[..2]),
            206 => assert_eq!(read_parts(&answer).len(), 2),
            416 => assert_eq!(answer.header("content-range"), "bytes */10"),
            200 => assert_eq!(answer.header("content-length"), "10"),
            _ => {}
        }
    }
    let unknown = world.get(format!("/v2/a/blobs/{}", sha256(b"x"))).send().await;
    unknown.expect_error(404, "BLOB_UNKNOWN");
}

/// An upload is never redirected, nor is a manifest, however large.
#[tokio::test]
async fn nothing_else_is_redirected() {
    let world = redirecting().await;
    let location = world.open_upload("a").await;
    world.patch(location.clone()).bytes("abc").send().await.expect(202);
    world
        .put(format!("{location}?digest={}", sha256(b"abc")))
        .send()
        .await
        .expect(201);
    world.push_blob("a", "{}").await;
    let manifest = crate::support::content::padded(&crate::support::content::image(b"{}", &[b"abc"]), 100_000);
    world.put_manifest("a", "large", manifest.clone()).await.expect(201);
    let read = world.get("/v2/a/manifests/large").send().await.expect(200);
    assert_eq!(read.body, manifest);
}

/// Clients send their password to the target of a redirect if its host is the host of the request or a subdomain of it.
/// Such a pull is served by the registry, whatever the policy says.
#[tokio::test]
async fn never_redirected_to_the_host_of_the_request() {
    for (url, host, status) in [
        ("https://objects.example/bucket", "registry.example", 307),
        ("https://objects.example/bucket", "objects.example", 200),
        ("https://objects.example/bucket", "objects.example:5000", 200),
        ("https://objects.example:9000/bucket", "Objects.Example.:5000", 200),
        ("https://objects.example/bucket", "example", 200),
        ("https://objects.example/bucket", "s3.objects.example", 307),
        ("https://objects.example/bucket", "ects.example", 307),
        ("http://127.0.0.1:9000/bucket", "127.0.0.1:5000", 200),
        ("http://127.0.0.2:9000/bucket", "127.0.0.1:5000", 307),
        ("http://[::1]:9000/bucket", "[::1]:5000", 200),
        ("http://[::1]:9000/bucket", "[0:0:0:0:0:0:0:1]", 200),
        ("http://[::2]:9000/bucket", "[::1]:5000", 307),
    ] {
        let world = redirecting_to(url).await;
        let digest = world.push_blob("a", TEN).await;
        let target = format!("/v2/a/blobs/{digest}");
        for range in [None, Some("bytes=0-1")] {
            let mut call = world.get(target.clone()).header("host", host);
            if let Some(range) = range {
                call = call.header("range", range);
            }
            let answer = call.send().await;
            let (status, body) = match range {
                None => (status, TEN),
                Some(_) => (if status == 200 { 206 } else { status }, &TEN[..2]),
            };
            let answer = answer.expect(status);
            if status != 307 {
                assert_eq!(answer.body, body, "{url} {host}");
                assert_eq!(answer.get("location"), None);
            }
        }
        // In HTTP/2 the host is in the target.
        let uri: http::Uri = format!("http://{host}{target}").parse().unwrap();
        world.get(target).send_to(uri).await.expect(status);
    }
}
