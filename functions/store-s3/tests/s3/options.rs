//! The effect of the operator's options on requests and on the URLs for clients.

use std::collections::{BTreeMap, BTreeSet};

use registry::store::blobs::{BlobStore as _, ObjectToDelete, Reached, RedirectRequest};
use registry::store::{Attempt, Location};
use store_s3::{Encryption, Operation, PathStyle, S3Blobs, S3Options};

use crate::fake::{BUCKET, Fake, SeenRequest, aws_in};
use crate::session::{MIB, UploadSession, cx};

const OWNER: &str = "111122223333";

/// Causes a request of every operation, each by its usual use.
async fn every_operation(fake: &Fake, store: &S3Blobs) -> Vec<SeenRequest> {
    // A single object becomes a part by a copy; a small body is staged, and copied when the object is made.
    let mut session = UploadSession::new(store);
    for size in [6 * MIB, 6 * MIB, 1000] {
        session.append(size).await;
    }
    let location = session.seal_and_check().await;
    session.end(Some(&location)).await;
    session.check(&location).await;
    // Bytes are copied from another upload after a failed attempt.
    let mut cut = UploadSession::new(store);
    cut.append(20 * MIB).await;
    cut.append_lost(10).await;
    cut.append(20 * MIB).await;
    cut.seal_and_check().await;
    let mut cancelled = UploadSession::new(store);
    cancelled.append(20 * MIB).await;
    cancelled.end(None).await;
    let attempt = Attempt {
        session: cut.id,
        number: 2,
    };
    let to_delete = ObjectToDelete {
        location: Location::main(attempt.to_string()),
        unfinished: true,
    };
    store.delete(cx(60), std::slice::from_ref(&to_delete)).await.unwrap();
    store.objects(cx(60), None, 10).await.unwrap();
    store.check(cx(60)).await.unwrap();
    let mut seen = fake.seen();
    // A store that does not support deleting many objects gets one request for each.
    fake.state(|state| state.lacks_features = true);
    store.delete(cx(60), &[to_delete]).await.unwrap();
    seen.extend(fake.seen());
    let operations: BTreeSet<_> = seen.iter().map(|seen| seen.operation.name()).collect();
    let all: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(operations, all, "every operation was requested");
    seen
}

