//! The configuration of stores as plain values: where they are, and how they are opened. The values come from a command line
//! or from environment variables.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use registry::Limits;

#[cfg(feature = "cloud")]
use super::cloud::CloudConfig;
use crate::memory::RequestMemory;
use crate::values::{Length, Span};

/// Where the stores of a registry are.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory of the stores on this host. Not used if blobs are in S3 and metadata in `DynamoDB`.
    pub data: PathBuf,
    /// Where blobs are.
    pub blobs: BlobBackend,
    /// Where metadata and upload sessions are.
    pub metadata: MetadataBackend,
    /// How the services of the cloud are reached.
    #[cfg(feature = "cloud")]
    pub cloud: CloudConfig,
}

/// How stores are opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What to do if there is no registry on this host.
    pub absent: Absent,
    /// Bytes that uploads may hold together. `None`: 64 MiB on a disk, 512 MiB in S3.
    pub upload_memory: Option<u64>,
    /// For how long an upload waits for its memory. `None`: 30 seconds on a disk, 5 minutes in S3.
    pub memory_timeout: Option<Duration>,
    /// Maximum time for which a redirect works; up to 12 hours.
    pub presign_lifetime: Duration,
    /// Whether a table must answer when it is opened.
    pub contact: Contact,
    /// Whether writes on this host are synced.
    #[cfg(feature = "embedded")]
    pub sync: store_embedded::Sync,
    /// The minimum free space on the file systems of this host.
    #[cfg(feature = "embedded")]
    pub min_free: store_embedded::MinFree,
}

/// What to do if there is no registry on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Create one.
    Create,
    /// Fail, because the path is probably mistyped.
    Refuse,
}

/// When the first request goes to a table in the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// When it is opened, and it must answer: for commands.
    Now,
    /// After it was opened: for a server, which starts even if its table does not answer. See
    /// [`admission`](crate::admission).
    Later,
}

/// Default memory for uploads to a disk, in bytes. It is less than for an object store, which needs memory for many parts
/// in flight.
const DISK_MEMORY: u64 = 64 << 20;

impl OpenOptions {
    /// Bytes that manifests and lists may hold together, wherever they are stored: as much as uploads, if that was set.
    #[must_use]
    pub fn manifest_memory(&self) -> u64 {
        self.upload_memory.unwrap_or(DISK_MEMORY)
    }

    /// The memory of requests that are no uploads.
    #[must_use]
    pub fn request_memory(&self) -> RequestMemory {
        let memory = RequestMemory::new(self.manifest_memory());
        match self.memory_timeout {
            Some(timeout) => memory.waiting_no_longer_than(timeout),
            None => memory,
        }
    }

    /// Bytes that uploads into blobs of `backend` may hold together.
    #[cfg(feature = "embedded")]
    pub(super) fn memory(&self, backend: &BlobBackend) -> u64 {
        let default = match backend {
            BlobBackend::Disk => DISK_MEMORY,
            #[cfg(feature = "cloud")]
            BlobBackend::S3(_) => store_s3::S3Options::UPLOAD_MEMORY,
            #[cfg(not(feature = "cloud"))]
            BlobBackend::S3(_) => DISK_MEMORY,
        };
        self.upload_memory.unwrap_or(default)
    }
}

impl StoreConfig {
    /// A description of where blobs are, for people. It has no secrets, because the configuration has none.
    #[must_use]
    pub fn describe_blobs(&self) -> String {
        match &self.blobs {
            BlobBackend::Disk => format!("disk in {}", absolute(&self.data)),
            BlobBackend::S3(bucket) => with_endpoint(bucket.to_string(), self.s3_endpoint()),
        }
    }

    /// A description of where metadata is, for people.
    #[must_use]
    pub fn describe_metadata(&self) -> String {
        match &self.metadata {
            MetadataBackend::Sqlite => format!("sqlite in {}", absolute(&self.data)),
            MetadataBackend::DynamoDb(table) => {
                with_endpoint(format!("dynamodb://{}", table.0), self.dynamodb_endpoint())
            }
        }
    }

    #[cfg(feature = "cloud")]
    fn s3_endpoint(&self) -> Option<&ServiceUrl> {
        self.cloud.s3_endpoint.as_ref()
    }

    #[cfg(feature = "cloud")]
    fn dynamodb_endpoint(&self) -> Option<&ServiceUrl> {
        self.cloud.dynamodb_endpoint.as_ref()
    }

    #[cfg(not(feature = "cloud"))]
    fn s3_endpoint(&self) -> Option<&ServiceUrl> {
        None
    }

    #[cfg(not(feature = "cloud"))]
    fn dynamodb_endpoint(&self) -> Option<&ServiceUrl> {
        None
    }
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

/// Where blobs are stored, as an operator writes it: `disk` or `s3://BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobBackend {
    /// Below the data directory.
    Disk,
    /// In a bucket.
    S3(Bucket),
}

/// Memory that a pull from S3 through the registry may take, in bytes: its own buffers, and those of the connection to S3,
/// which grow with its speed.
const STREAM_FROM_S3: usize = 256 << 10;

impl BlobBackend {
    /// The limits of a registry whose blobs are here.
    #[must_use]
    pub fn limits(&self, max_blob_size: Length, upload_lifetime: Span) -> Limits {
        let limits = Limits::default();
        Limits {
            blob_bytes: max_blob_size.0,
            upload_token_ms: u64::try_from(upload_lifetime.0.as_millis()).unwrap_or(u64::MAX),
            stream_bytes: match self {
                Self::S3(_) => STREAM_FROM_S3,
                Self::Disk => limits.stream_bytes,
            },
            ..limits
        }
    }
}

