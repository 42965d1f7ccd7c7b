//! Stores in the cloud, as the environment of the tests names them.
//!
//! `ROADSTEAD_TEST_S3` and `ROADSTEAD_TEST_DYNAMODB` are endpoints; region and credentials stand in the SDK's own
//! variables. The tests that need them are marked as ignored, so that plain `cargo test` needs nothing.

use std::collections::BTreeMap;
use std::env;
use std::process::Output;
use std::sync::Arc;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tempfile::TempDir;

use super::{Server, roadstead};

/// A bucket and the name of a table of one's own; the table is made by the operator's command.
pub(crate) struct Cloud {
    runtime: tokio::runtime::Runtime,
    client: Client,
    name: String,
    s3: String,
    dynamodb: String,
}

impl Cloud {
    pub(crate) fn new() -> Self {
        let s3 = env::var("ROADSTEAD_TEST_S3").expect("ROADSTEAD_TEST_S3 is the endpoint of an S3 server");
        let dynamodb = env::var("ROADSTEAD_TEST_DYNAMODB").expect("ROADSTEAD_TEST_DYNAMODB is an endpoint of DynamoDB");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let name = format!("roadstead-standalone-{:016x}", getrandom::u64().unwrap());
        let client = runtime.block_on(async {
            let http = aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https();
            let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .http_client(http)
                .endpoint_url(&s3)
                .load()
                .await;
            let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
            let client = Client::from_conf(config.build());
            client.create_bucket().bucket(&name).send().await.unwrap();
            client
        });
        Self {
            runtime,
            client,
            name,
            s3,
            dynamodb,
        }
    }

    /// The bucket as flags name it, with what all keys begin with.
    pub(crate) fn bucket(&self) -> String {
        format!("s3://{}/registry", self.name)
    }

    /// The flags of S3.
    pub(crate) fn s3(&self) -> Vec<String> {
        words(&["--blobs", &self.bucket(), "--s3-endpoint", &self.s3])
    }

    /// The flags of DynamoDB.
    pub(crate) fn dynamodb(&self) -> Vec<String> {
        let table = format!("dynamodb://{}", self.name);
        words(&["--metadata", &table, "--dynamodb-endpoint", &self.dynamodb])
    }

    /// The flags of both.
    pub(crate) fn both(&self) -> Vec<String> {
        [self.s3(), self.dynamodb()].concat()
    }

    /// What the SDK needs of the environment, and nothing else of it.
    fn variables() -> Vec<(String, String)> {
        env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect()
    }

    /// Starts a server on the stores that the flags name.
    pub(crate) fn serve(stores: &[String], flags: &[&str]) -> Server {
        let flags: Vec<&str> = stores.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Server::start_on(Arc::new(TempDir::new().unwrap()), &flags, &Self::variables())
    }

    /// Runs a command to its end.
    pub(crate) fn run(stores: &[String], arguments: &[&str]) -> Output {
        roadstead()
            .args(arguments)
            .args(stores)
            .envs(Self::variables())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and answers what it has printed.
    pub(crate) fn succeed(stores: &[String], arguments: &[&str]) -> String {
        let output = Self::run(stores, arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The objects of the bucket, which a test leaves behind few enough for one page.
    pub(crate) fn objects(&self) -> BTreeMap<String, i64> {
        let listed = self
            .runtime
            .block_on(self.client.list_objects_v2().bucket(&self.name).send())
            .unwrap();
        assert_ne!(listed.is_truncated(), Some(true));
        let objects = listed.contents().iter();
        objects
            .map(|object| (object.key().unwrap().to_owned(), object.size().unwrap()))
            .collect()
    }

    /// Removes an object behind the registry's back.
    pub(crate) fn remove(&self, key: &str) {
        let request = self.client.delete_object().bucket(&self.name).key(key);
        self.runtime.block_on(request.send()).unwrap();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
