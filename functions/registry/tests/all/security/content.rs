//! Malicious bodies and parameters.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use oci::MediaType;
use registry::store::memory::MemoryBlobs;
use serde_json::json;

use crate::support::content::{bytes_of, image, index, padded};
use crate::support::{Script, Setup, World, sha256, sha512};

/// No `n` makes a page that is larger than the maximum.
#[tokio::test]
async fn s06_unbounded_n() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let manifest = bytes_of(&image(b"{}", &[]));
    for number in 0..1010 {
        world
            .put_manifest("a", format!("t{number}"), manifest.clone())
            .await
            .expect(201);
    }
    let referrers = format!("/v2/a/referrers/{}", sha256(b"x"));
    for list in ["/v2/a/tags/list", "/v2/_catalog", &referrers] {
        for (n, status) in [
            ("9223372036854775808", 400),
            ("18446744073709551615", 400),
            ("99999999999999999999999999", 400),
            ("2147483648", 400),
            ("-1", 400),
            ("-9223372036854775808", 400),
            ("", 400),
            ("many", 400),
            ("1,2", 400),
            ("%00", 400),
            ("2147483647", 200),
            ("1000000000", 200),
            ("1001", 200),
        ] {
            let answer = world.get(format!("{list}?n={n}")).send().await.expect(status);
            if status == 200 && list.ends_with("tags/list") {
                assert_eq!(answer.json()["tags"].as_array().unwrap().len(), 1000);
                assert!(answer.next().unwrap().starts_with("/v2/a/tags/list?n=1000&last="));
            }
        }
    }
}

/// One byte over the limit is refused without reading the rest, declared or streamed, whatever the document says.
#[tokio::test]
async fn s07_manifest_body_beyond_the_limit() {
    const LIMIT: usize = 4 << 20;
    let world = World::new().await;
    let rest = Bytes::from(vec![b' '; 1 << 20]);
    for (declared, chunk) in [
        (Some("4194305"), 1),
        (Some("18446744073709551615"), 1),
        (None, 1),
        (None, 65_536),
    ] {
        let mut body = Script::of(vec![b' '; LIMIT]).data(vec![b' '; chunk]);
        for _ in 0..64 {
            body = body.data(rest.clone());
        }
        let given = body.given();
        let mut call = world
            .put("/v2/a/manifests/t")
            .header("content-type", MediaType::OCI_MANIFEST);
        if let Some(declared) = declared {
            call = call.header("content-length", declared);
        }
        call.stream(body).send().await.expect_error(413, "MANIFEST_INVALID");
        let most = if declared.is_some() { 0 } else { LIMIT + chunk };
        assert!(given.load(Ordering::SeqCst) <= most);
    }
}

/// A document has one meaning, which never changes.
#[tokio::test]
async fn s08_type_confusion() {
    let world = World::new().await;
    world.push_blob("a", "{}").await;
    let plain = image(b"{}", &[]);
    let mut both = plain.clone();
    both["manifests"] = json!([]);
    let mut both_as_index = index(&[]);
    both_as_index["layers"] = json!([]);
    let duplicate = plain.to_string().replacen("\"config\"", "\"config\":{},\"config\"", 1);
    let duplicate_deep = plain
        .to_string()
        .replacen("\"digest\"", "\"digest\":\"x\",\"digest\"", 1);
    let escaped = plain
        .to_string()
        .replacen("\"config\"", "\"c\\u006fnfig\":{},\"config\"", 1);
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (media_type, body) in [
        (MediaType::OCI_MANIFEST, both.to_string()),
        (MediaType::OCI_INDEX, both.to_string()),
        (MediaType::OCI_INDEX, both_as_index.to_string()),
        (MediaType::OCI_MANIFEST, both_as_index.to_string()),
        (MediaType::DOCKER_MANIFEST, plain.to_string()),
        (MediaType::OCI_INDEX, plain.to_string()),
        (MediaType::OCI_MANIFEST, index(&[]).to_string()),
        (MediaType::OCI_MANIFEST, duplicate),
        (MediaType::OCI_MANIFEST, duplicate_deep),
        (MediaType::OCI_MANIFEST, escaped),
        ("application/vnd.example+json", deep),
    ] {
        let call = world.put("/v2/a/manifests/t").header("content-type", media_type);
        call.bytes(body).send().await.expect_error(400, "MANIFEST_INVALID");
    }
    // The same bytes with another type: a published manifest keeps its type, and a push with another type is not
    // acknowledged.
    let neutral = "{\"x\":1}";
    let digest = sha256(neutral.as_bytes());
    let put = |tag: &str, media_type: &str| {
        let call = world.put(format!("/v2/a/manifests/{tag}"));
        call.header("content-type", media_type).bytes(neutral).send()
    };
    put("one", "application/x.one+json").await.expect(201);
    let refused = put("two", "application/x.two+json").await;
    let refused = refused.expect_error(400, "MANIFEST_INVALID");
    let reported = String::from_utf8(refused.body.to_vec()).unwrap();
    assert!(reported.contains("application/x.one+json"), "{reported}");
    world.get("/v2/a/manifests/two").send().await.expect(404);
    put("two", "application/x.one+json").await.expect(201);
    for reference in ["one", "two", &digest.to_string()] {
        for method in ["GET", "HEAD"] {
            let target = format!("/v2/a/manifests/{reference}");
            let answer = world.call(method.parse().unwrap(), target).send().await.expect(200);
            assert_eq!(
                answer.header("content-type"),
                "application/x.one+json",
                "{method} {reference}"
            );
        }
    }
}

