//! Stores in the cloud, as the environment of the tests names them.
//!
//! `ROADSTEAD_TEST_S3` and `ROADSTEAD_TEST_DYNAMODB` are endpoints; region and credentials stand in the SDK's own
//! variables. The tests that need them are marked as ignored, so that plain `cargo test` needs nothing.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::Client;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tempfile::TempDir;

use super::{Server, roadstead};

/// A row of a table: its attributes by their names.
pub(crate) type TableItem = HashMap<String, AttributeValue>;

/// A bucket and the name of a table of one's own.
pub(crate) struct CloudStores {
    client: Client,
    table: aws_sdk_dynamodb::Client,
    /// The name of both.
    pub(crate) name: String,
    /// The endpoint of the bucket.
    pub(crate) s3: String,
    /// The endpoint of the table.
    pub(crate) dynamodb: String,
}

impl CloudStores {
    pub(crate) async fn new() -> Self {
        let s3 = env::var("ROADSTEAD_TEST_S3").expect("ROADSTEAD_TEST_S3 is the endpoint of an S3 server");
        let dynamodb = env::var("ROADSTEAD_TEST_DYNAMODB").expect("ROADSTEAD_TEST_DYNAMODB is an endpoint of DynamoDB");
        let name = format!("roadstead-standalone-{:016x}", getrandom::u64().unwrap());
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
        let config = config.load().await;
        let client = aws_sdk_s3::config::Builder::from(&config)
            .endpoint_url(&s3)
            .force_path_style(true);
        let client = Client::from_conf(client.build());
        client.create_bucket().bucket(&name).send().await.unwrap();
        let table = aws_sdk_dynamodb::config::Builder::from(&config).endpoint_url(&dynamodb);
        Self {
            client,
            table: aws_sdk_dynamodb::Client::from_conf(table.build()),
            name,
            s3,
            dynamodb,
        }
    }

    /// The objects of the bucket, which a test leaves behind few enough for one page.
    pub(crate) async fn objects(&self) -> BTreeMap<String, i64> {
        let listed = self.client.list_objects_v2().bucket(&self.name).send().await.unwrap();
        assert_ne!(listed.is_truncated(), Some(true));
        let objects = listed.contents().iter();
        objects
            .map(|object| (object.key().unwrap().to_owned(), object.size().unwrap()))
            .collect()
    }

    /// The keys of uploads in parts that were neither completed nor aborted.
    pub(crate) async fn uploads(&self) -> Vec<String> {
        let listed = self.client.list_multipart_uploads().bucket(&self.name).send();
        let listed = listed.await.unwrap();
        let uploads = listed.uploads().iter();
        uploads.map(|upload| upload.key().unwrap().to_owned()).collect()
    }

    /// The rows of the table.
    pub(crate) async fn rows(&self) -> Vec<TableItem> {
        let scan = self.table.scan().table_name(&self.name).consistent_read(true);
        let items = scan.into_paginator().items().send();
        items.collect::<Result<_, _>>().await.unwrap()
    }
}

/// The two parts of a row's key.
pub(crate) fn key(row: &TableItem) -> (&str, &str) {
    let part = |name| row[name].as_s().unwrap().as_str();
    (part("pk"), part("sk"))
}

/// The same for tests of processes; the table is made by the operator's command.
pub(crate) struct Cloud {
    runtime: tokio::runtime::Runtime,
    stores: CloudStores,
}

impl Cloud {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stores = runtime.block_on(CloudStores::new());
        Self { runtime, stores }
    }

    /// The name of the bucket and of the table.
    pub(crate) fn name(&self) -> &str {
        &self.stores.name
    }

    /// The bucket as flags name it, with what all keys begin with.
    pub(crate) fn bucket(&self) -> String {
        format!("s3://{}/registry", self.stores.name)
    }

    /// The flags of S3.
    pub(crate) fn s3(&self) -> Vec<String> {
        words(&["--blobs", &self.bucket(), "--s3-endpoint", &self.stores.s3])
    }

    /// The flags of DynamoDB.
    pub(crate) fn dynamodb(&self) -> Vec<String> {
        let table = format!("dynamodb://{}", self.stores.name);
        words(&["--metadata", &table, "--dynamodb-endpoint", &self.stores.dynamodb])
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
        let server = Server::start_on(Arc::new(TempDir::new().unwrap()), &flags, &Self::variables());
        // A server also starts while its stores do not answer in time, as on a busy machine; then it refuses pushes until it
        // has reached them. Tests of a server without stores go on after this time.
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.request("GET", "/readyz?push", &[], b"").status != 200 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Runs a command to its end.
    pub(crate) fn run(stores: &[String], arguments: &[&str]) -> Output {
        Self::command(stores, arguments).output().unwrap()
    }

    /// A command that is not started yet.
    pub(crate) fn command(stores: &[String], arguments: &[&str]) -> Command {
        let mut command = roadstead();
        command.args(arguments).args(stores).envs(Self::variables());
        command
    }

    /// Runs a command that must succeed, and answers what it has printed.
    pub(crate) fn succeed(stores: &[String], arguments: &[&str]) -> String {
        let output = Self::run(stores, arguments);
        let reported = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {reported}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The objects of the bucket.
    pub(crate) fn objects(&self) -> BTreeMap<String, i64> {
        self.runtime.block_on(self.stores.objects())
    }

    /// Whether the table has rows but that of its layout's version.
    pub(crate) fn has_rows(&self) -> bool {
        let scan = self.stores.table.scan().table_name(&self.stores.name).limit(2);
        self.runtime.block_on(scan.send()).unwrap().count() > 1
    }

    /// The rows of the table.
    pub(crate) fn rows(&self) -> Vec<TableItem> {
        self.runtime.block_on(self.stores.rows())
    }

    /// Writes other bytes over an object behind the registry's back.
    pub(crate) fn overwrite(&self, key: &str, bytes: Vec<u8>) {
        let request = self.stores.client.put_object().bucket(&self.stores.name).key(key);
        let request = request.body(bytes.into());
        self.runtime.block_on(request.send()).unwrap();
    }

    /// Removes an object behind the registry's back.
    pub(crate) fn remove(&self, key: &str) {
        let request = self.stores.client.delete_object().bucket(&self.stores.name).key(key);
        self.runtime.block_on(request.send()).unwrap();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