impl FromStr for BlobBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disk" => Ok(Self::Disk),
            _ => match text.strip_prefix("s3://") {
                Some(bucket) => bucket.parse().map(Self::S3),
                None => Err("expected disk or s3://BUCKET[/PREFIX]".into()),
            },
        }
    }
}

/// A bucket, and the prefix of all keys in it: `BUCKET[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The name of the bucket.
    pub name: String,
    /// The prefix, without a slash at its beginning and its end; may be empty.
    pub prefix: String,
}

impl FromStr for Bucket {
    type Err = String;

    /// Reads `BUCKET[/PREFIX]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        // The names that AWS allows, and some more that other stores allow.
        if !(3..=63).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(format!(
                "{name:?} is not a valid name of a bucket: expected 3 to 63 letters, digits, dots and hyphens, as in s3://BUCKET/PREFIX"
            ));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let legal = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_plain);
        if prefix.len() > 512 || !(prefix.is_empty() || prefix.split('/').all(legal)) {
            return Err(format!(
                "{prefix:?} is not a valid prefix of keys: expected names of letters, digits, dots, hyphens and \
                 underscores, with single slashes between them"
            ));
        }
        Ok(Self {
            name: name.into(),
            prefix: prefix.into(),
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

/// Whether a character needs no escape in a URL and in a path.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

/// Where metadata and upload sessions are stored, as an operator writes it: `sqlite` or `dynamodb://TABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataBackend {
    /// In a file of the data directory.
    Sqlite,
    /// In a table.
    DynamoDb(TableName),
}

impl FromStr for MetadataBackend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            _ => match text.strip_prefix("dynamodb://") {
                Some(table) => table.parse().map(Self::DynamoDb),
                None => Err("expected sqlite or dynamodb://TABLE".into()),
            },
        }
    }
}

/// The name of a `DynamoDB` table: 3 to 255 letters, digits, dots, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(pub String);

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if (3..=255).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is not a valid name of a table: expected 3 to 255 letters, digits, dots, hyphens and underscores"
        ))
    }
}

/// The base URL of a service, without credentials, query and fragment, and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(pub String);

impl FromStr for ServiceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a URL such as https://s3.example.com or http://127.0.0.1:9000".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| expected())?;
        let http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().ok_or_else(expected)?.as_str();
        if !http || uri.query().is_some() || text.contains('#') {
            return Err(expected());
        }
        if authority.contains('@') {
            return Err("a URL here cannot have credentials: give them as AWS tools expect them".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn stores_are_read_and_shown_alike() {
        assert_eq!("disk".parse(), Ok(BlobBackend::Disk));
        for (text, name, prefix, shown) in [
            ("s3://bucket", "bucket", "", "s3://bucket"),
            ("s3://bucket/", "bucket", "", "s3://bucket"),
            ("s3://b.u-c/registry", "b.u-c", "registry", "s3://b.u-c/registry"),
            ("s3://bucket/a/b_1/", "bucket", "a/b_1", "s3://bucket/a/b_1"),
        ] {
            let Ok(BlobBackend::S3(bucket)) = text.parse() else {
                panic!("{text}")
            };
            assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), (name, prefix));
            assert_eq!(bucket.to_string(), shown);
        }
        for wrong in [
            "",
            "Disk",
            "s3",
            "s3:bucket",
            "s3://",
            "s3://ab",
            "s3://bucket//a",
            "s3://bucket/a//b",
            "s3://bucket/..",
            "s3://bucket/a b",
            "s3://bucket?x",
            "file:///data",
        ] {
            assert!(wrong.parse::<BlobBackend>().is_err(), "{wrong}");
        }
        assert_eq!("sqlite".parse(), Ok(MetadataBackend::Sqlite));
        let table = TableName("my_table".into());
        assert_eq!("dynamodb://my_table".parse(), Ok(MetadataBackend::DynamoDb(table)));
        for wrong in [
            "",
            "dynamodb://",
            "dynamodb://a/b",
            "dynamodb://my table",
            "postgres://x",
        ] {
            assert!(wrong.parse::<MetadataBackend>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_depend_on_where_blobs_are() {
        let limits = |text: &str| {
            let blobs: BlobBackend = text.parse().unwrap();
            let limits = blobs.limits("7GiB".parse().unwrap(), "2h".parse().unwrap());
            (limits.blob_bytes, limits.upload_token_ms, limits.stream_bytes)
        };
        assert_eq!(limits("disk"), (7 << 30, 7_200_000, Limits::default().stream_bytes));
        assert_eq!(limits("s3://bucket"), (7 << 30, 7_200_000, STREAM_FROM_S3));
    }

    #[test]
    fn endpoints_are_urls_without_secrets() {
        let read = |text: &str| text.parse::<ServiceUrl>().map(|endpoint| endpoint.0);
        assert_eq!(read("http://127.0.0.1:9000/"), Ok("http://127.0.0.1:9000".into()));
        assert_eq!(read("https://x.example/s3"), Ok("https://x.example/s3".into()));
        for wrong in [
            "",
            "127.0.0.1:9000",
            "ftp://x",
            "http://",
            "https://x/?a=b",
            "https://x/#a",
            "/x",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("https://key:secret@x").unwrap_err().contains("credentials"));
    }
}
