//! Where the stores of a registry are, as plain values. The values come from a command line or from environment variables.

use std::path::PathBuf;

use super::names::{BlobBackend, Bucket, MetadataBackend, ServiceUrl, TableName};

/// Where the stores of a registry are.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where blobs are, and where metadata and upload sessions are.
    pub backends: Backends,
    /// How the services of the cloud are reached.
    #[cfg(feature = "cloud")]
    pub cloud: CloudConfig,
}

/// Where blobs are, and where metadata and upload sessions are. Only stores on this host have a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// Blobs on a disk and metadata in `SQLite`, in one directory.
    DiskAndSqlite {
        /// The directory.
        data: PathBuf,
    },
    /// Blobs on a disk, metadata in `DynamoDB`.
    DiskAndDynamoDb {
        /// The directory of the blobs.
        data: PathBuf,
        /// The table of the metadata.
        table: TableName,
    },
    /// Blobs in S3, metadata in `SQLite`.
    S3AndSqlite {
        /// The bucket of the blobs.
        bucket: Bucket,
        /// The directory of the metadata.
        data: PathBuf,
    },
    /// Blobs in S3, metadata in `DynamoDB`.
    S3AndDynamoDb {
        /// The bucket of the blobs.
        bucket: Bucket,
        /// The table of the metadata.
        table: TableName,
    },
}

impl Backends {
    /// The backends that an operator names. `data` is the directory of those on this host.
    #[must_use]
    pub fn new(blobs: BlobBackend, metadata: MetadataBackend, data: PathBuf) -> Self {
        match (blobs, metadata) {
            (BlobBackend::Disk, MetadataBackend::Sqlite) => Self::DiskAndSqlite { data },
            (BlobBackend::Disk, MetadataBackend::DynamoDb(table)) => Self::DiskAndDynamoDb { data, table },
            (BlobBackend::S3(bucket), MetadataBackend::Sqlite) => Self::S3AndSqlite { bucket, data },
            (BlobBackend::S3(bucket), MetadataBackend::DynamoDb(table)) => Self::S3AndDynamoDb { bucket, table },
        }
    }

    /// Whether blobs are in S3.
    pub(super) fn has_s3(&self) -> bool {
        matches!(self, Self::S3AndSqlite { .. } | Self::S3AndDynamoDb { .. })
    }

    /// The table of the metadata; `None` if metadata is in `SQLite`.
    #[cfg(feature = "cloud")]
    pub(super) fn table(&self) -> Option<&TableName> {
        match self {
            Self::DiskAndDynamoDb { table, .. } | Self::S3AndDynamoDb { table, .. } => Some(table),
            Self::DiskAndSqlite { .. } | Self::S3AndSqlite { .. } => None,
        }
    }
}

/// How the services of the cloud are reached. The defaults are those of AWS tools and of the services. Credentials are never
/// among these values.
#[cfg(feature = "cloud")]
#[derive(Clone, Debug, Default)]
pub struct CloudConfig {
    /// The region.
    pub region: Option<String>,
    /// The profile of the AWS configuration files.
    pub profile: Option<String>,
    /// The table for uploads in progress, pending deletions and signing keys; by default the table of the metadata.
    pub local_table: Option<TableName>,
    /// The URL of an S3-compatible store other than AWS.
    pub s3_endpoint: Option<ServiceUrl>,
    /// The URL at which clients reach the same S3, for redirected pulls.
    pub s3_public_endpoint: Option<ServiceUrl>,
    /// Whether the bucket's name is in the path of URLs or in their host name.
    pub path_style: Option<store_s3::PathStyle>,
    /// The account that must own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// Encryption of objects at rest.
    pub encryption: Option<store_s3::Encryption>,
    /// Sizes of the parts of a large upload.
    pub parts: Option<store_s3::Parts>,
    /// A `DynamoDB` that is not Amazon's.
    pub dynamodb_endpoint: Option<ServiceUrl>,
}

impl StoreConfig {
    /// A description of where blobs are, for people. It has no secrets, because the configuration has none.
    #[must_use]
    pub fn describe_blobs(&self) -> String {
        match &self.backends {
            Backends::DiskAndSqlite { data } | Backends::DiskAndDynamoDb { data, .. } => {
                format!("disk in {}", absolute(data))
            }
            Backends::S3AndSqlite { bucket, .. } | Backends::S3AndDynamoDb { bucket, .. } => {
                with_endpoint(bucket.to_string(), s3_endpoint(self))
            }
        }
    }

    /// A description of where metadata is, for people.
    #[must_use]
    pub fn describe_metadata(&self) -> String {
        match &self.backends {
            Backends::DiskAndSqlite { data } | Backends::S3AndSqlite { data, .. } => {
                format!("sqlite in {}", absolute(data))
            }
            Backends::DiskAndDynamoDb { table, .. } | Backends::S3AndDynamoDb { table, .. } => {
                with_endpoint(format!("dynamodb://{}", table.0), dynamodb_endpoint(self))
            }
        }
    }
}

#[cfg(feature = "cloud")]
fn s3_endpoint(config: &StoreConfig) -> Option<&ServiceUrl> {
    config.cloud.s3_endpoint.as_ref()
}

#[cfg(feature = "cloud")]
fn dynamodb_endpoint(config: &StoreConfig) -> Option<&ServiceUrl> {
    config.cloud.dynamodb_endpoint.as_ref()
}

#[cfg(not(feature = "cloud"))]
fn s3_endpoint(_: &StoreConfig) -> Option<&ServiceUrl> {
    None
}

#[cfg(not(feature = "cloud"))]
fn dynamodb_endpoint(_: &StoreConfig) -> Option<&ServiceUrl> {
    None
}

/// The path as an absolute path, which does not depend on the working directory.
fn absolute(path: &std::path::Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

fn with_endpoint(store: String, endpoint: Option<&ServiceUrl>) -> String {
    match endpoint {
        Some(endpoint) => format!("{store} at {}", endpoint.0),
        None => store,
    }
}
