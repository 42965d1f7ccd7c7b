//! Random requests: no panic, no 5xx from stores that work, and every response is well-formed (the test client checks
//! that).

use http::Uri;
use oci::MediaType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::content::{EMPTY, artifact, bytes_of};
use crate::support::{Script, World, sha256};

/// Parts of paths: words of the protocol, valid names, malicious parts, and random text.
fn segment() -> impl Strategy<Value = String> {
    let known = sha256(b"{}").to_string();
    prop_oneof![
        6 => select(vec![
            "v2", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "a", "b", "latest", "",
        ]).prop_map(str::to_owned),
        2 => Just(known),
        1 => select(vec![
            "..", ".", "%2e%2e", "%2f", "%00", "%ff", "%", "%zz", "A", "sha256:", "sha256:..", "sha512:00", "-",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9._%:@!$&'()*+,;=~-]{0,20}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let any = vec(segment(), 0..8).prop_map(|segments| segments.join("/"));
    let likely = (
        select(vec!["a", "b", "a/b", "A", "a/blobs"]),
        segment(),
        segment(),
        segment(),
    )
        .prop_map(|(name, kind, first, second)| match second.len() % 3 {
            0 => format!("{name}/{kind}/{first}"),
            1 => format!("{name}/blobs/uploads/{first}"),
            _ => format!("{name}/{kind}/{first}/{second}"),
        });
    prop_oneof![any, likely].prop_map(|rest| format!("/v2/{rest}"))
}

fn query() -> impl Strategy<Value = String> {
    let key = select(vec![
        "n",
        "last",
        "digest",
        "digest-algorithm",
        "mount",
        "from",
        "tag",
        "artifactType",
        "ns",
        "x",
        "",
    ]);
    let value = prop_oneof![
        select(vec![
            "0",
            "1",
            "-1",
            "99999999999999999999",
            "a",
            "sha256",
            "sha512",
            "a/b",
            "%00",
            "%ff",
            "+",
            "&&"
        ])
        .prop_map(str::to_owned),
        Just(sha256(b"{}").to_string()),
        "[ -~&&[^#<>\"\\\\^`{|} ]]{0,30}",
    ];
    vec((key, value), 0..5).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join("&")
    })
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let name = select(vec![
        "accept",
        "content-type",
        "content-range",
        "content-length",
        "range",
        "if-range",
        "if-none-match",
        "authorization",
        "x-forwarded-for",
        "transfer-encoding",
    ]);
    // Rarely: a request with a wrong host is refused before the rest of it is read.
    let name = prop_oneof![60 => name, 1 => Just("host")];
    let value = prop_oneof![
        select(vec![
            "bytes=0-0",
            "bytes=0-,-1",
            "0-3",
            "5-4",
            "4",
            "3",
            "0",
            "18446744073709551616",
            "*/*",
            "*",
            MediaType::OCI_MANIFEST,
            MediaType::OCI_INDEX,
            "application/json",
            "Basic YTpi",
            "Bearer x",
        ])
        .prop_map(str::to_owned),
        "[\t -~]{0,40}",
    ];
    vec((name, value), 0..5)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"abcd".to_vec()),
        Just(b"{}".to_vec()),
        Just(bytes_of(&artifact("a/b", EMPTY)).to_vec()),
        vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:a-z0-9 ]{0,100}".prop_map(String::into_bytes),
    ]
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"];

/// So many fewer cases than other properties.
fn one_in(n: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(n),
        ..usual
    }
}

proptest! {
    // Each case opens a registry and asks it several times.
    #![proptest_config(one_in(7))]

    #[test]
    fn requests(calls in vec((select(METHODS.to_vec()), path(), query(), headers(), body()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.push_blob("a", "{}").await;
            let upload = world.open_upload("a").await;
            for (number, (method, path, query, headers, body)) in calls.into_iter().enumerate() {
                // Sometimes the path of a real upload.
                let path = if number % 3 == 2 { upload.clone() } else { path };
                let target = if query.is_empty() { path } else { format!("{path}?{query}") };
                // Invalid targets never reach a registry.
                let Ok(uri) = target.parse::<Uri>() else { continue };
                let mut call = world.call(method.parse().unwrap(), target);
                for (name, value) in headers {
                    call = call.header(name, value);
                }
                let answer = call.stream(Script::of(body)).send_to(uri).await;
                assert!(answer.status < 500, "{}: {}", answer.request, answer.status);
                assert!(!answer.broken);
            }
            // Content stays, unless a request deleted it.
            let blob = world.head(format!("/v2/a/blobs/{}", sha256(b"{}"))).send().await;
            assert!(matches!(blob.status, 200 | 404));
        });
    }

    /// A read of any ranges of a blob returns exactly the bytes of these ranges.
    #[test]
    fn ranges(content in vec(any::<u8>(), 0..60), header in "bytes=([0-9]{0,2}-[0-9]{0,2},?){1,6}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let digest = world.push_blob("a", content.clone()).await;
            let call = world.get(format!("/v2/a/blobs/{digest}")).header("range", &header);
            let answer = call.send().await;
            match (answer.status, answer.get("content-range")) {
                (200, None) => assert_eq!(answer.body, content),
                (206, Some(range)) => {
                    let (positions, size) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
                    let (first, last) = positions.split_once('-').unwrap();
                    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                    assert_eq!(size, content.len().to_string());
                    assert_eq!(answer.body, content[first..=last]);
                }
                (206, None) => assert!(answer.header("content-type").starts_with("multipart/byteranges")),
                (416, Some(range)) => assert_eq!(range, format!("bytes */{}", content.len())),
                (status, range) => panic!("{header}: {status} {range:?}"),
            }
        });
    }

    /// A blob has the same bytes and digest, in whatever chunks it was pushed.
    #[test]
    fn chunks(content in vec(any::<u8>(), 0..400), cuts in vec(0..400_usize, 0..8), sha512 in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let digest = if sha512 { crate::support::sha512(&content) } else { sha256(&content) };
            let mut ends: Vec<_> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            ends.sort_unstable();
            let mut location = world.open_upload("a").await;
            let mut at = 0;
            for end in ends {
                let answer = world.patch(location).bytes(content[at..end].to_vec()).send().await.expect(202);
                location = answer.location();
                at = end;
            }
            let call = world.put(format!("{location}?digest={digest}")).bytes(content[at..].to_vec());
            call.send().await.expect(201);
            assert_eq!(world.blob("a", &digest).await.unwrap(), content);
        });
    }
}
