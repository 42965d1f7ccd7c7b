//! What a redirect grants at a server that checks signatures: S28, once more where it is decided.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_client::{AwsConfig, AwsSettings};
use aws_sdk_s3::config::Credentials;
use registry::store::blobs::{BlobStore as _, Reached, RedirectRequest};
use registry::store::{Location, Timestamp};
use store_s3::S3Blobs;

use crate::support::cloud::Cloud;
use crate::support::{Http1Client, Response, Server, digest};

/// A request of a client that knows nothing but a URL.
fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut client = Http1Client::connect(host.parse().unwrap());
    let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    client.send(format!("{head}\r\n").as_bytes());
    // It may refuse what it has not read.
    drop(client.send_what_goes(body));
    client.response(method)
}

/// Pushes a blob and answers the URL to which its pull is redirected.
fn url_of(server: &Server, bytes: &[u8]) -> String {
    server.push_blob("app", bytes);
    let answer = server.request("GET", &format!("/v2/app/blobs/{}", digest(bytes)), &[], b"");
    assert_eq!(answer.status, 307, "{answer:?}");
    answer.header("location").unwrap().to_owned()
}

/// The URL without the parameters whose names begin so, and with others in their place.
fn with(url: &str, name: &str, instead: &str) -> String {
    let (path, query) = url.split_once('?').unwrap();
    let kept: Vec<_> = query.split('&').filter(|pair| !pair.starts_with(name)).collect();
    assert!(kept.len() < query.split('&').count(), "{name} is there: {query}");
    let query: Vec<_> = kept
        .into_iter()
        .chain(Some(instead).filter(|text| !text.is_empty()))
        .collect();
    format!("{path}?{}", query.join("&"))
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s28_a_redirect_grants_get_of_one_object_and_nothing_else() {
    let cloud = Cloud::new();
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let server = Cloud::serve(
        &[cloud.s3(), vec!["--data".into(), data]].concat(),
        &["--pull", "redirect"],
    );
    let (one, other) = (url_of(&server, b"one layer"), url_of(&server, b"another layer"));
    let objects = cloud.objects();
    assert_eq!(objects.len(), 2);
    let delivers = |url: &str, bytes: &[u8]| {
        let answer = ask("GET", url, &[], b"");
        assert_eq!((answer.status, &*answer.body), (200, bytes));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    };
    delivers(&one, b"one layer");
    delivers(&other, b"another layer");

    let path = |url: &str| url.split_once('?').unwrap().0.to_owned();
    let query = one.split_once('?').unwrap().1;
    let signature = query.split("X-Amz-Signature=").nth(1).unwrap();
    let signature = signature.split('&').next().unwrap();
    let flipped = if signature.starts_with('0') { '1' } else { '0' };
    let below = format!("{}.0", path(&one));
    let missing = format!("{}0", path(&one));
    let bucket = path(&one).rsplit_once("/registry/").unwrap().0.to_owned();
    let of_other = other
        .split("X-Amz-Signature=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    for (what, url) in [
        ("another object's key", format!("{}?{query}", path(&other))),
        ("a key that is not there", format!("{missing}?{query}")),
        ("what would be staged beside", format!("{below}?{query}")),
        ("the bucket's list", format!("{bucket}?{query}")),
        ("the bucket's list of a kind", format!("{bucket}/?list-type=2&{query}")),
        ("no signature", with(&one, "X-Amz-Signature=", "")),
        ("no query", path(&one)),
        (
            "a signature with one digit changed",
            with(
                &one,
                "X-Amz-Signature=",
                &format!("X-Amz-Signature={flipped}{}", &signature[1..]),
            ),
        ),
        (
            "another URL's signature",
            with(&one, "X-Amz-Signature=", &format!("X-Amz-Signature={of_other}")),
        ),
        ("a longer life", with(&one, "X-Amz-Expires=", "X-Amz-Expires=604800")),
        (
            "another type",
            with(&one, "response-content-type=", "response-content-type=text%2Fhtml"),
        ),
        ("no type", with(&one, "response-content-type=", "")),
        (
            "another disposition",
            format!("{one}&response-content-disposition=inline"),
        ),
        ("the object's tags", format!("{one}&tagging")),
        ("the object's rights", format!("{one}&acl")),
    ] {
        let answer = ask("GET", &url, &[], b"");
        // A query that lacks what signing takes need not be a forbidden one.
        let refused = answer.status == 403 || (answer.status == 400 && what == "no signature");
        let reported = String::from_utf8_lossy(&answer.body);
        assert!(refused, "{what}: {} {reported}", answer.status);
        assert!(!answer.body.windows(5).any(|five| five == b"layer"), "{what}");
    }
    for (method, headers) in [
        ("HEAD", &[][..]),
        ("PUT", &[]),
        ("PUT", &[("x-amz-copy-source", "any/thing")]),
        ("DELETE", &[]),
        ("POST", &[]),
    ] {
        let body: &[u8] = if matches!(method, "PUT" | "POST") {
            b"other"
        } else {
            b""
        };
        let answer = ask(method, &one, headers, body);
        let reported = String::from_utf8_lossy(&answer.body);
        assert!(
            matches!(answer.status, 403 | 405),
            "{method}: {} {reported}",
            answer.status
        );
    }
    // What was refused has changed nothing.
    assert_eq!(cloud.objects(), objects);
    delivers(&one, b"one layer");
    delivers(&other, b"another layer");
}

/// URLs of a store whose credentials end at `end`, as another clock would have signed them.
async fn signed(cloud: &Cloud, key: &str, now: SystemTime, end: Option<SystemTime>) -> String {
    let variable = |name: &str| std::env::var(name).unwrap();
    let bucket = cloud.bucket();
    let (bucket, prefix) = bucket.strip_prefix("s3://").unwrap().split_once('/').unwrap();
    let mut options = store_s3::S3Options::new(bucket);
    options.prefix = prefix.to_owned();
    options.endpoint = Some(variable("ROADSTEAD_TEST_S3"));
    options.presign_lifetime = Duration::from_mins(10);
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    let credentials = Credentials::new(id, secret, None, end, "a test");
    let aws = AwsConfig::load_as(&AwsSettings::default(), credentials).await;
    let store = S3Blobs::open(options, &aws).await.unwrap();
    let location = Location::main(key.strip_prefix(&format!("{prefix}/")).unwrap());
    let now = now.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let request = RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::ByAll,
    };
    let redirect = store
        .redirect(Timestamp(now.try_into().unwrap()), &location, request)
        .await;
    redirect.unwrap().expect("a URL").url
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s28_a_redirect_works_until_it_expires() {
    let cloud = Cloud::new();
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let server = Cloud::serve(&[cloud.s3(), vec!["--data".into(), data]].concat(), &[]);
    server.push_blob("app", b"a layer");
    let key = cloud.objects().into_keys().next().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let status = |url: &str| ask("GET", url, &[], b"").status;

    // Signed an hour ago, by a clock that was right; and signed now, for the rest of its time.
    let now = SystemTime::now();
    let hour = Duration::from_hours(1);
    let old = runtime.block_on(signed(&cloud, &key, now - hour, None));
    assert_eq!(status(&old), 403);
    assert_eq!(status(&with(&old, "X-Amz-Expires=", "X-Amz-Expires=7200")), 403);
    let fresh = runtime.block_on(signed(&cloud, &key, now, None));
    assert_eq!(status(&fresh), 200);

    // One that works for a few seconds more, because the credentials behind it do; for longer, if this machine is so busy
    // that they have ended before the answer came.
    let (short, end) = [4, 16, 64]
        .into_iter()
        .find_map(|seconds| {
            let end = SystemTime::now() + Duration::from_secs(seconds);
            let short = runtime.block_on(signed(&cloud, &key, end - Duration::from_secs(seconds + 11), Some(end)));
            let found = status(&short);
            // The end is signed in whole seconds.
            (SystemTime::now() + Duration::from_secs(1) < end).then(|| {
                assert_eq!(found, 200);
                (short, end)
            })
        })
        .expect("an answer before the end");
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    std::thread::sleep(left + Duration::from_millis(1500));
    assert_eq!(status(&short), 403);
    assert_eq!(status(&fresh), 200, "the others still do");
}
