//! What only the real protocol can test: tables that are created, found and missing, items of the maximum size, and a
//! service that fails. Run it with `cargo test -- --ignored` and `ROADSTEAD_TEST_DYNAMODB`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::service::{aws, options};
use crate::table::client;
use aws_sdk_dynamodb::types::{BillingMode, TimeToLiveStatus};
use bytes::Bytes;
use futures_util::future::join_all;
use oci::{Algorithm, Digest, MediaType, RepositoryName};
use registry::store::access::Author;
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest, Removal};
use registry::store::{Context, Location, Timestamp, Uid};
use store_dynamodb::{DynamoStore, OpenError, TableOptions};

fn cx(uid: u64, timeout_ms: u64) -> Context {
    let now = Timestamp(1_900_000_000_000);
    Context::internal(now, timeout_ms, Uid(uid))
}

fn repository() -> RepositoryName {
    "team/app".parse().unwrap()
}

async fn store() -> DynamoStore {
    let options = options(false);
    DynamoStore::init(&options, &aws().await).await.unwrap();
    DynamoStore::open(&options, &aws().await).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn init_creates_missing_tables_once() {
    for local in [false, true] {
        let options = options(local);
        let missing = DynamoStore::open(&options, &aws().await).await.expect_err("no table");
        assert!(matches!(missing, OpenError::NoTable(_)), "{missing:?}");
        assert!(missing.to_string().contains("roadstead metadata init"), "{missing}");

        let made = DynamoStore::init(&options, &aws().await).await.unwrap();
        assert_eq!(made.len(), if local { 2 } else { 1 });
        assert!(made.iter().all(|table| table.created));
        let again = DynamoStore::init(&options, &aws().await).await.unwrap();
        assert!(again.iter().all(|table| !table.created));
        DynamoStore::open(&options, &aws().await).await.unwrap();
    }
}

/// Tables are billed per request. Session rows expire by themselves if no sweep removes them, and events of the
/// audit trail after 400 days.
#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn tables_are_paid_per_request_and_expire_rows() {
    for local in [false, true] {
        let options = options(local);
        DynamoStore::init(&options, &aws().await).await.unwrap();
        let client = client().await;
        let made = BTreeSet::from([options.table.as_str(), options.local_table()]);
        for table in made {
            let described = client.describe_table().table_name(table).send().await.unwrap();
            let billing = described.table.unwrap().billing_mode_summary.unwrap();
            assert_eq!(billing.billing_mode, Some(BillingMode::PayPerRequest), "{table}");
            let described = client.describe_time_to_live().table_name(table).send().await.unwrap();
            let expiry = described.time_to_live_description.unwrap();
            let attribute = expiry.attribute_name.as_deref();
            let is_on = matches!(
                expiry.time_to_live_status,
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            );
            assert_eq!((is_on, attribute), (true, Some("ttl")), "{table}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn concurrent_inits_create_each_table_once() {
    let options = options(true);
    let aws = aws().await;
    let made = join_all((0..4).map(|_| DynamoStore::init(&options, &aws))).await;
    let created = made.into_iter().flat_map(Result::unwrap).filter(|table| table.created);
    assert_eq!(created.count(), 2);
    DynamoStore::open(&options, &aws).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn a_manifest_with_4096_references_is_stored_and_deleted() {
    let store = store().await;
    let bytes = Bytes::from_static(b"much");
    let mut large = PutManifest {
        repository: repository(),
        digest: Digest::of(Algorithm::Sha256, &bytes),
        media_type: MediaType::OCI_INDEX.parse().unwrap(),
        size: bytes.len() as u64,
        content: NewContent::Sealed(Location::main("0a.1")),
        artifact_type: None,
        subject: None,
        required: BTreeSet::new(),
        // The digests of the maximum length.
        excepted: (0..4096)
            .map(|number| Digest::of(Algorithm::Sha512, format!("{number}").as_bytes()))
            .collect(),
        tags: (0..20).map(|number| format!("t{number}").parse().unwrap()).collect(),
        author: Author::new("user"),
    };
    assert_eq!(
        store
            .put_manifest(cx(1, 60_000), &large, &AllowAll::shared())
            .await
            .unwrap(),
        ManifestPut::Stored
    );
    let blob = *large.excepted.first().unwrap();
    large.tags.clear();
    large.content = NewContent::Unchanged;
    assert_eq!(
        store
            .put_manifest(cx(2, 60_000), &large, &AllowAll::shared())
            .await
            .unwrap(),
        ManifestPut::AsItWas
    );
    let location = Location::main("0b.1");
    store
        .commit_blob(cx(3, 60_000), &repository(), &blob, &location, 1)
        .await
        .unwrap();
    let kept = store
        .unlink(cx(4, 60_000), &repository(), &blob, &Author::new("user"))
        .await
        .unwrap();
    assert_eq!(kept, Removal::Referenced(large.digest));

    let removed = store
        .delete_manifest(
            cx(5, 60_000),
            &repository(),
            &large.digest,
            &Author::new("user"),
            &AllowAll::shared(),
        )
        .await;
    assert_eq!(removed.unwrap(), Removal::Removed);
    let unlinked = store
        .unlink(cx(6, 60_000), &repository(), &blob, &Author::new("user"))
        .await
        .unwrap();
    assert_eq!(unlinked, Removal::Removed, "no edge is left");
}

#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn lists_may_start_after_any_text() {
    let store = store().await;
    let long = "y".repeat(5000);
    for after in ["", "a", "~", "ä", "\u{10ffff}", &long] {
        let page = store
            .tags(cx(1, 10_000), &repository(), Some(after), 1000)
            .await
            .unwrap();
        assert!(page.items.is_empty() && !page.more, "after {after:?}");
        let page = store.repositories(cx(1, 10_000), Some(after), 1000).await.unwrap();
        assert!(page.items.is_empty() && !page.more, "after {after:?}");
    }
}

/// The port has no listener. The store retries until the deadline and then fails.
#[tokio::test]
#[ignore = "needs a DynamoDB endpoint"]
async fn an_unreachable_endpoint_fails_at_the_deadline() {
    let kept = options(false);
    DynamoStore::init(&kept, &aws().await).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unreachable = TableOptions {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        ..kept.clone()
    };
    drop(listener);
    let begun = Instant::now();
    let failed = DynamoStore::open(&unreachable, &aws().await)
        .await
        .expect_err("the endpoint does not answer");
    assert!(matches!(failed, OpenError::Table { .. }), "{failed:?}");
    assert!(failed.to_string().contains(&kept.table), "{failed}");
    assert!(begun.elapsed() < Duration::from_secs(25));
}
