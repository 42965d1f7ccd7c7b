//! Opens the stores in the cloud from plain values.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_client::{AwsConfig, AwsSettings};
use registry::budget::ClientKey;
use registry::environment::context;
use registry::store::blobs::BlobStore;
use registry::store::{Context, Location, Reason, StoreError};
use store_dynamodb::DynamoStore;
use store_s3::{CheckError, S3Blobs};

use super::{Bucket, CloudConfig, Contact, OpenFailure, OpenOptions, Opening, ServiceUrl, StoreConfig, TableName};
use crate::clock::SystemEnvironment;
use crate::condition::TimeService;
use crate::probe::{MetadataProbe, ObjectStoreProbe, OperationCounts, ProbeError, TableCounts};

/// Maximum time of a request that asks a service for the time, in milliseconds.
const TIME_MS: u64 = 5_000;

/// Maximum time of the same, including everything before the request, such as finding credentials.
const TIME_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the bucket of a registry. Sends no request yet.
pub(super) async fn open_blobs(
    config: &StoreConfig,
    bucket: &Bucket,
    options: &OpenOptions,
    opening: &mut Opening,
) -> Result<Arc<dyn BlobStore>, OpenFailure> {
    let store = open(&config.cloud, bucket, options, &opening.aws(config).await).await?;
    opening.parts.services.push(time_of_bucket(&store));
    opening.statistics.object_store = Some(Arc::new(BucketProbe(store.clone())));
    Ok(Arc::new(store))
}

/// Opens a bucket to which blobs are copied. Sends no request yet.
pub async fn open_bucket(
    config: &StoreConfig,
    bucket: &Bucket,
    options: &OpenOptions,
) -> Result<Arc<dyn BlobStore>, OpenFailure> {
    let aws = load(config).await;
    Ok(Arc::new(open(&config.cloud, bucket, options, &aws).await?))
}

/// How this process finds AWS.
pub(super) async fn load(config: &StoreConfig) -> AwsConfig {
    let cloud = &config.cloud;
    let settings = AwsSettings {
        region: cloud.region.clone(),
        profile: cloud.profile.clone(),
        // A table has a region wherever it is, because its name has none.
        needs_no_region: config.backends.table().is_none() && cloud.s3_endpoint.is_some(),
    };
    AwsConfig::load(&settings).await
}

async fn open(
    config: &CloudConfig,
    bucket: &Bucket,
    options: &OpenOptions,
    aws: &AwsConfig,
) -> Result<S3Blobs, OpenFailure> {
    let own = store_s3::S3Options {
        prefix: bucket.prefix.clone(),
        endpoint: url(config.s3_endpoint.as_ref()),
        public_endpoint: url(config.s3_public_endpoint.as_ref()),
        path_style: config.path_style.unwrap_or_default(),
        expected_bucket_owner: config.expected_bucket_owner.clone(),
        encryption: config.encryption.clone().unwrap_or_default(),
        parts: config.parts.unwrap_or_default(),
        upload_memory: options.upload_memory.unwrap_or(store_s3::S3Options::UPLOAD_MEMORY),
        memory_timeout: options.memory_timeout.unwrap_or(store_s3::S3Options::MEMORY_TIMEOUT),
        presign_lifetime: options.presign_lifetime,
        ..store_s3::S3Options::new(&bucket.name)
    };
    let opened = S3Blobs::open(own, aws).await;
    opened.map_err(|error| OpenFailure::Unusable(format!("cannot use {bucket}: {error}")))
}

/// Opens a table, which [`init`] must have created.
pub(super) async fn open_metadata(
    config: &StoreConfig,
    table: &TableName,
    options: &OpenOptions,
    opening: &mut Opening,
) -> Result<Arc<DynamoStore>, OpenFailure> {
    let own = own_options(&config.cloud, table);
    let aws = opening.aws(config).await;
    let opened = match options.contact {
        Contact::Now => DynamoStore::open(&own, &aws).await,
        Contact::Later => DynamoStore::connect(&own, &aws),
    };
    let store = opened.map_err(|error| OpenFailure::Unusable(format!("cannot use dynamodb://{}: {error}", table.0)))?;
    opening.parts.services.push(time_of_table(&store));
    opening.statistics.metadata = Some(Arc::new(TableProbe(store.clone())));
    Ok(Arc::new(store))
}