/// Texts that a path, a file system or a parser may misread never reach a store.
#[tokio::test]
async fn s21_digest_or_name_used_as_a_path() {
    let world = World::new().await;
    let upload = world.open_upload("a").await;
    let good = sha256(b"x").to_string();
    let _ = world.counts.take();
    for digest in [
        "sha256:",
        "sha256:..",
        "sha256:..%2f..%2fx",
        "sha256:%2e%2e%2f%2e%2e%2fx",
        "sha256:..%5c..%5cx",
        "sha256:%00",
        &format!("{good}%00"),
        &format!("{good}%20"),
        &format!("%20{good}"),
        &format!("{good}0"),
        &good[..good.len() - 1],
        &good.to_uppercase(),
        &good.replace("sha256:", "SHA256:"),
        &format!("sha256:{}", "A".repeat(64)),
        &format!("sha256:{}", "%EF%BC%90".repeat(64)),
        &format!("sha256:{}", "%D9%A0".repeat(64)),
        &good.replace("sha256", "sha512"),
        &good.replace("sha256", "sha257"),
        &good.replace("sha256", "..%2fsha256"),
        &good.replace("sha256:", "sha256::"),
        &good.replace("sha256:", "sha256:sha256:"),
        ":",
        "%3A",
        "..:..",
    ] {
        for (method, target) in [
            ("GET", format!("/v2/a/blobs/{digest}")),
            ("HEAD", format!("/v2/a/blobs/{digest}")),
            ("DELETE", format!("/v2/a/blobs/{digest}")),
            ("GET", format!("/v2/a/manifests/{digest}")),
            ("PUT", format!("/v2/a/manifests/{digest}")),
            ("DELETE", format!("/v2/a/manifests/{digest}")),
            ("GET", format!("/v2/a/referrers/{digest}")),
            ("GET", format!("/v2/a/referrers/{good}?last={digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
            ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=a")),
            ("PUT", format!("{upload}?digest={digest}")),
        ] {
            // An encoded slash in a path is a slash, and the text after it is not part of a digest.
            let (path, _) = target.split_once('?').unwrap_or((&target, ""));
            let status = if path.contains("%2f") { 404 } else { 400 };
            let answer = world.call(method.parse().unwrap(), target).bytes("x").send().await;
            assert_eq!(answer.status, status, "{}", answer.request);
        }
    }
    for name in [
        "..",
        "a/..",
        "%2e%2e/a",
        "a%2f..%2fb",
        "A",
        "a%00",
        "%C3%A9",
        "a//b",
        "-a",
        &"a".repeat(300),
    ] {
        for (method, target) in [
            ("GET", format!("/v2/{name}/manifests/latest")),
            ("PUT", format!("/v2/{name}/manifests/latest")),
            ("GET", format!("/v2/{name}/tags/list")),
            ("GET", format!("/v2/{name}/blobs/{good}")),
            ("POST", format!("/v2/{name}/blobs/uploads/?digest={good}")),
            ("GET", format!("/v2/{name}/referrers/{good}")),
        ] {
            let answer = world.call(method.parse().unwrap(), target).bytes("x").send().await;
            assert!(
                matches!(answer.status, 400 | 404),
                "{}: {}",
                answer.request,
                answer.status
            );
        }
    }
    assert_eq!(world.counts.all().len(), 0, "no store was asked");
}

/// The keys of objects contain nothing that a client has sent.
#[tokio::test]
async fn s21_keys_of_objects_are_opaque() {
    let blobs = MemoryBlobs::redirecting("https://o.example");
    let world = World::with(Setup {
        blobs,
        ..Setup::default()
    })
    .await;
    for (number, repository) in ["a", "deadbeef", "a/b/c"].into_iter().enumerate() {
        let content = format!("content {number}");
        let location = world.open_upload(repository).await;
        for chunk in [&content[..3], &content[3..]] {
            world
                .patch(location.clone())
                .bytes(chunk.to_owned())
                .send()
                .await
                .expect(202);
        }
        let digest = sha256(content.as_bytes());
        world
            .put(format!("{location}?digest={digest}"))
            .send()
            .await
            .expect(201);
        let target = world
            .get(format!("/v2/{repository}/blobs/{digest}"))
            .send()
            .await
            .expect(307)
            .location();
        let key = target
            .strip_prefix("https://o.example/")
            .unwrap()
            .split('?')
            .next()
            .unwrap()
            .to_owned();
        assert!(key.bytes().all(|byte| b"0123456789abcdef.".contains(&byte)), "{key}");
        assert!(!key.contains(&digest.hex()[..16]) && !key.contains("deadbeef"));
    }
}

/// A zstd frame of 32 KiB that unpacks to a gigabyte of zeros: blocks that repeat one byte (RFC 8878, 3.1.1.2).
fn bomb() -> Bytes {
    const REPEATED: u32 = 1;
    const BLOCK: u32 = 128 << 10;
    const BLOCKS: u32 = 8192;
    // Magic number; no flags; a window of 128 MiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88];
    for number in 1..=BLOCKS {
        let last = u32::from(number == BLOCKS);
        let header = last | REPEATED << 1 | BLOCK << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame.into()
}

/// Layers are opaque bytes: pushed, linked, read in part and deleted without being unpacked.
#[tokio::test]
async fn s22_decompression_bomb() {
    let world = World::new().await;
    let bomb = bomb();
    assert!(bomb.len() < 33 << 10);
    let digest = world.push_blob("a", bomb.clone()).await;
    world.push_blob("a", "{}").await;
    let mut manifest = image(b"{}", &[&bomb]);
    manifest["layers"][0]["mediaType"] = MediaType::OCI_LAYER_ZSTD.into();
    world.put_manifest("a", "t", bytes_of(&manifest)).await.expect(201);
    let answer = world.get(format!("/v2/a/blobs/{digest}")).send().await.expect(200);
    assert_eq!(answer.body, bomb);
    assert_eq!(answer.get("content-encoding"), None, "no client unpacks it in passing");
    let encoded = world
        .get(format!("/v2/a/blobs/{digest}"))
        .header("accept-encoding", "zstd, gzip");
    assert_eq!(encoded.send().await.expect(200).body, bomb);
    // As a manifest it is not JSON, whatever its declared encoding.
    let call = world
        .put("/v2/a/manifests/u")
        .header("content-type", MediaType::OCI_MANIFEST);
    let call = call.header("content-encoding", "zstd").bytes(bomb);
    call.send().await.expect_error(400, "MANIFEST_INVALID");
}

/// Whatever the ranges, the response is not much larger than the blob.
#[tokio::test]
async fn s25_range_abuse() {
    let world = World::new().await;
    let content = vec![b'x'; 10_000];
    let digest = world.push_blob("a", content.clone()).await;
    let repeat = |range: &str, count: usize| format!("bytes={}", vec![range; count].join(","));
    for (range, statuses) in [
        (repeat("0-", 2), vec![200]),
        (repeat("0-", 100), vec![200]),
        (repeat("0-", 101), vec![416]),
        (repeat("0-0", 101), vec![416]),
        (repeat("0-0", 100), vec![206]),
        (repeat("-1", 100), vec![206]),
        (repeat("-10000", 3), vec![200]),
        (repeat("0-5000,2500-7500,5000-", 1), vec![200]),
        (repeat("0-0", 100_000), vec![416]),
        (repeat("5-4", 100), vec![416]),
        (repeat("-0", 100), vec![416]),
        (repeat("99999-", 100), vec![416]),
        (repeat("18446744073709551614-18446744073709551615", 5), vec![416]),
        (repeat("0-18446744073709551615", 5), vec![200]),
        (
            repeat("99999999999999999999999999-99999999999999999999999999", 1),
            vec![416],
        ),
        (repeat("-99999999999999999999999999", 2), vec![200]),
        (format!("bytes={}", ",".repeat(60_000)), vec![200]),
        (format!("bytes={}-", "9".repeat(60_000)), vec![416]),
    ] {
        let call = world.get(format!("/v2/a/blobs/{digest}")).header("range", &range);
        let answer = call.send().await;
        let start: String = range.chars().take(60).collect();
        assert!(statuses.contains(&answer.status), "{start}: {}", answer.status);
        assert!(
            answer.body.len() <= content.len() + 100 * 150,
            "{start}: {} bytes",
            answer.body.len()
        );
    }
}

/// Two digests of the same bytes are created and deleted independently.
#[tokio::test]
async fn s26_digest_aliasing() {
    let world = World::new().await;
    let push = |hash: oci::Digest| {
        let world = world.clone();
        async move {
            let target = format!("/v2/a/blobs/uploads/?digest={hash}");
            world.post(target).bytes("bytes").send().await.expect(201);
        }
    };
    let (short, long) = (sha256(b"bytes"), sha512(b"bytes"));
    push(short).await;
    assert_eq!(world.blob("a", &long).await, None, "one name does not make the other");
    push(long).await;
    for (first, second) in [(short, long), (long, short)] {
        world.delete(format!("/v2/a/blobs/{first}")).send().await.expect(202);
        assert_eq!(world.blob("a", &first).await, None);
        assert_eq!(world.blob("a", &second).await.unwrap(), "bytes");
        push(first).await;
        assert_eq!(world.blob("a", &first).await.unwrap(), "bytes");
    }
    // A manifest protects the digest that it refers to, and not the other.
    world.push_blob("a", "{}").await;
    let mut manifest = image(b"{}", &[]);
    manifest["layers"] = json!([{ "mediaType": MediaType::OCI_LAYER, "digest": long, "size": 5 }]);
    world.put_manifest("a", "t", bytes_of(&manifest)).await.expect(201);
    world.delete(format!("/v2/a/blobs/{short}")).send().await.expect(202);
    world
        .delete(format!("/v2/a/blobs/{long}"))
        .send()
        .await
        .expect_error(405, "DENIED");
    assert_eq!(world.blob("a", &long).await.unwrap(), "bytes");

    // Manifests under both digests, inline and as objects: each with tags of its own.
    for length in [1000, 50_000] {
        let manifest = padded(&image(b"{}", &[]), length);
        let (short, long) = (sha256(&manifest), sha512(&manifest));
        world.put_manifest("a", "short", manifest.clone()).await.expect(201);
        world
            .put_manifest("a", format!("{long}?tag=long"), manifest.clone())
            .await
            .expect(201);
        world
            .delete(format!("/v2/a/manifests/{short}"))
            .send()
            .await
            .expect(202);
        world.head("/v2/a/manifests/short").send().await.expect(404);
        for reference in ["long".to_owned(), long.to_string()] {
            let answer = world
                .get(format!("/v2/a/manifests/{reference}"))
                .send()
                .await
                .expect(200);
            assert_eq!(answer.body, manifest);
            assert_eq!(answer.header("docker-content-digest"), long.to_string());
        }
        world.delete(format!("/v2/a/manifests/{long}")).send().await.expect(202);
    }
}