fn with_prefix<'a>(headers: &'a BTreeMap<String, String>, prefix: &str) -> Vec<(&'a str, &'a str)> {
    headers
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Requests that begin to store bytes contain the encryption: those for an object, and those that begin an upload,
/// whose parts inherit it. Other requests must not contain it, because a store refuses it there.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_store_objects_contain_the_configured_encryption() {
    const HOW: &str = "x-amz-server-side-encryption";
    const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
    let key = "arn:aws:kms:eu-central-1:111122223333:key/abc";
    for (encryption, expected) in [
        (Encryption::Bucket, &[][..]),
        (Encryption::Aes256, &[(HOW, "AES256")]),
        (Encryption::Kms(None), &[(HOW, "aws:kms")]),
        (Encryption::Kms(Some(key.to_owned())), &[(HOW, "aws:kms"), (KEY, key)]),
    ] {
        let fake = Fake::start().await;
        let store = fake.store(|options| options.encryption = encryption.clone()).await;
        for request in every_operation(&fake, &store).await {
            let begins = matches!(
                request.operation,
                Operation::PutObject | Operation::CreateMultipartUpload
            );
            let sent = with_prefix(&request.headers, HOW);
            let expected = if begins { expected } else { &[] };
            assert_eq!(sent, expected, "{encryption:?}: {:?}", request.operation);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_contains_the_expected_bucket_owner() {
    const OF_BUCKET: (&str, &str) = ("x-amz-expected-bucket-owner", OWNER);
    const OF_SOURCE: (&str, &str) = ("x-amz-source-expected-bucket-owner", OWNER);
    for owner in [None, Some(OWNER.to_owned())] {
        let fake = Fake::start().await;
        let store = fake
            .store(|options| options.expected_bucket_owner.clone_from(&owner))
            .await;
        for request in every_operation(&fake, &store).await {
            let mut sent = with_prefix(&request.headers, "x-amz-expected-bucket-owner");
            sent.extend(with_prefix(&request.headers, "x-amz-source-expected-bucket-owner"));
            let expected = match (&owner, request.operation) {
                (None, _) => &[][..],
                (Some(_), Operation::UploadPartCopy) => &[OF_BUCKET, OF_SOURCE],
                (Some(_), _) => &[OF_BUCKET],
            };
            assert_eq!(sent, expected, "{:?}", request.operation);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_have_the_prefix_and_all_bodies_a_checksum() {
    let fake = Fake::start().await;
    let store = fake.store(|options| options.prefix = "some/where".to_owned()).await;
    for request in every_operation(&fake, &store).await {
        if !request.key.is_empty() {
            assert!(request.key.starts_with("some/where/"), "{}", request.key);
        }
        if let Some(prefix) = request.query.get("prefix") {
            assert!(prefix.starts_with("some/where/"), "{prefix}");
        }
        if let Some(source) = request.headers.get("x-amz-copy-source") {
            assert!(source.starts_with("bucket/some/where/"), "{source}");
        }
        let checksums =
            ["x-amz-checksum-sha256", "x-amz-checksum-crc32"].map(|name| request.headers.contains_key(name));
        let signed = request.headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD";
        match request.operation {
            Operation::PutObject => assert_eq!((checksums, signed), ([true, false], false)),
            // After bytes copied from another upload, a part is signed with its hash instead.
            Operation::UploadPart => assert!(!checksums[0] && checksums[1] != signed),
            // The protocol requires a checksum in deletes of many objects.
            Operation::DeleteObjects => assert_eq!(checksums, [false, true]),
            _ => assert_eq!(checksums, [false; 2]),
        }
        assert!(!request.headers.contains_key("transfer-encoding"));
        assert!(!request.headers.contains_key("expect"));
    }
}

/// The host and the path of the URL that a client gets for an object.
async fn target_of(change: impl FnOnce(&mut S3Options)) -> (String, String) {
    let mut options = S3Options::new(BUCKET);
    change(&mut options);
    let store = S3Blobs::open(options, &aws_in("eu-central-1").await).await.unwrap();
    let request = RedirectRequest {
        content_type: "application/octet-stream",
        reached_by: Reached::ByAll,
    };
    let redirect = store.redirect(cx(1).now, &Location::main("0a.1"), request).await;
    let url = redirect.unwrap().unwrap().url;
    let (host, rest) = url.split_once("://").unwrap().1.split_once('/').unwrap();
    (host.to_owned(), rest.split('?').next().unwrap().to_owned())
}

/// The store's own requests use the same configuration. The server in memory relies on the bucket's name in the path
/// for an endpoint that is not AWS's.
#[tokio::test]
async fn the_bucket_is_in_the_path_or_in_the_host_name() {
    let own = Some("http://localhost:9000".to_owned());
    let aws = "s3.eu-central-1.amazonaws.com";
    for (style, endpoint, host, path) in [
        (PathStyle::Auto, None, "bucket.s3.eu-central-1.amazonaws.com", "0a.1"),
        (PathStyle::Never, None, "bucket.s3.eu-central-1.amazonaws.com", "0a.1"),
        (PathStyle::Always, None, aws, "bucket/0a.1"),
        (PathStyle::Auto, own.clone(), "localhost:9000", "bucket/0a.1"),
        (PathStyle::Always, own.clone(), "localhost:9000", "bucket/0a.1"),
        (PathStyle::Never, own.clone(), "bucket.localhost:9000", "0a.1"),
        // The host name of AWS as an explicit endpoint.
        (
            PathStyle::Auto,
            Some(format!("https://{aws}")),
            "bucket.s3.eu-central-1.amazonaws.com",
            "0a.1",
        ),
    ] {
        let target = target_of(|options| {
            options.path_style = style;
            options.endpoint.clone_from(&endpoint);
        })
        .await;
        assert_eq!(target, (host.to_owned(), path.to_owned()), "{style:?} {endpoint:?}");
    }
    // The URLs at a separate endpoint for clients have the same style.
    for (style, host, path) in [
        (PathStyle::Auto, "cdn.example.org", "bucket/0a.1"),
        (PathStyle::Never, "bucket.cdn.example.org", "0a.1"),
    ] {
        let target = target_of(|options| {
            options.path_style = style;
            options.endpoint.clone_from(&own);
            options.public_endpoint = Some("https://cdn.example.org".to_owned());
        })
        .await;
        assert_eq!(target, (host.to_owned(), path.to_owned()), "{style:?}");
    }
}
