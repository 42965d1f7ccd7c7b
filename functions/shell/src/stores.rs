//! Opens the stores of a registry: blobs on disk or in S3, metadata in SQLite or DynamoDB.
//!
//! Imports go one way: `cloud`, `embedded`, `unused` → `options` → `config` → `names`.

#[cfg(feature = "cloud")]
mod cloud;
mod config;
#[cfg(feature = "embedded")]
mod embedded;
mod names;
mod options;
#[cfg(feature = "cloud")]
mod unused;

use std::sync::Arc;

use registry::Stores;
use registry::store::access::AccessStore;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;

#[cfg(feature = "cloud")]
pub use self::cloud::{InitError, init, open_bucket};
#[cfg(feature = "cloud")]
pub use self::config::CloudConfig;
pub use self::config::{Backends, StoreConfig};
#[cfg(feature = "embedded")]
pub use self::embedded::{files_of, files_of_blobs, open_disk};
pub use self::names::{BlobBackend, Bucket, MetadataBackend, ServiceUrl, TableName};
#[cfg(feature = "cloud")]
pub use self::names::{parse_encryption, parse_parts, parse_path_style};
pub use self::options::{Absent, Contact, OpenOptions};
#[cfg(feature = "cloud")]
pub use self::unused::UnusedSetting;
use crate::condition::{Condition, ConditionParts};
use crate::opened::{Opened, StoreStatistics};
#[cfg(feature = "cloud")]
pub use store_dynamodb::{ACCESS_LAYOUT_VERSION as TABLE_ACCESS_VERSION, LAYOUT_VERSION as TABLE_LAYOUT_VERSION};
#[cfg(feature = "embedded")]
pub use store_embedded::{ACCESS_VERSION as SCHEMA_ACCESS_VERSION, SCHEMA_VERSION};

/// Why stores could not be opened: a text for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// There is no registry on this host, and none was to be created.
    #[error("{0}")]
    Absent(String),
    /// The stores cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// Opens the stores that `config` names. Also fails if this program was built without one of them.
pub async fn open(config: &StoreConfig, options: &OpenOptions) -> Result<Opened, OpenFailure> {
    let mut opening = Opening::default();
    match &config.backends {
        #[cfg(feature = "embedded")]
        Backends::DiskAndSqlite { data } => {
            let embedded::Local { blobs, metadata } = embedded::open_all(config, data, options, &mut opening).await?;
            Ok(opening.finish(config, blobs, metadata.clone(), metadata))
        }
        #[cfg(all(feature = "cloud", feature = "embedded"))]
        Backends::S3AndSqlite { bucket, data } => {
            let blobs = cloud::open_blobs(config, bucket, options, &mut opening).await?;
            let metadata = embedded::open_metadata(config, data, options, &mut opening).await?;
            Ok(opening.finish(config, blobs, metadata.clone(), metadata))
        }
        #[cfg(all(feature = "cloud", feature = "embedded"))]
        Backends::DiskAndDynamoDb { data, table } => {
            let metadata = cloud::open_metadata(config, table, options, &mut opening).await?;
            let blobs = embedded::open_blobs(config, data, options, &mut opening).await?;
            Ok(opening.finish(config, blobs, metadata.clone(), metadata))
        }
        #[cfg(feature = "cloud")]
        Backends::S3AndDynamoDb { bucket, table } => {
            let blobs = cloud::open_blobs(config, bucket, options, &mut opening).await?;
            let metadata = cloud::open_metadata(config, table, options, &mut opening).await?;
            Ok(opening.finish(config, blobs, metadata.clone(), metadata))
        }
        #[cfg(not(all(feature = "cloud", feature = "embedded")))]
        _ => Err(OpenFailure::Unusable(format!(
            "this program was built without a store for blobs on {} or for metadata in {}",
            config.describe_blobs(),
            config.describe_metadata()
        ))),
    }
}

/// The records of a registry: all that the administration of accounts and the policy needs.
#[derive(Clone)]
pub struct Records {
    /// Tags, manifests and their history.
    pub metadata: Arc<dyn MetadataStore>,
    /// Accounts, the policy, signing keys and the audit trail.
    pub access: Arc<dyn AccessStore>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl From<&Opened> for Records {
    fn from(opened: &Opened) -> Self {
        Self {
            metadata: opened.stores.metadata.clone(),
            access: opened.stores.access.clone(),
        }
    }
}

/// Opens the table in which the records are, and nothing else: the host of an administrator may reach no blobs. `None`: the
/// records are not in a table.
#[cfg_attr(
    not(feature = "cloud"),
    expect(clippy::unused_async, reason = "with the feature `cloud` it waits for the table")
)]
pub async fn open_table(config: &StoreConfig, options: &OpenOptions) -> Result<Option<Records>, OpenFailure> {
    #[cfg(feature = "cloud")]
    if let Some(table) = config.backends.table() {
        let store = cloud::open_metadata(config, table, options, &mut Opening::default()).await?;
        return Ok(Some(Records {
            metadata: store.clone(),
            access: store,
        }));
    }
    #[cfg(not(feature = "cloud"))]
    let _ = (config, options);
    Ok(None)
}

/// Opens the records of a registry: the table alone, or all stores where they are not in a table.
pub async fn open_records(config: &StoreConfig, options: &OpenOptions) -> Result<Records, OpenFailure> {
    match open_table(config, options).await? {
        Some(records) => Ok(records),
        None => Ok(Records::from(&open(config, options).await?)),
    }
}

/// The parts of the stores that are already open.
#[derive(Default)]
struct Opening {
    statistics: StoreStatistics,
    parts: ConditionParts,
    /// How this process finds AWS, if a store is there. Both stores share it, with their connections and credentials.
    #[cfg(feature = "cloud")]
    aws: Option<aws_client::AwsConfig>,
}

impl Opening {
    /// How this process finds AWS. It is found out once.
    #[cfg(feature = "cloud")]
    async fn aws(&mut self, config: &StoreConfig) -> aws_client::AwsConfig {
        if let Some(aws) = &self.aws {
            return aws.clone();
        }
        let aws = cloud::load(config).await;
        self.aws.insert(aws).clone()
    }

    fn finish<M>(
        self,
        config: &StoreConfig,
        blobs: Arc<dyn BlobStore>,
        metadata: Arc<M>,
        sessions: Arc<dyn SessionStore>,
    ) -> Opened
    where
        M: MetadataStore + CollectionStore + RecordStore + AccessStore,
    {
        let Self { statistics, parts, .. } = self;
        Opened {
            stores: Stores {
                blobs,
                metadata: metadata.clone(),
                sessions,
                collection: metadata.clone(),
                records: metadata.clone(),
                access: metadata,
            },
            statistics,
            condition: Condition::of(parts),
            blobs_description: config.describe_blobs(),
            metadata_description: config.describe_metadata(),
        }
    }
}