/// Why tables could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The metadata is not in a table.
    #[error("metadata in SQLite needs no preparation, because the server creates the file")]
    NoTable,
    /// A text for the operator.
    #[error("{0}")]
    Failed(String),
}

/// Creates the tables of `config` that do not exist. Returns a text with a line for each table.
pub async fn init(config: &StoreConfig) -> Result<String, InitError> {
    let Some(table) = config.backends.table() else {
        return Err(InitError::NoTable);
    };
    let prepared = DynamoStore::init(&own_options(&config.cloud, table), &load(config).await)
        .await
        .map_err(|error| InitError::Failed(format!("cannot prepare dynamodb://{}: {error}", table.0)))?;
    let lines: Vec<_> = prepared
        .iter()
        .map(|prepared| {
            let done = if prepared.created { "created" } else { "exists already" };
            format!("table {}: {done}; layout version {}", prepared.table, prepared.version)
        })
        .collect();
    Ok(lines.join("\n"))
}

fn own_options(config: &CloudConfig, table: &TableName) -> store_dynamodb::TableOptions {
    store_dynamodb::TableOptions {
        table: table.0.clone(),
        local_table: config.local_table.as_ref().map(|table| table.0.clone()),
        endpoint: url(config.dynamodb_endpoint.as_ref()),
    }
}

fn url(endpoint: Option<&ServiceUrl>) -> Option<String> {
    endpoint.map(|endpoint| endpoint.0.clone())
}

/// A bucket as a service that tells the time.
fn time_of_bucket(store: &S3Blobs) -> TimeService {
    let asked = store.clone();
    TimeService::new("object_store", store.clock().clone(), move || {
        let bucket = asked.clone();
        in_time(async move { Ok(bucket.check(time_cx()).await?) })
    })
}

/// A table as a service that tells the time.
fn time_of_table(store: &DynamoStore) -> TimeService {
    let asked = store.clone();
    TimeService::new("metadata", store.clock().clone(), move || {
        let table = asked.clone();
        in_time(async move {
            let checked = table.check(time_cx()).await;
            checked.map_err(|error| StoreError::because(Reason::MetadataUnreachable, error))
        })
    })
}

async fn in_time(asked: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    match tokio::time::timeout(TIME_TIMEOUT, asked).await {
        Ok(answered) => answered,
        Err(late) => Err(StoreError::because(Reason::Unavailable, late)),
    }
}

/// The context of one call on behalf of this process.
fn time_cx() -> Context {
    context(&SystemEnvironment, ClientKey::INTERNAL, TIME_MS)
}

struct BucketProbe(S3Blobs);

#[async_trait]
impl ObjectStoreProbe for BucketProbe {
    async fn check(&self, cx: Context) -> Result<(), ProbeError> {
        self.0.check(cx).await.map_err(|error| match error {
            CheckError::NoBucket(_) => ProbeError::Lasting(error.into()),
            CheckError::Store(error) => ProbeError::Passing(error),
        })
    }

    async fn public_url(&self) -> Option<String> {
        self.0.public_url().await
    }

    fn counts(&self) -> Vec<OperationCounts> {
        let requests = self.0.statistics().requests;
        let counts = requests.into_iter().map(|(operation, counts)| OperationCounts {
            operation: operation.name(),
            sent: counts.sent,
            failed: counts.failed,
        });
        counts.collect()
    }
}

struct TableProbe(DynamoStore);

#[async_trait]
impl MetadataProbe for TableProbe {
    fn is_remote(&self) -> bool {
        true
    }

    async fn check(&self, cx: Context) -> Result<(), ProbeError> {
        self.0.check(cx).await.map_err(|error| {
            let passes = error.may_pass();
            let error = StoreError::because(Reason::MetadataUnreachable, error);
            if passes {
                ProbeError::Passing(error)
            } else {
                ProbeError::Lasting(error)
            }
        })
    }

    async fn is_new(&self, cx: Context) -> Result<bool, StoreError> {
        self.0.is_new(cx).await
    }

    async fn some_locations(&self, _: Context, _: usize) -> Result<Option<Vec<Location>>, StoreError> {
        Ok(None)
    }

    async fn identity(&self, cx: Context) -> Result<Option<String>, StoreError> {
        self.0.identity(cx).await.map(Some)
    }

    fn counts(&self) -> TableCounts {
        let statistics = self.0.statistics();
        TableCounts {
            reads: statistics.reads + statistics.queries,
            writes: statistics.writes,
        }
    }
}
