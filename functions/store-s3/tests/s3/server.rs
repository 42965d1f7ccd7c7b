//! The S3 server that the environment provides for tests.
//!
//! `ROADSTEAD_TEST_S3` is its endpoint; the SDK's own variables contain region and credentials. Each store gets its own
//! prefix in one bucket, which is created if it does not exist.

use std::env;

use aws_client::{AwsConfig, AwsSettings};
use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use store_s3::{S3Blobs, S3Options};

/// The bucket of all tests.
pub(crate) const BUCKET: &str = "roadstead-store-s3-tests";

/// The server's endpoint.
pub(crate) fn endpoint() -> String {
    env::var("ROADSTEAD_TEST_S3").expect("ROADSTEAD_TEST_S3 is the endpoint of an S3 server")
}

/// A client that does not use the store.
pub(crate) async fn client() -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .endpoint_url(endpoint())
        .load()
        .await;
    let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
    Client::from_conf(config.build())
}

/// An empty store; `change` may change its options first.
pub(crate) async fn store_with(change: impl FnOnce(&mut S3Options)) -> S3Blobs {
    let client = client().await;
    if client.head_bucket().bucket(BUCKET).send().await.is_err() {
        // Another test may create it at the same time.
        let _ = client.create_bucket().bucket(BUCKET).send().await;
    }
    let mut options = S3Options::new(BUCKET);
    options.endpoint = Some(endpoint());
    options.prefix = format!("test/{:016x}", getrandom::u64().unwrap());
    change(&mut options);
    let aws = AwsConfig::load(&AwsSettings::default()).await;
    S3Blobs::open(options, &aws).await.unwrap()
}
